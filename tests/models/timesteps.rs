//! `compile --timesteps from-config`: tables give what the time embedding gives, and other timesteps are refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::common::{arg, fails, files, golden, ok};
use s2dit_runtime::compare::compare;
use s2dit_runtime::{Artifact, HostTensor, RunOptions};
use serde_json::Value;

/// The shifted timesteps of sample_steps 1000, 750, 500, 250, in fp32.
const SHIFTED: [f32; 4] = [1000.0, 937.5, 2500.0 / 3.0, 625.0];

fn compile(checkpoint: &Path, name: &str, flags: &[&str], work: &Path) -> PathBuf {
    let out = work.join(name);
    ok(&[&["compile", "-q", &arg(checkpoint), "-o", &arg(&out)], flags].concat());
    out
}

/// A checkpoint whose sampler takes a number of Euler steps.
fn bidirectional(work: &Path, steps: &str) -> PathBuf {
    let dir = work.join(format!("steps-{steps}"));
    let set = format!("sample_steps={steps}");
    ok(&["init", "-q", "--preset", "tiny", "--set", "chunk_frames=null", "--set", &set, "-o", &arg(&dir)]);
    dir
}

fn velocity(artifact: &Artifact, timestep: f32, fp16: bool) -> Vec<f32> {
    let noise = |i: u64| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / (1 << 23) as f32 - 1.0;
    let input = |port: s2dit_runtime::Port| {
        let shape: Vec<usize> = port.shape.iter().map(|d| *d as usize).collect();
        let data = match port.name.as_str() {
            "timestep" => vec![timestep],
            _ => (0..shape.iter().product::<usize>() as u64).map(noise).collect(),
        };
        (port.name, HostTensor::new(shape, data).expect("a tensor"))
    };
    let inputs: BTreeMap<_, _> = artifact.inputs().into_iter().map(input).collect();
    let options = RunOptions { fp16, quiet: true, ..RunOptions::default() };
    artifact.run(&inputs, &options).expect("it runs")["velocity"].data.clone()
}

fn inspected(path: &Path) -> Value {
    serde_json::from_str(&ok(&["inspect", "--json", &arg(path)])).expect("JSON")
}

#[test]
fn tables_give_what_the_time_embedding_gives() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = golden("tiny").join("checkpoint");
    let open = |name: &str, flags: &[&str]| {
        let flags = [&["--latent", "3x8x8"], flags].concat();
        Artifact::open(&compile(&checkpoint, name, &flags, work.path())).expect("an artifact")
    };
    let tables = ["--timesteps", "from-config"];
    let exact = open("any.onnx", &["--target", "onnx", "--timesteps", "any"]);
    assert_eq!(exact.timesteps().expect("metadata"), None);
    let onnx = open("x.onnx", &[&["--target", "onnx"], &tables[..]].concat());
    let fp32 = open("fp32.mlpackage", &[&["--target", "coreml", "--precision", "fp32"], &tables[..]].concat());
    let fp16 = open("fp16.mlpackage", &[&["--target", "coreml"], &tables[..]].concat());
    let ports = fp16.inputs();
    assert!(ports.iter().any(|p| p.name == "timestep" && p.dtype == "f16"), "the timestep is fp16");
    for t in SHIFTED {
        let want = velocity(&exact, t, false);
        for artifact in [&onnx, &fp32] {
            let error = compare(&velocity(artifact, t, false), &want).relative_l2;
            assert!(error <= 2e-6, "at {t}: relative L2 {error:e}");
        }
        for (rounded, bar) in [(false, 60.0), (true, 50.0)] {
            let snr = compare(&velocity(&fp16, t, rounded), &want).snr_db;
            assert!(snr >= bar, "at {t}: {snr} dB");
        }
    }
    // Rounded to fp16 it selects the same row.
    assert_eq!(velocity(&onnx, 833.5, false), velocity(&onnx, SHIFTED[2], false));
    let two = [1000.0, 625.0].map(|t| velocity(&onnx, t, false));
    assert!(compare(&two[0], &two[1]).relative_l2 > 1e-2, "timesteps make a difference");
}

#[test]
fn a_package_with_tables_has_no_sinusoids_and_says_so() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = golden("tiny").join("checkpoint");
    let report = |name: &str, how: &str| {
        let flags = ["--target", "coreml", "--latent", "3x8x8", "--timesteps", how];
        inspected(&compile(&checkpoint, name, &flags, work.path()))
    };
    let has = |report: &Value, op: &str| report["ops"].as_array().expect("ops").iter().any(|o| o[0] == op);
    let (any, listed) = (report("any.mlpackage", "any"), report("x.mlpackage", "from-config"));
    for op in ["cos", "sin", "floor"] {
        assert!(has(&any, op) && !has(&listed, op), "{op}");
    }
    assert_eq!(any["timesteps"], Value::Null);
    let said: Vec<f32> = serde_json::from_value(listed["timesteps"].clone()).expect("a list");
    assert_eq!(said, SHIFTED);
    let out = ok(&["inspect", &arg(&work.path().join("x.mlpackage"))]);
    assert!(out.contains("timestep: 1000, 937.5, 833.3333 or 625"), "{out}");
}

