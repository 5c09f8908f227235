//! `compile --quantize`: packages and ONNX files hold the same numbers, and the outside judges take both.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{arg, fails, files, golden, ok, python, repo, run};
use s2dit_runtime::{Artifact, HostTensor, RunOptions};

/// A checkpoint of two blocks whose weights are large enough to be compressed.
fn checkpoint(work: &Path) -> PathBuf {
    let dir = work.join("checkpoint");
    let layout = r#"layout=["lcha","ssa"]"#;
    ok(&["init", "-q", "--preset", "small", "--seed", "7", "--dtype", "bf16", "--set", layout, "-o", &arg(&dir)]);
    dir
}

fn compile(checkpoint: &Path, target: &str, precision: &str, scheme: &str, out: &Path) -> serde_json::Value {
    let printed = ok(&[
        "compile",
        "-q",
        "--json",
        &arg(checkpoint),
        "--target",
        target,
        "--precision",
        precision,
        "--latent",
        "3x4x4",
        "--quantize",
        scheme,
        "-o",
        &arg(out),
    ]);
    serde_json::from_str(&printed).expect("a JSON summary")
}

/// Numbers of unit size that depend on a position only.
fn inputs(artifact: &Artifact) -> BTreeMap<String, HostTensor> {
    let ports = artifact.inputs().into_iter();
    let made = ports.map(|port| {
        let shape: Vec<usize> = port.shape.iter().map(|d| *d as usize).collect();
        let n = shape.iter().product::<usize>() as u64;
        let noise = |i: u64| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / (1 << 23) as f32 - 1.0;
        let data = if port.name == "timestep" { vec![731.25] } else { (0..n).map(noise).collect() };
        (port.name, HostTensor::new(shape, data).expect("a tensor"))
    });
    made.collect()
}

fn velocity(path: &Path) -> Vec<f32> {
    let artifact = Artifact::open(path).expect("an artifact");
    let options = RunOptions { quiet: true, ..RunOptions::default() };
    let results = artifact.run(&inputs(&artifact), &options).expect("it runs");
    results["velocity"].data.clone()
}

fn judge(script: &str, paths: &[PathBuf]) {
    let output = Command::new(python::interpreter())
        .arg(repo().join("tests/conformance").join(script))
        .args(paths)
        .output()
        .expect("python starts");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}\n{text}");
}

#[test]
fn packages_and_onnx_files_hold_the_same_numbers() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = checkpoint(work.path());
    let (mut packages, mut models) = (Vec::new(), Vec::new());
    let schemes = [
        ("int8", 2.0),
        ("int8-block32", 1.9),
        ("int4-block32", 3.3),
        ("palette1", 13.0),
        ("palette3-group16", 4.9),
        ("palette4-group16", 3.8),
        ("palette6", 2.6),
    ];
    let plain = work.path().join("plain.onnx");
    let whole = compile(&checkpoint, "onnx", "fp16", "fp16", &plain)["weight_bytes"].as_f64().expect("bytes");
    for (scheme, factor) in schemes {
        let package = work.path().join(format!("{scheme}.mlpackage"));
        let model = work.path().join(format!("{scheme}.onnx"));
        for (target, out) in [("coreml", &package), ("onnx", &model)] {
            let summary = compile(&checkpoint, target, "fp32", scheme, out);
            assert_eq!(summary["quantize"], scheme);
            let bytes = summary["weight_bytes"].as_f64().expect("bytes");
            assert!(whole / bytes > factor * 0.9, "{scheme} for {target}: {bytes} bytes, {whole} in fp16");
            assert_eq!(Artifact::open(out).expect("an artifact").metadata()["s2ditc.quantize"], scheme);
        }
        let (a, b) = (velocity(&package), velocity(&model));
        let squares = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>();
        let error = squares(&mut a.iter().zip(&b).map(|(a, b)| a - b)) / squares(&mut b.iter().copied());
        assert!(error.sqrt() < 1e-5, "{scheme}: package and ONNX differ by {:.1e}", error.sqrt());

        let half = work.path().join(format!("{scheme}-fp16.mlpackage"));
        compile(&checkpoint, "coreml", "fp16", scheme, &half);
        packages.extend([package, half]);
        models.push(model);
    }
    judge("check_mlpackage.py", &packages);
    judge("check_onnx.py", &models);
}

/// The bar of the int8 figure in the README.
#[test]
fn int8_keeps_34_db_on_small() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = work.path().join("checkpoint");
    ok(&["init", "-q", "--preset", "small", "--seed", "7", "--dtype", "bf16", "-o", &arg(&checkpoint)]);
    let reference = golden("small").join("golden.safetensors");
    for (target, name) in [("coreml", "small.mlpackage"), ("onnx", "small.onnx")] {
        let out = work.path().join(name);
        let latent = "3x16x24";
        let quantize = ["--quantize", "int8", "-o", &arg(&out)];
        let args = ["compile", "-q", &arg(&checkpoint), "--target", target, "--latent", latent];
        ok(&[&args[..], &quantize[..]].concat());
        ok(&["verify", "-q", &arg(&out), "--golden", &arg(&reference), "--min-snr", "34"]);
    }
}

