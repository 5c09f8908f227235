//! Programs of `torch.export`, as they were exported and decomposed: models that have a frontend, others, and variants that none knows. Every
//! artifact is judged by what PyTorch computed in float64.

use std::path::{Path, PathBuf};

use crate::common::{arg, fails, ok, repo};
use serde_json::Value;

/// Relative L2 error that an fp32 artifact may have.
const FP32_BAR: f64 = 5e-6;
/// SNR in dB of an fp16 package whose every result is rounded to fp16.
const FP16_ROUNDED_SNR: f64 = 45.0;

fn file(name: &str) -> PathBuf {
    repo().join("tests/goldens/import").join(name)
}

fn compile(graph: &Path, flags: &[&str], out: &Path) {
    let (graph, out) = (arg(graph), arg(out));
    ok(&[&["compile", &graph, "-q", "-o", &out], flags].concat());
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&ok(args)).expect("JSON")
}

/// The rows of a comparison with a golden, none of which may be missing.
fn rows(artifact: &Path, golden: &Path, flags: &[&str], results: usize) -> Vec<Value> {
    let (artifact, golden) = (arg(artifact), arg(golden));
    let report = json(&[&["verify", &artifact, "--golden", &golden, "--json"], flags].concat());
    let rows = report["rows"].as_array().expect("rows").clone();
    assert_eq!(rows.len(), results, "{report}");
    rows
}

fn figure(row: &Value, name: &str) -> f64 {
    row[name].as_f64().unwrap_or(f64::NAN)
}

/// Both forms of a case, to ONNX in fp32 and to a package in fp16.
fn check(name: &str, results: usize) {
    let work = tempfile::tempdir().expect("a temporary folder");
    let golden = file(&format!("{name}.safetensors"));
    for form in ["raw", "dec"] {
        let graph = file(&format!("{name}.{form}.pt2"));
        let onnx = work.path().join(format!("{form}.onnx"));
        compile(&graph, &["--target", "onnx"], &onnx);
        for row in rows(&onnx, &golden, &["--min-snr", "100"], results) {
            let error = figure(&row, "relative_l2");
            assert!(error <= FP32_BAR, "{name}.{form}: {error:e} {row}");
        }
        let package = work.path().join(format!("{form}.mlpackage"));
        compile(&graph, &["--target", "coreml"], &package);
        for row in rows(&package, &golden, &["--fp16", "--min-snr", "40"], results) {
            let snr = figure(&row, "snr_db");
            assert!(snr >= FP16_ROUNDED_SNR, "{name}.{form}: {snr} dB {row}");
        }
    }
}