#[test]
fn other_timesteps_are_refused() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let tiny = golden("tiny");
    let flags = ["--target", "coreml", "--latent", "3x8x8", "--timesteps", "from-config"];
    let package = compile(&tiny.join("checkpoint"), "x.mlpackage", &flags, work.path());
    let parts = [&flags[..], &["--partition", "2"]].concat();
    let parts = compile(&tiny.join("checkpoint"), "parts", &parts, work.path());
    let reference = arg(&tiny.join("golden.safetensors"));
    for artifact in [&package, &parts] {
        let artifact = arg(artifact);
        // Seeded inputs take a timestep that there is.
        ok(&["verify", "-q", &artifact, "--checkpoint", &arg(&tiny.join("checkpoint"))]);
        for command in ["verify", "ranges"] {
            let error = fails(&[command, "-q", &artifact, "--golden", &reference]);
            assert!(error.contains("found 731.25, expected 1000, 937.5, 833.3333 or 625"), "{command}: {error}");
        }
    }
    ok(&["ranges", "-q", &arg(&package)]);
}

#[test]
fn a_clip_is_made_in_the_steps_it_was_compiled_for() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = bidirectional(work.path(), "5");
    let flags = ["--target", "onnx", "--latent", "2x4x4"];
    let any = arg(&compile(&checkpoint, "any.onnx", &flags, work.path()));
    let listed = [&flags[..], &["--timesteps", "from-config"]].concat();
    let listed = arg(&compile(&checkpoint, "x.onnx", &listed, work.path()));
    let clips = [&any, &listed].map(|artifact| {
        let out = work.path().join("clip.safetensors");
        ok(&["stream", "-q", artifact, "--prompt-seed", "1", "-o", &arg(&out)]);
        let bytes = std::fs::read(&out).expect("a clip");
        let header = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
        let data = bytes[8 + header..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
        data.collect::<Vec<f32>>()
    });
    let error = compare(&clips[1], &clips[0]).relative_l2;
    assert!(error <= 2e-6, "relative L2 {error:e}");
    ok(&["stream", "-q", &any, "--prompt-seed", "1", "--steps", "4"]);
    let error = fails(&["stream", "-q", &listed, "--prompt-seed", "1", "--steps", "4"]);
    assert!(error.contains("4 steps") && error.contains("found 937.5, expected 1000, 952.38"), "{error}");
}

#[test]
fn timesteps_that_are_too_near_are_refused() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = bidirectional(work.path(), "1000");
    let out = arg(&work.path().join("x.onnx"));
    let args = ["compile", &arg(&checkpoint), "--target", "onnx", "--latent", "2x4x4", "-o", &out];
    let error = fails(&[&args[..], &["--timesteps", "from-config"]].concat());
    assert!(error.contains("--timesteps from-config") && error.contains("fp16 cannot tell them apart"), "{error}");
    ok(&[&args[..], &["-q", "--timesteps", "any"]].concat());
}

#[test]
fn kernels_for_core_ml_have_tables_unless_asked_otherwise() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let folder = golden("stream_tiny");
    let reference = arg(&folder.join("golden.safetensors"));
    for (name, flags, tables) in [
        ("coreml", &["--target", "coreml"][..], true),
        ("coreml-any", &["--target", "coreml", "--timesteps", "any"], false),
        ("onnx", &["--target", "onnx"], false),
        ("onnx-listed", &["--target", "onnx", "--timesteps", "from-config"], true),
    ] {
        let flags = [&["--mode", "stream", "--latent", "8x8"], flags].concat();
        let kernel = compile(&folder.join("checkpoint"), name, &flags, work.path());
        ok(&["verify", "-q", &arg(&kernel), "--golden", &reference, "--chunks", "2"]);
        let place = kernel.join("contract.json");
        let text = std::fs::read_to_string(&place).expect("a contract");
        let contract: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(contract.get("timesteps"), tables.then_some(&contract["sampler"]["timesteps"]), "{name}");
        assert_eq!(inspected(&kernel)["timesteps"].is_null(), !tables);
        if tables {
            std::fs::write(&place, text.replacen("937.5", "937.0", 1)).expect("written");
            let error = fails(&["stream", "-q", &arg(&kernel), "--prompt-seed", "1", "--chunks", "1"]);
            assert!(error.contains("timesteps") && error.contains("found 937"), "{error}");
        }
    }
}

#[test]
fn tables_are_the_same_bytes_with_any_number_of_threads() {
    let checkpoint = golden("tiny").join("checkpoint");
    for (name, target) in [("x.mlpackage", "coreml"), ("x.onnx", "onnx")] {
        let made = ["1", "2"].map(|threads| {
            let work = tempfile::tempdir().expect("a temporary folder");
            let flags = ["--target", target, "--latent", "3x8x8", "--timesteps", "from-config", "--threads", threads];
            compile(&checkpoint, name, &flags, work.path());
            files(work.path())
        });
        assert!(!made[0].is_empty() && made[0] == made[1], "{target}");
    }
}
