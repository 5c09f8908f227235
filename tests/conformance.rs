//! The outside judges: coremltools' own MIL loader and onnx's checker, on every kind of file that is emitted.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{arg, golden, ok, python, repo};

const CASES: [(&str, &str); 6] = [
    ("tiny", "3x8x8"),
    ("odd", "2x12x8"),
    ("post", "4x8x4"),
    ("per_head", "1x12x8"),
    ("sharded", "5x4x8"),
    ("stride3", "2x6x12"),
];

/// Every golden's checkpoint in both precisions.
fn compiled(work: &Path, target: &str, extension: &str) -> Vec<PathBuf> {
    let mut made = Vec::new();
    for (name, latent) in CASES {
        for precision in ["fp32", "fp16"] {
            let out = work.join(format!("{name}_{precision}.{extension}"));
            let checkpoint = arg(&golden(name).join("checkpoint"));
            ok(&[
                "compile",
                "-q",
                &checkpoint,
                "--target",
                target,
                "--precision",
                precision,
                "--latent",
                latent,
                "-o",
                &arg(&out),
            ]);
            made.push(out);
        }
    }
    made
}

fn judge(script: &str, args: &[&str], paths: &[PathBuf]) {
    let output = Command::new(python::interpreter())
        .arg(repo().join("tests/conformance").join(script))
        .args(args)
        .args(paths)
        .output()
        .expect("python starts");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script} {args:?}\n{text}");
}

#[test]
fn coremltools_lifts_every_package() {
    let work = tempfile::tempdir().expect("a temporary folder");
    judge("check_mlpackage.py", &[], &compiled(work.path(), "coreml", "mlpackage"));
}

/// The checker finds what it is there to find.
#[test]
fn the_package_checker_is_not_blind() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let out = work.path().join("tiny.mlpackage");
    ok(&[
        "compile",
        "-q",
        &arg(&golden("tiny").join("checkpoint")),
        "--target",
        "coreml",
        "--latent",
        "3x8x8",
        "-o",
        &arg(&out),
    ]);
    judge("check_mlpackage.py", &["--self-test"], &[out]);
}

#[test]
fn onnx_checks_every_model() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let mut models = compiled(work.path(), "onnx", "onnx");
    // One with external data.
    let (checkpoint, large) = (work.path().join("checkpoint"), work.path().join("small.onnx"));
    ok(&["init", "-q", "--preset", "small", "-o", &arg(&checkpoint)]);
    ok(&[
        "compile",
        "-q",
        &arg(&checkpoint),
        "--target",
        "onnx",
        "--precision",
        "fp16",
        "--latent",
        "1x4x4",
        "-o",
        &arg(&large),
    ]);
    assert!(work.path().join("small.onnx.data").exists());
    models.push(large);
    judge("check_onnx.py", &[], &models);
}