macro_rules! cases {
    ($($name:ident: $results:literal;)*) => { $( #[test] fn $name() { check(stringify!($name), $results); } )* };
}

cases! {
    s2dit_reference: 1;
    wan: 1;
    ltx: 1;
    sana: 1;
    clip: 2;
    umt5: 1;
    vae: 1;
    variant_relu_kernel: 1;
    variant_no_bias: 1;
    variant_geglu: 1;
    variant_per_token_gate: 1;
    variant_grouped_queries: 1;
    variant_l2_keys: 1;
    shared_rotation: 1;
}

/// Ops one by one, and what the format has beside them: to ONNX in fp32, each result by itself.
#[test]
fn every_op_computes_what_pytorch_does() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let cases = [
        ("ops_elements", 54),
        ("ops_linear_algebra", 24),
        ("ops_shapes", 53),
        ("ops_reductions", 30),
        ("ops_masks", 20),
        ("shared", 1),
        ("writes", 1),
    ];
    for (name, results) in cases {
        // The archive as torch 2.8 and later lay it out, with storages that tensors share.
        let newer = ["new"].into_iter().filter(|_| name == "shared");
        for form in ["raw", "dec"].into_iter().chain(newer) {
            let onnx = work.path().join(format!("{name}.{form}.onnx"));
            compile(&file(&format!("{name}.{form}.pt2")), &["--target", "onnx"], &onnx);
            let golden = file(&format!("{name}.safetensors"));
            for row in rows(&onnx, &golden, &["--min-snr", "100"], results) {
                let (error, largest) = (figure(&row, "relative_l2"), figure(&row, "max_abs"));
                assert!(error <= FP32_BAR || largest == 0.0, "{name}.{form}: {error:e} {row}");
            }
        }
    }
}

/// Files as torch 2.10 and 2.15 wrote them.
#[test]
fn newer_producers_are_read() {
    let work = tempfile::tempdir().expect("a temporary folder");
    for form in ["torch210", "torch215"] {
        let onnx = work.path().join(format!("{form}.onnx"));
        compile(&file(&format!("variant_geglu.{form}.pt2")), &["--target", "onnx"], &onnx);
        for row in rows(&onnx, &file("variant_geglu.safetensors"), &["--min-snr", "100"], 1) {
            assert!(figure(&row, "relative_l2") <= FP32_BAR, "{form}: {row}");
        }
    }
}

#[test]
fn symbolic_sizes_are_bound_or_refused_by_name() {
    let work = tempfile::tempdir().expect("a temporary folder");
    for form in ["raw", "dec"] {
        let (graph, out) = (file(&format!("dynamic.{form}.pt2")), work.path().join(format!("{form}.onnx")));
        let error = fails(&["compile", &arg(&graph), "--target", "onnx", "-o", &arg(&out)]);
        let symbol =
            error.split("--bind ").nth(1).and_then(|rest| rest.split('=').next()).expect("the flag in the error");
        compile(&graph, &["--target", "onnx", "--bind", &format!("{symbol}=3")], &out);
        for row in rows(&out, &file("dynamic.safetensors"), &["--min-snr", "100"], 1) {
            assert!(figure(&row, "relative_l2") <= FP32_BAR, "{row}");
        }
        let wide = work.path().join(format!("{form}.wide.onnx"));
        compile(&graph, &["--target", "onnx", "--bind", &format!("{symbol}=5")], &wide);
        let report = json(&["inspect", &arg(&wide), "--json"]);
        assert_eq!(report["inputs"][0]["shape"], serde_json::json!([1, 10, 6]), "{report}");
        // A size that the program was not traced for, one that it does not have, one twice.
        let refused =
            |flags: &[&str]| fails(&[&["compile", &arg(&graph), "--target", "onnx", "-o", &arg(&out)], flags].concat());
        let large = refused(&["--bind", &format!("{symbol}=65")]);
        assert!(large.contains("found 65, expected 2 to 64"), "{large}");
        let unknown = refused(&["--bind", "nope=3"]);
        assert!(unknown.contains(&format!("no such symbolic size, expected one of {symbol}")), "{unknown}");
        let twice = refused(&["--bind", &format!("{symbol}=3"), "--bind", &format!("{symbol}=4")]);
        assert!(twice.contains("each name once"), "{twice}");
    }
    // A program whose sizes are all numbers takes none.
    let fixed = fails(&["inspect", &arg(&file("clip.dec.pt2")), "--bind", "nope=3"]);
    assert!(fixed.contains("expected no --bind: its sizes are numbers"), "{fixed}");
}

#[test]
fn what_cannot_be_read_is_told_at_once() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let out = arg(&work.path().join("out.onnx"));
    let compile = |name: &str| fails(&["compile", &arg(&file(name)), "--target", "onnx", "-o", &out]);
    let error = compile("unread.raw.pt2");
    for part in [
        "2 problems",
        "aten.fft_fft.default: found 2 uses in `blocks.0.fft`, `blocks.1.fft`",
        "aten.sort.default: found 1 use",
    ] {
        assert!(error.contains(part), "{error}");
    }
    for form in ["raw", "dec"] {
        let error = compile(&format!("stateful.{form}.pt2"));
        assert!(error.contains("seen: found a buffer that the model writes to"), "{error}");
    }
}

#[test]
fn roles_are_guessed_shown_and_given() {
    let report = json(&["inspect", &arg(&file("s2dit_reference.raw.pt2")), "--json"]);
    let roles = |report: &Value, of: &str| -> Vec<(String, String)> {
        let list = report[of].as_array().expect("a list").iter();
        list.map(|v| (v["name"].as_str().unwrap_or_default().into(), v["role"].as_str().unwrap_or_default().into()))
            .collect()
    };
    let named = |list: &[(&str, &str)]| -> Vec<(String, String)> {
        list.iter().map(|(name, role)| ((*name).to_owned(), (*role).to_owned())).collect()
    };
    assert_eq!(roles(&report, "inputs"), named(&[("x", "latent"), ("t", "time from 0 to 1000"), ("text", "text")]));
    assert_eq!(roles(&report, "outputs"), named(&[("output", "velocity")]));
    assert_eq!(report["blocks"].as_array().map(Vec::len), Some(5), "{report}");
    let report = json(&["inspect", &arg(&file("clip.raw.pt2")), "--json"]);
    assert_eq!(roles(&report, "inputs"), named(&[("input_ids", "tokens of 50")]));
    let given = ["--input", "time=t:0:1", "--input", "other=text", "--result", "other=output", "--json"];
    let report = json(&[&["inspect", &arg(&file("s2dit_reference.raw.pt2"))], &given[..]].concat());
    assert_eq!(roles(&report, "inputs")[1..], named(&[("t", "time from 0 to 1"), ("text", "other")])[..]);
    assert_eq!(report["inputs"][1]["guessed"], false);
    // A range that is not said is that of the name, and one that is said counts.
    for (given, range) in [("time=sigma", "time from 0 to 1"), ("time=sigma:0:1000", "time from 0 to 1000")] {
        let report = json(&["inspect", &arg(&file("shared_rotation.raw.pt2")), "--input", given, "--json"]);
        assert_eq!(report["inputs"][1]["role"], range, "{report}");
        assert_eq!(report["blocks"].as_array().map(Vec::len), Some(3), "{report}");
    }
}

