//! `compile --partition`: a step as packages or assets that run one after the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{arg, fails, golden, ok, python, repo, run};
use s2dit_backends::coreai::Asset;
use s2dit_backends::coreml::Package;
use s2dit_files::SafetensorsFile;
use s2dit_runtime::compare::compare;
use serde_json::Value;

/// The targets whose steps come in parts.
const TARGETS: [&str; 2] = ["coreml", "coreai"];

fn compile(name: &str, latent: &str, flags: &[&str], out: &Path) -> Value {
    compile_for("coreml", name, latent, flags, out)
}

fn compile_for(target: &str, name: &str, latent: &str, flags: &[&str], out: &Path) -> Value {
    let checkpoint = arg(&golden(name).join("checkpoint"));
    let args = ["compile", "-q", "--json", &checkpoint, "--target", target, "--latent", latent, "-o", &arg(out)];
    serde_json::from_str(&ok(&[&args[..], flags].concat())).expect("a JSON summary")
}

fn packages(dir: &Path) -> Vec<PathBuf> {
    parts_of(dir, "mlpackage")
}

fn assets(dir: &Path) -> Vec<PathBuf> {
    parts_of(dir, "aimodel")
}

fn parts_of(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a folder").map(|e| e.expect("an entry").path());
    let mut found: Vec<PathBuf> = entries.filter(|p| p.extension().is_some_and(|e| e == ending)).collect();
    found.sort();
    found
}

fn names(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|p| p.file_name().unwrap_or_default().to_string_lossy().into_owned()).collect()
}

/// Bytes of the tensors in a package's weight file, without its header and records, or in an asset.
fn tensors(part: &Path) -> u64 {
    if part.extension().is_some_and(|e| e == "aimodel") {
        let asset = Asset::open(part).expect("an asset");
        return asset.resources().map(|(_, bytes)| bytes as u64).sum();
    }
    let package = Package::open(part).expect("a package");
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
                let said = ok(&[&["verify", "-q", &arg(&out), "--golden", &reference], *bar].concat());
                assert!(!said.contains("below the bar"), "{said}");
            }
            let inspected: Value = serde_json::from_str(&ok(&["inspect", "--json", &arg(&out)])).expect("JSON");
            assert_eq!(inspected["parts"].as_array().map(Vec::len), Some(parts.len()));
            ok(&["lint", &arg(&out)]);
            judge(&parts);
        }
    }
}

/// An asset in parts: the bars of whole assets, in every precision and layout.
#[test]
fn assets_in_parts_compute_what_the_reference_does() {
    let work = tempfile::tempdir().expect("a temporary folder");
    for (name, latent) in [("tiny", "3x8x8"), ("odd", "2x12x8"), ("post", "4x8x4"), ("padded", "2x10x14")] {
        let reference = arg(&golden(name).join("golden.safetensors"));
        for (how, flags, count) in [
            ("fp32", &[][..], "2"),
            ("fp32-ane", &["--compute", "ane", "--precision", "fp32"], "2"),
            ("fp16-weights", &["--precision", "fp16-weights"], "3"),
            ("fp16-ane", &["--compute", "ane"], "3"),
        ] {
            let out = work.path().join(format!("{name}-{how}"));
            let made = compile_for("coreai", name, latent, &[flags, &["--partition", count]].concat(), &out);
            let parts = assets(&out);
            assert_eq!(made["parts"].as_u64().map(|n| n.to_string()).as_deref(), Some(count));
            let wanted: Vec<String> = (0..parts.len()).map(|part| format!("part{part}.aimodel")).collect();
            assert_eq!((names(&parts), parts.len().to_string().as_str()), (wanted, count));
            let bar = if how.starts_with("fp32") { "114" } else { "50" };
            let verified =
                ok(&["verify", "-q", "--json", &arg(&out), "--golden", &reference, "--blocks", "--min-snr", bar]);
            let verified: Value = serde_json::from_str(&verified).expect("JSON");
            let rows = verified["rows"].as_array().expect("rows");
            assert!(rows.iter().filter(|row| row["name"].as_str().expect("a name").starts_with("block")).count() > 1);
            if how == "fp32" {
                for row in rows {
                    let error = row["relative_l2"].as_f64().expect("a number");
                    assert!(error <= 2e-6, "{name}: {row}");
                }
            }
            let inspected = ok(&["inspect", "--json", &arg(&out)]);
            let inspected: Value = serde_json::from_str(&inspected).expect("JSON");
            assert_eq!((&inspected["kind"], &inspected["target"]), (&"partition".into(), &"coreai".into()));
            assert_eq!(inspected["parts"].as_array().map(Vec::len), Some(parts.len()));
            assert_eq!(inspected["parts"][0]["metadata"]["s2ditc.part"], format!("1 of {count}"));
            assert!(ok(&["inspect", &arg(&out)]).contains(&format!("Core AI asset 2 of {count}")));
            let linted: Value = serde_json::from_str(&ok(&["lint", "--json", &arg(&out)])).expect("JSON");
            assert_eq!(linted["packages"].as_array().map(Vec::len), Some(parts.len()));
        }
    }
}

