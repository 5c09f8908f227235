//! Every op of `tests/ops/*.s2`, a function a case, as ONNX: as a file, in memory with weights referred to, and in the
//! fp16 modes. Each model is written with inputs and the interpreter's outputs in the layout of ONNX's own backend tests.
//! `tests/conformance/check_onnx.py --cases` runs them with onnx's reference evaluator.

#[path = "../../tests/common/python.rs"]
mod python;
#[path = "../../tests/common/wire/mod.rs"]
#[allow(dead_code)]
mod wire;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use prost::Message;
use s2dit_backends::onnx::proto::{ModelProto, TensorProto, data_type};
use s2dit_backends::onnx::{MemoryOptions, identity, model_in_memory, read, write_models};
use s2dit_ir::ops::Op;
use s2dit_ir::{
    DType, FileRegion, Function, Tensor, TensorType, ValueId, WeightError, WeightSource, interp, text, verify,
};
use s2dit_passes::emulate::{Arithmetic, emulated};

fn repo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().into()
}

/// Numbers of roughly unit variance that depend on a name only.
fn noise(name: &str, ty: &TensorType) -> Vec<f64> {
    let mut state =
        name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let scale = if ty.dtype.is_float() { 1.0 } else { 5.0 };
    (0..ty.elements()).map(|_| ty.dtype.round(scale * ((0..6).map(|_| uniform()).sum::<f64>() - 3.0) * 1.4)).collect()
}

/// The tensors that a function loads, in one file, at offsets that suit nobody.
struct Weights {
    path: PathBuf,
    bytes: Vec<u8>,
    at: HashMap<String, (usize, TensorType)>,
}

impl Weights {
    fn of(f: &Function, path: PathBuf) -> Weights {
        let mut w = Weights { path, bytes: vec![1; 3], at: HashMap::new() };
        for v in f.order() {
            if let Op::Load(load) = f.op(v) {
                let tensor = Tensor::from_values(f.ty(v), noise(&load.tensor, f.ty(v))).unwrap();
                w.at.insert(load.tensor.clone(), (w.bytes.len(), f.ty(v).clone()));
                w.bytes.extend(tensor.to_le_bytes());
                w.bytes.push(1);
            }
        }
        fs::write(&w.path, &w.bytes).unwrap();
        w
    }
}

impl WeightSource for Weights {
    fn ty(&self, name: &str) -> Option<TensorType> {
        self.at.get(name).map(|(_, ty)| ty.clone())
    }
    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
        let (at, ty) = &self.at[name];
        Ok(Cow::Borrowed(&self.bytes[*at..at + ty.bytes()]))
    }
    fn region(&self, name: &str) -> Option<FileRegion> {
        let (at, ty) = self.at.get(name)?;
        Some(FileRegion { path: self.path.clone(), offset: *at as u64, len: ty.bytes() as u64 })
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Variant {
    /// The file that users get.
    File(DType),
    /// Weights stay in their file.
    Memory(Arithmetic, DType),
}

impl Variant {
    const ALL: [(&'static str, Variant); 5] = [
        ("file-f32", Variant::File(DType::F32)),
        ("file-f16", Variant::File(DType::F16)),
        ("memory-f32", Variant::Memory(Arithmetic::AsTyped, DType::F32)),
        ("compute-f16", Variant::Memory(Arithmetic::Fp32, DType::F16)),
        ("rounded-f16", Variant::Memory(Arithmetic::RoundedFp16, DType::F16)),
    ];

    fn dtype(self) -> DType {
        match self {
            Variant::File(d) | Variant::Memory(_, d) => d,
        }
    }

    /// Relative L2 error allowed.
    fn bar(self) -> f64 {
        match self {
            Variant::File(DType::F16) => 3e-3,
            Variant::Memory(Arithmetic::RoundedFp16, _) => 5e-4,
            _ => 1e-6,
        }
    }
}

fn functions(dtype: DType) -> Vec<(String, Function)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ops");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let mut ir = fs::read_to_string(&file).unwrap();
        if dtype == DType::F16 {
            let f16 = |line: &str| if line.contains("rope_table") { line.into() } else { line.replace("f32", "f16") };
            ir = ir.lines().map(f16).collect::<Vec<_>>().join("\n");
        }
        let mut module = text::parse(&ir).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        // Rope tables are f32 only.
        module.functions.retain(|f| dtype == DType::F32 || !["rope", "fractional_rope"].contains(&f.name.as_str()));
        verify::verify(&module).unwrap_or_else(|e| panic!("{}: {e}\n{}", file.display(), e.text));
        all.extend(module.functions.into_iter().map(|f| (f.name.clone(), f)));
    }
    all
}

