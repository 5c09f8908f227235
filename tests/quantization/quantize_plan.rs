//! `s2ditc quantize`: plans that are read, changed, refused; goals that are reached; statistics that are used.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{arg, fails, files, ok, python, repo};
use s2dit_runtime::Artifact;

/// A checkpoint of two blocks whose weights are large enough to be compressed.
fn checkpoint(work: &Path) -> PathBuf {
    let dir = work.join("checkpoint");
    let layout = r#"layout=["lcha","ssa"]"#;
    ok(&["init", "-q", "--preset", "small", "--seed", "7", "--dtype", "bf16", "--set", layout, "-o", &arg(&dir)]);
    dir
}

/// Overwrites the elements of a tensor, bf16.
fn overwrite(checkpoint: &Path, name: &str, elements: impl Fn(usize) -> Option<u16>) {
    let path = checkpoint.join("diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&path).expect("weights");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let index: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).expect("a header");
    let offsets = index[name]["data_offsets"].as_array().expect("offsets").clone();
    let [from, to] = [0, 1].map(|i| 8 + header + offsets[i].as_u64().expect("an offset") as usize);
    for (i, element) in bytes[from..to].chunks_exact_mut(2).enumerate() {
        if let Some(bits) = elements(i) {
            element.copy_from_slice(&bits.to_le_bytes());
        }
    }
    fs::write(&path, bytes).expect("weights");
}

fn plan(checkpoint: &Path, goal: &[&str], out: &Path) -> serde_json::Value {
    let (checkpoint, out) = (arg(checkpoint), arg(out));
    let base = ["quantize", "-q", "--json", &checkpoint, "--latent", "3x4x4", "-o", &out];
    serde_json::from_str(&ok(&[&base[..], goal].concat())).expect("JSON")
}

fn compile_args<'a>(checkpoint: &'a str, target: &'a str, plan: &'a str, out: &'a str) -> Vec<&'a str> {
    let base = ["compile", "-q", "--json", checkpoint, "--target", target, "--latent", "3x4x4"];
    [&base[..], &["--quantize", plan, "-o", out]].concat()
}

fn compile(checkpoint: &Path, target: &str, plan: &Path, out: &Path) -> serde_json::Value {
    let printed = ok(&compile_args(&arg(checkpoint), target, &arg(plan), &arg(out)));
    serde_json::from_str(&printed).expect("a JSON summary")
}

fn judge(script: &str, path: &Path) {
    let script = repo().join("tests/conformance").join(script);
    let output =
        std::process::Command::new(python::interpreter()).arg(&script).arg(path).output().expect("python starts");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{text}", script.display());
}

#[test]
fn a_plan_of_one_scheme_makes_the_same_weights_as_the_scheme() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = checkpoint(work.path());
    let path = work.path().join("plan.toml");
    let made = plan(&checkpoint, &["--scheme", "palette4-group16"], &path);
    let (a, b) = (work.path().join("a.mlpackage"), work.path().join("b.mlpackage"));
    let summary = compile(&checkpoint, "coreml", &path, &a);
    assert_eq!(summary["weight_bytes"], made["plan"]["weight_bytes"], "the plan knows the package's bytes");
    compile(&checkpoint, "coreml", Path::new("palette4-group16"), &b);
    let weights = |package: &Path| fs::read(package.join("Data/com.apple.CoreML/weights/weight.bin")).expect("weights");
    assert!(weights(&a) == weights(&b), "the weight files differ");
    let metadata = Artifact::open(&a).expect("a package").metadata();
    assert!(metadata["s2ditc.quantize"].starts_with("plan blake3:"), "{metadata:?}");
}

