//! ONNX files as inputs: what PyTorch's exporters write computes what PyTorch does, is recognised like a frontend's graph, and what is wrong with a file is told.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{arg, fails, golden, ok, repo};
use prost::Message;
use prost::bytes::Bytes;
use s2dit_backends::onnx::proto::{
    AttributeProto, Dimension, DimensionValue, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use s2dit_files::SafetensorsFile;
use s2dit_import::{Ask, Imported, import, importer_of};
use s2dit_ir::interp::{Bindings, run};
use s2dit_ir::{Function, Tensor};
use s2dit_models::s2dit::config::S2ditConfig;
use s2dit_models::size::LatentSize;
use s2dit_models::{Model as _, SchemaWeights};
use s2dit_passes::regions::{Kind, Regions, recognise};
use s2dit_passes::{PassPipeline, fuse};

/// Relative L2 from PyTorch in float64, of float32 weights: the graph is evaluated in float64, so all that differs is the rounding of stored constants.
const CLOSE: f64 = 5e-6;

fn goldens() -> PathBuf {
    repo().join("tests/goldens/import")
}

/// The ONNX files of goldens: (case, form, path).
fn files() -> Vec<(String, String, PathBuf)> {
    let mut found: Vec<_> = fs::read_dir(goldens())
        .expect("goldens")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "onnx"))
        .map(|path| {
            let stem = path.file_stem().expect("a name").to_string_lossy().into_owned();
            let (case, form) = stem.split_once('.').expect("CASE.FORM.onnx");
            (case.to_owned(), form.to_owned(), path)
        })
        .collect();
    found.sort();
    found
}

/// What a form needs to be told: a symbolic size has the value that the golden has.
fn ask_of(case: &str, form: &str) -> Ask {
    let bind = match form {
        "symbolic" => Some("tokens=5".to_owned()),
        "optimum" | "optimised" => Some(format!("sequence_length={}", if case == "optimum_clip" { 7 } else { 6 })),
        _ => None,
    };
    let bind = bind.iter().map(|b| b.parse().expect("a size"));
    Ask { bind: bind.collect(), ..Ask::default() }
}