/// The interpreter's values. Constants are rounded to their dtype where they are used; so is what a state keeps, and with
/// `rounded` every f16 result.
fn reference(f: &Function, source: &Weights, bindings: &interp::Bindings, rounded: bool) -> Vec<(String, Tensor)> {
    let mut values: HashMap<ValueId, Tensor> = HashMap::new();
    for v in f.order() {
        let operands = f.operands(v);
        let constant = f.is_const(v);
        let inputs: Vec<Tensor> =
            operands.iter().map(|&o| if constant { values[&o].clone() } else { value(f, &values, o) }).collect();
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        let mut result = match f.op(v) {
            Op::Input(_) => bindings.params[f.node(v).name.as_deref().unwrap()].clone(),
            Op::State(s) => bindings.states[&s.state].clone(),
            Op::Load(l) => Tensor::from_le_bytes(f.ty(v), &source.bytes(&l.tensor).unwrap()).unwrap(),
            op => op.eval(&inputs, f.ty(v)).unwrap(),
        };
        let kept = f.updates.iter().any(|(_, update)| *update == v);
        if (rounded || kept) && f.dtype(v) == DType::F16 && !constant {
            result.data.mapv_inplace(|x| f.dtype(v).round(x));
        }
        values.insert(v, result);
    }
    let updates = f.updates.iter().map(|(s, v)| (format!("{s}_out"), *v));
    f.results.iter().cloned().chain(updates).map(|(name, v)| (name, value(f, &values, v))).collect()
}

fn value(f: &Function, values: &HashMap<ValueId, Tensor>, v: ValueId) -> Tensor {
    let mut value = values[&v].clone();
    if f.is_const(v) {
        value.data.mapv_inplace(|x| f.dtype(v).round(x));
    }
    value
}

fn store(path: &Path, name: &str, tensor: &Tensor) {
    let proto = TensorProto {
        dims: tensor.data.shape().iter().map(|d| *d as i64).collect(),
        data_type: data_type(tensor.dtype),
        name: name.into(),
        raw_data: tensor.to_le_bytes().into(),
        ..TensorProto::default()
    };
    fs::write(path, proto.encode_to_vec()).unwrap();
}

fn emit(folder: &Path, variant: Variant, f: &Function) -> Vec<u8> {
    let data = folder.join("test_data_set_0");
    fs::create_dir_all(&data).unwrap();
    let source = Weights::of(f, folder.join("weights.bin"));
    let path = folder.join("model.onnx");
    let wide = match variant {
        Variant::File(_) => {
            let none = || panic!("no external data is needed");
            write_models(&[(f, path.as_path())], &source, BTreeMap::new, none, |_| String::new(), &mut |_, _| {})
                .unwrap();
            false
        }
        Variant::Memory(arithmetic, _) => {
            let emulated = emulated(f, arithmetic).unwrap();
            let model = model_in_memory(&emulated, &source, &MemoryOptions::default()).unwrap();
            if let Some(folder_of_weights) = model.folder {
                assert_eq!(folder_of_weights, folder.canonicalize().unwrap());
            }
            fs::write(&path, model.bytes).unwrap();
            arithmetic != Arithmetic::AsTyped
        }
    };

    let mut bindings = interp::Bindings::default();
    for v in f.order() {
        let (name, into) = match f.op(v) {
            Op::Input(_) => (f.node(v).name.as_deref().unwrap(), &mut bindings.params),
            Op::State(s) => (s.state.as_str(), &mut bindings.states),
            _ => continue,
        };
        into.insert(name.into(), Tensor::from_values(f.ty(v), noise(name, f.ty(v))).unwrap());
    }
    let model = ModelProto::decode(fs::read(&path).unwrap().as_slice()).unwrap();
    for (i, input) in model.graph.unwrap().input.iter().enumerate() {
        let mut tensor = bindings.params.get(&input.name).or_else(|| bindings.states.get(&input.name)).unwrap().clone();
        if wide && tensor.dtype == DType::F16 {
            tensor.dtype = DType::F32;
        }
        store(&data.join(format!("input_{i}.pb")), &input.name, &tensor);
    }
    let rounded = variant == Variant::Memory(Arithmetic::RoundedFp16, DType::F16);
    for (i, (name, mut tensor)) in reference(f, &source, &bindings, rounded).into_iter().enumerate() {
        tensor.dtype = DType::F64;
        store(&data.join(format!("output_{i}.pb")), &name, &tensor);
    }
    let case = format!("{{\"relative_l2\": {:e}, \"fp16_grid\": {rounded}}}\n", variant.bar());
    fs::write(folder.join("case.json"), case).unwrap();
    fs::read(&path).unwrap()
}

