//! `s2ditc lint` as people and scripts use it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{arg, fails, golden, ok, python, repo, run};
use serde_json::{Value, json};

fn json_of(args: &[&str]) -> Value {
    serde_json::from_str(&ok(args)).expect("JSON on standard output")
}

/// A golden's package in the plain layout, in which there is much to find.
fn package(work: &Path, name: &str, latent: &str) -> PathBuf {
    let out = work.join(format!("{name}.mlpackage"));
    let checkpoint = arg(&golden(name).join("checkpoint"));
    let plain = ["--target", "coreml", "--compute", "any"];
    ok(&[&["compile", "-q", &checkpoint, "--latent", latent, "-o", &arg(&out)][..], &plain].concat());
    out
}

/// What is shaped for the Neural Engine stays there, op by op: clips whose timesteps are known, and kernels.
#[test]
fn packages_for_the_neural_engine_are_clean() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let small = arg(&work.path().join("small"));
    ok(&["init", "-q", "--preset", "small", "-o", &small]);
    let checkpoint = |name: &str| if name == "small" { small.clone() } else { arg(&golden(name).join("checkpoint")) };
    for (name, latent) in [
        ("tiny", "3x8x8"),
        ("odd", "2x12x8"),
        ("post", "4x8x4"),
        ("per_head", "1x12x8"),
        ("padded", "2x10x14"),
        ("small", "3x16x24"),
    ] {
        for attention in ["batched", "per-head"] {
            let out = arg(&work.path().join(format!("{name}-{attention}.mlpackage")));
            let flags = ["--target", "coreml", "--timesteps", "from-config", "--attention", attention];
            ok(&[&["compile", "-q", &checkpoint(name), "--latent", latent, "-o", &out][..], &flags].concat());
            ok(&["lint", "--deny-fallback", &out]);
        }
    }
    for (name, latent) in [
        ("stream_tiny", "8x8"),
        ("stream_post", "8x4"),
        ("stream_wide", "6x6"),
        ("stream_sink", "6x10"),
        ("stream_last_step", "8x4"),
        ("stream_last_sink", "6x8"),
        ("stream_paths", "8x8"),
        ("small", "16x24"),
    ] {
        let out = arg(&work.path().join(format!("{name}-kernel")));
        let flags = ["--target", "coreml", "--mode", "stream"];
        ok(&[&["compile", "-q", &checkpoint(name), "--latent", latent, "-o", &out][..], &flags].concat());
        ok(&["lint", "--deny-fallback", &out]);
    }
}

fn kernel(work: &Path, options: &[&str]) -> PathBuf {
    let out = work.join("kernel");
    let checkpoint = arg(&golden("stream_tiny").join("checkpoint"));
    let args = ["compile", "-q", &checkpoint, "--mode", "stream", "--latent", "8x8", "-o", &arg(&out)];
    ok(&[&args[..], options].concat());
    out
}

/// Names of the ops that a report's rule found.
fn found<'r>(package: &'r Value, rule: &str) -> Vec<&'r str> {
    let findings = package["findings"].as_array().expect("findings");
    findings.iter().filter(|f| f["rule"] == rule).filter_map(|f| f["name"].as_str()).collect()
}

fn count(value: &Value) -> usize {
    value.as_u64().expect("a count") as usize
}

#[test]
fn a_package_of_this_compiler_is_judged_op_by_op() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let out = package(work.path(), "tiny", "3x8x8");
    let report = json_of(&["lint", "--json", &arg(&out)]);
    let package = &report["packages"][0];
    let ops = package["ops"].as_array().expect("ops");
    let verdicts = &package["summary"]["verdicts"];
    for verdict in ["stays", "may_leave", "leaves"] {
        assert_eq!(ops.iter().filter(|o| o["verdict"] == verdict).count(), count(&verdicts[verdict]), "{verdict}");
    }
    assert_eq!(report["summary"]["verdicts"], *verdicts);
    let inspected = json_of(&["inspect", "--json", &arg(&out)]);
    let inspected: usize = inspected["ops"].as_array().expect("ops").iter().map(|o| count(&o[1])).sum();
    assert_eq!(ops.len(), inspected);
    // Every block of the network is found in the names, and every op of it.
    let blocks = package["summary"]["functions"][0]["blocks"].as_object().expect("blocks");
    assert_eq!(blocks.keys().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    for op in ops.iter().filter(|o| o["name"].as_str().expect("a name").starts_with("blocks_")) {
        assert!(op["provenance"].as_str().is_some_and(|p| p.starts_with("blocks_")), "{op}");
    }
    // fp32 results are exactly what the census counts.
    let wide = ops.iter().filter(|o| o["rules"].as_array().expect("rules").contains(&"fp32".into())).count();
    assert!(wide >= count(&package["summary"]["dtypes"]["fp32"]), "{wide}");

    let text = ok(&["lint", &arg(&out)]);
    assert!(text.contains("… and") && text.contains("fp32 ×") && text.contains("mend:"), "{text}");
    let all = ok(&["lint", "--all", &arg(&out)]);
    assert!(all.len() > text.len() && !all.contains("… and"), "{all}");
    assert_eq!(ok(&["lint", "-q", &arg(&out)]).lines().count(), 1);
}