fn read(path: &Path, ask: &Ask) -> Imported {
    import(importer_of(path).expect("an importer"), path, ask).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The results of a graph for a golden's inputs, and what is expected, in order.
fn evaluated(imported: &Imported, golden: &SafetensorsFile) -> Vec<(String, Tensor, Vec<f64>)> {
    let f = &imported.module.functions[0];
    let named = |p: &s2dit_ir::ValueId| {
        let name = f.node(*p).name.as_deref().expect("a name").to_owned();
        let values = golden.tensor_f64(&name).expect("an input of the golden");
        let value = Tensor::from_values(f.ty(*p), values).expect("an input of the graph's shape");
        (name, value)
    };
    let params: HashMap<String, Tensor> = f.params().iter().map(named).collect();
    let found = run(f, &imported.weights, &Bindings { params, ..Bindings::default() }).expect("values");
    let several = found.len() > 1;
    let name = |i: usize| if several { format!("output_{i}") } else { "output".into() };
    found
        .into_iter()
        .enumerate()
        .map(|(i, found)| (name(i), found, golden.tensor_f64(&name(i)).expect("a result")))
        .collect()
}

/// ‖x − y‖ / ‖y‖; infinite for lists of two lengths and for what is no number.
fn distance(x: &Tensor, y: &[f64]) -> f64 {
    if x.data.len() != y.len() {
        return f64::INFINITY;
    }
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
    let off = square(&mut x.data.iter().zip(y).map(|(x, y)| x - y));
    let all = square(&mut y.iter().copied());
    let distance = if all == 0.0 { off.sqrt() } else { (off / all).sqrt() };
    if distance.is_finite() { distance } else { f64::INFINITY }
}

#[test]
fn exports_of_pytorch_compute_what_pytorch_does() {
    let (mut seen, mut off) = (0, Vec::new());
    for (case, form, path) in files() {
        if case == "dynamic" {
            continue;
        }
        let imported = read(&path, &ask_of(&case, &form));
        let golden = SafetensorsFile::open(&goldens().join(format!("{case}.safetensors"))).expect("a golden");
        // 45 dB where the weights are rounded to fp16.
        let close = match (case.as_str(), form.as_str()) {
            (_, "half") => 5.6e-3,
            // Its angles grow to thousands of radians, and the exporter computes the tables of them in float32.
            ("ltx", _) => 5e-5,
            _ => CLOSE,
        };
        for (result, found, expected) in evaluated(&imported, &golden) {
            let distance = distance(&found, &expected);
            println!("{case} {form} {result}: {distance:.1e}");
            if distance > close {
                off.push(format!("{case} {form} {result}: {distance:.1e}"));
            }
        }
        seen += 1;
    }
    assert!(off.is_empty(), "{}", off.join("\n"));
    assert!(seen >= 20, "{seen} files");
}

#[test]
fn a_symbolic_size_is_bound_or_asked_for() {
    let Some((_, _, path)) = files().into_iter().find(|(case, ..)| case == "dynamic") else { panic!("no golden") };
    let work = tempfile::tempdir().expect("a temporary folder");
    let out = arg(&work.path().join("model.onnx"));
    let error = fails(&["compile", &arg(&path), "--target", "onnx", "-o", &out]);
    assert!(error.contains("the symbolic size") && error.contains("--bind "), "{error}");
    let size = error.split("--bind ").nth(1).and_then(|rest| rest.split('=').next()).expect("a size");
    let ask = Ask { bind: vec![format!("{size}=6").parse().expect("a binding")], ..Ask::default() };
    let golden = SafetensorsFile::open(&goldens().join("dynamic.safetensors")).expect("a golden");
    for (_, found, expected) in evaluated(&read(&path, &ask), &golden) {
        assert!(distance(&found, &expected) <= CLOSE);
    }
    let error = fails(&["compile", &arg(&path), "--target", "onnx", "--bind", "nothing=6", "-o", &out]);
    assert!(error.contains("--bind: found \"nothing\", expected one of"), "{error}");
}

/// The regions of a graph, after the passes before them.
fn regions(module: &mut s2dit_ir::Module) -> (Regions, BTreeMap<usize, usize>) {
    PassPipeline::new(&["canonicalize", "phase", "cse"]).expect("passes").run(module, |_, _| {}).expect("a pipeline");
    let interface = module.interface.clone();
    let f: &mut Function = &mut module.functions[0];
    fuse::explain(f).expect("fusion");
    let regions = recognise(f).expect("patterns");
    let mut ops = BTreeMap::new();
    for v in f.order() {
        let block = interface.block_of(&f.node(v).scope).filter(|_| !f.is_const(v));
        if let Some(block) = block {
            *ops.entry(block).or_default() += 1;
        }
    }
    (regions, ops)
}

#[test]
fn an_export_of_s2dit_is_recognised_like_the_frontends_graph() {
    let config = r#"{"_class_name": "S2DiTTransformer3DModel", "in_channels": 4, "out_channels": 4, "patch_size": [1, 2, 2],
        "num_attention_heads": 2, "attention_head_dim": 8, "ffn_dim": 32, "text_dim": 12, "text_len": 5,
        "layout": ["lcha", "ssa", "ssa", "full", "lcha"], "freq_dim": 16}"#;
    let config = S2ditConfig::parse(config, "s2dit_reference").expect("a configuration");
    let weights = SchemaWeights::new(&config);
    let latent: LatentSize = "3x6x8".parse().expect("a latent");
    let mut own = config.build(&weights, latent.into()).expect("a graph");
    let (wanted, wanted_ops) = regions(&mut own);
    let list = |regions: &Regions| -> Vec<(String, String)> {
        let mut list: Vec<_> = regions.regions.iter().map(|r| (r.kind.to_string(), r.scope.to_string())).collect();
        list.sort();
        list
    };
    assert!(wanted.count(Kind::Cross) == 5 && wanted.regions.len() == 10, "{:?}", list(&wanted));
    let mut seen = 0;
    for (case, form, path) in files().into_iter().filter(|(case, ..)| case == "s2dit_reference") {
        let mut imported = read(&path, &ask_of(&case, &form));
        let (found, ops) = regions(&mut imported.module);
        if form == "slim" {
            // onnxslim drops the module paths; the blocks are there all the same.
            let kinds = |regions: &Regions| list(regions).into_iter().map(|(kind, _)| kind).collect::<Vec<_>>();
            assert_eq!(kinds(&found), kinds(&wanted), "{form}: {:#?}", found.misses);
            continue;
        }
        assert_eq!(list(&found), list(&wanted), "{form}: {:#?}", found.misses);
        assert_eq!(imported.module.interface.milestones.len(), 5, "{form}");
        // An export in fp16 has ops of its own between the formulas.
        for (block, wanted) in wanted_ops.iter().filter(|_| form != "half") {
            let found = ops.get(block).copied().unwrap_or(0);
            println!("{form}, block {block}: {found} ops, the frontend's {wanted}");
            assert!(found.abs_diff(*wanted) <= 2, "{form}, block {block}: {found} ops, the frontend's {wanted}");
        }
        seen += 1;
    }
    assert!(seen >= 3, "{seen} files");
}

