//! `s2ditc estimate`: what it says of a configuration, beside the artifacts that are compiled from it, beside published figures, and of bad
//! input.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{arg, fails, golden, ok};
use serde_json::{Value, json};

fn estimate(args: &[&str]) -> Value {
    serde_json::from_str(&ok(&[&["estimate", "--json"], args].concat())).expect("JSON")
}

/// Figures that no device has make no estimate.
#[test]
fn figures_that_no_device_has() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let file = work.path().join("phone.toml");
    for (figure, number) in [("fused_share", "2.0"), ("product_tflops", "1e-308"), ("op_us", "1e300")] {
        let figures =
            format!("low = {number}\nlikely = {number}\nhigh = {number}\nconfidence = \"low\"\nsource = \"x\"");
        fs::write(&file, format!("name = \"p\"\n[figures.{figure}]\n{figures}\n")).expect("a device");
        let error = fails(&["estimate", "--preset", "mobile", "--device", &arg(&file)]);
        assert!(error.contains(&format!("figures.{figure}")) && error.contains("expected 0 or a number"), "{error}");
    }
}

fn likely(estimate: &Value) -> f64 {
    estimate["step_ms"]["likely"].as_f64().expect("a time")
}

/// A configuration of the preset `mobile` with fields changed.
fn variant(dir: &Path, name: &str, changes: &Value) -> PathBuf {
    let mut config = s2dit_models::config::preset("mobile").expect("a preset").config();
    for (field, value) in changes.as_object().expect("an object") {
        config[field] = value.clone();
    }
    let path = dir.join(format!("{name}.json"));
    fs::write(&path, config.to_string()).expect("a configuration");
    path
}

/// The sandwich with another kind in the place of LCHA.
fn sandwich(kind: &str) -> Value {
    let runs = [(kind, 2), ("ssa", 4), (kind, 3), ("ssa", 5), (kind, 3), ("ssa", 5), (kind, 2)];
    runs.iter().flat_map(|(kind, n)| vec![*kind; *n]).collect()
}

/// Table 3 of arXiv 2601.12719: milliseconds on an iPhone 16 Pro Max. Nothing of the device is fitted to it.
fn table3() -> Vec<(&'static str, Value, f64)> {
    let all = |kind: &str| json!({ "layout": vec![kind; 24] });
    let with = |kind: &str| json!({ "layout": sandwich(kind) });
    vec![
        ("SSA only", all("ssa"), 258.0),
        ("local path only", with("local"), 347.0),
        ("linear path only", with("linear"), 457.0),
        ("ReLU", json!({"feature_map": "relu"}), 499.0),
        ("no gate", json!({"fusion": "sum"}), 527.0),
        ("sandwich", json!({}), 531.0),
        ("linear heads of 256", json!({"linear_head_dim": 256}), 569.0),
        ("KV compression and SSA", with("kv_compressed"), 736.0),
        ("LCHA only", all("lcha"), 900.0),
        ("KV compression only", all("kv_compressed"), 1348.0),
    ]
}

#[test]
fn the_papers_ablations_as_ratios_to_the_sandwich() {
    let dir = tempfile::tempdir().expect("a folder");
    let times: Vec<(&str, f64, f64)> = (table3().into_iter())
        .map(|(name, changes, published)| {
            let config = variant(dir.path(), &name.replace(' ', "_"), &changes);
            (name, likely(&estimate(&["--config", &arg(&config)])), published)
        })
        .collect();
    let (_, whole, published_whole) = times[5];
    let (mut rows, mut errors) = (String::new(), Vec::new());
    for (name, ms, published) in &times {
        let (ratio, expected) = (ms / whole, published / published_whole);
        errors.push((ratio / expected - 1.0).abs());
        rows += &format!("| {name} | {expected:.2} | {ratio:.2} | {:+.0} % |\n", 100.0 * (ratio / expected - 1.0));
        assert!((ratio / expected - 1.0).abs() < 0.15, "{name}: {ratio:.3}, published {expected:.3}\n{rows}");
    }
    // The order, but for pairs that the paper has within 8 %.
    for (i, (slow, ms, published)) in times.iter().enumerate() {
        for (fast, less, below) in &times[..i] {
            assert!(published / below < 1.08 || ms > less, "{slow} is not slower than {fast}\n{rows}");
        }
    }
    errors.sort_by(f64::total_cmp);
    assert!(errors[errors.len() / 2] < 0.09, "{errors:?}");
    // docs/estimate.md shows these very figures.
    let page = fs::read_to_string(crate::common::repo().join("docs/estimate.md")).expect("a page");
    assert!(page.contains(&rows), "docs/estimate.md does not have this table:\n{rows}");
}