/// What is too large for an iPhone names the flag that mends it.
#[test]
fn an_asset_that_is_too_large_names_the_partition() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let out = work.path().join("whole.aimodel");
    compile_for("coreai", "tiny", "3x8x8", &[], &out);
    let rules = work.path().join("rules.json");
    let limits = ["asset-2gb", "metal-buffer"].map(|id| format!(r#"{{"id": "{id}", "params": {{"max": 3}}}}"#));
    fs::write(&rules, format!(r#"{{"rules": [{}]}}"#, limits.join(","))).expect("rules");
    let linted = run(&["lint", &arg(&out), "--json", "--rules-file", &arg(&rules)]);
    let linted: Value = serde_json::from_slice(&linted.stdout).expect("JSON");
    for rule in ["asset-2gb", "metal-buffer"] {
        assert_eq!(linted["packages"][0]["flags"][rule], "--partition auto", "{linted}");
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
        let names = names(&packages(&out));
        let mut wanted = [("denoise", 0), ("denoise", 1), ("prompt", 0), (writer, 0), (writer, 1)]
            .map(|(function, part)| format!("{function}{part}.mlpackage"));
        wanted.sort();
        assert_eq!(names, wanted);
        let reference = arg(&golden(golden_name).join("golden.safetensors"));
        ok(&["verify", "-q", &arg(&out), "--golden", &reference, "--fp16", "--min-snr", "45"]);
        judge(&packages(&out));
    }
}

/// A kernel of assets in parts: functions that share weights are in one asset, and parts pass nothing on but arrays.
#[test]
fn a_kernel_of_assets_in_parts_streams() {
    let work = tempfile::tempdir().expect("a temporary folder");
    for (golden_name, writer) in [("stream_post", "commit"), ("stream_last_step", "last_step")] {
        let (out, whole) = (work.path().join(golden_name), work.path().join(format!("{golden_name}-whole")));
        let stream = ["--mode", "stream"];
        let made = compile_for("coreai", golden_name, "8x4", &[&stream[..], &["--partition", "2"]].concat(), &out);
        assert_eq!(made["parts"], 2);
        assert_eq!(names(&assets(&out)), ["kernel0.aimodel", "kernel1.aimodel", "prompt0.aimodel"]);
        let functions = |part: usize| {
            let asset = Asset::open(&assets(&out)[part]).expect("an asset");
            asset.functions().map(str::to_string).collect::<Vec<String>>()
        };
        assert_eq!((functions(1), functions(2)), (vec!["denoise".into(), writer.into()], vec!["prompt".into()]));
        // Weights that functions share are stored once.
        compile_for("coreai", golden_name, "8x4", &stream, &whole);
        let (one, parts) = (tensors(&assets(&whole)[0]), assets(&out).iter().map(|p| tensors(p)).sum::<u64>());
        assert!(parts < one + one / 10, "{parts} bytes in parts, {one} in one asset");
        let reference = arg(&golden(golden_name).join("golden.safetensors"));
        ok(&["verify", "-q", &arg(&out), "--golden", &reference, "--min-snr", "110"]);
        let inspected: Value = serde_json::from_str(&ok(&["inspect", "--json", &arg(&out)])).expect("JSON");
        let denoise = inspected["functions"].as_array().expect("functions").iter().find(|f| f["name"] == "denoise");
        assert_eq!(denoise.expect("denoise")["files"], serde_json::json!(["kernel0.aimodel", "kernel1.aimodel"]));
        ok(&["lint", &arg(&out)]);
        // A compile takes the place of its own.
        compile_for("coreai", golden_name, "8x4", &stream, &out);
        assert_eq!(names(&assets(&out)), ["kernel.aimodel"]);
    }
}

#[test]
fn a_size_is_a_limit() {
    let work = tempfile::tempdir().expect("a temporary folder");
    for (target, flags) in [("coreml", &[][..]), ("coreai", &[]), ("coreai", &["--precision", "fp16-weights"])] {
        a_size_is_a_limit_for(target, flags, &work.path().join([&[target], flags].concat().concat()));
    }
}

fn a_size_is_a_limit_for(target: &str, flags: &[&str], work: &Path) {
    fs::create_dir(work).expect("a folder");
    let out = work.join("parts");
    let cut = |how: &str| {
        compile_for(target, "tiny", "3x8x8", &[flags, &["--partition", how]].concat(), &out);
        [packages(&out), assets(&out)].concat().iter().map(|p| tensors(p)).collect::<Vec<u64>>()
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
    let auto = work.join("auto");
    assert_eq!(compile_for(target, "tiny", "3x8x8", &[flags, &["--partition", "auto"]].concat(), &auto)["parts"], 1);
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
    for (target, ending) in [("coreml", "mlpackage"), ("coreai", "aimodel")] {
        let one = arg(&work.path().join(format!("x.{ending}")));
        let message =
            fails(&["compile", &checkpoint, "--latent", "3x8x8", "--target", target, "--partition", "2", "-o", &one]);
        assert!(message.contains(&format!("without .{ending}")), "{message}");
        refused(&["--target", target, "--partition", "9"], &["9 parts", "at most 4"]);
        refused(&["--target", target, "--partition", "10kB"], &["block 0", "10000"]);
    }
    let streamed = arg(&golden("stream_tiny").join("checkpoint"));
    for target in TARGETS {
        let base = ["compile", &streamed, "--target", target, "--mode", "stream", "--latent", "8x8", "-o", &arg(&out)];
        let message = fails(&[&base[..], &["--states", "native", "--partition", "2"]].concat());
        assert!(message.contains("--states io") && !out.exists(), "{message}");
    }
}

/// A folder that is not what its description says.
#[test]
fn damaged_partitions_are_named() {
    for (target, ending) in [("coreml", "mlpackage"), ("coreai", "aimodel")] {
        damaged_partitions_are_named_for(target, ending);
    }
}

fn damaged_partitions_are_named_for(target: &str, ending: &str) {
    let work = tempfile::tempdir().expect("a temporary folder");
    let out = work.path().join("parts");
    let [first, second] = [0, 1].map(|part| format!("part{part}.{ending}"));
    compile_for(target, "tiny", "3x8x8", &["--partition", "2"], &out);
    assert!(fails(&["run", &arg(&out)]).contains("found parts that run one after the other"));
    let verify = |dir: &Path, parts: &[&str]| {
        let reference = arg(&golden("tiny").join("golden.safetensors"));
        let message = fails(&["verify", &arg(dir), "--golden", &reference]);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    let description = out.join("partition.json");
    let text = fs::read_to_string(&description).expect("a description");
    fs::write(&description, text.replace(&second, &first)).expect("written");
    verify(&out, &[&first]);
    fs::write(&description, text.replace("s2dit-partition", "parts")).expect("written");
    verify(&out, &["partition.json", "format"]);
    // What it says of the whole is what its parts have.
    let mut whole: Value = serde_json::from_str(&text).expect("JSON");
    whole["inputs"][0]["shape"][0] = 9.into();
    fs::write(&description, whole.to_string()).expect("written");
    verify(&out, &["partition.json", "as its part has"]);
    fs::write(&description, &text).expect("written");
    // A part of another compile.
    let (sown, other) = (arg(&work.path().join("sown")), work.path().join("other"));
    ok(&["init", "-q", "--preset", "tiny", "--seed", "99", "-o", &sown]);
    let compile = ["compile", "-q", &sown, "--target", target, "--latent", "3x8x8", "--partition", "2"];
    ok(&[&compile[..], &["-o", &arg(&other)]].concat());
    fs::rename(out.join(&second), work.path().join("aside")).expect("moved");
    verify(&out, &[&second]);
    fs::rename(other.join(&second), out.join(&second)).expect("moved");
    verify(&out, &[&second, "a part of another model?"]);
}

#[test]
fn a_clip_is_made_by_parts_as_by_the_whole() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = arg(&work.path().join("checkpoint"));
    let sets = ["--set", "chunk_frames=null", "--set", "sample_steps=2"];
    ok(&[&["init", "-q", "--preset", "tiny", "-o", &checkpoint][..], &sets].concat());
    let clip = |target: &str, flags: &[&str], name: &str| {
        let (artifact, latents) = (arg(&work.path().join(name)), arg(&work.path().join(format!("{name}.safetensors"))));
        let base = ["compile", "-q", &checkpoint, "--target", target, "--latent", "3x8x8", "-o", &artifact];
        ok(&[&base[..], flags].concat());
        ok(&["stream", "-q", &artifact, "--prompt-seed", "1", "-o", &latents]);
        SafetensorsFile::open(Path::new(&latents)).expect("latents").tensor_f32("latent").expect("a clip")
    };
    // Parts compute the prompt's keys block by block: the last bits differ.
    for (target, ending, bar) in [("coreml", "mlpackage", 60.0), ("coreai", "aimodel", 110.0)] {
        let parts = clip(target, &["--partition", "2"], &format!("{target}-parts"));
        let far = compare(&parts, &clip(target, &[], &format!("whole.{ending}")));
        assert!(far.snr_db > bar && far.non_finite == 0, "{target}: {far:?}");
    }
}