#[test]
fn every_command_takes_an_onnx_file() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let file = arg(&goldens().join("s2dit_reference.dynamo18.onnx"));
    let at = |name: &str| arg(&work.path().join(name));
    let report: serde_json::Value = serde_json::from_str(&ok(&["inspect", &file, "--json"])).expect("JSON");
    assert_eq!(report["kind"], "graph", "{report}");
    let roles: Vec<&str> =
        report["inputs"].as_array().expect("inputs").iter().filter_map(|i| i["role"].as_str()).collect();
    assert_eq!(roles, ["latent", "time from 0 to 1000", "text"]);
    ok(&["compile", &file, "--target", "onnx", "-o", &at("model.onnx"), "-q"]);
    ok(&["verify", &at("model.onnx"), "--graph", &file]);
    let file = arg(&goldens().join("clip.dynamo18.onnx"));
    ok(&["compile", &file, "--target", "coreml", "-o", &at("model.mlpackage"), "-q"]);
    ok(&["verify", &at("model.mlpackage"), "--graph", &file]);
    ok(&["lint", &at("model.mlpackage")]);
}

/// S2DiT whose text has a symbolic length, at two lengths: every command takes it, and asks for the length where none is given.
#[test]
fn every_command_takes_s2dit_of_a_symbolic_size() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let file = arg(&goldens().join("s2dit_reference.symbolic.onnx"));
    let at = |name: &str| arg(&work.path().join(name));
    let error = fails(&["compile", &file, "--target", "onnx", "-o", &at("none.onnx")]);
    assert!(error.contains("--bind tokens="), "{error}");
    for tokens in [5, 9] {
        let bind = format!("tokens={tokens}");
        let json = |args: &[&str]| -> serde_json::Value {
            serde_json::from_str(&ok(&[args, &["--bind", &bind]].concat())).expect("JSON")
        };
        let report = json(&["inspect", &file, "--json"]);
        assert_eq!(report["inputs"][2]["type"], format!("f32[1, {tokens}, 12]"), "{report}");
        let (onnx, package) = (at(&format!("{tokens}.onnx")), at(&format!("{tokens}.mlpackage")));
        ok(&["compile", &file, "--target", "onnx", "-o", &onnx, "-q", "--bind", &bind]);
        ok(&["verify", &onnx, "--graph", &file, "--bind", &bind]);
        let found = json(&["compile", &file, "--target", "coreml", "--explain", "fuse", "--json"]);
        assert_eq!((&found[0]["lcha"], &found[0]["ssa"]), (&2.into(), &2.into()), "{found}");
        ok(&["compile", &file, "--target", "coreml", "-o", &package, "-q", "--bind", &bind]);
        ok(&["verify", &package, "--graph", &file, "--fp16", "--bind", &bind]);
        ok(&["lint", &package]);
        ok(&["ranges", &package, "--json"]);
    }
    // Its weights are too small to be compressed, which is all that is wrong with it.
    let error = fails(&["quantize", &file, "--bind", "tokens=5", "--scheme", "int8", "-o", &at("plan.toml"), "-q"]);
    assert!(error.contains("found no weight of 16384 elements or more"), "{error}");
}

/// What a graph would take on a device, as it lies in its file.
#[test]
fn graphs_are_estimated() {
    let estimate = |file: &str| -> serde_json::Value {
        serde_json::from_str(&ok(&["estimate", &arg(&goldens().join(file)), "--json"])).expect("JSON")
    };
    let (program, onnx) = (estimate("s2dit_reference.raw.pt2"), estimate("s2dit_reference.dynamo18.onnx"));
    for report in [&program, &onnx, &estimate("wan.dec.pt2"), &estimate("variant_no_bias.script.onnx")] {
        let likely = report.pointer("/chunk_ms/likely").and_then(serde_json::Value::as_f64);
        assert!(likely.is_some_and(|ms| ms > 0.0), "{report}");
    }
}

