//! `compile --device` and `--recipe`: every lowering keeps the numbers of goldens, is chosen by what it saves, and is recorded; flags that contradict each other are refused.

use std::fs;
use std::path::Path;

use crate::common::{arg, fails, golden, ok, repo, run, with_fields};
use serde_json::Value;

/// A device for which every lowering pays: ops cost nothing, and the smallest values leave the working set.
fn strict(dir: &Path, working_set_mb: f64, slice_largest: f64) -> String {
    let path = dir.join(format!("strict{working_set_mb}.toml"));
    let figure = |name: &str, value: f64| {
        format!(
            "[figures.{name}]\nlow = {value:?}\nlikely = {value:?}\nhigh = {value:?}\nconfidence = \"low\"\nsource = \"a test\"\n"
        )
    };
    let figures = [
        ("working_set_mb", working_set_mb),
        ("spill_gbps", 0.001),
        ("resident_gbps", 100.0),
        ("op_us", 0.0),
        ("compile_ms_per_op", 0.0),
        ("product_knee_gflop", 1e-9),
        ("narrow_channels", 1.0),
    ];
    let text: String = figures.into_iter().map(|(name, value)| figure(name, value)).collect();
    let limit =
        format!("[limits.slice_largest]\nvalue = {slice_largest:?}\nconfidence = \"low\"\nsource = \"a test\"\n");
    fs::write(&path, format!("name = \"strict\"\n{text}{limit}")).expect("a device");
    arg(&path)
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&ok(args)).expect("JSON")
}

fn taken(report: &Value) -> Vec<String> {
    let tried = report["device"]["tried"].as_array().expect("what was tried");
    let name = |t: &Value| t["name"].as_str().expect("a name").to_owned();
    tried.iter().filter(|t| t["taken"] == true).map(name).collect()
}

/// Runs what must fail and make nothing, and returns its error.
fn refused(args: &[&str]) -> String {
    let done = run(args);
    let error = String::from_utf8(done.stderr).expect("UTF-8");
    assert!(matches!(done.status.code(), Some(1 | 2)) && !error.contains("panicked"), "{args:?}: {error}");
    error
}

fn snr(report: &Value) -> f64 {
    let rows = report["rows"].as_array().expect("rows");
    rows.iter().map(|row| row["snr_db"].as_f64().expect("decibels")).fold(f64::INFINITY, f64::min)
}