/// What every emitted graph must be: named apart, in order, complete.
fn check(name: &str, bytes: &[u8]) {
    let graph = ModelProto::decode(bytes).unwrap().graph.unwrap();
    let mut values = HashSet::new();
    let stored = graph.initializer.iter().map(|t| &t.name);
    for value in graph.input.iter().map(|i| &i.name).chain(stored) {
        assert!(values.insert(value), "{name}: `{value}` twice");
    }
    let mut nodes = HashSet::new();
    for node in &graph.node {
        assert!(nodes.insert(&node.name), "{name}: node `{}` twice", node.name);
        // An optional input that is left out has no name.
        for input in node.input.iter().filter(|input| !input.is_empty()) {
            assert!(values.contains(input), "{name}: `{input}` is used before it is made");
        }
        for output in &node.output {
            assert!(values.insert(output), "{name}: `{output}` twice");
        }
    }
    for output in &graph.output {
        assert!(values.contains(&output.name), "{name}: output `{}` is not made", output.name);
    }
    let used: HashSet<&String> =
        graph.node.iter().flat_map(|n| &n.input).chain(graph.output.iter().map(|o| &o.name)).collect();
    for t in &graph.initializer {
        assert!(used.contains(&t.name), "{name}: initializer `{}` is not used", t.name);
    }
}

#[test]
fn every_op_gives_the_interpreters_numbers_in_every_mode() {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("onnx-ops");
    let _ = fs::remove_dir_all(&root);
    for (label, variant) in Variant::ALL {
        for (name, f) in functions(variant.dtype()) {
            let folder = root.join(label).join(&name);
            let bytes = emit(&folder, variant, &f);
            check(&format!("{label}/{name}"), &bytes);
            wire::judge_onnx(&bytes, &folder).unwrap_or_else(|e| panic!("{label}/{name}: {e}"));
            assert_eq!(bytes, emit(&folder, variant, &f), "{label}/{name}: the bytes differ between two runs");
        }
    }
    let script = repo().join("tests/conformance/check_onnx.py");
    let judged = Command::new(python::interpreter()).arg(script).arg("--cases").arg(&root).output().unwrap();
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stderr));
}

#[test]
fn every_op_of_the_ir_has_a_case() {
    let used: HashSet<&str> = functions(DType::F32)
        .iter()
        .flat_map(|(_, f)| f.order().into_iter().map(|v| f.op(v).name()).collect::<Vec<_>>())
        .collect();
    // The pass `decompose` comes before the backend.
    let decomposed = ["feature_map", "linear_attention", "linear_attention_step", "running_mean", "fusion_gate"];
    for op in Op::NAMES.iter().filter(|op| !decomposed.contains(op)) {
        assert!(used.contains(op), "no case in tests/ops has `{op}`");
    }
}

fn case(name: &str) -> Function {
    functions(DType::F32).into_iter().find(|(n, _)| n == name).unwrap().1
}

#[test]
fn names_come_from_the_ir_and_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let f = case("named_values");
    let source = Weights::of(&f, dir.path().join("w"));
    let path = dir.path().join("x.onnx");
    let metadata = || BTreeMap::from([("b".to_string(), "2".to_string()), ("a".into(), "1".into())]);
    write_models(&[(&f, path.as_path())], &source, metadata, || panic!("inline"), |_| String::new(), &mut |_, _| {})
        .unwrap();
    let model = read::Model::open(&path).unwrap();
    let values: Vec<&str> = model.values().collect();
    assert_eq!(values, ["block0", "block1", "block2", "velocity", "rest"]);
    assert_eq!(model.nodes()[0].name, "/blocks.0/Add");
    assert_eq!(model.initializers()[0].name, "blocks.0.w");
    assert_eq!(model.metadata().len(), 2);
}