#[test]
fn overrides_come_before_entries() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = checkpoint(work.path());
    let path = work.path().join("plan.toml");
    let made = plan(&checkpoint, &["--scheme", "int8"], &path);
    let text = fs::read_to_string(&path).expect("the plan");
    let changed = "[override]\n\"blocks.0.*\" = \"fp16\"\n\"blocks.0.attn1.to_q.weight\" = \"palette2\"\n";
    assert!(text.contains("[override]\n"));
    fs::write(&path, text.replace("[override]\n", changed)).expect("the plan");
    let summary = compile(&checkpoint, "coreml", &path, &work.path().join("x.mlpackage"));
    let entries = made["plan"]["weight"].as_array().expect("weights");
    let grown: i64 = entries
        .iter()
        .filter_map(|w| {
            let (name, bytes) = (w["name"].as_str()?, w["bytes"].as_i64()?);
            // int8 has a scale a row; fp16 has two bytes an element.
            match name {
                "blocks.0.attn1.to_q.weight" => Some(512 * 512 / 4 + 2 * 4 - bytes),
                _ if name.starts_with("blocks.0.") && w["scheme"] == "int8" => {
                    let rows = if name.contains("net.0") { 2048 } else { 512 };
                    Some(2 * (bytes - 2 * rows) - bytes)
                }
                _ => None,
            }
        })
        .sum();
    let before = made["plan"]["weight_bytes"].as_i64().expect("bytes");
    let file = fs::metadata(work.path().join("x.mlpackage/Data/com.apple.CoreML/weights/weight.bin")).expect("weights");
    assert_eq!(summary["weight_bytes"], file.len());
    // Besides its bytes a record has a header, and is aligned.
    let off = summary["weight_bytes"].as_i64().expect("bytes") - (before + grown);
    assert!(off.abs() < 64 * 2 * 12, "{off} bytes off");
}

#[test]
fn what_is_wrong_with_a_plan_is_named() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = checkpoint(work.path());
    let path = work.path().join("plan.toml");
    plan(&checkpoint, &["--scheme", "palette4-group16", "--calibrate", "seeded"], &path);
    let good = fs::read_to_string(&path).expect("the plan");
    let out = work.path().join("x.mlpackage");
    let error = || fails(&compile_args(&arg(&checkpoint), "coreml", &arg(&path), &arg(&out)));
    let first = |line: &str| good.lines().find(|l| l.starts_with(line)).expect("a line").to_string();
    let entry = "name = \"blocks.0.attn1.to_q.weight\"\nscheme = \"palette4-group16\"";
    let scheme = |scheme: &str| (entry.to_string(), entry.replace("palette4-group16", scheme));
    let cases: Vec<((String, String), &[&str])> = vec![
        (("version = 1".into(), "version = 2".into()), &["plan.toml: version: found 2, expected 1"]),
        (("format = \"s2ditc.quantize-plan\"".into(), String::new()), &["plan.toml: format: found none"]),
        (("\n[override]".into(), "\n[overide]".into()), &["plan.toml, line ", "unknown field `overide`"]),
        (("goal = ".into(), "goal ".into()), &["plan.toml, line 9"]),
        (
            (first("checkpoint = "), "checkpoint = \"blake3:00\"".into()),
            &["checkpoint: found \"blake3:00\"", "make the plan again"],
        ),
        (
            ("\"eps\":1e-6".into(), "\"eps\":1e-5".into()),
            &["config.json`: field `eps`: found ", "which `", "plan.toml` was made with"],
        ),
        ((first("config = "), "config = '{'".into()), &["plan.toml: config: found "]),
        ((first("latent = "), "latent = \"3x4\"".into()), &["plan.toml: latent: found \"3x4\""]),
        (scheme("palette5"), &["plan.toml, line ", "found `palette5`, which is none of fp16, int8"]),
        (
            scheme("palette4-group24"),
            &["weight \"blocks.0.attn1.to_q.weight\"", "512 output channels, expected a multiple of 24"],
        ),
        (scheme("int4-block48"), &["512 input channels, expected a multiple of 48"]),
        (
            (entry.into(), entry.replace("to_q", "to_qq")),
            &[
                "2 problems",
                "\"blocks.0.attn1.to_qq.weight\": found no such tensor, expected \"blocks.0.attn1.to_q.weight\"",
                "found no entry",
            ],
        ),
        ((entry.into(), entry.replace("to_q", "to_k")), &["\"blocks.0.attn1.to_k.weight\": found two entries"]),
        (
            ("\n[override]".into(), "\n[override]\n\"block.*\" = \"fp16\"".into()),
            &["override \"block.*\": found no weight that it matches"],
        ),
        (("\n[override]".into(), "\n[override]\n\"blocks.[\" = \"fp16\"".into()), &["override \"blocks.[\""]),
        (
            ("\n[override]".into(), "\n[override]\n\"patch_embedding*\" = \"palette8-group1\"".into()),
            &["found 64 elements a palette, expected at least its 256 entries"],
        ),
        (
            ("statistics = \"patch_embedding.weight\"".into(), "statistics = \"x\"".into()),
            &["\"patch_embedding.weight\": statistics: found \"x\""],
        ),
        ((first("file = "), "file = \"../x\"".into()), &["calibration.file: found \"../x\""]),
        (
            (first("hash = "), "hash = \"blake3:11\"".into()),
            &["plan.stats.safetensors: found \"blake3:", "the plan was made with"],
        ),
    ];
    for ((from, to), expected) in cases {
        assert!(good.contains(&from), "{from}");
        fs::write(&path, good.replacen(&from, &to, 1)).expect("the plan");
        let error = error();
        for part in expected {
            assert!(error.contains(part), "{to}: expected `{part}` in\n{error}");
        }
        assert!(!out.exists());
    }
    fs::write(&path, &good).expect("the plan");
    fs::remove_file(work.path().join("plan.stats.safetensors")).expect("the statistics");
    assert!(error().contains("plan.stats.safetensors"));
    fs::remove_file(&path).expect("the plan");
    assert!(error().contains("plan.toml: found"));
}

