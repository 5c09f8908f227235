//! `compile --partition`: a step as packages that run one after the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{arg, fails, golden, ok, python, repo, run};
use s2dit_backends::coreml::Package;
use s2dit_files::SafetensorsFile;
use s2dit_runtime::compare::compare;
use serde_json::Value;

fn compile(name: &str, latent: &str, flags: &[&str], out: &Path) -> Value {
    let checkpoint = arg(&golden(name).join("checkpoint"));
    let args = ["compile", "-q", "--json", &checkpoint, "--target", "coreml", "--latent", latent, "-o", &arg(out)];
    serde_json::from_str(&ok(&[&args[..], flags].concat())).expect("a JSON summary")
}

fn packages(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a folder").map(|e| e.expect("an entry").path());
    let mut found: Vec<PathBuf> = entries.filter(|p| p.extension().is_some_and(|e| e == "mlpackage")).collect();
    found.sort();
    found
}

/// Bytes of the tensors in a package's weight file, without its header and records.
fn tensors(package: &Path) -> u64 {
    let package = Package::open(package).expect("a package");
    let weights = package.weights().expect("a weight file");
    weights.records().expect("records").iter().map(|record| record.size).sum()
}

fn weights(package: &Path) -> u64 {
    fs::metadata(package.join("Data/com.apple.CoreML/weights/weight.bin")).map_or(0, |m| m.len())
}

/// coremltools lifts every part, as it does whole packages.
fn judge(paths: &[PathBuf]) {
    let script = repo().join("tests/conformance/check_mlpackage.py");
    let judged = Command::new(python::interpreter()).arg(script).args(paths).output().expect("python starts");
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stderr));
}

#[test]
fn parts_compute_what_the_reference_does() {
    let work = tempfile::tempdir().expect("a temporary folder");
    for (name, latent) in [("tiny", "3x8x8"), ("odd", "2x12x8"), ("post", "4x8x4"), ("padded", "2x10x14")] {
        let reference = arg(&golden(name).join("golden.safetensors"));
        for (precision, count) in [("fp32", "2"), ("fp16", "3")] {
            let out = work.path().join(format!("{name}-{precision}"));
            let made = compile(name, latent, &["--precision", precision, "--partition", count], &out);
            let parts = packages(&out);
            assert_eq!(made["parts"].as_u64().map(|n| n.to_string()).as_deref(), Some(count));
            assert_eq!(parts.len().to_string(), count);
            // The bars of whole packages; 2e-6 is 114 dB.
            let bars: &[&[&str]] = match precision {
                "fp32" => &[&["--min-snr", "114", "--blocks"]],
                _ => &[&["--min-snr", "60", "--blocks"], &["--min-snr", "50", "--fp16"]],
            };
            for bar in bars {
                ok(&[&["verify", "-q", &arg(&out), "--golden", &reference], *bar].concat());
            }
            let inspected: Value = serde_json::from_str(&ok(&["inspect", "--json", &arg(&out)])).expect("JSON");
            assert_eq!(inspected["parts"].as_array().map(Vec::len), Some(parts.len()));
            ok(&["lint", &arg(&out)]);
            judge(&parts);
        }
    }
}

/// Parts of a quantized step hold the weights that the whole one holds, and compute the same.
#[test]
fn parts_are_quantized() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = arg(&work.path().join("checkpoint"));
    let layout = r#"layout=["lcha","ssa"]"#;
    ok(&["init", "-q", "--preset", "small", "--seed", "7", "--dtype", "bf16", "--set", layout, "-o", &checkpoint]);
    let plan = arg(&work.path().join("plan.toml"));
    ok(&["quantize", "-q", &checkpoint, "--latent", "3x4x4", "--scheme", "palette4-group16", "-o", &plan]);
    let (whole, parts) = (work.path().join("whole.mlpackage"), work.path().join("parts"));
    let made: Vec<Value> = [(&whole, &[][..]), (&parts, &["--partition", "2"][..])]
        .iter()
        .map(|(out, flags)| {
            let base = ["compile", "-q", "--json", &checkpoint, "--target", "coreml", "--latent", "3x4x4"];
            let rest = ["--quantize", &plan, "-o", &arg(out)];
            serde_json::from_str(&ok(&[&base[..], &rest, flags].concat())).expect("a JSON summary")
        })
        .collect();
    assert_eq!(made[0]["quantized"]["weights"], made[1]["quantized"]["weights"]);
    let (one, two) = (weights(&whole), packages(&parts).iter().map(|p| weights(p)).sum::<u64>());
    assert!(packages(&parts).len() == 2 && two < one + one / 10, "{two} bytes in parts, {one} in one package");
    for path in [&whole, &parts] {
        ok(&["verify", "-q", &arg(path), "--checkpoint", &checkpoint, "--quantize", &plan]);
    }
    judge(&packages(&parts));
}