/// The bars are those of packages without a device (tests/models/goldens.rs).
#[test]
fn lowerings_keep_the_numbers_of_goldens() {
    let dir = tempfile::tempdir().expect("a folder");
    // Rows of queries are copied before they are cut: tiles gain where the engine keeps what it slices.
    let (tiny, larger) = (strict(dir.path(), 0.004, 4094.0), strict(dir.path(), 0.5, 65504.0));
    let small = dir.path().join("seeded");
    ok(&["init", "-q", "--preset", "small", "--seed", "7", "--dtype", "bf16", "-o", &arg(&small)]);
    let mut all: Vec<String> = Vec::new();
    for (name, latent, fields) in [
        ("tiny", "3x8x8", "{}"),
        ("odd", "2x12x8", "{}"),
        ("per_head", "1x12x8", "{}"),
        ("post", "4x8x4", "{}"),
        ("stride3", "2x6x12", "{}"),
        ("wan_tiny", "3x8x8", r#"{"text_len": 16}"#),
        ("ltx_tiny", "3x4x6", r#"{"text_len": 16}"#),
        ("sana_tiny", "3x6x10", r#"{"text_len": 16}"#),
        ("small", "3x16x24", "{}"),
    ] {
        let place = dir.path().join(name);
        fs::create_dir(&place).expect("a folder");
        let (checkpoint, device) = match name {
            "small" => (arg(&small), &larger),
            _ => (arg(&with_fields(&golden(name).join("checkpoint"), &place, fields)), &tiny),
        };
        let reference = arg(&golden(name).join("golden.safetensors"));
        let package = arg(&dir.path().join(format!("{name}.mlpackage")));
        let base = ["compile", "--target", "coreml", "--latent", latent, "--json"];
        let made = json(&[&base[..], &["--device", device, "-o", &package, &checkpoint]].concat());
        all.extend(taken(&made));
        assert!(made["device"]["step_ms"].as_f64() <= made["device"]["plain_ms"].as_f64(), "{name}");
        let rounded = json(&["verify", "-q", &package, "--golden", &reference, "--fp16", "--json", "--min-snr", "0"]);
        assert!(snr(&rounded) >= 50.0, "{name}: {rounded:#}");
        // The same ops in fp32 are the model.
        let exact = arg(&dir.path().join(format!("{name}32.mlpackage")));
        let fp32 = ["--precision", "fp32", "--device", device, "-o", &exact, &checkpoint];
        ok(&[&base[..], &fp32].concat());
        let report = json(&["verify", "-q", &exact, "--golden", &reference, "--json", "--min-snr", "0"]);
        let error = report["rows"][0]["relative_l2"].as_f64().expect("an error");
        assert!(error <= 2e-6, "{name}: relative L2 {error:e}");
        let about = json(&["inspect", &package, "--json"]).to_string();
        let lowered = if name == "small" { "tile-queries" } else { "slices-of-rows" };
        assert!(about.contains("s2ditc.device") && about.contains(lowered), "{name}: {about}");
    }
    for name in ["tile-queries", "norms-by-length", "split-hidden"] {
        assert!(all.iter().any(|taken| taken == name), "{name} was never taken: {all:?}");
    }
}

#[test]
fn a_stream_says_its_device_and_keeps_its_numbers() {
    let dir = tempfile::tempdir().expect("a folder");
    let device = strict(dir.path(), 0.004, 4094.0);
    for (name, latent) in [("stream_tiny", "8x8"), ("stream_sink", "6x10")] {
        let (kernel, checkpoint) = (arg(&dir.path().join(name)), arg(&golden(name).join("checkpoint")));
        let base = ["compile", "-q", &checkpoint, "--target", "coreml", "--mode", "stream", "--latent", latent];
        ok(&[&base[..], &["--device", &device, "-o", &kernel]].concat());
        let contract: Value =
            serde_json::from_slice(&fs::read(Path::new(&kernel).join("contract.json")).expect("a contract"))
                .expect("JSON");
        assert_eq!(contract["device"], "strict");
        assert!(contract["lowerings"].as_array().is_some_and(|all| all.len() > 1), "{}", contract["lowerings"]);
        let reference = arg(&golden(name).join("golden.safetensors"));
        ok(&["verify", "-q", &kernel, "--golden", &reference, "--fp16", "--min-snr", "50"]);
    }
}

#[test]
fn an_op_is_worth_what_it_saves() {
    let dir = tempfile::tempdir().expect("a folder");
    let (package, checkpoint) = (arg(&dir.path().join("tiny.mlpackage")), arg(&golden("tiny").join("checkpoint")));
    let compile = ["compile", &checkpoint, "--target", "coreml", "--latent", "3x8x8", "-o", &package];
    // Values of the tiny model never leave a phone's working set.
    let said = ok(&[&compile[..], &["--device", "iphone16promax"]].concat());
    let made = json(&[&compile[..], &["--device", "iphone16promax", "--json"]].concat());
    assert_eq!(taken(&made), Vec::<String>::new());
    assert_eq!(made["device"]["plain_ops"], made["device"]["ops"]);
    assert!(said.contains("lint: "), "{said}");
    let plain = arg(&dir.path().join("plain.mlpackage"));
    ok(&["compile", "-q", &checkpoint, "--target", "coreml", "--latent", "3x8x8", "-o", &plain]);
    let weights =
        |package: &str| fs::read(Path::new(package).join("Data/com.apple.CoreML/weights/weight.bin")).expect("weights");
    assert!(weights(&package) == weights(&plain), "nothing was chosen, and the weights differ");
    // On an engine that clamps, nothing is cut within the last axis, whatever that costs.
    let strict = strict(dir.path(), 0.004, 4094.0);
    for (device, cut) in [(&["--device", &strict][..], false), (&[], true)] {
        let tiled = arg(&dir.path().join("tiled.mlpackage"));
        let base = ["compile", "-q", &checkpoint, "--target", "coreml", "--latent", "3x8x8", "--attention", "per-head"];
        ok(&[&base[..], device, &["-o", &tiled]].concat());
        let report = ok(&["lint", &tiled, "--device", "m1", "--json"]);
        assert!(cut || !report.contains("slice-offset\""), "{report}");
    }
}

#[test]
fn the_width_of_the_large_preset_gains() {
    let args = ["estimate", "--preset", "1.8b", "--mode", "clip", "--latent", "3x36x64", "--json"];
    let (plain, tuned) = (json(&args), json(&[&args[..], &["--tuned"]].concat()));
    let ms = |e: &Value| e["step_ms"]["likely"].as_f64().expect("a time");
    assert!(ms(&tuned) < 0.7 * ms(&plain), "{} of {}", ms(&tuned), ms(&plain));
    assert!(tuned["notes"].to_string().contains("tile-queries") && !plain["notes"].to_string().contains("lowered"));
    let slowest = tuned["functions"][0]["slowest"].as_array().expect("ops");
    let times: Vec<f64> = slowest.iter().map(|op| op["ms"]["likely"].as_f64().expect("a time")).collect();
    assert!(times.len() == 40 && times.is_sorted_by(|a, b| a >= b), "{times:?}");
}

#[test]
fn a_recipe_says_what_it_does() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| arg(&dir.path().join(name));
    let small = at("small");
    let fields = ["--set", "layout=[\"lcha\",\"ssa\"]", "--set", "ffn_dim=512"];
    ok(&[&["init", "-q", "--preset", "small", "--seed", "3", "-o", &small], &fields[..]].concat());
    let base = ["compile", "-q", &small, "--target", "coreml", "--latent", "3x4x8"];
    let dry = json(&[&base[..], &["--recipe", "paper", "--dry-run", "--json"]].concat());
    let storage = |name: &str| {
        let rows = dry["weights"].as_array().expect("weights");
        rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name}"))["storage"].clone()
    };
    assert_eq!(dry["activations"], "int8");
    assert_eq!(storage("blocks.0.ffn.net.0.proj.weight"), "palette4-group16");
    assert_eq!(storage("patch_embedding.weight"), "palette8");
    assert_eq!(storage("proj_out.weight"), "palette8");
    assert_eq!(storage("condition_embedder.text_embedder.linear_1.weight"), "palette8");
    let words = ok(&[&base[..], &["--recipe", "safe", "--dry-run"]].concat());
    assert!(
        words.contains("palette8") && words.contains("activations fp16") && words.contains("nothing was written"),
        "{words}"
    );
    assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 1);

    // Weights that are all small are no error of a scheme.
    let little = arg(&golden("tiny").join("checkpoint"));
    let safe = ["compile", &little, "--target", "coreml", "--latent", "3x8x8", "--recipe", "safe"];
    assert!(ok(&[&safe[..], &["--dry-run"]].concat()).contains("0 B of large weights"));

    // A compile that fails leaves no plan.
    fails(&[&base[..], &["--recipe", "paper", "-o", &at("paper.onnx")]].concat());
    assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 1);

    let paper = at("paper.mlpackage");
    ok(&[&base[..], &["--recipe", "paper", "-o", &paper]].concat());
    let plan = at("paper.plan.toml");
    let text = fs::read_to_string(&plan).expect("a plan");
    assert!(text.contains("input_scale") && text.contains("goal = \"w4a8\""), "{text}");
    ok(&["verify", "-q", &paper, "--checkpoint", &small, "--quantize", &plan]);
    let safe = at("safe.mlpackage");
    ok(&[&base[..], &["--recipe", "safe", "-o", &safe]].concat());
    ok(&["lint", "-q", &safe, "--deny-fallback"]);
    let size = |package: &str| {
        fs::metadata(Path::new(package).join("Data/com.apple.CoreML/weights/weight.bin")).expect("weights").len()
    };
    assert!(size(&paper) < size(&safe));
}

