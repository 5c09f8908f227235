//! Streams of imported graphs: one chunk of a network, as PyTorch exported it, becomes the kernel that the frontend's graph becomes. The recorded
//! streams of the goldens judge it.

use std::path::{Path, PathBuf};

use crate::common::{arg, fails, golden, ok, repo, run};
use serde_json::Value;

/// Relative L2 error that a chunk of an fp32 kernel may have against float64 PyTorch.
const FP32_BAR: f64 = 1e-5;
/// SNR in dB of every chunk of an fp16 package whose every result is rounded to fp16.
const FP16_SNR: f64 = 45.0;

fn file(name: &str) -> PathBuf {
    repo().join("tests/goldens/import").join(name)
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&ok(args)).expect("JSON")
}

fn config(name: &str) -> Value {
    let text = std::fs::read_to_string(golden(name).join("checkpoint/config.json")).expect("a configuration");
    serde_json::from_str(&text).expect("JSON")
}

/// What the configuration says of the stream, as flags.
fn flags(config: &Value) -> Vec<String> {
    let list = |steps: &Value| {
        let steps = steps.as_array().expect("timesteps").iter();
        steps.map(ToString::to_string).collect::<Vec<_>>().join(",")
    };
    let pairs = if config["_class_name"] == "CausalWanModel" {
        let (sinks, chunk) = (config["sink_size"].as_u64().expect("a size"), config["num_frame_per_block"].as_u64());
        let seen = config["local_attn_size"].as_u64().unwrap_or(21);
        vec![
            ("--window", (seen - sinks - chunk.expect("a size")).to_string()),
            ("--sinks", sinks.to_string()),
            ("--sample-steps", list(&config["denoising_step_list"])),
            ("--flow-shift", config["timestep_shift"].to_string()),
        ]
    } else {
        vec![
            ("--chunk", config["chunk_frames"].to_string()),
            ("--window", config["window_frames"].to_string()),
            ("--sinks", config["sink_frames"].to_string()),
            ("--state-write", config["state_write"].as_str().expect("a pass").to_owned()),
            ("--sample-steps", list(&config["sample_steps"])),
            ("--flow-shift", config["flow_shift"].to_string()),
        ]
    };
    pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
}

fn compile(source: &[String], how: &[&str], out: &Path) -> Value {
    let out = arg(out);
    let mut args = vec!["compile", "--json", "-q", "--mode", "stream", "-o", &out];
    args.extend(source.iter().map(String::as_str));
    args.extend(how);
    json(&args)
}

/// Every chunk's figure against the recorded stream.
fn figures(kernel: &Path, name: &str, figure: &str, how: &[&str]) -> Vec<f64> {
    let reference = arg(&golden(name).join("golden.safetensors"));
    let report =
        json(&[&["verify", "-q", &arg(kernel), "--golden", &reference, "--json", "--min-snr", "40"], how].concat());
    let rows = report["rows"].as_array().expect("rows");
    rows.iter().map(|row| row[figure].as_f64().expect("a number")).collect()
}

fn contract(kernel: &Path) -> Value {
    let text = std::fs::read_to_string(kernel.join("contract.json")).expect("a contract");
    serde_json::from_str(&text).expect("JSON")
}

/// What a host sees of a kernel: the shapes of what goes in and out of each function, the inputs that it computes, the states.
fn seen_by_a_host(contract: &Value) -> Value {
    let shapes = |ports: &Value| -> Vec<String> {
        let mut shapes: Vec<String> = ports.as_array().expect("ports").iter().map(|p| p["shape"].to_string()).collect();
        shapes.sort();
        shapes
    };
    let functions = contract["functions"].as_object().expect("functions");
    let functions: Vec<Value> =
        functions.values().map(|f| serde_json::json!([shapes(&f["inputs"]), shapes(&f["outputs"])])).collect();
    let mut computed: Vec<Value> = contract["host_inputs"].as_array().expect("inputs").clone();
    for input in &mut computed {
        input.as_object_mut().expect("an input").remove("name");
    }
    computed.sort_by_key(ToString::to_string);
    serde_json::json!([functions, computed, shapes(&contract["states"]), contract["sampler"], contract["timesteps"]])
}

