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

const KERNELS: [(&str, &str); 4] =
    [("stream_tiny", "8x8"), ("stream_post", "8x4"), ("stream_full", "4x8"), ("stream_wide", "6x6")];

/// The files of every golden's kernels, in every policy of a target.
fn kernels(work: &Path, target: &str, extension: &str) -> Vec<PathBuf> {
    let policies: &[[&str; 3]] = match target {
        "onnx" => &[["fp32", "io", "separate"], ["fp16", "io", "separate"]],
        _ => &[
            ["fp32", "io", "shared"],
            ["fp16", "io", "shared"],
            ["fp16", "io", "separate"],
            ["fp16", "native", "shared"],
            ["fp16", "native", "separate"],
        ],
    };
    let mut made = Vec::new();
    for (name, latent) in KERNELS {
        for [precision, states, functions] in policies {
            let out = work.join(format!("{name}_{precision}_{states}_{functions}"));
            let (checkpoint, place) = (arg(&golden(name).join("checkpoint")), arg(&out));
            let mut args = vec!["compile", "-q", &checkpoint, "--mode", "stream", "--target", target, "-o", &place];
            args.extend(["--latent", latent, "--precision", precision, "--states", states, "--functions", functions]);
            ok(&args);
            let entries = std::fs::read_dir(&out).expect("a kernel folder").map(|e| e.expect("an entry").path());
            made.extend(entries.filter(|p| p.extension().is_some_and(|e| e == extension)));
        }
    }
    made.sort();
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

#[test]
fn coremltools_lifts_every_kernel() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let packages = kernels(work.path(), "coreml", "mlpackage");
    assert_eq!(packages.len(), 4 * (3 + 2 * 3));
    judge("check_mlpackage.py", &[], &packages);
}

/// A host that knows nothing but `contract.json` makes the golden's chunks.
#[test]
fn a_host_needs_the_contract_alone() {
    for (name, latent) in KERNELS {
        for (precision, bar) in [("fp32", "1e-5"), ("fp16", "5e-3")] {
            let work = tempfile::tempdir().expect("a temporary folder");
            let (checkpoint, place) = (arg(&golden(name).join("checkpoint")), arg(&work.path().join("kernel")));
            let flags = ["--mode", "stream", "--target", "onnx", "--latent", latent, "--precision", precision];
            ok(&[&["compile", "-q", &checkpoint, "-o", &place], &flags[..]].concat());
            let output = Command::new(python::interpreter())
                .arg(repo().join("examples/host/host.py"))
                .args([&place, &arg(&golden(name).join("golden.safetensors")), "--bar", bar])
                .output()
                .expect("python starts");
            let text =
                format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "{name} {precision}\n{text}");
        }
    }
}

#[test]
fn onnx_checks_every_kernel() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let models = kernels(work.path(), "onnx", "onnx");
    assert_eq!(models.len(), 4 * 2 * 3);
    judge("check_onnx.py", &[], &models);
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
    let data = common::files(work.path()).into_iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "data"));
    assert_eq!(data.count(), 1);
    models.push(large);
    judge("check_onnx.py", &[], &models);
}
