//! The commands as people and scripts use them.

use crate::common::{arg, fails, golden, ok, run};
use serde_json::Value;

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&ok(args)).expect("JSON on standard output")
}

#[test]
fn the_demo_proves_both_targets_and_makes_a_video() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let out = work.path().join("demo");
    let done = json(&["demo", "-q", "--json", "-o", &arg(&out)]);
    let proofs = done["proofs"].as_array().expect("a list");
    assert_eq!(proofs.len(), 3);
    assert!(proofs.iter().all(|p| p["passed"] == true), "{proofs:?}");
    for made in [
        "toyworld/model_index.json",
        "golden.safetensors",
        "onnx/pipeline.json",
        "coreml/pipeline.json",
        "coreml/Transformer/contract.json",
    ] {
        assert!(out.join(made).exists(), "{made}");
    }
    // Six chunks of three latent frames: one frame for the first, and four for every other.
    assert_eq!(done["video"]["frames"], 1 + 4 * (6 * 3 - 1));
    let videos: Vec<&str> = done["videos"].as_array().expect("a list").iter().filter_map(|v| v.as_str()).collect();
    for video in &videos {
        assert!(std::fs::metadata(video).expect("a video").len() > 1000, "{video}");
    }
    assert_eq!(std::fs::read(out.join(".gitignore")).expect("a file"), b"*\n", "git ignores the demo");
    let weights =
        || crate::common::files(&out).into_iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "data"));
    let (before, gif) = (weights().count(), std::fs::read(out.join("video.gif")).expect("a video"));
    // Run again in the same place: everything is replaced, by the same.
    ok(&["demo", "-q", "-o", &arg(&out)]);
    assert_eq!(weights().count(), before);
    assert!(std::fs::read(out.join("video.gif")).expect("a video") == gif, "the same seed makes the same video");
    // What others put there stays.
    std::fs::write(out.join("toyworld/transformer/config.json"), "{}").expect("written");
    assert!(fails(&["demo", "-q", "-o", &arg(&out)]).contains("is not the demo's"));
    let foreign = work.path().join("foreign");
    std::fs::create_dir(&foreign).expect("a folder");
    std::fs::write(foreign.join("video.gif"), "mine").expect("written");
    assert!(
        fails(&["demo", "-q", "-o", &arg(&foreign)]).contains("found `video.gif`, and that folder is not the demo's")
    );
    assert_eq!(crate::common::files(&foreign).len(), 1, "nothing is added to a folder of others");
}

#[test]
fn what_run_and_decode_read_stays() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| arg(&work.path().join(name));
    ok(&["init", "--preset", "tiny", "--seed", "1", "-o", &at("tiny")]);
    ok(&[
        "compile",
        "-q",
        &at("tiny"),
        "--target",
        "coreml",
        "--mode",
        "stream",
        "--latent",
        "4x4",
        "-o",
        &at("kernel"),
    ]);
    ok(&["stream", "-q", &at("kernel"), "--prompt-seed", "1", "-o", &at("latents.safetensors")]);
    let before = std::fs::read(at("latents.safetensors")).expect("latents");
    let (model, latents) = (at("kernel/kernel.mlpackage"), at("latents.safetensors"));
    let inputs = ["run", &model, "--inputs", &latents];
    for (more, says) in [
        (&["-o", &latents][..], "is the input --inputs"),
        (&["-o", &latents, "--force"], "is the input --inputs"),
        (&["-o", &at("kernel/kernel.mlpackage/x.npz")], "lies in the input MODEL"),
        (&["-o", &at("x.npz"), "--states", &at("./x.npz")], "-o `"),
    ] {
        let error = fails(&[&inputs[..], more].concat());
        assert!(error.contains(says) && error.contains("explain E0003"), "{more:?}: {error}");
    }
    let error = fails(&["decode", &at("kernel"), "--latents", &latents, "-o", &at("kernel/x.gif")]);
    assert!(error.contains("lies in the input ARTIFACT"), "{error}");
    assert!(std::fs::read(&latents).expect("latents") == before);
    assert!(!work.path().join("x.npz").exists());
    for (target, name) in [("coreml", "k.mlpackage"), ("onnx", "k.onnx")] {
        let args = ["compile", "-q", &at("tiny"), "--target", target, "--mode", "stream", "--latent", "4x4", "-o"];
        let error = fails(&[&args[..], &[&at(name)]].concat());
        assert!(error.contains("a kernel goes into a folder") && error.contains("explain E0004"), "{error}");
    }
    // A plan and a device's figures that somebody edited are theirs, whatever the edit.
    ok(&["init", "--preset", "tiny", "--set", "ffn_dim=512", "--seed", "1", "-o", &at("wide")]);
    let plan = ["quantize", "-q", &at("wide"), "--scheme", "palette4", "--latent", "1x4x4", "-o", &at("plan.toml")];
    ok(&plan);
    ok(&plan);
    let mut text = std::fs::read_to_string(at("plan.toml")).expect("a plan");
    text += "[override]\n\"blocks.0.*\" = zz\n";
    std::fs::write(at("plan.toml"), &text).expect("written");
    assert!(fails(&plan).contains("somebody has edited"));
    assert_eq!(std::fs::read_to_string(at("plan.toml")).expect("a plan"), text);
}

