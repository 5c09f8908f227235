//! Core AI assets: the numbers by Apple's own runtime against PyTorch in float64, the bytes by its library, and the folder.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::common::clip::{inspect, verify};
use crate::common::{arg, fails, files, golden, ok, repo, with_fields};

/// Lowest SNR of an fp32 asset against PyTorch in float64, in dB.
const FP32_SNR: f64 = 115.0;
/// The same of every chunk of a stream.
const STREAM_SNR: f64 = 110.0;
/// The same where every result is fp16.
const FP16_SNR: f64 = 45.0;

/// A golden, its size as flags of `compile`, and fields of the configuration that diffusers keeps in its pipeline.
const GOLDENS: [(&str, [&str; 2], Option<&str>); 9] = [
    ("tiny", ["--latent", "3x8x8"], None),
    ("relu", ["--latent", "3x8x8"], None),
    ("post", ["--latent", "4x8x4"], None),
    ("wan_tiny", ["--latent", "3x8x8"], Some(r#"{"text_len": 16}"#)),
    ("ltx_tiny", ["--latent", "3x4x6"], Some(r#"{"text_len": 16}"#)),
    ("sana_tiny", ["--latent", "3x6x10"], Some(r#"{"text_len": 16}"#)),
    ("open_sora_tiny", ["--latent", "2x6x10"], Some(r#"{"text_len": 9}"#)),
    ("text_umt5", ["--tokens", "40"], None),
    ("wan_vae", ["--latent", "3x3x4"], None),
];

/// Compiles a golden's checkpoint to an asset.
fn compile(name: &str, size: [&str; 2], fields: Option<&str>, work: &Path, flags: &[&str]) -> String {
    let mut checkpoint = golden(name).join("checkpoint");
    if let Some(fields) = fields {
        let copy = work.join(name);
        std::fs::create_dir_all(&copy).expect("a folder");
        let made = copy.join("checkpoint");
        checkpoint = if made.exists() { made } else { with_fields(&checkpoint, &copy, fields) };
    }
    let out = arg(&work.join(format!("{name}{}.aimodel", flags.concat())));
    ok(&[&["compile", "-q", &arg(&checkpoint), "--target", "coreai", "-o", &out], &size[..], flags].concat());
    out
}

/// What Apple's runtime computes, against a golden.
fn snr(asset: &str, name: &str, flags: &[&str]) -> f64 {
    let reference = arg(&golden(name).join("golden.safetensors"));
    let args = ["verify", asset, "--golden", &reference, "--engine", "coreai", "--json", "-q"];
    let report: Value = serde_json::from_str(&ok(&[&args, flags].concat())).expect("JSON");
    assert_eq!(report["engine"], "coreai");
    let rows = report["rows"].as_array().expect("rows").iter();
    rows.map(|row| row["snr_db"].as_f64().expect("a number")).fold(f64::INFINITY, f64::min)
}

#[test]
fn goldens_are_those_of_pytorch() {
    let work = tempfile::tempdir().expect("a temporary folder");
    for (name, size, fields) in GOLDENS {
        let asset = compile(name, size, fields, work.path(), &[]);
        let found = snr(&asset, name, &[]);
        assert!(found >= FP32_SNR, "{name}: {found} dB");
    }
}

/// What is read back from an asset, run by ONNX Runtime: a second opinion that shares nothing with Apple's runtime.
#[test]
fn what_is_read_back_is_the_golden_too() {
    let work = tempfile::tempdir().expect("a temporary folder");
    for (name, size, fields) in GOLDENS {
        let asset = compile(name, size, fields, work.path(), &[]);
        let report = verify(&asset, &["--golden", &arg(&golden(name).join("golden.safetensors"))]);
        for row in report["rows"].as_array().expect("rows") {
            let error = row["relative_l2"].as_f64().expect("a number");
            assert!(error <= 2e-6, "{name}: relative L2 {error:e}");
        }
    }
}

/// Values that end blocks have names: Apple's runtime returns them from a copy of the asset that has them among its outputs, and ONNX Runtime from what is read back.
#[test]
fn blocks_are_those_of_pytorch() {
    let work = tempfile::tempdir().expect("a temporary folder");
    for (name, size, fields) in GOLDENS.into_iter().filter(|(name, ..)| ["tiny", "post", "wan_tiny"].contains(name)) {
        let asset = compile(name, size, fields, work.path(), &[]);
        let reference = arg(&golden(name).join("golden.safetensors"));
        for engine in ["coreai", "ort"] {
            let report = verify(&asset, &["--golden", &reference, "--blocks", "--engine", engine]);
            let rows = report["rows"].as_array().expect("rows");
            let blocks = rows.iter().filter(|row| row["name"].as_str().expect("a name").starts_with("block"));
            assert!(blocks.count() > 1, "{name} {engine}: {report}");
            for row in rows {
                let found = row["snr_db"].as_f64().expect("a number");
                assert!(found >= FP32_SNR, "{name} {engine}: {row}");
            }
        }
        // A block of another value is not the golden's.
        let metadata = Path::new(&asset).join("metadata.json");
        let text = std::fs::read_to_string(&metadata).expect("metadata");
        let mut read: Value = serde_json::from_str(&text).expect("JSON");
        let values = read["creatorDefinedMetadata"]["s2ditc.values"].as_str().expect("names of values");
        let mut values: Value = serde_json::from_str(values).expect("JSON");
        let (first, second) = (values["main"]["block0"].clone(), values["main"]["block1"].clone());
        (values["main"]["block0"], values["main"]["block1"]) = (second, first);
        read["creatorDefinedMetadata"]["s2ditc.values"] = values.to_string().into();
        std::fs::write(&metadata, read.to_string()).expect("metadata");
        for engine in ["coreai", "ort"] {
            let swapped =
                crate::common::run(&["verify", &asset, "--golden", &reference, "--blocks", "--engine", engine]);
            // Of another shape, or with other numbers.
            let said = [&swapped.stdout[..], &swapped.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            let of_shape = said.contains("tensor `block0`: found") && swapped.status.code() == Some(1);
            assert!(of_shape || said.contains("the first block below the bar is block0"), "{engine}: {said}");
        }
        values["main"]["block0"] = 1_000_000.into();
        read["creatorDefinedMetadata"]["s2ditc.values"] = values.to_string().into();
        std::fs::write(&metadata, read.to_string()).expect("metadata");
        let said = fails(&["verify", &asset, "--golden", &reference]);
        assert!(said.contains("s2ditc.values") && said.contains("found number 1000000"), "{said}");
    }
}

/// An asset of anybody's runs on named arrays, by both engines.
#[test]
fn run_gives_what_pytorch_gives() {
    use s2dit_files::arrays::{self, Format};
    let work = tempfile::tempdir().expect("a temporary folder");
    let asset = compile("tiny", ["--latent", "3x8x8"], None, work.path(), &[]);
    let reference = golden("tiny").join("golden.safetensors");
    let listed: Value = serde_json::from_str(&ok(&["run", &asset, "--json"])).expect("JSON");
    assert_eq!((&listed["functions"][0], &listed["inputs"][0]["name"]), (&"main".into(), &"latent".into()));
    let all = arrays::read(&reference).expect("a golden");
    let inputs = arg(&work.path().join("in.npz"));
    let given = all.iter().filter(|(name, _)| ["latent", "timestep", "text"].contains(&name.as_str()));
    let given = given.map(|(name, array)| (name.clone(), array.clone())).collect();
    let file = std::fs::File::create(&inputs).expect("a file");
    arrays::write(Format::Npz, &given, file).expect("inputs");
    let floats = |array: &arrays::Array| array.tensor().data.iter().map(|x| *x as f32).collect::<Vec<f32>>();
    let wanted = floats(&all["velocity"]);
    for engine in ["coreai", "ort"] {
        let out = arg(&work.path().join(format!("{engine}.safetensors")));
        ok(&["run", &asset, "--inputs", &inputs, "-o", &out, "--engine", engine, "--time", "1"]);
        let found = floats(&arrays::read(Path::new(&out)).expect("outputs")["velocity"]);
        let metrics = s2dit_runtime::compare::compare(&found, &wanted);
        assert!(metrics.snr_db >= FP32_SNR, "{engine}: {metrics:?}");
    }
    assert!(fails(&["run", &asset, "--inputs", &inputs, "--function", "other"]).contains("no function `other`"));
    assert!(fails(&["run", &asset, "--engine", "coreai", "--fp16"]).contains("computes as the asset says"));
    assert!(fails(&["run", &asset, "--engine", "tract"]).contains("expected `ort` or `coreai`"));
    let onnx = arg(&work.path().join("tiny.onnx"));
    let checkpoint = arg(&golden("tiny").join("checkpoint"));
    ok(&["compile", "-q", &checkpoint, "--target", "onnx", "--latent", "3x8x8", "-o", &onnx]);
    assert!(fails(&["run", &onnx, "--engine", "coreai"]).contains("--target coreai"));
}

/// A kernel is one asset with three functions; states are inputs and outputs, or handles.
#[test]
fn streams_are_those_of_pytorch() {
    let work = tempfile::tempdir().expect("a temporary folder");
    for (name, latent) in [("stream_tiny", "8x8"), ("stream_last_step", "8x4")] {
        let reference = arg(&golden(name).join("golden.safetensors"));
        for states in ["io", "native"] {
            let out = arg(&work.path().join(format!("{name}-{states}")));
            let checkpoint = arg(&golden(name).join("checkpoint"));
            let flags = ["--target", "coreai", "--mode", "stream", "--latent", latent, "--states", states];
            ok(&[&["compile", "-q", &checkpoint, "-o", &out], &flags[..]].concat());
            for engine in [&["--engine", "coreai", "--chunks", "2"][..], &[]] {
                let report = verify(&out, &[&["--golden", &reference], engine].concat());
                for row in report["rows"].as_array().expect("rows") {
                    let found = row["snr_db"].as_f64().expect("a number");
                    assert!(found >= STREAM_SNR, "{name} {states} {engine:?}: {found} dB");
                }
            }
            judge(&[Path::new(&out).join("kernel.aimodel/main.mlirb")]);
        }
    }
}

/// A decoder that streams, in both forms and by both engines.
#[test]
fn streams_of_decoders_are_those_of_pytorch() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = arg(&golden("wan_vae").join("checkpoint"));
    let reference = arg(&golden("wan_vae").join("golden.safetensors"));
    for states in ["io", "native"] {
        let out = arg(&work.path().join(states));
        let flags = ["--target", "coreai", "--mode", "stream", "--latent", "3x4", "--states", states];
        ok(&[&["compile", "-q", &checkpoint, "-o", &out], &flags[..]].concat());
        for engine in ["coreai", "ort"] {
            let report = verify(&out, &["--golden", &reference, "--engine", engine]);
            let rows = report["rows"].as_array().expect("rows");
            assert!(rows.len() > 1, "{report}");
            for row in rows {
                let found = row["snr_db"].as_f64().expect("a number");
                assert!(found >= STREAM_SNR, "{states} {engine}: {found} dB");
            }
        }
        judge(&[Path::new(&out).join("kernel.aimodel/main.mlirb")]);
    }
}

/// Assets of a partition run one after the other in Apple's runtime; so do those of a kernel.
#[test]
fn parts_are_those_of_pytorch() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let programs = |out: &Path| {
        let entries = std::fs::read_dir(out).expect("a folder").map(|entry| entry.expect("an entry").path());
        entries.filter(|path| path.is_dir()).map(|asset| asset.join("main.mlirb")).collect::<Vec<PathBuf>>()
    };
    for (name, size, fields) in GOLDENS.into_iter().filter(|(name, ..)| ["tiny", "post", "wan_tiny"].contains(name)) {
        let checkpoint = golden(name).join("checkpoint");
        let checkpoint = fields.map_or(checkpoint.clone(), |fields| with_fields(&checkpoint, work.path(), fields));
        let out = work.path().join(format!("{name}-parts"));
        let flags = ["compile", "-q", &arg(&checkpoint), "--target", "coreai", "--partition", "2", "-o", &arg(&out)];
        ok(&[&flags[..], &size].concat());
        let reference = arg(&golden(name).join("golden.safetensors"));
        let report = verify(&arg(&out), &["--golden", &reference, "--blocks", "--engine", "coreai"]);
        let rows = report["rows"].as_array().expect("rows");
        let blocks = rows.iter().filter(|row| row["name"].as_str().expect("a name").starts_with("block"));
        assert!(blocks.count() > 1, "{report}");
        for row in rows {
            let found = row["snr_db"].as_f64().expect("a number");
            assert!(found >= FP32_SNR, "{name}: {row}");
        }
        assert_eq!(programs(&out).len(), 2);
        judge(&programs(&out));
    }
    let (out, reference) = (work.path().join("kernel"), arg(&golden("stream_last_step").join("golden.safetensors")));
    let checkpoint = arg(&golden("stream_last_step").join("checkpoint"));
    let flags = ["--target", "coreai", "--mode", "stream", "--latent", "8x4", "--partition", "2"];
    ok(&[&["compile", "-q", &checkpoint, "-o", &arg(&out)], &flags[..]].concat());
    let report = verify(&arg(&out), &["--golden", &reference, "--engine", "coreai", "--chunks", "2"]);
    for row in report["rows"].as_array().expect("rows") {
        let found = row["snr_db"].as_f64().expect("a number");
        assert!(found >= STREAM_SNR, "{row}");
    }
    assert_eq!(programs(&out).len(), 3);
    judge(&programs(&out));
    // Apple's runtime runs assets alone.
    let (packages, reference) = (work.path().join("packages"), arg(&golden("tiny").join("golden.safetensors")));
    let checkpoint = arg(&golden("tiny").join("checkpoint"));
    let flags = ["--target", "coreml", "--latent", "3x8x8", "--partition", "2", "-o", &arg(&packages)];
    ok(&[&["compile", "-q", &checkpoint], &flags[..]].concat());
    let said = fails(&["verify", &arg(&packages), "--golden", &reference, "--engine", "coreai"]);
    assert!(said.contains("runs Core AI assets"), "{said}");
}

#[test]
fn fp16_is_near() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let asset = compile("tiny", ["--latent", "3x8x8"], None, work.path(), &["--precision", "fp16"]);
    let found = snr(&asset, "tiny", &["--min-snr", "40"]);
    assert!(found >= FP16_SNR, "{found} dB");
}

/// Palettes and integers: the numbers of the same weights in fp32.
#[test]
fn compressed_weights_are_the_numbers_that_they_stand_for() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = arg(&work.path().join("wide"));
    let sets = ["--set", "num_attention_heads=4", "--set", "attention_head_dim=32", "--set", "ffn_dim=256"];
    ok(&[&["init", "-q", "--preset", "tiny", "--seed", "3", "-o", &checkpoint], &sets[..]].concat());
    for scheme in ["palette4-group16", "palette3", "int4-block32", "int8"] {
        let out = arg(&work.path().join(format!("{scheme}.aimodel")));
        let flags = ["--target", "coreai", "--latent", "1x8x8", "--quantize", scheme];
        ok(&[&["compile", "-q", &checkpoint, "-o", &out], &flags[..]].concat());
        let args =
            ["verify", &out, "--checkpoint", &checkpoint, "--quantize", scheme, "--engine", "coreai", "--json", "-q"];
        let report: Value = serde_json::from_str(&ok(&args)).expect("JSON");
        let found = report["rows"][0]["snr_db"].as_f64().expect("a number");
        assert!(found >= FP32_SNR, "{scheme}: {found} dB: {report}");
    }
}

/// Apple's library reads every asset and writes it anew: the same bytes, but for the producer's name.
#[test]
fn bytes_are_those_of_the_library() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let mut programs: Vec<PathBuf> = vec![repo().join("backends/src/coreai/fixtures")];
    for (name, size, fields) in GOLDENS {
        programs.push(PathBuf::from(compile(name, size, fields, work.path(), &[])).join("main.mlirb"));
    }
    judge(&programs);
}

/// Encodings, ops and numbers are those of one version of Apple's library. Another is judged before it takes its place.
#[test]
fn the_library_has_the_version_that_was_judged() {
    let judged = s2dit_runtime::coreai_engine::VERSION;
    let python = s2dit_runtime::coreai_engine::locate(|_| {}).expect("a Python with coreai-core");
    let asks = "from importlib.metadata import version; print(version('coreai-core'))";
    let said = Command::new(&python).args(["-c", asks]).output().expect("Python runs");
    let found = String::from_utf8_lossy(&said.stdout).trim().to_string();
    assert_eq!(
        found,
        judged,
        "`{}` has coreai-core {found}, and the encodings and fixtures here are those of {judged}. To take the new one: run the tests of this file and of \
         backends/src/coreai with it, set VERSION and WHEELS in runtime/src/coreai_engine.rs, and write the fixtures with examples/reference/coreai_fixtures.py",
        python.display()
    );
    for place in ["runtime/src/coreai_engine.rs", "docs/coreai.md", "examples/reference/coreai_fixtures.py"] {
        let text = std::fs::read_to_string(repo().join(place)).expect("a file of the repository");
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.').map(|word| word.trim_matches('.'));
        let versions: Vec<&str> = words.filter(|word| word.starts_with("1.0.0")).collect();
        assert!(!versions.is_empty() && versions.iter().all(|version| *version == judged), "{place}: {versions:?}");
    }
}

/// Lets Apple's library read programs and write them anew: every section must be the same. That can be asked only of programs without an op of constants
/// alone, such as the cast of a weight: the library computes those while it reads.
fn judge(programs: &[PathBuf]) {
    let python = s2dit_runtime::coreai_engine::locate(|_| {}).expect("a Python with coreai-core");
    let mut judge = Command::new(python);
    judge.arg(repo().join("examples/reference/coreai_fixtures.py")).arg("--check").args(programs);
    let output = judge.output().expect("the judge runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// The same input gives the same bytes, with any number of threads; the hash is the program's; nothing is a clock's.
#[test]
fn bytes_follow_from_the_input() {
    use sha2::{Digest, Sha256};
    let work = tempfile::tempdir().expect("a temporary folder");
    let make = |name: &str, threads: &str| {
        let out = work.path().join(name);
        let checkpoint = arg(&golden("tiny").join("checkpoint"));
        let flags = ["--target", "coreai", "--latent", "3x8x8", "--threads", threads];
        ok(&[&["compile", "-q", &checkpoint, "-o", &arg(&out)], &flags[..]].concat());
        files(&out)
    };
    let (one, two) = (make("a.aimodel", "1"), make("b.aimodel", "4"));
    assert!(one == two);
    let file = |name: &str| &one.iter().find(|(path, _)| path.ends_with(name)).expect("a file").1;
    assert_eq!(file("main.hash"), &Sha256::digest(file("main.mlirb")).to_vec());
    let metadata: Value = serde_json::from_slice(file("metadata.json")).expect("JSON");
    assert_eq!(metadata["assetVersion"], "2.0");
    assert!(
        metadata["creationDate"].is_null() && metadata["creatorDefinedMetadata"]["s2ditc.experimental"].is_string()
    );
    // An asset of ours is replaced, another's by force only.
    make("a.aimodel", "2");
    let foreign = work.path().join("b.aimodel/metadata.json");
    std::fs::write(&foreign, r#"{"assetVersion": "2.0", "producer": "another"}"#).expect("a file");
    let checkpoint = arg(&golden("tiny").join("checkpoint"));
    let out = arg(&work.path().join("b.aimodel"));
    let again = ["compile", "-q", &checkpoint, "--target", "coreai", "--latent", "3x8x8", "-o", &out];
    assert!(fails(&again).contains("--force"));
    ok(&[&again[..], &["--force"]].concat());
}

#[test]
fn an_asset_is_inspected_and_what_is_not_there_is_refused() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let asset = compile("tiny", ["--latent", "3x8x8"], None, work.path(), &[]);
    let report = inspect(&asset);
    assert_eq!(report["kind"], "coreai");
    assert_eq!(report["outputs"][0]["name"], "velocity");
    assert_eq!(report["inputs"][0]["shape"], serde_json::json!([1, 4, 3, 8, 8]));
    assert_eq!(report["metadata"]["s2ditc.compute"], "gpu");
    let reference = arg(&golden("tiny").join("golden.safetensors"));
    let refused = |flags: &[&str]| fails(&[&["verify", &asset, "--golden", &reference], flags].concat());
    assert!(refused(&["--engine", "coreai", "--fp16"]).contains("--fp16"));
    // A Python that is none, or that lacks the runtime.
    let plain = arg(&crate::common::python::interpreter());
    for (python, says) in [("/bin/true", "ended without results"), (plain.as_str(), "lacks a module")] {
        let mut command = crate::common::s2ditc();
        command.env("S2DITC_COREAI_PYTHON", python);
        let out = command.args(["verify", &asset, "--golden", &reference, "--engine", "coreai"]).output();
        let out = out.expect("s2ditc starts");
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(1) && stderr.contains(says), "{stderr}");
        assert!(stderr.contains(python) && stderr.contains("S2DITC_COREAI_PYTHON"), "{stderr}");
    }
    assert!(fails(&["estimate", &asset]).contains("a Core AI asset"));
    // What PyTorch's layout in fp32 is to the Neural Engine, in the names of modules.
    let linted: Value = serde_json::from_str(&ok(&["lint", &asset, "--json"])).expect("JSON");
    let report = &linted["packages"][0];
    let of =
        |rule: &str| report["findings"].as_array().expect("findings").iter().filter(move |f| f["rule"] == rule).count();
    assert!(of("fp32") > 100 && of("weights-1gb") == 0 && report["flags"]["fp32"] == "--precision fp16", "{report}");
    // Rules of assets alone, with limits that a small one passes.
    let small = work.path().join("rules.json");
    let limits = ["asset-2gb", "metal-buffer"].map(|id| format!(r#"{{"id": "{id}", "params": {{"max": 3}}}}"#));
    std::fs::write(&small, format!(r#"{{"rules": [{}]}}"#, limits.join(","))).expect("rules");
    let limited = crate::common::run(&["lint", &asset, "--json", "--rules-file", &arg(&small)]);
    let limited: Value = serde_json::from_slice(&limited.stdout).expect("JSON");
    for rule in ["asset-2gb", "metal-buffer"] {
        let findings = limited["packages"][0]["findings"].as_array().expect("findings");
        assert_eq!(findings.iter().filter(|f| f["rule"] == rule).count(), 1, "{rule}");
        assert_eq!(of(rule), 0, "{rule}");
    }
    let ops = report["ops"].as_array().expect("ops");
    assert!(ops.iter().any(|op| op["type"] == "matmul" && op["provenance"] == "blocks_0_attn1_to_q"), "{report}");
    assert_eq!(report["summary"]["functions"][0]["blocks"].as_object().expect("blocks").len(), 4);
    let checkpoint = arg(&golden("stream_tiny").join("checkpoint"));
    let out = arg(&work.path().join("kernel"));
    let stream = ["compile", &checkpoint, "--target", "coreai", "--mode", "stream", "--latent", "8x8", "-o", &out];
    let separate = crate::common::run(&[&stream[..], &["--functions", "separate"]].concat());
    assert!(
        separate.status.code() == Some(2) && String::from_utf8_lossy(&separate.stderr).contains("has all functions")
    );
    // A flipped bit of a weight is found by the hash; what is wrong with the metadata is named.
    let damaged = |file: &str, change: &dyn Fn(&mut Vec<u8>), says: &str| {
        let path = Path::new(&asset).join(file);
        let whole = std::fs::read(&path).expect("a file of the asset");
        let mut bytes = whole.clone();
        change(&mut bytes);
        std::fs::write(&path, &bytes).expect("a file of the asset");
        for command in [&["inspect", &asset][..], &["verify", &asset, "--golden", &reference]] {
            let error = fails(command);
            assert!(error.contains(file) && error.contains(says), "{error}");
        }
        std::fs::write(&path, whole).expect("a file of the asset");
    };
    damaged("main.hash", &|bytes| bytes[3] ^= 1, "is not the SHA-256");
    damaged("main.hash", &|bytes| bytes.clear(), "is not the SHA-256");
    damaged("metadata.json", &|bytes| *bytes = b"{}".to_vec(), "assetVersion");
    damaged("metadata.json", &|bytes| *bytes = b"\xff".to_vec(), "not UTF-8");
    let resources = std::fs::read(Path::new(&asset).join("main.mlirb")).expect("a program").len() / 2;
    damaged("main.mlirb", &|bytes| bytes[resources] ^= 1, "main.mlirb");
    // A program that is cut is no asset.
    let program = Path::new(&asset).join("main.mlirb");
    let bytes = std::fs::read(&program).expect("a program");
    std::fs::write(&program, &bytes[..bytes.len() / 2]).expect("a program");
    let cut = fails(&["verify", &asset, "--golden", &reference, "--engine", "coreai"]);
    assert!(cut.contains("main.mlirb"), "{cut}");
}

/// The layout of the Neural Engine in fp16: the numbers of fp16, and nothing of fp32 but the phases of the timestep.
#[test]
fn the_engines_layout_is_near_and_has_no_fp32_but_phases() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let asset = compile("tiny", ["--latent", "3x8x8"], None, work.path(), &["--compute", "ane"]);
    let found = snr(&asset, "tiny", &["--min-snr", "40"]);
    assert!(found >= FP16_SNR - 5.0, "{found} dB");
    let linted: Value = serde_json::from_str(&ok(&["lint", &asset, "--json"])).expect("JSON");
    let report = &linted["packages"][0];
    let (verdicts, ops) = (&report["summary"]["verdicts"], report["ops"].as_array().expect("ops"));
    let leaves = verdicts["leaves"].as_u64().expect("a count") as usize;
    assert!(leaves * 10 < ops.len(), "{verdicts}");
    for op in ops.iter().filter(|op| op["rules"].as_array().expect("rules").contains(&"fp32".into())) {
        let from = op["provenance"].as_str().unwrap_or_default();
        assert!(!from.starts_with("blocks_"), "{op}");
    }
    // The same layout in fp32 is exact.
    let asset = compile("tiny", ["--latent", "3x8x8"], None, work.path(), &["--compute", "ane", "--precision", "fp32"]);
    let found = snr(&asset, "tiny", &[]);
    assert!(found >= FP32_SNR, "{found} dB");
}

/// Weights of fp16 numbers: half the bytes, and what fp32 makes of these numbers.
#[test]
fn fp16_weights_are_computed_with_in_fp32() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let whole = compile("tiny", ["--latent", "3x8x8"], None, work.path(), &[]);
    let half = compile("tiny", ["--latent", "3x8x8"], None, work.path(), &["--precision", "fp16-weights"]);
    let bytes = |asset: &str| inspect(asset)["weight_bytes"].as_u64().expect("bytes");
    assert!(bytes(&half) * 100 < bytes(&whole) * 60, "{} of {}", bytes(&half), bytes(&whole));
    let (apple, ort) = (snr(&half, "tiny", &["--min-snr", "50"]), {
        let report = verify(&half, &["--golden", &arg(&golden("tiny").join("golden.safetensors")), "--min-snr", "50"]);
        assert_eq!(report["arithmetic"], "fp32 arithmetic on fp16 weights");
        report["rows"][0]["snr_db"].as_f64().expect("a number")
    });
    // Rounding the weights is the only error, so both engines have the same.
    assert!(apple > 50.0 && (apple - ort).abs() < 0.5, "{apple} dB, {ort} dB");
    let checkpoint = arg(&golden("tiny").join("checkpoint"));
    let out = arg(&work.path().join("tiny.onnx"));
    let other =
        ["compile", &checkpoint, "--target", "onnx", "--latent", "3x8x8", "-o", &out, "--precision", "fp16-weights"];
    assert!(fails(&other).contains("is for --target coreai"));
}