/// The reference as PyTorch exports it and as the frontend builds it: the same blocks, and as many ops of each in the engine's layout.
#[test]
fn the_reference_is_recognised_as_the_frontend_has_it() {
    for form in ["raw", "dec"] {
        let graph = arg(&file(&format!("s2dit_reference.{form}.pt2")));
        let report = json(&["compile", &graph, "--target", "coreml", "--explain", "fuse", "--json"]);
        let found = &report[0];
        let counts =
            ["lcha", "linear", "ssa", "stages", "full", "cross"].map(|kind| found[kind].as_u64().unwrap_or(99));
        assert_eq!(counts, [2, 0, 2, 1, 1, 5], "{form}: {found}");
        assert_eq!(found["near_misses"].as_array().map(Vec::len), Some(0), "{form}: {found}");
    }
    // Ops of a block in the layout of the Neural Engine, the frontend's first.
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = work.path().join("checkpoint");
    let fields = [
        r#"layout=["lcha","ssa","ssa","full","lcha"]"#,
        "num_attention_heads=2",
        "attention_head_dim=8",
        "ffn_dim=32",
        "text_dim=12",
        "text_len=5",
        "freq_dim=16",
        "in_channels=4",
        "out_channels=4",
    ];
    let set = fields.iter().flat_map(|field| ["--set", field]);
    ok(&[&["init", "-q", "--preset", "tiny", "-o", &arg(&checkpoint)][..], &set.collect::<Vec<_>>()].concat());
    let package = work.path().join("frontend.mlpackage");
    compile(&checkpoint, &["--target", "coreml", "--latent", "3x6x8"], &package);
    let expected = ops_of_blocks(&package);
    for form in ["raw", "dec"] {
        let package = work.path().join(format!("{form}.mlpackage"));
        compile(&file(&format!("s2dit_reference.{form}.pt2")), &["--target", "coreml"], &package);
        let found = ops_of_blocks(&package);
        assert_eq!(found.len(), expected.len());
        for (block, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert!(
                found.abs_diff(*expected) <= 2,
                "{form}, block {block}: {found} ops, the frontend's has {expected}"
            );
        }
    }
}

/// Models of diffusers are recognised whatever exporter wrote them down, and have as many ops a block.
#[test]
fn models_of_diffusers_are_recognised() {
    for (name, kind) in [("wan", "full"), ("ltx", "full"), ("sana", "linear")] {
        for form in ["raw.pt2", "dec.pt2", "dynamo18.onnx"] {
            // The exporter stores LTX-Video's tables as weights, of which it is not known that each angle stands twice.
            if (name, form) == ("ltx", "dynamo18.onnx") {
                continue;
            }
            let graph = arg(&file(&format!("{name}.{form}")));
            let found = &json(&["compile", &graph, "--target", "coreml", "--explain", "fuse", "--json"])[0];
            assert_eq!((&found[kind], &found["cross"]), (&2.into(), &2.into()), "{name}.{form}: {found}");
            assert_eq!(found["near_misses"].as_array().map(Vec::len), Some(0), "{name}.{form}: {found}");
            assert_eq!(found["leftovers"], serde_json::json!({}), "{name}.{form}: {found}");
        }
    }
}

/// A variant that no frontend knows says which of its parts are others, and what is there in the place of what was expected.
#[test]
fn near_misses_of_graphs_say_why() {
    let explained = |name: &str| -> Value {
        json(&["compile", &arg(&file(name)), "--target", "coreml", "--explain", "fuse", "--json"])[0].clone()
    };
    let rotation = "rotation of queries and keys: expected `rope` before or after the feature map, found none";
    for (variant, reason) in [
        (
            "relu_kernel",
            "feature map of queries and keys: expected `feature_map`, which is softplus(x @ w.T + b), found `relu` at `blocks.0`",
        ),
        ("per_token_gate", "gate: expected a number for each channel, found `sigmoid` at `blocks.0"),
        ("no_bias", rotation),
        ("grouped_queries", "heads of the keys: expected as many as there are of the others"),
        ("l2_keys", "norm of the keys: expected `rms_norm`, found `div` at `blocks.0`"),
    ] {
        for form in ["raw.pt2", "dec.pt2", "dynamo18.onnx"] {
            let report = explained(&format!("variant_{variant}.{form}"));
            let misses = report["near_misses"].as_array().expect("a list");
            let told = misses.iter().find(|miss| miss["rule"] == "lcha" && miss["scope"] == "blocks.0");
            let said =
                told.and_then(|miss| miss["reason"].as_str()).unwrap_or_else(|| panic!("{variant}.{form}: {report}"));
            assert!(said.contains(reason) && said.contains(rotation), "{variant}.{form}: {said}");
            // What it has of the formula is found all the same.
            assert_eq!(report["formulas"]["linear_attention"], 2, "{variant}.{form}: {report}");
        }
    }
}

/// Ops of each block of a package, as lint counts them.
fn ops_of_blocks(package: &Path) -> Vec<usize> {
    let report = json(&["lint", &arg(package), "--json"]);
    let blocks = &report["packages"][0]["summary"]["functions"][0]["blocks"];
    let blocks = blocks.as_object().unwrap_or_else(|| panic!("{report}"));
    (0..blocks.len()).map(|block| blocks[&block.to_string()].as_u64().expect("a number") as usize).collect()
}