#[test]
fn inspect_says_what_things_are() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = arg(&golden("odd").join("checkpoint"));
    let report = json(&["inspect", "--json", "--latent", "2x12x8", &checkpoint]);
    assert_eq!(report["kind"], "checkpoint");
    let model = &report["model"];
    assert_eq!(model["layout"], "1×ssa, 1×full, 1×lcha, 1×ssa, 1×full, 1×ssa");
    let tokens: Vec<u64> =
        model["layers"].as_array().expect("layers").iter().map(|l| l["tokens"].as_u64().expect("tokens")).collect();
    assert_eq!(tokens, [12, 48, 48, 12, 48, 12]);
    let blocks: Vec<&str> = model["costs"]
        .as_array()
        .expect("costs")
        .iter()
        .filter_map(|c| c["part"].as_str())
        .filter(|p| p.starts_with("blocks."))
        .collect();
    assert_eq!(blocks, ["blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4", "blocks.5"]);
    let by_part: u64 = model["parts"].as_array().expect("parts").iter().map(|p| p[1].as_u64().expect("a count")).sum();
    assert_eq!(model["parameters"], by_part);
    assert!(ok(&["inspect", "--latent", "2x12x8", &checkpoint]).contains("block 3  stage 1"));

    for (target, name, kind) in [("onnx", "x.onnx", "onnx"), ("coreml", "x.mlpackage", "mlpackage")] {
        let out = arg(&work.path().join(name));
        ok(&["compile", "-q", &checkpoint, "--target", target, "--latent", "2x12x8", "-o", &out]);
        let report = json(&["inspect", "--json", &out]);
        assert_eq!(report["kind"], kind);
        let inputs: Vec<&str> =
            report["inputs"].as_array().expect("inputs").iter().filter_map(|i| i["name"].as_str()).collect();
        assert_eq!(inputs, ["latent", "timestep", "text"]);
        assert_eq!(report["outputs"][0]["shape"], serde_json::json!([1, 4, 2, 12, 8]));
        assert_eq!(report["model"]["parameters"], by_part, "{target}: the model is known from the metadata");
        assert!(report["weight_bytes"].as_u64().expect("bytes") >= by_part * 2);
        let text = ok(&["inspect", &out]);
        assert!(text.contains("weights:"));
        assert_eq!(text.contains("needs iOS 18, macOS 15 or later"), target == "coreml", "{text}");
        assert!(text.contains("traffic is what all ops read and write, added up"), "{text}");
        assert_eq!(run(&["inspect", "--latent", "2x12x8", &out]).status.code(), Some(2));
    }
}