#[test]
fn a_configuration_alone_is_what_is_compiled_from_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| arg(&dir.path().join(name));
    let small = at("small");
    ok(&["init", "-q", "--preset", "small", "--set", "num_attention_heads=4", "--set", "ffn_dim=512", "-o", &small]);
    let config = arg(&Path::new(&small).join("config.json"));
    for quantize in [None, Some("palette4-group16"), Some("int8")] {
        let flags: Vec<&str> = quantize.iter().flat_map(|scheme| ["--quantize", scheme]).collect();
        let step = at(&format!("step{}.mlpackage", flags.len() + quantize.map_or(0, str::len)));
        ok(&[&["compile", "-q", &small, "--target", "coreml", "--latent", "3x16x24", "-o", &step], &flags[..]]
            .concat());
        let kernel = at(&format!("kernel{}", flags.len() + quantize.map_or(0, str::len)));
        let stream = ["--target", "coreml", "--mode", "stream", "--latent", "16x24", "-o", &kernel];
        ok(&[&["compile", "-q", &small], &stream[..], &flags[..]].concat());
        for (mode, artifact) in [("clip", &step), ("stream", &kernel)] {
            let how = ["--config", &config, "--mode", mode, "--latent", "3x16x24"];
            let before = estimate(&[&how[..], &flags[..]].concat());
            let after = estimate(&[artifact]);
            let near = |name: &str, of: fn(&Value) -> f64, tolerance: f64| {
                let (x, y) = (of(&before), of(&after));
                assert!((x / y - 1.0).abs() <= tolerance, "{mode} {quantize:?}: {name}: {x} and {y}");
            };
            near("step", likely, 1e-3);
            near("chunk", |e| e["chunk_ms"]["likely"].as_f64().unwrap(), 1e-3);
            near("frames", |e| e["frames_per_second"]["likely"].as_f64().unwrap(), 1e-3);
            near("weights", |e| e["memory"]["weights"].as_f64().unwrap(), 1e-3);
            near("memory", |e| e["peak_memory_bytes"].as_f64().unwrap(), 1e-3);
            // A model that is not compiled yet has no file: its program is counted by ops.
            near("package", |e| e["package_bytes"].as_f64().unwrap(), 0.06);
            assert_eq!(before["functions"][0]["ops"], after["functions"][0]["ops"]);
            let blocks = |e: &Value| {
                let parts = e["functions"][0]["parts"].as_array().unwrap().clone();
                parts.into_iter().filter(|p| p["name"].as_str().unwrap().starts_with("blocks.")).collect::<Vec<_>>()
            };
            let (b, a) = (blocks(&before), blocks(&after));
            assert_eq!((b.len(), a.len()), (8, 8), "{mode} {quantize:?}");
            assert!(a.iter().all(|part| part["kind"] == "lcha" || part["kind"] == "ssa"));
        }
    }
    // A checkpoint is its configuration.
    assert_eq!(
        likely(&estimate(&[&small, "--latent", "3x16x24"])),
        likely(&estimate(&["--config", &config, "--latent", "3x16x24"]))
    );
}