/// The front door's kernel and the graph's, in fp32 for ONNX Runtime and in fp16 for the Neural Engine.
fn check(name: &str, latent: &str, forms: &[&str]) {
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| work.path().join(name);
    let folder = golden(name).join("checkpoint");
    let published = folder.join("self_forcing.pt");
    let mut own = match published.exists() {
        true => vec![arg(&published), "--state-dict".into(), "generator_ema".into()],
        false => vec![arg(&folder)],
    };
    own.extend(["--latent".into(), latent.into()]);
    let package = ["--target", "coreml"];
    let expected = compile(&own, &package, &at("own"));
    for form in forms {
        let graph = arg(&golden(name).join(format!("chunk.{form}")));
        let source = [vec![graph.clone()], flags(&config(name))].concat();
        let kernel = at(&format!("{form}-fp32"));
        compile(&source, &["--target", "onnx"], &kernel);
        for error in figures(&kernel, name, "relative_l2", &[]) {
            assert!(error <= FP32_BAR, "{name}.{form}: relative L2 {error:e}");
        }
        let kernel = at(&format!("{form}-fp16"));
        let found = compile(&source, &package, &kernel);
        for snr in figures(&kernel, name, "snr_db", &["--fp16"]) {
            assert!(snr >= FP16_SNR, "{name}.{form}: {snr} dB");
        }
        let ops = |summary: &Value| summary["ops"].as_u64().expect("a number");
        let blocks = contract(&kernel)["interface"]["milestones"].as_array().map_or(0, Vec::len) as u64;
        let (found, expected) = (ops(&found), ops(&expected));
        // Two ops for each block of `denoise` and of what writes the states. diffusers rotates before heads are split, which is another graph.
        let alike = name.starts_with("self_forcing") || found.abs_diff(expected) <= 2 * 2 * blocks;
        assert!(alike, "{name}.{form}: {found} ops, the frontend's {expected}");
        println!("{name}.{form}: {found} ops, the frontend's {expected}");
        assert_eq!(seen_by_a_host(&contract(&kernel)), seen_by_a_host(&contract(&at("own"))), "{name}.{form}");
        // The graph itself as the reference: its windows and roles come from the contract.
        ok(&["verify", "-q", &arg(&kernel), "--graph", &graph, "--chunks", "4", "--fp16"]);
        ok(&["stream", "-q", &arg(&kernel), "--prompt-seed", "1", "--chunks", "2", "-o", &arg(&at("x.safetensors"))]);
    }
}

#[test]
fn stream_tiny() {
    check("stream_tiny", "8x8", &["raw.pt2"]);
}

#[test]
fn stream_sink() {
    check("stream_sink", "6x10", &["dynamo18.onnx"]);
}

#[test]
fn stream_last_sink() {
    check("stream_last_sink", "6x8", &["dec.pt2"]);
}

#[test]
fn stream_paths() {
    check("stream_paths", "8x8", &["dec.pt2"]);
}

/// diffusers' Wan, which knows no streams, with the weights and the windows of Self-Forcing.
#[test]
fn self_forcing_window() {
    check("self_forcing_window", "6x4", &["raw.pt2"]);
}