// Files made here.

fn dims(shape: &[i64]) -> TensorShapeProto {
    let dim = |n: &i64| Dimension { value: Some(DimensionValue::Value(*n)) };
    TensorShapeProto { dim: shape.iter().map(dim).collect() }
}

fn declared(name: &str, code: i32, shape: &[i64]) -> ValueInfoProto {
    let tensor_type = Some(TensorTypeProto { elem_type: code, shape: Some(dims(shape)) });
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type }), ..ValueInfoProto::default() }
}

fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    let text = |s: &&str| (*s).to_owned();
    NodeProto {
        op_type: op.into(),
        input: inputs.iter().map(text).collect(),
        output: vec![output.into()],
        ..NodeProto::default()
    }
}

fn floats(name: &str, shape: &[i64], values: &[f32]) -> TensorProto {
    let raw_data: Bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    TensorProto { name: name.into(), dims: shape.to_vec(), data_type: 1, raw_data, ..TensorProto::default() }
}

fn ints(name: &str, values: &[i64]) -> TensorProto {
    let int64_data = values.to_vec();
    TensorProto {
        name: name.into(),
        dims: vec![values.len() as i64],
        data_type: 7,
        int64_data,
        ..TensorProto::default()
    }
}

/// A model from x `[2, 3]` to y.
fn model(node: Vec<NodeProto>, initializer: Vec<TensorProto>) -> ModelProto {
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 18 }],
        graph: Some(GraphProto {
            node,
            initializer,
            input: vec![declared("x", 1, &[2, 3])],
            output: vec![ValueInfoProto { name: "y".into(), ..ValueInfoProto::default() }],
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    }
}

fn external(tensor: TensorProto, entries: &[(&str, &str)]) -> TensorProto {
    let entry = |(key, value): &(&str, &str)| StringStringEntryProto { key: (*key).into(), value: (*value).into() };
    TensorProto {
        raw_data: Bytes::new(),
        data_location: 1,
        external_data: entries.iter().map(entry).collect(),
        ..tensor
    }
}

/// The one result for x = 0, 1, …, 5, or the error.
fn result(model: &ModelProto, folder: &Path) -> Result<Vec<f64>, String> {
    let path = folder.join("m.onnx");
    fs::write(&path, model.encode_to_vec()).expect("a file");
    let imported =
        import(importer_of(&path).expect("an importer"), &path, &Ask::default()).map_err(|e| e.to_string())?;
    let f = &imported.module.functions[0];
    let x = Tensor::from_values(f.ty(f.params()[0]), (0..6).map(f64::from).collect()).ok_or("x")?;
    let bindings = Bindings { params: [("x".to_owned(), x)].into(), ..Bindings::default() };
    let y = run(f, &imported.weights, &bindings).map_err(|e| e.to_string())?;
    Ok(y[0].data.iter().copied().collect())
}

#[test]
fn external_data_is_read_and_stays_in_the_folder() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let inner = work.path().join("inner");
    fs::create_dir(&inner).expect("a folder");
    let weights: Vec<u8> = [9f32, 1.0, 2.0, 3.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    for place in ["inner/w.bin", "outside.bin"] {
        fs::write(work.path().join(place), &weights).expect("weights");
    }
    let with = |entries: &[(&str, &str)]| {
        let w = external(floats("w", &[3], &[]), entries);
        result(&model(vec![node("Add", &["x", "w"], "y")], vec![w]), &inner)
    };
    let here = |offset: &str, length: &str| with(&[("location", "w.bin"), ("offset", offset), ("length", length)]);
    assert_eq!(here("4", "12").unwrap(), [1.0, 3.0, 5.0, 4.0, 6.0, 8.0]);
    assert_eq!(with(&[("location", "w.bin")]).unwrap(), [9.0, 2.0, 4.0, 12.0, 5.0, 7.0]);
    for (refused, says) in [
        (here("8", "12"), "bytes 8 to 20 of w.bin, expected bytes of a file of 16"),
        (here("0", "8"), "8 bytes of external data, expected 12"),
        (here("-4", "12"), "offset \"-4\""),
        (with(&[("location", "../outside.bin")]), "expected a file of the model's folder or below it"),
        (with(&[("location", "/etc/passwd")]), "expected a file of the model's folder or below it"),
        (with(&[]), "weights in \"\""),
        (with(&[("location", "none.bin")]), "none.bin"),
    ] {
        let error = refused.unwrap_err();
        assert!(error.contains(says) && error.contains("tensor \"w\""), "{error}");
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("../outside.bin", inner.join("link.bin")).expect("a link");
        let error = with(&[("location", "link.bin")]).unwrap_err();
        assert!(error.contains("a link, expected a file of the model's folder"), "{error}");
    }
}

