//! Clips of a family: compiled, verified and inspected.

use std::path::Path;

use serde_json::Value;

use super::{arg, ok};

pub const ONNX: [&str; 2] = ["--target", "onnx"];
pub const COREML: [&str; 2] = ["--target", "coreml"];

/// Compiles a checkpoint at a latent size to `out`, whose path is returned.
pub fn compile(checkpoint: &str, latent: &str, out: &Path, flags: &[&str]) -> String {
    let place = arg(out);
    ok(&[&["compile", "-q", checkpoint, "--latent", latent, "-o", &place], flags].concat());
    place
}

/// The report of a verification that passes.
pub fn verify(artifact: &str, flags: &[&str]) -> Value {
    let report: Value = serde_json::from_str(&ok(&[&["verify", artifact, "--json"], flags].concat())).expect("JSON");
    assert_eq!((&report["passed"], &report["first_block_below"]), (&true.into(), &Value::Null), "{report}");
    report
}

/// The SNR in dB of the first result of a report.
pub fn snr(report: &Value) -> f64 {
    report["rows"][0]["snr_db"].as_f64().expect("a number")
}

/// What `inspect` says of a checkpoint or an artifact.
pub fn inspect(path: &str) -> Value {
    serde_json::from_str(&ok(&["inspect", path, "--json"])).expect("JSON")
}