#[test]
fn what_the_report_says_adds_up() {
    let e = estimate(&["--preset", "mobile", "--other-ms", "84"]);
    let ms = |v: &Value| v["likely"].as_f64().unwrap();
    let sum: f64 = e["functions"].as_array().unwrap().iter().map(|f| ms(&f["ms"]) * f["calls"].as_f64().unwrap()).sum();
    assert!((ms(&e["chunk_ms"]) - sum - 84.0).abs() < 1e-6);
    assert_eq!(e["frames_per_chunk"], 12);
    assert!((ms(&e["frames_per_second"]) - 12_000.0 / ms(&e["chunk_ms"])).abs() < 1e-9);
    for range in [&e["step_ms"], &e["chunk_ms"], &e["frames_per_second"], &e["first_load_s"]] {
        let [low, likely, high] = ["low", "likely", "high"].map(|k| range[k].as_f64().unwrap());
        assert!(0.0 < low && low < likely && likely < high, "{range}");
    }
    for f in e["functions"].as_array().unwrap() {
        let parts: f64 = f["parts"].as_array().unwrap().iter().map(|p| ms(&p["ms"])).sum();
        // A call's own time is of no part.
        assert!((ms(&f["ms"]) - parts - 0.2).abs() < 1e-6, "{}", f["name"]);
    }
    let spent: f64 = e["spent_ms"].as_object().unwrap().values().map(|x| x.as_f64().unwrap()).sum();
    assert!((spent - ms(&e["step_ms"])).abs() < 1e-6);
    // 1.8 B parameters in two bytes, and what functions do not share.
    let weights = e["memory"]["weights"].as_f64().unwrap();
    assert!((3.4e9..4.6e9).contains(&weights), "{weights}");
    // The published step, W4A8, with text encoder and decoder of 84 ms a chunk: 260 ms, below the likely figure (docs/estimate.md).
    let published = estimate(&["--preset", "mobile", "--quantize", "w4a8"]);
    assert!(published["package_bytes"].as_f64().unwrap() < 1.1e9);
    assert!(
        likely(&published) > 260.0 && published["step_ms"]["low"].as_f64().unwrap() < 450.0,
        "{}",
        published["step_ms"]
    );
}

#[test]
fn every_family_is_estimated() {
    for preset in ["wan2.1-1.3b", "self-forcing-1.3b", "ltx-video-2b", "tiny"] {
        let e = estimate(&["--preset", preset]);
        assert!(likely(&e) > 0.0 && e["frames_per_second"]["likely"].as_f64().unwrap() > 0.0, "{preset}");
    }
    assert_eq!(estimate(&["--preset", "ltx-video-2b", "--latent", "3x8x8"])["frames_per_chunk"], 17);
}