#[test]
fn every_package_of_a_kernel_is_checked() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let shared = kernel(work.path(), &["--target", "coreml", "--states", "native"]);
    let report = json_of(&["lint", "--json", &arg(&shared)]);
    let package = &report["packages"][0];
    let functions: Vec<_> = package["summary"]["functions"].as_array().expect("functions").iter().collect();
    assert_eq!(
        functions.iter().map(|f| f["name"].as_str().expect("a name")).collect::<Vec<_>>(),
        ["denoise", "commit", "prompt"]
    );
    assert_eq!(functions.iter().map(|f| count(&f["states"])).collect::<Vec<_>>(), [1, 1, 0]);
    assert_eq!(found(package, "state-multifunction"), ["denoise", "commit"]);
    fs::remove_dir_all(&shared).expect("a folder");

    let separate = kernel(work.path(), &["--target", "coreml", "--functions", "separate"]);
    let report = json_of(&["lint", "--json", &arg(&separate)]);
    let packages = report["packages"].as_array().expect("packages");
    assert_eq!(packages.len(), 3);
    let total: usize = packages.iter().map(|p| p["ops"].as_array().expect("ops").len()).sum();
    let sum = &report["summary"]["verdicts"];
    assert_eq!(total, ["stays", "may_leave", "leaves"].iter().map(|v| count(&sum[v])).sum::<usize>());
    fs::remove_dir_all(separate.join("commit.mlpackage")).expect("a package");
    assert!(fails(&["lint", &arg(&separate)]).contains("commit.mlpackage"));
    fs::remove_dir_all(&separate).expect("a folder");

    let onnx = kernel(work.path(), &["--target", "onnx"]);
    assert!(fails(&["lint", &arg(&onnx)]).contains("target onnx"));
}

#[test]
fn packages_of_coremltools_are_judged_by_what_was_put_into_them() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let script = repo().join("tests/conformance/lint_packages.py");
    let made = Command::new(python::interpreter()).arg(script).arg(work.path()).output().expect("python starts");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let lint = |name: &str| {
        let place = arg(&work.path().join(name).with_extension("mlpackage"));
        json_of(&["lint", "--json", &place])["packages"][0].clone()
    };
    let clean = lint("clean");
    assert_eq!(clean["findings"], json!([]));
    assert_eq!(clean["summary"]["verdicts"], json!({"stays": 3, "may_leave": 0, "leaves": 0}));
    assert_eq!(clean["ops"][0]["name"], "projection");
    ok(&["lint", "--deny-fallback", &arg(&work.path().join("clean.mlpackage"))]);

    let falls_off = lint("falls_off");
    assert_eq!(found(&falls_off, "op-gather"), ["picked"]);
    assert_eq!(found(&falls_off, "fp32"), ["wide", "wide_exp", "best_0", "narrow"]);
    assert_eq!(found(&falls_off, "op-topk"), ["best_0"]);
    assert_eq!(falls_off["summary"]["verdicts"]["leaves"], 5);

    assert_eq!(found(&lint("blockwise"), "blockwise"), ["quantised"]);
    let stateful = lint("stateful");
    assert_eq!(found(&stateful, "state-last-axis"), ["cache"]);
    assert_eq!(found(&stateful, "state-shift").len(), 1);
}

#[test]
fn fallback_is_denied_by_verdict_and_confidence() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let out = arg(&package(work.path(), "tiny", "3x8x8"));
    let report = json_of(&["lint", "--json", &out]);
    assert!(count(&report["summary"]["verdicts"]["leaves"]) > 0, "this test needs a package with islands of fp32");
    let error = fails(&["lint", "-q", "--deny-fallback", &out]);
    assert!(error.contains("--deny-fallback") && error.contains("fp32"), "{error}");
    // With every rule that speaks against it retired, nothing leaves, but something still may.
    let rules = work.path().join("rules.json");
    let retire = |severities: &[&str]| {
        let all = json_of(&["lint", "--rules", "--json"]);
        let bad = all.as_array().expect("rules").iter().filter(|r| severities.iter().any(|s| r["severity"] == *s));
        let retired: Vec<Value> = bad.map(|r| json!({"id": r["id"], "retired": true})).collect();
        fs::write(&rules, json!({"rules": retired}).to_string()).expect("a file");
    };
    retire(&["leaves", "breaks"]);
    ok(&["lint", "-q", "--deny-fallback=leaves", "--rules-file", &arg(&rules), &out]);
    fails(&["lint", "-q", "--deny-fallback", "--rules-file", &arg(&rules), &out]);
    retire(&["leaves", "breaks", "may_leave"]);
    ok(&["lint", "-q", "--deny-fallback", "--rules-file", &arg(&rules), &out]);
    let high = json_of(&["lint", "--json", "--min-confidence", "high", &out]);
    let findings = high["packages"][0]["findings"].as_array().expect("findings");
    assert!(!findings.is_empty() && findings.iter().all(|f| f["confidence"] == "high"));
}