#[test]
fn functions_and_settled_branches_are_walked() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let attribute = |name: &str, reference: &str| AttributeProto {
        name: name.into(),
        ref_attr_name: reference.into(),
        r#type: 1,
        ..AttributeProto::default()
    };
    let given = AttributeProto { name: "slope".into(), f: 0.5, r#type: 1, ..AttributeProto::default() };
    let leaky = NodeProto { attribute: vec![attribute("alpha", "slope")], ..node("LeakyRelu", &["a"], "b") };
    let function = FunctionProto {
        name: "Bend".into(),
        domain: "own".into(),
        input: vec!["a".into()],
        output: vec!["b".into()],
        attribute: vec!["slope".into()],
        node: vec![leaky],
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 18 }],
        ..FunctionProto::default()
    };
    let call = NodeProto { domain: "own".into(), attribute: vec![given], ..node("Bend", &["m"], "y") };
    let minus = node("Neg", &["x"], "m");
    let mut whole = model(vec![minus, call], Vec::new());
    whole.functions = vec![function.clone()];
    assert_eq!(result(&whole, work.path()).unwrap(), [0.0, -0.5, -1.0, -1.5, -2.0, -2.5]);
    // A function that calls itself ends.
    let mut round = function;
    round.node = vec![NodeProto { domain: "own".into(), ..node("Bend", &["a"], "b") }];
    whole.functions = vec![round];
    assert!(result(&whole, work.path()).unwrap_err().contains("inside one another"));

    let branch = |name: &str, op: &str| AttributeProto {
        name: name.into(),
        r#type: 5,
        g: Some(GraphProto {
            node: vec![node(op, &["x"], "inner")],
            output: vec![ValueInfoProto { name: "inner".into(), ..ValueInfoProto::default() }],
            ..GraphProto::default()
        }),
        ..AttributeProto::default()
    };
    let both = vec![branch("then_branch", "Neg"), branch("else_branch", "Abs")];
    let shape = node("Shape", &["x"], "shape");
    let first = node("Gather", &["shape", "zero"], "rows");
    let is_two = node("Equal", &["rows", "two"], "condition");
    let choose = NodeProto { attribute: both.clone(), ..node("If", &["condition"], "y") };
    let settled = model(vec![shape, first, is_two, choose], vec![ints("zero", &[0]), ints("two", &[2])]);
    assert_eq!(result(&settled, work.path()).unwrap(), [0.0, -1.0, -2.0, -3.0, -4.0, -5.0]);
    let sum = node("ReduceSum", &["x"], "sum");
    let open = NodeProto { attribute: both, ..node("If", &["sum"], "y") };
    let error = result(&model(vec![sum, open], Vec::new()), work.path()).unwrap_err();
    assert!(error.contains("op If") && error.contains("settled when the model is exported"), "{error}");
}

#[test]
fn everything_that_is_not_read_is_told_at_once() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |path: &str, n: NodeProto| NodeProto { name: format!("/{path}/{}", n.op_type), ..n };
    let nodes = vec![
        at("blocks.0/attn", node("DFT", &["x"], "a")),
        at("blocks.0/attn", node("Relu", &["a"], "b")),
        at("blocks.1/attn", node("DFT", &["b"], "c")),
        at("blocks.1", node("NonZero", &["x"], "d")),
        at("head", node("Add", &["c", "x"], "y")),
    ];
    let error = result(&model(nodes, Vec::new()), work.path()).unwrap_err();
    assert!(error.contains("op DFT: found 2 uses in `blocks.0.attn`, `blocks.1.attn`"), "{error}");
    assert!(error.contains("op NonZero: found 1 use in `blocks.1`") && error.contains("2 problems"), "{error}");
}