#[test]
fn a_device_is_fitted_to_times_and_pages_are_made() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| arg(&dir.path().join(name));
    let (kernel, checkpoint) = (at("kernel"), arg(&golden("stream_tiny").join("checkpoint")));
    ok(&["compile", "-q", &checkpoint, "--target", "coreml", "--mode", "stream", "--latent", "8x8", "-o", &kernel]);
    let before = estimate(&[&kernel]);
    let function = |name: &str, call_ms: Option<f64>| {
        let mut f = json!({"name": name, "operations": []});
        if let Some(ms) = call_ms {
            f["call_ms"] = ms.into();
        }
        f
    };
    let report = |name: &str, functions: Vec<Value>| {
        let report = json!({"format": "s2ditc-device-report", "version": 1, "model": "kernel.mlpackage", "device": "iPhone17,2",
            "os": "iOS 18.1", "compute_units": "cpu_and_neural_engine", "functions": functions});
        fs::write(dir.path().join(name), report.to_string()).unwrap();
        at(name)
    };
    let slow = 1.5 * likely(&before);
    let timed = report("timed.json", vec![function("denoise", Some(slow)), function("prompt", None)]);
    let (device, page) = (at("phone.toml"), at("page.html"));
    let said = ok(&["estimate", &kernel, "--fit", &timed, "-o", &device, "--report", &page]);
    assert!(said.contains("iPhone17,2"), "{said}");
    let after = estimate(&[&kernel, "--device", &device]);
    assert!((likely(&after) / slow - 1.0).abs() < 0.1, "{} and {slow}", likely(&after));
    // The same again over it, and not over a stranger's file.
    ok(&["estimate", "-q", &kernel, "--fit", &timed, "-o", &device]);
    fs::write(at("other.toml"), "name = \"mine\"\n").unwrap();
    let refused = fails(&["estimate", &kernel, "--fit", &timed, "-o", &at("other.toml")]);
    assert!(refused.contains("other.toml"), "{refused}");

    let page = fs::read_to_string(page).unwrap();
    for part in ["timeline", "blocks.0", "denoise", "product_tflops", "</html>"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("http-equiv") && !page.contains("<script") && !page.contains("src="), "a page that fetches");

    let untimed = report("untimed.json", vec![function("denoise", None)]);
    assert!(fails(&["estimate", &kernel, "--fit", &untimed, "-o", &device]).contains("call_ms"));
    let stranger = report("stranger.json", vec![function("decode", Some(1.0))]);
    let error = fails(&["estimate", &kernel, "--fit", &stranger, "-o", &device]);
    assert!(error.contains("`decode`") && error.contains("denoise"), "{error}");
    let placed = |names: &[&str]| {
        let mut f = function("denoise", Some(slow));
        f["operations"] = names
            .iter()
            .map(|name| json!({"name": name, "type": "ios18.conv", "preferred": "neural_engine"}))
            .collect();
        f
    };
    let others = report("others.json", vec![placed(&["a", "b", "c"])]);
    let error = fails(&["estimate", &kernel, "--fit", &others, "-o", &device]);
    assert!(error.contains("found 0 of them in") && error.contains("expected a report of this package"), "{error}");
    let linted: Value = serde_json::from_str(&ok(&["lint", "--json", &kernel])).unwrap();
    let ops = linted["packages"].as_array().unwrap().iter().flat_map(|package| package["ops"].as_array().unwrap());
    let own: Vec<&str> = ops.filter(|op| op["function"] == "denoise").map(|op| op["name"].as_str().unwrap()).collect();
    assert!(own.len() > 50, "{}", own.len());
    let own = report("own.json", vec![placed(&own)]);
    ok(&["estimate", "-q", &kernel, "--fit", &own, "-o", &device]);
    let negative = report("negative.json", vec![function("denoise", Some(-1.0))]);
    assert!(fails(&["estimate", &kernel, "--fit", &negative, "-o", &device]).contains("call_ms: found -1"));
}

#[test]
fn bad_input_is_one_clear_error() {
    let dir = tempfile::tempdir().expect("a folder");
    let device = dir.path().join("d.toml");
    fs::write(
        &device,
        "name = \"x\"\n[figures.weight_gbps]\nlow = 3\nlikely = 2\nhigh = 1\nconfidence = \"low\"\nsource = \"none\"\n",
    )
    .unwrap();
    for (args, says) in [
        (vec!["--preset", "tiny", "--device", "iphone99"], "iphone16promax"),
        (vec!["--preset", "tiny", "--device", &arg(&device)], "weight_gbps"),
        (vec!["--preset", "tiny", "--latent", "3x7x8"], "latent"),
        (vec!["--preset", "wan2.1-1.3b", "--mode", "stream"], "WanTransformer3DModel"),
        (vec!["/nowhere/at/all.mlpackage"], "/nowhere/at/all.mlpackage"),
    ] {
        let error = fails(&[&["estimate"], &args[..]].concat());
        assert!(error.contains(says), "{args:?}: {error}");
    }
}