#[test]
fn a_kernel_in_parts_streams() {
    let work = tempfile::tempdir().expect("a temporary folder");
    for (golden_name, writer) in [("stream_post", "commit"), ("stream_last_step", "last_step")] {
        let out = work.path().join(golden_name);
        compile(golden_name, "8x4", &["--mode", "stream", "--partition", "2"], &out);
        let names: Vec<String> =
            packages(&out).iter().map(|p| p.file_name().unwrap_or_default().to_string_lossy().into_owned()).collect();
        let mut wanted = [("denoise", 0), ("denoise", 1), ("prompt", 0), (writer, 0), (writer, 1)]
            .map(|(function, part)| format!("{function}{part}.mlpackage"));
        wanted.sort();
        assert_eq!(names, wanted);
        let reference = arg(&golden(golden_name).join("golden.safetensors"));
        ok(&["verify", "-q", &arg(&out), "--golden", &reference, "--fp16", "--min-snr", "45"]);
        judge(&packages(&out));
    }
}

#[test]
fn a_size_is_a_limit() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let out = work.path().join("parts");
    let cut = |how: &str| {
        compile("tiny", "3x8x8", &["--partition", how], &out);
        packages(&out).iter().map(|p| tensors(p)).collect::<Vec<u64>>()
    };
    let halves = cut("2");
    assert_eq!(halves.len(), 2);
    let largest = *halves.iter().max().expect("parts");
    // What is counted for a block is at least what its package stores, and hardly more.
    assert_eq!(cut(&(largest + largest / 50).to_string()), halves, "what fits with 2 % to spare");
    for limit in [largest, largest - 1] {
        let parts = cut(&limit.to_string());
        assert!(parts.iter().all(|s| *s <= limit), "{parts:?}, at most {limit}");
    }
    assert!(cut(&(largest - 1).to_string()).len() > 2);
    let auto = work.path().join("auto");
    assert_eq!(compile("tiny", "3x8x8", &["--partition", "auto"], &auto)["parts"], 1);
}

#[test]
fn what_cannot_be_partitioned_is_named() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = arg(&golden("tiny").join("checkpoint"));
    let out = work.path().join("parts");
    let compile_args = ["compile", &checkpoint, "--latent", "3x8x8", "-o", &arg(&out)];
    let refused = |flags: &[&str], parts: &[&str]| {
        let message = fails(&[&compile_args[..], flags].concat());
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        assert!(!out.exists());
    };
    let usage = run(&[&compile_args[..], &["--target", "onnx", "--partition", "2"]].concat());
    assert_eq!(usage.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&usage.stderr).contains("--target coreml"));
    let package = arg(&work.path().join("x.mlpackage"));
    let message =
        fails(&["compile", &checkpoint, "--latent", "3x8x8", "--target", "coreml", "--partition", "2", "-o", &package]);
    assert!(message.contains("without .mlpackage"), "{message}");
    refused(&["--target", "coreml", "--partition", "9"], &["9 packages", "at most 4"]);
    refused(&["--target", "coreml", "--partition", "10kB"], &["block 0", "10000"]);

    // A folder that is not what its description says.
    compile("tiny", "3x8x8", &["--partition", "2"], &out);
    let verify = |dir: &Path, parts: &[&str]| {
        let reference = arg(&golden("tiny").join("golden.safetensors"));
        let message = fails(&["verify", &arg(dir), "--golden", &reference]);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    let description = out.join("partition.json");
    let text = fs::read_to_string(&description).expect("a description");
    fs::write(&description, text.replace("part1.mlpackage", "part0.mlpackage")).expect("written");
    verify(&out, &["part0.mlpackage"]);
    fs::write(&description, text.replace("s2dit-partition", "parts")).expect("written");
    verify(&out, &["partition.json", "format"]);
    // What it says of the whole is what its parts have.
    let mut whole: Value = serde_json::from_str(&text).expect("JSON");
    whole["inputs"][0]["shape"][0] = 9.into();
    fs::write(&description, whole.to_string()).expect("written");
    verify(&out, &["partition.json", "as its part has"]);
    fs::write(&description, &text).expect("written");
    fs::remove_dir_all(out.join("part1.mlpackage")).expect("removed");
    verify(&out, &["part1.mlpackage"]);
}

#[test]
fn a_clip_is_made_by_parts_as_by_the_whole() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = arg(&work.path().join("checkpoint"));
    let sets = ["--set", "chunk_frames=null", "--set", "sample_steps=2"];
    ok(&[&["init", "-q", "--preset", "tiny", "-o", &checkpoint][..], &sets].concat());
    let clip = |flags: &[&str], name: &str| {
        let (artifact, latents) = (arg(&work.path().join(name)), arg(&work.path().join(format!("{name}.safetensors"))));
        let base = ["compile", "-q", &checkpoint, "--target", "coreml", "--latent", "3x8x8", "-o", &artifact];
        ok(&[&base[..], flags].concat());
        ok(&["stream", "-q", &artifact, "--prompt-seed", "1", "-o", &latents]);
        SafetensorsFile::open(Path::new(&latents)).expect("latents").tensor_f32("latent").expect("a clip")
    };
    // Parts compute the prompt's keys block by block: the last bits differ.
    let far = compare(&clip(&["--partition", "2"], "parts"), &clip(&[], "whole.mlpackage"));
    assert!(far.snr_db > 60.0 && far.non_finite == 0, "{far:?}");
}