#[test]
fn what_is_no_graph_is_refused() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let add = || vec![node("Add", &["x", "w"], "y")];
    let w = || floats("w", &[3], &[1.0, 2.0, 3.0]);
    assert!(result(&model(add(), vec![w()]), work.path()).is_ok());
    let with = |change: &dyn Fn(&mut GraphProto)| {
        let mut model = model(add(), vec![w()]);
        change(model.graph.as_mut().expect("a graph"));
        result(&model, work.path()).unwrap_err()
    };
    let cases: [(String, &str); 9] = [
        (with(&|g| g.initializer.clear()), "input \"w\", which nothing above gives"),
        (with(&|g| g.output[0].name = "z".into()), "output \"z\": found no node that gives it"),
        (with(&|g| g.output.clear()), "a graph without outputs"),
        (with(&|g| g.initializer[0].dims = vec![2]), "tensor \"w\": found 12 bytes"),
        (with(&|g| g.initializer[0].dims = vec![1 << 40, 1 << 40]), "dimensions"),
        (with(&|g| g.initializer[0].data_type = 8), "elements of type 8 (string)"),
        (with(&|g| g.input[0] = declared("x", 1, &[2, -3])), "an extent of -3"),
        (with(&|g| g.input[0].r#type = None), "found no tensor"),
        (with(&|g| g.node.push(node("Neg", &["x"], "y"))), "output \"y\", a name in use"),
    ];
    for (error, says) in cases {
        assert!(error.contains(says) && error.contains("m.onnx"), "{says}: {error}");
    }
    let mut old = model(add(), vec![w()]);
    old.opset_import[0].version = 5;
    assert!(result(&old, work.path()).unwrap_err().contains("opset 5, expected 7 to 23"));
}

#[test]
fn weights_of_4_bits_are_unpacked() {
    let work = tempfile::tempdir().expect("a temporary folder");
    // [2, 4] in blocks of 2 along the inputs: codes 0…15 less 8, times a scale a block.
    let packed = TensorProto {
        name: "q".into(),
        dims: vec![2, 2, 1],
        data_type: 2,
        raw_data: Bytes::from_static(&[0x98, 0xba, 0x10, 0x8f]),
        ..TensorProto::default()
    };
    let int = |name: &str, i: i64| AttributeProto { name: name.into(), i, r#type: 2, ..AttributeProto::default() };
    let attribute = vec![int("K", 3), int("N", 2), int("bits", 4), int("block_size", 2)];
    let product =
        NodeProto { domain: "com.microsoft".into(), attribute, ..node("MatMulNBits", &["x", "q", "scale"], "y") };
    let mut model = model(vec![product], vec![packed, floats("scale", &[4], &[1.0, 0.5, 2.0, 0.25])]);
    model.opset_import.push(OperatorSetIdProto { domain: "com.microsoft".into(), version: 1 });
    // Rows of the weight: [0, 1, 1.0 (0.5·2)], [−16, −14, 1.75].
    let weight = [[0.0, 1.0, 1.0], [-16.0, -14.0, 1.75]];
    let expected: Vec<f64> =
        (0..2).flat_map(|row| weight.map(|w| (0..3).map(|i| w[i] * f64::from(3 * row + i as i32)).sum())).collect();
    assert_eq!(result(&model, work.path()).unwrap(), expected);
}

#[test]
fn goldens_of_checkpoints_are_no_graphs() {
    assert!(importer_of(&golden("tiny")).is_none());
}

/// T5 sorts distances into buckets, some of whose edges are whole numbers. In float64 a distance of 16 lay below its edge, since the model's logarithms are
/// rounded to fp32; the reference is the file in ONNX Runtime.
#[test]
fn buckets_of_distances_are_those_of_fp32() {
    let work = tempfile::tempdir().expect("a temporary folder");
    for name in ["optimum_t5.optimum", "optimum_umt5.optimum"] {
        let file = arg(&repo().join(format!("tests/goldens/import/{name}.onnx")));
        let out = arg(&work.path().join("text.onnx"));
        for length in ["sequence_length=33", "sequence_length=70"] {
            ok(&["compile", &file, "--target", "onnx", "--bind", length, "-o", &out, "-q"]);
            ok(&["verify", &out, "--graph", &file, "--bind", length, "--min-snr", "100"]);
        }
    }
}