#[test]
fn named_values_can_be_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let f = case("named_values");
    let source = Weights::of(&f, dir.path().join("w"));
    let ask = |name: &str| {
        let outputs = vec![name.to_string()];
        model_in_memory(&f, &source, &MemoryOptions { outputs, ..MemoryOptions::default() })
    };
    let graph = ModelProto::decode(ask("block1").unwrap().bytes.as_slice()).unwrap().graph.unwrap();
    assert_eq!(graph.output.iter().map(|o| o.name.as_str()).collect::<Vec<_>>(), ["velocity", "rest", "block1"]);
    assert!(ask("block9").unwrap_err().to_string().contains("`block9`"));
    assert!(ask("x").is_err());
}

#[test]
fn large_weights_go_to_aligned_external_data() {
    let dir = tempfile::tempdir().unwrap();
    let ir = "module {\n func @main(%x: f32[1, 3000]) {\n %w = load {tensor = \"w\"} : f32[3000, 3000]\n \
              %b = load {tensor = \"b\"} : f32[3000]\n %s = load {tensor = \"s\"} : f32[1]\n \
              %l = linear(%x, %w, %b) : f32[1, 3000]\n %y = mul(%l, %s) : f32[1, 3000]\n return y = %y\n }\n}";
    let f = text::parse(ir).unwrap().functions.remove(0);
    let source = Weights::of(&f, dir.path().join("w"));
    let (path, data) = (dir.path().join("x.onnx"), dir.path().join("x.onnx.data"));
    let mut seen = Vec::new();
    let progress = &mut |done, total| seen.push((done, total));
    let mut asked = String::new();
    let name = |identity: &str| {
        asked = identity.into();
        "x.onnx.data".into()
    };
    let written =
        write_models(&[(&f, path.as_path())], &source, BTreeMap::new, || Ok(data.clone()), name, progress).unwrap();
    assert_eq!(written.location.as_deref(), Some("x.onnx.data"));
    let model = read::Model::open(&path).unwrap();
    model.check_external_files().unwrap();
    assert!(model.metadata()[identity::KEY].starts_with(&format!("blake3:{asked}")), "{asked}");
    let stored = fs::read(&data).unwrap();
    for t in model.initializers() {
        let get = |key: &str| t.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
        let expected = source.bytes(&t.name).unwrap();
        if t.name == "s" {
            assert_eq!(t.raw_data, *expected);
            continue;
        }
        let offset: usize = get("offset").unwrap().parse().unwrap();
        assert_eq!((get("location"), offset % 4096), (Some("x.onnx.data"), 0));
        assert!(stored[offset..].starts_with(&expected), "`{}` is not where the model says", t.name);
    }
    assert_eq!(seen.last(), Some(&(36_012_004, 36_012_004)));
    fs::File::options().write(true).open(&data).unwrap().set_len(1000).unwrap();
    assert!(model.check_external_files().unwrap_err().to_string().contains("x.onnx.data"));
}

#[test]
fn weights_that_fp16_cannot_hold_are_refused_by_name() {
    let ir = "module {\n func @main(%x: f16[2]) {\n %0 = load {tensor = \"m.weight\"} : f32[2]\n \
              %1 = cast(%0) {dtype = \"f16\"} : f16[2]\n %y = mul(%x, %1) : f16[2] @ \"m\"\n return y = %y\n }\n}";
    let f = text::parse(ir).unwrap().functions.remove(0);
    let dir = tempfile::tempdir().unwrap();
    let mut source = Weights::of(&f, dir.path().join("w"));
    let at = source.at["m.weight"].0;
    source.bytes[at..at + 4].copy_from_slice(&70000f32.to_le_bytes());
    let path = dir.path().join("x.onnx");
    let error = write_models(
        &[(&f, path.as_path())],
        &source,
        BTreeMap::new,
        || panic!("inline"),
        |_| String::new(),
        &mut |_, _| {},
    )
    .unwrap_err();
    let error = error.to_string();
    assert!(error.contains("`m.weight`") && error.contains("f16 cannot hold"), "{error}");
}