#[test]
fn rules_are_listed_with_their_sources() {
    let rules = json_of(&["lint", "--rules", "--json"]);
    for rule in rules.as_array().expect("rules") {
        for field in ["id", "text", "source", "confidence", "since", "severity", "mend", "check"] {
            assert!(rule[field].as_str().is_some_and(|t| !t.is_empty()), "{field}: {rule}");
        }
    }
    let text = ok(&["lint", "--rules"]);
    assert!(text.contains("state-last-axis: leaves, high confidence, since iOS 18"), "{text}");
    assert!(!ok(&["lint", "--rules", "--min-confidence", "high"]).contains("op-silu"));
    assert_eq!(run(&["lint"]).status.code(), Some(2));
}

#[test]
fn the_end_of_a_compile_says_what_lint_says() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = arg(&golden("tiny").join("checkpoint"));
    let out = arg(&work.path().join("tiny.mlpackage"));
    let args = ["compile", &checkpoint, "--target", "coreml", "--latent", "3x8x8", "-o", &out];
    let text = ok(&args);
    let line = text.lines().find(|l| l.starts_with("lint: ")).expect("a line of lint");
    assert!(line.contains("the Neural Engine") && line.contains("s2ditc lint"), "{line}");
    // A finding in a package of ours names the flag that mends it.
    assert!(line.contains("mend: --timesteps from-config"), "{line}");
    assert!(ok(&["lint", &out]).contains("mend: s2ditc compile … --timesteps from-config ("));
    let mended = arg(&work.path().join("mended.mlpackage"));
    let listed = [&args[..args.len() - 1], &[&mended, "--timesteps", "from-config"]].concat();
    assert!(ok(&listed).contains(" 0 leave the Neural Engine") && !ok(&listed).contains("mend:"));
    let summary = json_of(&[&args[..], &["--json"]].concat());
    assert_eq!(summary["lint"], json_of(&["lint", "--json", &out])["summary"]);
    assert!(summary["ops"].is_u64(), "{summary}");
    let onnx = arg(&work.path().join("tiny.onnx"));
    let summary = json_of(&["compile", &checkpoint, "--target", "onnx", "--latent", "3x8x8", "-o", &onnx, "--json"]);
    assert!(summary.get("lint").is_none(), "{summary}");
}

/// A device report that places every op of a package by `place`.
fn device_report(package: &Value, place: impl Fn(&Value) -> &'static str) -> Value {
    let mut functions: Vec<Value> = Vec::new();
    for op in package["ops"].as_array().expect("ops") {
        if functions.last().is_none_or(|f| f["name"] != op["function"]) {
            functions.push(json!({"name": op["function"], "operations": []}));
        }
        let ty = format!("ios18.{}", op["type"].as_str().expect("a type"));
        let preferred = place(op);
        let entry = json!({"name": op["name"], "type": ty, "preferred": preferred, "supported": ["cpu", preferred], "cost": 0.001});
        functions.last_mut().expect("a function")["operations"].as_array_mut().expect("a list").push(entry);
    }
    json!({
        "format": "s2ditc-device-report", "version": 1, "model": "tiny.mlpackage", "device": "iPhone17,1", "os": "Version 26.1",
        "compute_units": "cpu_and_neural_engine", "functions": functions,
    })
}