#[test]
fn inspect_sums_up_a_kernel() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = arg(&golden("stream_tiny").join("checkpoint"));
    for (target, states, in_states) in [("onnx", "io", true), ("coreml", "io", true), ("coreml", "native", false)] {
        let out = work.path().join(format!("{target}-{states}"));
        let place = arg(&out);
        let flags =
            ["--mode", "stream", "--latent", "8x8", "--target", target, "--states", states, "--precision", "fp16"];
        ok(&[&["compile", "-q", &checkpoint, "-o", &place], &flags[..]].concat());
        let report = json(&["inspect", "--json", &place]);
        let contract: Value =
            serde_json::from_str(&std::fs::read_to_string(out.join("contract.json")).expect("a contract"))
                .expect("JSON");
        assert_eq!(report["kind"], "kernel");
        for field in ["target", "precision", "states_policy", "functions_policy", "chunk", "sampler", "checkpoint"] {
            assert_eq!(report[field], contract[field], "{field}");
        }
        let commit = &report["functions"][2];
        assert_eq!(
            (&commit["name"], &commit["files"][0]),
            (&"commit".into(), &contract["functions"]["commit"]["file"])
        );
        let name = &contract["states"][0]["name"];
        let inputs = commit["inputs"].as_array().expect("inputs");
        assert_eq!(inputs.iter().any(|i| i["name"] == *name), in_states);
        // Every state is fp16 here.
        let side = |d: &Value| d.as_u64().expect("a side");
        let bytes = |s: &Value| s["shape"].as_array().expect("a shape").iter().map(side).product::<u64>() * 2;
        let sum: u64 = contract["states"].as_array().expect("states").iter().map(bytes).sum();
        assert_eq!(report["state_bytes"], sum);
        assert_eq!(report["minimum_os"].as_str(), (target == "coreml").then_some("iOS 18, macOS 15"));
        let text = ok(&["inspect", &place]);
        for part in
            ["prompt: ", "denoise: ", "velocity", "past_weight", " steps a chunk", name.as_str().expect("a name")]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    std::fs::remove_file(work.path().join("onnx-io/weights.data")).expect("weights");
    assert!(fails(&["inspect", &arg(&work.path().join("onnx-io"))]).contains("weights.data"));
}

#[test]
fn emitted_ir_is_ir() {
    let checkpoint = arg(&golden("tiny").join("checkpoint"));
    let args = ["compile", &checkpoint, "--target", "coreml", "--latent", "3x8x8", "--emit", "ir"];
    let text = ok(&args);
    let module = s2dit_ir::text::parse(&text).expect("IR");
    s2dit_ir::verify::verify(&module).expect("valid IR");
    assert_eq!(s2dit_ir::text::print(&module), text);
    let work = tempfile::tempdir().expect("a temporary folder");
    let out = work.path().join("tiny.s2");
    ok(&[&args[..], &["-o", &arg(&out)]].concat());
    assert_eq!(std::fs::read_to_string(out).expect("a file"), text);
}

#[test]
fn artifacts_are_proved_against_their_checkpoint() {
    let work = tempfile::tempdir().expect("a temporary folder");
    for name in ["tiny", "sharded"] {
        let checkpoint = arg(&golden(name).join("checkpoint"));
        for (target, file) in [("onnx", "x.onnx"), ("coreml", "x.mlpackage")] {
            let out = arg(&work.path().join(file));
            ok(&["compile", "-q", &checkpoint, "--target", target, "--latent", "1x8x8", "-o", &out]);
            let report = json(&["verify", &out, "--checkpoint", &checkpoint, "--blocks", "--seed", "5", "--json"]);
            assert_eq!((&report["passed"], &report["first_block_below"]), (&true.into(), &Value::Null), "{report}");
            let names: Vec<&str> =
                report["rows"].as_array().expect("rows").iter().filter_map(|r| r["name"].as_str()).collect();
            assert_eq!(names, ["velocity", "block0", "block1", "block2", "block3"]);
        }
    }
}