#[test]
fn nan_zero_and_constant_weights_are_kept_exactly() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = checkpoint(work.path());
    let (nan, zero, constant) =
        ("blocks.0.attn2.to_q.weight", "blocks.0.attn2.to_k.weight", "blocks.0.attn2.to_v.weight");
    overwrite(&checkpoint, zero, |_| Some(0));
    overwrite(&checkpoint, constant, |_| Some(0x3dcc));
    for scheme in ["int8", "int4-block32", "palette4-group16", "palette1"] {
        let made = plan(&checkpoint, &["--scheme", scheme], &work.path().join("plan.toml"));
        for w in made["plan"]["weight"].as_array().expect("weights") {
            let exact = w["name"] == zero || (w["name"] == constant && scheme.starts_with("palette"));
            assert!(!exact || w["error"] == 0.0, "{scheme}: {w}");
        }
    }
    overwrite(&checkpoint, nan, |i| (i == 5).then_some(0x7fc0));
    let path = work.path().join("plan.toml");
    let made = plan(&checkpoint, &["--scheme", "palette4-group16"], &path);
    let entry = |made: &serde_json::Value, name: &str| {
        let weights = made["plan"]["weight"].as_array().expect("weights").clone();
        weights.into_iter().find(|w| w["name"] == name).expect("an entry")
    };
    assert_eq!(entry(&made, nan)["scheme"], "fp16");
    assert_eq!(entry(&made, nan)["why"], "1 element(s) are NaN or infinite");
    assert!(made["plan"]["snr_db"].is_null(), "a model that makes NaN has no SNR");
    let summary = compile(&checkpoint, "coreml", &path, &work.path().join("x.mlpackage"));
    assert_eq!(summary["non_finite"][0][0], nan);
}

