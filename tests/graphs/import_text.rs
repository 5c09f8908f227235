//! The IR's own text form as an input: what `--emit ir` prints compiles again, with the same numbers, and says its roles itself.

use std::path::{Path, PathBuf};

use crate::common::{arg, fails, golden, ok};

/// The graph of a golden's checkpoint as text, with its weights beside it.
fn printed(name: &str, latent: &str, to: &Path) -> PathBuf {
    let checkpoint = golden(name).join("checkpoint");
    let file = to.join("model.s2");
    ok(&[
        "compile",
        &arg(&checkpoint),
        "--target",
        "onnx",
        "--latent",
        latent,
        "--emit",
        "ir",
        "--after",
        "canonicalize",
        "-o",
        &arg(&file),
    ]);
    let weights = checkpoint.join("diffusion_pytorch_model.safetensors");
    std::fs::copy(weights, to.join("model.safetensors")).expect("a copy");
    file
}

#[test]
fn a_printed_graph_compiles_and_computes_the_golden() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let file = printed("tiny", "3x8x8", work.path());
    let out = work.path().join("model.onnx");
    ok(&["compile", &arg(&file), "--target", "onnx", "-o", &arg(&out), "-q"]);
    let golden = golden("tiny").join("golden.safetensors");
    let said = ok(&["verify", &arg(&out), "--golden", &arg(&golden), "--blocks"]);
    assert!(!said.contains("below the bar"), "{said}");
    ok(&["verify", &arg(&out), "--graph", &arg(&file)]);
    let report = ok(&["inspect", &arg(&file), "--json"]);
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["kind"], "graph");
    assert_eq!(report["inputs"][0]["role"], "latent");
    assert_eq!(report["inputs"][0]["guessed"], false);
}

#[test]
fn what_does_not_fit_is_told() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let file = work.path().join("model.s2");
    let compile = |flags: &[&str]| {
        let (file, out) = (arg(&file), arg(&work.path().join("model.onnx")));
        fails(&[&["compile", &file, "--target", "onnx", "-o", &out], flags].concat())
    };
    std::fs::write(&file, "module { func @main(%x: f32[4]) { %y = exp(%x) : f32[4] return y = %y } }").expect("a file");
    for (flags, expected) in [
        (&["--input", "latent=z"][..], "--input: found \"z\", expected one of x"),
        (&["--input", "latent=x"], "found f32[4], expected a latent [1, C, F, H, W] of floats"),
        (&["--bind", "s0=3"], "--bind"),
        (&["--latent", "1x2x3"], "no input of the graph is a latent"),
        (&["--mode", "stream", "--window", "2"], "no input that is a latent"),
        (&["--timesteps", "from-config"], "no sampler"),
        (&["--config", "config.json"], "a graph says itself"),
    ] {
        let error = compile(flags);
        assert!(error.contains(expected), "{flags:?}: {error}");
    }
    std::fs::write(&file, "module { func @main(%x: f32[4]) { %y = fft(%x) : f32[4] return y = %y } }").expect("a file");
    assert!(compile(&[]).contains("unknown op `fft`"));
    std::fs::write(&file, "module { func @main(%x: f32[4]) { %y = feature_map(%x, %x, %x) : f32[4] return y = %y } }")
        .expect("a file");
    assert!(compile(&[]).contains("`feature_map`, which stands for other ops"));
    std::fs::write(&file, r#"module { func @main(%x: f32[4]) { %w = load {tensor = "w"} : f32[4] %y = add(%x, %w) : f32[4] return y = %y } }"#)
        .expect("a file");
    assert!(compile(&[]).contains("model.safetensors"));
}