#[test]
fn usage_errors_exit_with_2_and_help_shows_examples() {
    assert_eq!(run(&["compile"]).status.code(), Some(2));
    assert_eq!(run(&["verify", "x.onnx"]).status.code(), Some(2));
    assert_eq!(run(&["compile", "x", "--target", "tflite", "--latent", "1x2x2", "-o", "x"]).status.code(), Some(2));
    let kernel = ["compile", "x", "--mode", "stream", "--latent", "8x8", "-o", "x"];
    let clip = ["compile", "x", "--latent", "1x8x8", "-o", "x"];
    let stream = ["stream", "x"];
    for (args, more, says) in [
        (&clip[..], &["--target", "coreml", "--states", "io"][..], "--states is for --mode stream"),
        (&clip, &["--target", "coreml", "--functions", "separate"], "--functions is for --mode stream"),
        (&clip, &["--target", "coreml", "--opset", "21"], "--opset is for --target onnx"),
        (&kernel, &["--target", "onnx", "--functions", "shared"], "--functions shared is for --target coreml"),
        (&["verify", "x"], &["--golden", "y", "--seed", "0"], "--seed"),
        (&["verify", "x"], &["--golden", "y", "--plot", "y.png"], "ends in .svg"),
        (&stream, &["--preview", "y.avi"], "ends in .mp4"),
        (&stream, &["--output", "y.mp4"], "expected .safetensors"),
        (&stream, &["--output", "y.bin"], "expected .safetensors"),
        (&["estimate", "x"], &["--report", "y.pdf"], "ends in .html"),
        (&clip, &["--target", "coreml", "--explain", "fuse"], "--explain"),
        (&clip, &["--target", "coreml", "--partition", "1.2.3GB"], "900MB"),
        (&stream, &["--chunks", "0"], "--chunks"),
        (&stream, &["--chunks", "18446744073709551615"], "--chunks"),
        (&stream, &["--prompt-at", "3=a", "--prompt-at", "3=b"], "two prompts for chunk 3"),
        (&["estimate"], &["--preset", "big"], "expected one of tiny, small"),
        (
            &["search", "--budget-latency", "9"],
            &["--budget-memory", "9", "--preset", "big"],
            "expected one of tiny, small",
        ),
        (
            &["search", "--budget-latency", "9"],
            &["--budget-memory", "9", "--kinds", "lcha,dense"],
            "--kinds: found \"dense\"",
        ),
    ] {
        let out = run(&[args, more].concat());
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{args:?} {more:?}: {stderr}");
        assert!(stderr.contains(says), "{args:?} {more:?}: {stderr}");
    }
    for command in ["init", "inspect", "compile", "verify", "generate", "lint", "passes", "demo", "completions"] {
        assert!(ok(&[command, "--help"]).contains("Example"), "{command}");
    }
    assert!(ok(&["completions", "bash"]).contains("s2ditc"));
    let unknown = run(&["man", "nothing"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("expected one of init, inspect, compile"));
}

#[cfg(target_os = "linux")]
#[test]
fn help_that_cannot_be_written_is_a_failure() {
    for args in [&["--help"][..], &["--version"], &["stream", "--help"], &["completions", "bash"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let out = crate::common::s2ditc().args(args).stdout(full).output().expect("s2ditc starts");
        assert_eq!(out.status.code(), Some(1), "{args:?}");
        assert!(String::from_utf8_lossy(&out.stderr).contains("cannot write to standard output"), "{args:?}");
    }
}

/// A manual page names every flag of its command, as `--help` does.
#[test]
fn manual_pages_name_every_flag() {
    let program = s2ditc::cli::command();
    let listed = ok(&["man"]);
    for command in program.get_subcommands().filter(|command| !command.is_hide_set()) {
        let page = ok(&["man", command.get_name()]).replace('\\', "");
        assert!(page.contains(&format!("s2ditc-{}", command.get_name())), "{page}");
        for flag in command.get_arguments().filter(|flag| !flag.is_hide_set()).filter_map(clap::Arg::get_long) {
            assert!(page.contains(&format!("--{flag}")), "{}: --{flag}", command.get_name());
        }
        assert!(listed.replace('\\', "").contains(&format!("s2ditc-{}(1)", command.get_name())), "{listed}");
    }
}

/// Every pass keeps the numbers of every golden's graph, and of a stream's three functions: run in ONNX Runtime after each one.
#[test]
fn no_pass_moves_the_numbers() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let moved = |name: &str, flags: &[&str]| {
        let checkpoint = arg(&golden(name).join("checkpoint"));
        let ending = match flags[1] {
            _ if flags.contains(&"stream") => "",
            "coreml" => ".mlpackage",
            _ => ".onnx",
        };
        let out = arg(&work.path().join(format!("{name}{ending}")));
        let report = json(
            &[&["compile", &checkpoint, "--verify-each", "--json", "-o", &out, "--target"][..], &flags[1..]].concat(),
        );
        let rows = report["passes"].as_array().expect("passes").clone();
        assert!(rows.len() > 5 && rows[0]["moved"]["results"].as_u64() > Some(0), "{name}: {report}");
        for row in rows {
            let to_fp16 = row["pass"].as_str().expect("a pass").starts_with("precision-fp16");
            let bar = if to_fp16 { 2e-3 } else { 2e-6 };
            let far = row["moved"]["relative_l2"].as_f64().unwrap_or(0.0);
            assert!(far < bar, "{name}, pass {}: the results moved by {far:.1e}", row["pass"]);
        }
    };
    for (name, latent) in [("tiny", "3x8x8"), ("odd", "2x12x8"), ("post", "4x8x4"), ("padded", "2x10x14")] {
        for target in ["coreml", "onnx"] {
            moved(name, &["--target", target, "--latent", latent]);
        }
    }
    moved("stream_post", &["--target", "onnx", "--mode", "stream", "--latent", "8x8"]);
}

#[test]
fn the_ir_after_any_pass() {
    let checkpoint = arg(&golden("tiny").join("checkpoint"));
    let emit = ["compile", &checkpoint, "--target", "coreml", "--latent", "3x8x8", "--emit", "ir"];
    let after = |pass: &str| ok(&[&emit[..], &["--after", pass]].concat());
    assert!(after("fuse").contains("= rms_norm(") && !after("decompose").contains("= rms_norm("));
    assert_eq!(after("fuse"), after("4"));
    let refused = run(&[&emit[..], &["--after", "fusion"]].concat());
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && message.contains("4 fuse"), "{message}");
}