#[test]
fn a_device_report_shows_which_rules_were_wrong() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let out = arg(&package(work.path(), "tiny", "3x8x8"));
    let before = json_of(&["lint", "--json", &out])["packages"][0].clone();
    // On this device fp32 does leave, 3-D convolutions stay, and softmax leaves although no rule says so.
    let place =
        |op: &Value| match op["rules"].as_array().expect("rules").contains(&"fp32".into()) || op["type"] == "softmax" {
            true => "cpu",
            false => "neural_engine",
        };
    let report = work.path().join("report.json");
    fs::write(&report, device_report(&before, place).to_string()).expect("a file");
    let with = json_of(&["lint", "--json", "--device-report", &arg(&report), &out]);
    let device = &with["packages"][0]["device"];
    let judgement = |rule: &str| {
        let rows = device["rules"].as_array().expect("rules");
        rows.iter().find(|r| r["rule"] == rule).map(|r| r["judgement"].clone())
    };
    assert_eq!(judgement("fp32"), Some("right".into()));
    assert_eq!(judgement("conv-3d"), Some("wrong".into()));
    let softmaxes = count(&before["summary"]["ops"]["softmax"]);
    assert_eq!(device["missed"], json!({"softmax": softmaxes}));
    assert_eq!(device["confusion"]["stays"]["unsupported"], softmaxes);
    assert_eq!(device["confusion"]["leaves"]["engine"], found(&before, "conv-3d").len());
    assert_eq!(device["confusion"]["may_leave"]["engine"], 0);
    let text = ok(&["lint", "--device-report", &arg(&report), &out]);
    assert!(text.contains("rule conv-3d (leaves)") && text.contains("WRONG"), "{text}");
    assert!(text.contains(&format!("{softmaxes} softmax")), "{text}");

    // What was learned becomes a rules file.
    let rules = work.path().join("rules.json");
    let softmax = json!({"id": "softmax-axis", "severity": "leaves", "because": "iPhone17,1"});
    fs::write(&rules, json!({"rules": [{"id": "conv-3d", "retired": true}, softmax]}).to_string()).expect("a file");
    let args = ["lint", "--json", "--device-report", &arg(&report), "--rules-file", &arg(&rules), &out];
    let after = json_of(&args);
    let confusion = &after["packages"][0]["device"]["confusion"];
    assert_eq!(confusion["may_leave"]["engine"], 0);
    assert_eq!(confusion["stays"]["unsupported"], 0);
    assert_eq!(confusion["leaves"]["engine"], 0);
}

#[test]
fn bad_input_is_one_clear_error() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let out = arg(&package(work.path(), "tiny", "3x8x8"));
    let missing = arg(&work.path().join("missing.mlpackage"));
    let nothing = fails(&["lint", &missing]);
    assert!(nothing.contains("missing.mlpackage") && nothing.contains("found nothing"), "{nothing}");
    let onnx = work.path().join("x.onnx");
    fs::write(&onnx, "").expect("a file");
    for (path, found) in [(arg(&onnx), "an ONNX file"), (arg(work.path()), "a folder without Manifest.json")] {
        let error = fails(&["lint", &path]);
        assert!(
            error.contains("expected an .mlpackage, an .aimodel, or the folder") && error.contains(found),
            "{error}"
        );
    }
    let file = work.path().join("file.json");
    let with = |text: &str, option: &str| {
        fs::write(&file, text).expect("a file");
        fails(&["lint", option, &arg(&file), &out])
    };
    for (text, says) in [
        ("", "not a device report"),
        ("{\"format\": 3}", "not a device report"),
        (
            r#"{"format": "x", "version": 1, "model": "", "device": "", "os": "", "compute_units": "", "functions": []}"#,
            "found format `x`",
        ),
        (
            r#"{"format": "s2ditc-device-report", "version": 1, "model": "y.mlpackage", "device": "", "os": "", "compute_units": "", "functions": []}"#,
            "`y.mlpackage`",
        ),
        (
            r#"{"format": "s2ditc-device-report", "version": 1, "model": "y.aimodel", "device": "", "os": "", "compute_units": "prefer_gpu", "specialize_ms": 812.5,
                "load_ms": 3.25, "functions": [{"name": "main", "operations": [], "call_ms": 4.5}]}"#,
            "`y.aimodel` and has times alone",
        ),
        (
            r#"{"format": "s2ditc-device-report", "version": 1, "model": "y.aimodel", "device": "", "os": "", "compute_units": "all", "load_ms": -1, "functions": []}"#,
            "load_ms: found -1",
        ),
    ] {
        let error = with(text, "--device-report");
        assert!(error.contains(says) && error.contains("file.json"), "{text}: {error}");
    }
    for (text, says) in [
        ("{", "expected {\"rules\""),
        (r#"{"rules": [{"id": "no-such-rule", "retired": true}]}"#, "no rule `no-such-rule`"),
        (r#"{"rules": [{"id": "rank-5", "severity": "awful"}]}"#, "`awful`"),
        (r#"{"rules": [{"id": "rank-5", "params": {"depth": 3}}]}"#, "no parameter `depth`"),
    ] {
        let error = with(text, "--rules-file");
        assert!(error.contains(says) && error.contains("file.json"), "{text}: {error}");
    }
    let nowhere = arg(&work.path().join("nowhere.json"));
    for option in ["--device-report", "--rules-file"] {
        assert!(fails(&["lint", option, &nowhere, &out]).contains("nowhere.json"));
    }
    fs::write(work.path().join("tiny.mlpackage/Data/com.apple.CoreML/model.mlmodel"), b"\x08\xff\xff").expect("a file");
    assert!(fails(&["lint", &out]).contains("model.mlmodel"));
}