#[test]
fn goals_are_reached_and_plans_are_compiled_for_both_targets() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = checkpoint(work.path());
    let uniform = plan(&checkpoint, &["--scheme", "palette4-group16"], &work.path().join("uniform.toml"));
    let target = uniform["plan"]["weight_bytes"].as_u64().expect("bytes");

    let path = work.path().join("size.toml");
    let report = work.path().join("report.html");
    let made = plan(&checkpoint, &["--target-size", &format!("{target}B"), "--report", &arg(&report)], &path);
    let snr = made["plan"]["snr_db"].as_f64().expect("measured");
    let package = work.path().join("x.mlpackage");
    let bytes = compile(&checkpoint, "coreml", &path, &package)["weight_bytes"].as_u64().expect("bytes");
    assert!(bytes <= target && bytes * 100 >= target * 99, "{bytes} bytes, asked for {target}");
    assert!(made["plan"]["calibration"]["held_out"].as_u64().expect("a number") > 0);

    // Better than one scheme of the same size, on inputs that neither has seen.
    let snr_of = |quantize: &Path| {
        let out = work.path().join("y.onnx");
        compile(&checkpoint, "onnx", quantize, &out);
        let args =
            ["verify", "-q", "--json", &arg(&out), "--checkpoint", &arg(&checkpoint), "--seed", "5", "--min-snr", "0"];
        let report: serde_json::Value = serde_json::from_str(&ok(&args)).expect("JSON");
        report["rows"][0]["snr_db"].as_f64().expect("a number")
    };
    let (planned, plain) = (snr_of(&path), snr_of(&work.path().join("uniform.toml")));
    assert!(planned > plain + 2.0, "planned {planned} dB, one scheme {plain} dB");
    assert!((planned - snr).abs() < 6.0, "measured {snr} dB, {planned} dB on other inputs");

    // The artifact's own bar, and that of its arithmetic alone.
    let (package_arg, checkpoint_arg, plan_arg) = (arg(&package), arg(&checkpoint), arg(&path));
    let verify = ["verify", "-q", &package_arg, "--checkpoint", &checkpoint_arg];
    ok(&verify);
    ok(&[&verify[..], &["--quantize", &plan_arg]].concat());
    fails_below_bar(&[&verify[..], &["--min-snr", "50"]].concat());
    let other = fails(&[&verify[..], &["--quantize", "int8"]].concat());
    assert!(other.contains("found plan blake3:") && other.contains("expected int8, as --quantize says"), "{other}");
    judge("check_mlpackage.py", &package);
    judge("check_onnx.py", &work.path().join("y.onnx"));
    ok(&["inspect", &package_arg]);
    ok(&["lint", &package_arg]);

    let page = fs::read_to_string(report).expect("a report");
    for part in ["<svg", "output feels most", "palette", "this plan", "predicted", "patch_embedding.weight", "block 1"]
    {
        assert!(page.contains(part), "{part} is not in the report");
    }
    assert!(!page.contains("src=") && !page.contains("http"));

    let loud = plan(&checkpoint, &["--min-snr", "30"], &work.path().join("snr.toml"));
    let reached = loud["plan"]["snr_db"].as_f64().expect("measured");
    assert!(reached >= 30.0, "{reached} dB");
    assert!(loud["plan"]["weight_bytes"].as_u64().expect("bytes") < made["whole_bytes"].as_u64().expect("bytes") / 2);

    let unfit = ["quantize", &checkpoint_arg, "--latent", "3x4x4", "--scheme", "palette4-group7", "-o", &plan_arg];
    assert!(fails(&unfit).contains("--scheme palette4-group7: found no weight that it fits"));
    let small = ["quantize", &checkpoint_arg, "--latent", "3x4x4", "--target-size", "1kB", "-o", &plan_arg];
    assert!(fails(&small).contains("--target-size: found 1000 bytes, expected at least "));
    let beyond = ["quantize", &checkpoint_arg, "--latent", "3x4x4", "--min-snr", "80", "-o", &plan_arg];
    assert!(fails(&beyond).contains("--min-snr: found 80, expected a number of decibels of at most 60"));
}

fn fails_below_bar(args: &[&str]) {
    let out = crate::common::run(args);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stdout).contains("below the bar"));
}

#[test]
fn calibration_is_reproduced_by_any_number_of_threads() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = checkpoint(work.path());
    let made: Vec<_> = ["1", "3"]
        .iter()
        .map(|threads| {
            let dir = work.path().join(threads);
            fs::create_dir(&dir).expect("a folder");
            let path = dir.join("plan.toml");
            plan(&checkpoint, &["--scheme", "palette4-group16", "--calibrate", "seeded", "--threads", threads], &path);
            let out = dir.join("x.mlpackage");
            let (checkpoint, path, out) = (arg(&checkpoint), arg(&path), arg(&out));
            ok(&[&compile_args(&checkpoint, "coreml", &path, &out)[..], &["--threads", threads]].concat());
            files(&dir)
        })
        .collect();
    let names: Vec<_> = made[0].iter().map(|(name, _)| name.clone()).collect();
    assert!(names.iter().any(|n| n.ends_with("plan.stats.safetensors")), "{names:?}");
    assert_eq!(names, made[1].iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
    for ((name, a), (_, b)) in made[0].iter().zip(&made[1]) {
        assert!(a == b, "{}: the bytes differ between 1 and 3 threads", name.display());
    }
}