/// The largest values of the blocks are those of PyTorch's, and nothing of a golden's package overflows.
#[test]
fn ranges_are_those_of_the_reference() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = arg(&golden("tiny").join("checkpoint"));
    let reference = golden("tiny").join("golden.safetensors");
    let out = arg(&work.path().join("tiny.mlpackage"));
    ok(&["compile", "-q", &checkpoint, "--target", "coreml", "--latent", "3x8x8", "-o", &out]);
    let report = json(&["ranges", &out, "--golden", &arg(&reference), "--json"]);
    assert_eq!((&report["overflows"], &report["at_risk"]), (&0.into(), &0.into()));
    // Masks are -1e4 by design, and no values of the model.
    let most = report["rows"][0]["largest"].as_f64().expect("a number");
    assert!(most < 1000.0, "{}", report["rows"][0]);
    let bytes = std::fs::read(&reference).expect("a golden");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("a golden");
    for block in 0..4 {
        let data = tensors.tensor(&format!("block{block}")).expect("a block").data().to_vec();
        let values = data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes")).abs());
        let largest = f64::from(values.fold(0.0, f32::max));
        let near = |row: &Value| {
            let found = row["largest"].as_f64().unwrap_or(0.0);
            row["scope"] == format!("block{block}") && (found / largest - 1.0).abs() < 5e-3
        };
        assert!(report["rows"].as_array().expect("rows").iter().any(near), "block {block}: {largest}");
    }

    let kernel = arg(&work.path().join("kernel"));
    let checkpoint = arg(&golden("stream_tiny").join("checkpoint"));
    let stream = ["--target", "coreml", "--mode", "stream", "--latent", "8x8", "-o", &kernel];
    ok(&[&["compile", "-q", &checkpoint], &stream[..]].concat());
    let report = json(&["ranges", &kernel, "--samples", "3", "--json"]);
    let functions: std::collections::BTreeSet<&str> =
        report["rows"].as_array().expect("rows").iter().filter_map(|r| r["function"].as_str()).collect();
    assert!(["commit", "denoise", "prompt"].iter().all(|f| functions.contains(f)), "{functions:?}");

    let plain = arg(&work.path().join("plain.mlpackage"));
    let tiny = arg(&golden("tiny").join("checkpoint"));
    ok(&["compile", "-q", &tiny, "--target", "coreml", "--precision", "fp32", "--latent", "3x8x8", "-o", &plain]);
    let refused = run(&["ranges", &plain]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no fp16 values"));
}