#[test]
fn threads_do_not_change_the_bytes() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = arg(&checkpoint(work.path()));
    for (scheme, target, name) in [("palette4-group16", "coreml", "x.mlpackage"), ("int4-block32", "onnx", "x.onnx")] {
        let made: Vec<_> = ["1", "3"]
            .iter()
            .map(|threads| {
                let dir = tempfile::tempdir().expect("a temporary folder");
                let out = arg(&dir.path().join(name));
                let args = ["compile", "-q", "--threads", threads, &checkpoint, "--target", target];
                ok(&[&args[..], &["--latent", "3x4x4", "--quantize", scheme, "-o", &out]].concat());
                files(dir.path())
            })
            .collect();
        assert!(made[0] == made[1], "{scheme} for {target}: the bytes differ between 1 and 3 threads");
    }
}

#[test]
fn streams_are_compressed_too() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = arg(&checkpoint(work.path()));
    let size = |dir: &Path| files(dir).iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    for (target, functions) in [("coreml", "shared"), ("coreml", "separate"), ("onnx", "separate")] {
        let compile = |scheme: &str| {
            let out = work.path().join(format!("{target}-{functions}-{scheme}"));
            let args = ["compile", "-q", &checkpoint, "--mode", "stream", "--target", target, "--functions", functions];
            let precision = ["--precision", "fp16", "--latent", "4x4", "--quantize", scheme, "-o", &arg(&out)];
            ok(&[&args[..], &precision[..]].concat());
            out
        };
        let (whole, small) = (compile("fp16"), compile("palette4-group16"));
        assert!(size(&small) * 3 < size(&whole), "{target}: {} of {} bytes", size(&small), size(&whole));
        let with = |extension: &str| {
            let entries = fs::read_dir(&small).expect("a folder").map(|e| e.expect("an entry").path());
            entries.filter(|p| p.extension().is_some_and(|e| e == extension)).collect::<Vec<_>>()
        };
        match target {
            "coreml" => judge("check_mlpackage.py", &with("mlpackage")),
            _ => judge("check_onnx.py", &with("onnx")),
        }
    }
}

#[test]
fn it_is_said_how_many_weights_are_quantized() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| arg(&work.path().join(name));
    let compile = |checkpoint: &str, out: &str, latent: &str| {
        let args = ["--target", "onnx", "--latent", latent, "--quantize", "palette4-group16"];
        let made = run(&[&["compile", checkpoint, "--json", "-o", &at(out)], &args[..]].concat());
        let report: serde_json::Value = serde_json::from_slice(&made.stdout).expect("a JSON summary");
        let count = |field: &str| report["quantized"][field].as_u64().expect("a count");
        (count("weights"), count("of"), String::from_utf8_lossy(&made.stderr).into_owned())
    };
    // Its weights are all too small.
    let (weights, of, warned) = compile(&arg(&golden("tiny").join("checkpoint")), "tiny.onnx", "3x8x8");
    assert!(weights == 0 && of > 0);
    assert!(warned.contains(&format!("warning: --quantize palette4-group16: 0 of {of} weights")), "{warned}");

    let checkpoint = arg(&checkpoint(work.path()));
    let (weights, of, warned) = compile(&checkpoint, "x.onnx", "3x4x4");
    assert!(0 < weights && weights < of && !warned.contains("warning"), "{weights} of {of}: {warned}");
    let args = ["--target", "coreml", "--latent", "3x4x4", "--quantize", "int8", "-o", &at("x.mlpackage")];
    let text = ok(&[&["compile", &checkpoint], &args[..]].concat());
    assert!(text.contains(" weights quantized, "), "{text}");

    let args = ["verify", &at("x.onnx"), "--checkpoint", &checkpoint];
    ok(&[&args[..], &["--min-snr", "5"]].concat());
    fails_below(&[&args[..], &["--min-snr", "90"]].concat());
}

/// A result below the bar: exit 1 without an error.
fn fails_below(args: &[&str]) {
    let out = run(args);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stdout).contains("FAILED"));
}

#[test]
fn what_cannot_be_compressed_is_named() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = checkpoint(work.path());
    let out = arg(&work.path().join("x.mlpackage"));
    let base = ["compile", &arg(&checkpoint), "--target", "coreml", "--latent", "3x4x4", "-o", &out];
    let with = |scheme: &'static str| [&base[..], &["--quantize", scheme]].concat().join("\n");
    let split = |args: &str| args.split('\n').map(str::to_string).collect::<Vec<_>>();

    let unknown = run(&split(&with("palette5")));
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("palette5"));

    let error = fails(&split(&with("palette4-group24")));
    assert!(error.contains("weight `") && error.contains("expected a multiple of 24"), "{error}");

    // One NaN in one weight.
    let path = checkpoint.join("diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&path).expect("weights");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let index: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).expect("a header");
    let name = "blocks.1.attn1.to_k.weight";
    let at = 8 + header + index[name]["data_offsets"][0].as_u64().expect("an offset") as usize;
    bytes[at..at + 2].copy_from_slice(&0x7fc0u16.to_le_bytes());
    fs::write(&path, bytes).expect("weights");
    for scheme in ["int8", "palette4-group16"] {
        let error = fails(&split(&with(scheme)));
        assert!(
            error.contains(&format!("tensor `{name}`: scheme `{scheme}`: found 1 element(s) that are NaN")),
            "{error}"
        );
        assert!(!Path::new(&out).exists());
    }
}