#[test]
fn what_contradicts_is_refused() {
    let tiny = arg(&golden("tiny").join("checkpoint"));
    let out = arg(&repo().join("target/never.mlpackage"));
    for (flags, says) in [
        (&["--device", "iphone16promax", "--compute", "gpu"][..], "--compute gpu"),
        (&["--device", "iphone99"], "iphone16promax"),
        (&["--recipe", "paper", "--quantize", "int8"], "--quantize contradicts --recipe paper"),
        (&["--recipe", "safe", "--quantize", "fp16"], "--quantize contradicts --recipe safe"),
        (&["--recipe", "safe", "--attention", "batched"], "--attention batched contradicts"),
        (&["--recipe", "safe", "--device", "m1"], "--device contradicts"),
        (&["--recipe", "safe", "--calibrate", "seeded"], "--calibrate contradicts"),
        (&["--recipe", "safe", "--timesteps", "any"], "--timesteps any contradicts"),
        (&["--recipe", "paper", "--precision", "fp32"], "--precision fp32 contradicts"),
        (&["--recipe", "paper", "--compute", "any"], "contradicts"),
        (&["--recipe", "bold"], "paper"),
        (&["--calibrate", "seeded"], "--recipe paper"),
        (&["--dry-run"], "--recipe"),
    ] {
        let base = ["compile", "-q", &tiny, "--target", "coreml", "--latent", "3x8x8", "-o", &out];
        let error = refused(&[&base[..], flags].concat());
        assert!(error.contains(says), "{flags:?}: {error}");
    }
    let onnx = ["compile", "-q", &tiny, "--target", "onnx", "--latent", "3x8x8", "-o", "never.onnx"];
    assert!(refused(&[&onnx[..], &["--device", "m1"]].concat()).contains("--target coreml"));
    assert!(refused(&[&onnx[..], &["--recipe", "safe"]].concat()).contains("--target coreml"));
}