#[test]
fn what_a_stream_needs_is_said() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let out = arg(&work.path().join("kernel"));
    let graph = arg(&file("s2dit_reference.raw.pt2"));
    let args = |more: &[&str]| -> Vec<String> {
        let base = ["compile", "--target", "onnx", "--mode", "stream", "-o", &out];
        base.iter().chain(more).map(|&arg| arg.to_owned()).collect()
    };
    let stream = |more: &[&str]| fails(&args(more));
    // Flags that are missing, or that do nothing.
    let refused = |args: &[String]| {
        let done = run(args);
        assert_eq!(done.status.code(), Some(2));
        String::from_utf8(done.stderr).expect("errors are UTF-8")
    };
    let error = refused(&args(&[&graph]));
    assert!(error.contains("--window N says how many latent frames"), "{error}");
    let error = stream(&[&graph, "--window", "6", "--chunk", "5"]);
    assert!(
        error.contains("--chunk: found 5, expected 3, the latent frames that the graph was exported for"),
        "{error}"
    );
    let error = stream(&[&graph, "--window", "6", "--input", "other=text"]);
    assert!(error.contains("no input that is a text") && error.contains("--input text=NAME"), "{error}");
    let error = stream(&[&graph, "--window", "6", "--input", "time=t:0:1"]);
    assert!(error.contains("a time from 0 to 1, expected one from 0 to 1000"), "{error}");
    let error = stream(&[&graph, "--window", "6", "--sample-steps", "250,500"]);
    assert!(error.contains("--sample-steps: found noise levels"), "{error}");
    // A mask of the prompt's tokens is an input that a stream does not give.
    let error = stream(&[&arg(&file("sana.raw.pt2")), "--window", "6"]);
    assert!(error.contains("encoder_attention_mask"), "{error}");
    let checkpoint = arg(&golden("stream_tiny").join("checkpoint"));
    let error = refused(&args(&[&checkpoint, "--window", "6", "--latent", "8x8"]));
    assert!(error.contains("--window is for --mode stream of a graph"), "{error}");
    let error = refused(&["compile", &graph, "--target", "onnx", "-o", &out, "--sinks", "1"].map(str::to_owned));
    assert!(error.contains("--sinks is for --mode stream of a graph"), "{error}");
}

/// What mixes frames and is none of the formulas is named, with its module and its reason; so is what differs from frame to frame.
#[test]
fn what_mixes_frames_is_named() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let (path, out) = (work.path().join("m.s2"), arg(&work.path().join("kernel")));
    let refused = |body: &str| {
        let ir = format!(
            "module {{\n  input \"x\" : latent\n  input \"t\" : time {{low = 0.0, high = 1000.0}}\n  input \"text\" : text\n  output \"v\" : velocity\n  \
             func @main(%x: f32[1, 2, 3, 2, 2], %t: f32[1], %text: f32[1, 3, 4]) {{\n    {body}\n    \
             %p = reduce_mean(%text) {{axes = [0, 1, 2], keep_dims = false}} : f32[] @ \"text\"\n    \
             %m = mul(%y, %p) : f32[1, 2, 3, 2, 2]\n    %v = mul(%m, %t) : f32[1, 2, 3, 2, 2]\n    return v = %v\n  }}\n}}\n"
        );
        std::fs::write(&path, ir).expect("a file");
        fails(&["compile", &arg(&path), "--target", "onnx", "--mode", "stream", "--window", "6", "-o", &out])
    };
    let mean = "%0 = reduce_mean(%x) {axes = [2, 3, 4], keep_dims = true} : f32[1, 2, 1, 1, 1] @ \"blocks.0.pool\"\n    \
                %y = mul(%x, %0) : f32[1, 2, 3, 2, 2]";
    let error = refused(mean);
    assert!(error.contains("in `blocks.0.pool` `reduce_mean"), "{error}");
    assert!(error.contains("is not computed frame by frame: it joins all frames to one value"), "{error}");
    let positions =
        "%0 = literal {values = [0.0, 1.0, 2.0]} : f32[3, 1, 1]\n    %y = add(%x, %0) : f32[1, 2, 3, 2, 2] @ \"pos\"";
    let error = refused(positions);
    assert!(error.contains("in `pos` `add") && error.contains("a constant differs from frame to frame"), "{error}");
    // Rows that differ are the same for every frame.
    let rows = "%0 = literal {values = [0.0, 1.0]} : f32[2, 1]\n    %1 = add(%x, %0) : f32[1, 2, 3, 2, 2]\n    %y = slice(%1) {begin = \
                [0, 0, 1, 0, 0], end = [1, 2, 2, 2, 2], stride = [1, 1, 1, 1, 1]} : f32[1, 2, 1, 2, 2] @ \"cut\"";
    let error = refused(
        &rows
            .replace("%y = slice", "%2 = slice")
            .replace("@ \"cut\"", "@ \"cut\"\n    %y = add(%x, %2) : f32[1, 2, 3, 2, 2] @ \"join\""),
    );
    assert!(error.contains("in `cut` `slice") && error.contains("it takes some of the frames"), "{error}");
}
