//! The outside judges: coremltools' own MIL loader and onnx's checker, on every kind of file that is emitted.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{arg, golden, ok, python, repo};

const CASES: [(&str, &str); 7] = [
    ("tiny", "3x8x8"),
    ("odd", "2x12x8"),
    ("post", "4x8x4"),
    ("per_head", "1x12x8"),
    ("sharded", "5x4x8"),
    ("stride3", "2x6x12"),
    ("padded", "2x10x14"),
];

/// Text encoders, with their numbers of tokens.
const TEXTS: [(&str, &str); 3] = [("text_clip", "77"), ("text_t5", "136"), ("text_umt5", "40")];

/// Every golden's checkpoint in both precisions.
fn compiled(work: &Path, target: &str, extension: &str) -> Vec<PathBuf> {
    let mut made = Vec::new();
    let steps = CASES.map(|(name, latent)| (name, "--latent", latent));
    let texts = TEXTS.map(|(name, tokens)| (name, "--tokens", tokens));
    for (name, flag, size) in steps.into_iter().chain(texts) {
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
                flag,
                size,
                "-o",
                &arg(&out),
            ]);
            made.push(out);
        }
    }
    made
}

const KERNELS: [(&str, &str); 9] = [
    ("longsana_tiny", "4x6"),
    ("stream_tiny", "8x8"),
    ("stream_post", "8x4"),
    ("stream_full", "4x8"),
    ("stream_wide", "6x6"),
    ("stream_sink", "6x10"),
    ("stream_last_step", "8x4"),
    ("stream_last_sink", "6x8"),
    ("stream_paths", "8x8"),
];

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
    assert_eq!(packages.len(), KERNELS.len() * (3 + 2 * 3));
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

/// tract, an ONNX engine that shares no code with ONNX Runtime, computes what ONNX Runtime computes of every function of every
/// golden's fp32 kernel. There is no function that it cannot run.
#[cfg(feature = "tract")]
#[test]
fn tract_agrees_on_every_function_of_a_kernel() {
    use s2dit_runtime::compare::compare;
    use s2dit_runtime::{Artifact, Engine, HostTensor, RunOptions};

    for (name, latent) in KERNELS {
        let work = tempfile::tempdir().expect("a temporary folder");
        let (checkpoint, place) = (arg(&golden(name).join("checkpoint")), arg(&work.path().join("kernel")));
        let flags =
            ["--mode", "stream", "--target", "onnx", "--latent", latent, "--precision", "fp32", "--opset", "21"];
        ok(&[&["compile", "-q", &checkpoint, "-o", &place], &flags[..]].concat());
        let entries = std::fs::read_dir(&place).expect("a kernel folder").map(|e| e.expect("an entry").path());
        let functions: Vec<PathBuf> = entries.filter(|p| p.extension().is_some_and(|e| e == "onnx")).collect();
        assert_eq!(functions.len(), 3, "{name}");
        for function in functions {
            let artifact = Artifact::open(&function).expect("a model");
            // Numbers between 0.1 and 0.9: no mask or count of a state is out of its range.
            let inputs = artifact.inputs().into_iter().map(|port| {
                assert_eq!(port.dtype, "f32", "{name}: {}", port.name);
                let shape: Vec<usize> = port.shape.iter().map(|d| *d as usize).collect();
                let data = (0..shape.iter().product()).map(|i: usize| 0.5 + 0.4 * (i as f32 * 0.37).sin()).collect();
                (port.name, HostTensor { shape, data })
            });
            let inputs = inputs.collect();
            let run = |engine| artifact.run(&inputs, &RunOptions { engine, quiet: true, ..RunOptions::default() });
            let (one, other) = (run(Engine::Ort).expect("ONNX Runtime"), run(Engine::Tract).expect("tract"));
            assert!(!one.is_empty() && one.keys().eq(other.keys()), "{name}: {:?} {:?}", one.keys(), other.keys());
            for (output, wanted) in &one {
                let found = &other[output];
                assert_eq!(found.shape, wanted.shape, "{name}: {output}");
                let m = compare(&found.data, &wanted.data);
                let finite = m.non_finite == 0 && m.reference_non_finite == 0;
                assert!(finite && m.snr_db >= 100.0, "{name}, {}, {output}: {m:?}", function.display());
            }
        }
    }
}

#[test]
fn onnx_checks_every_kernel() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let models = kernels(work.path(), "onnx", "onnx");
    assert_eq!(models.len(), KERNELS.len() * 2 * 3);
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
    let data =
        crate::common::files(work.path()).into_iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "data"));
    assert_eq!(data.count(), 1);
    models.push(large);
    judge("check_onnx.py", &[], &models);
}