#[test]
fn a_scheme_that_was_changed_in_its_entry_is_refused() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = checkpoint(work.path());
    let path = work.path().join("plan.toml");
    plan(&checkpoint, &["--scheme", "int8"], &path);
    let text = fs::read_to_string(&path).expect("a plan");
    fs::write(&path, text.replacen("scheme = \"int8\"", "scheme = \"palette4\"", 1)).expect("a plan");
    let (checkpoint, plan, out) = (arg(&checkpoint), arg(&path), arg(&work.path().join("x.onnx")));
    let error = fails(&compile_args(&checkpoint, "onnx", &plan, &out));
    assert!(error.contains("found palette4 with ") && error.contains("change schemes under [override]"), "{error}");
}

#[test]
fn samples_that_do_not_fit_are_refused() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = checkpoint(work.path());
    let stream = crate::common::golden("stream_tiny").join("golden.safetensors");
    let out = arg(&work.path().join("plan.toml"));
    let error = fails(&[
        "quantize",
        &arg(&checkpoint),
        "--latent",
        "3x4x4",
        "--scheme",
        "int8",
        "--calibrate",
        &arg(&stream),
        "-o",
        &out,
    ]);
    assert!(
        error.contains("golden.safetensors: tensor \"latent\": found nothing, expected [N, 16, 3, 4, 4]"),
        "{error}"
    );
    assert!(!Path::new(&out).exists());
    assert_eq!(fs::read_dir(work.path()).expect("a folder").count(), 1, "nothing is left behind");
}

#[test]
fn no_input_is_written_over() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let dir = checkpoint(work.path());
    let samples = work.path().join("samples.toml");
    fs::write(&samples, "samples").expect("a file");
    let statistics = work.path().join("x.stats.safetensors");
    fs::write(&statistics, "samples").expect("a file");
    let (dir, samples, statistics) = (arg(&dir), arg(&samples), arg(&statistics));
    let plan = arg(&work.path().join("x.toml"));
    let base = ["quantize", "-q", &dir, "--scheme", "int8", "--calibrate"];
    for rest in [[&samples[..], "-o", &samples, "--json"], [&statistics, "-o", &plan, "--json"]] {
        let error = fails(&[&base[..], &rest].concat());
        assert!(error.contains("is the input --calibrate"), "{error}");
    }
    let nowhere = arg(&work.path().join("nowhere/report.html"));
    fails(&["quantize", "-q", &dir, "--scheme", "int8", "-o", &plan, "--report", &nowhere]);
    assert!(!Path::new(&plan).exists(), "a report that cannot be written is found before the plan is");
    let page = arg(&work.path().join("samples.html"));
    fs::copy(&samples, &page).expect("a copy");
    let error = fails(&[&base[..], &[&page, "-o", &plan, "--report", &page]].concat());
    assert!(error.contains("--report: found `") && error.contains("is the input --calibrate"), "{error}");
    assert!(fs::read(&samples).expect("a file") == b"samples" && fs::read(&statistics).expect("a file") == b"samples");
}

#[test]
fn streams_take_plans() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = checkpoint(work.path());
    let path = work.path().join("plan.toml");
    plan(&checkpoint, &["--scheme", "palette6", "--calibrate", "seeded"], &path);
    let out = work.path().join("x.kernel");
    let (checkpoint, path, out) = (arg(&checkpoint), arg(&path), arg(&out));
    let base = ["compile", "-q", &checkpoint, "--mode", "stream", "--target", "coreml", "--latent", "4x4"];
    ok(&[&base[..], &["--quantize", &path, "-o", &out]].concat());
    ok(&["verify", "-q", &out, "--checkpoint", &checkpoint, "--chunks", "2"]);
    let whole = arg(&work.path().join("whole.kernel"));
    ok(&[&base[..], &["-o", &whole]].concat());
    let size = |dir: &str| files(Path::new(dir)).iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    assert!(size(&out) * 2 < size(&whole));
}