/// One size has one spelling, whichever flag it follows.
#[test]
fn sizes_have_parts_everywhere() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| arg(&work.path().join(name));
    ok(&["init", "-q", "--preset", "tiny", "--max-shard-size", "0.1MB", "-o", &at("c")]);
    assert!(work.path().join("c/diffusion_pytorch_model.safetensors.index.json").exists(), "the checkpoint is sharded");
    let base = ["compile", "-q", &at("c"), "--target", "coreml", "--latent", "3x8x8"];
    ok(&[&base[..], &["--partition", "1.2GB", "-o", &at("parts")]].concat());
    assert!(work.path().join("parts/part0.mlpackage").exists() && !work.path().join("parts/part1.mlpackage").exists());
}

#[test]
fn init_uses_the_threads_that_it_is_given() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let made = ["1", "3"].map(|threads| {
        let dir = work.path().join(threads);
        ok(&["init", "-q", "--preset", "tiny", "--threads", threads, "-o", &arg(&dir)]);
        crate::common::files(&dir)
    });
    assert!(made[0] == made[1], "the bytes do not depend on the threads");
}

#[test]
fn passes_and_pipelines_are_listed() {
    let all = json(&["passes", "--json"]);
    let names = |list: &str, key: &str| -> Vec<String> {
        let rows = all[list].as_array().expect("a list");
        rows.iter().map(|row| row[key].as_str().expect("a name").to_string()).collect()
    };
    let (passes, pipelines) = (names("passes", "pass"), names("pipelines", "pipeline"));
    let text = ok(&["passes"]);
    for name in passes.iter().chain(&pipelines).chain(&names("properties", "property")) {
        assert!(text.contains(name), "{name}");
    }
    for name in passes.iter().chain(&pipelines) {
        assert!(ok(&["passes", name]).starts_with(name), "{name}");
    }
    let fold_gate = json(&["passes", "fold-gate", "--json"]);
    let runs_in = fold_gate["pipelines"].as_array().expect("pipelines");
    assert!(runs_in.contains(&"reference".into()) && !runs_in.contains(&"recognition".into()), "{fold_gate}");
    let stream = json(&["passes", "stream-coreml-ane-fp16", "--json"]);
    assert_eq!(stream["passes"][2]["as_written"], "split(window=0,sinks=0,half-states)");
    let out = run(&["passes", "fold-gat"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("did you mean `fold-gate`?"));
}

/// A number below 0 after a flag is the flag's value, and no other flag.
#[test]
fn numbers_below_zero_are_values() {
    let out = run(&["verify", "x.onnx", "--checkpoint", "x", "--min-snr", "-5"]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2));
    assert!(said.contains("expected a number of decibels from 0"), "{said}");
    let none = fails(&["estimate", "--preset", "tiny", "--latent", "0x8x8"]);
    assert!(none.contains("found a side of 0, expected sides from 1"), "{none}");
}
