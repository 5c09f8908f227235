//! `s2ditc quantize`: goals at the edge of what can be reached, weights that are not finite, and what the page says.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{arg, fails, ok};
use serde_json::Value;

/// A checkpoint of one block whose weights are large enough to be compressed.
fn checkpoint(work: &Path) -> PathBuf {
    let dir = work.join("my-model");
    let fields = [
        "layout=[\"lcha\"]",
        "num_attention_heads=2",
        "attention_head_dim=64",
        "ffn_dim=256",
        "text_dim=128",
        "text_len=16",
    ];
    let dir_arg = arg(&dir);
    let mut args = vec!["init", "-q", "--preset", "small", "--seed", "7", "-o", &dir_arg];
    for field in fields {
        args.extend(["--set", field]);
    }
    ok(&args);
    dir
}

fn quantize(checkpoint: &Path, out: &Path, goal: &[&str]) -> Vec<String> {
    let base = ["quantize", "-q", "--json", &arg(checkpoint), "--latent", "3x4x4", "-o", &arg(out)];
    base.iter().chain(goal).map(ToString::to_string).collect()
}

#[test]
fn the_size_that_is_said_to_be_enough_is_enough() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let (dir, out) = (checkpoint(work.path()), work.path().join("plan.toml"));
    let error = fails(&quantize(&dir, &out, &["--target-size", "1kB"]));
    let least: u64 = error
        .split("expected at least ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("no size in: {error}"));
    let below = fails(&quantize(&dir, &out, &["--target-size", &format!("{}B", least - 1)]));
    assert!(below.contains(&format!("expected at least {least} bytes")), "{below}");
    for target in [least, least + 500] {
        let made: Value =
            serde_json::from_str(&ok(&quantize(&dir, &out, &["--target-size", &format!("{target}")]))).expect("JSON");
        let bytes = made["plan"]["weight_bytes"].as_u64().expect("bytes");
        assert!((least..=target).contains(&bytes), "{bytes} bytes, asked for {target}, least {least}");
    }

    // Every SNR above what the smallest plan has is reached; every one below takes the smallest plan.
    for low in ["-5", "0", "8"] {
        let goal = format!("--min-snr={low}");
        let made: Value = serde_json::from_str(&ok(&quantize(&dir, &out, &[&goal]))).expect("JSON");
        let snr = made["plan"]["snr_db"].as_f64().expect("measured");
        assert!(snr >= low.parse().expect("a number"), "{goal}: {snr} dB");
    }
}

/// The bit pattern of bf16 NaN in the first element of a tensor.
fn poison(checkpoint: &Path, name: &str) {
    let path = checkpoint.join("diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&path).expect("weights");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let index: Value = serde_json::from_slice(&bytes[8..8 + header]).expect("a header");
    let at = 8 + header + index[name]["data_offsets"][0].as_u64().expect("an offset") as usize;
    bytes[at..at + 2].copy_from_slice(&0x7fc0u16.to_le_bytes());
    fs::write(&path, bytes).expect("weights");
}

#[test]
fn a_weight_that_is_not_a_number_is_named_and_not_its_neighbour() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let (dir, out) = (checkpoint(work.path()), work.path().join("plan.toml"));
    poison(&dir, "blocks.0.attn1.to_k.bias");
    for goal in [&["--scheme", "palette4-group16", "--calibrate", "seeded"][..], &["--target-size", "1MB"]] {
        let error = fails(&quantize(&dir, &out, goal));
        assert!(error.contains("tensor \"blocks.0.attn1.to_k.bias\": found 1 element(s) that are NaN"), "{error}");
        assert!(!error.contains("to_q") && !error.contains("to_out"), "only the culprit: {error}");
    }
    let left: Vec<_> = fs::read_dir(work.path()).expect("a folder").map(|e| e.expect("an entry").file_name()).collect();
    assert_eq!(left, ["my-model"]);
}

#[test]
fn a_scale_that_is_none_is_named_with_its_plan() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let (dir, out) = (checkpoint(work.path()), work.path().join("plan.toml"));
    ok(&quantize(&dir, &out, &["--scheme", "w8a8"]));
    let text = fs::read_to_string(&out).expect("a plan");
    let scale = text.lines().find(|l| l.starts_with("input_scale = ")).expect("a scale").to_string();
    let package = arg(&work.path().join("x.mlpackage"));
    let compile = [
        "compile",
        "-q",
        &arg(&dir),
        "--target",
        "coreml",
        "--latent",
        "3x4x4",
        "-o",
        &package,
        "--quantize",
        &arg(&out),
    ];
    for wrong in ["0.0", "-1.0", "nan", "inf", "1e-20"] {
        fs::write(&out, text.replacen(&scale, &format!("input_scale = {wrong}"), 1)).expect("a plan");
        let error = fails(&compile);
        assert!(error.contains("plan.toml") && error.contains("scale"), "{wrong}: {error}");
        assert!(error.contains("weight"), "{wrong}: {error}");
    }
    fs::write(&out, text).expect("a plan");
    ok(&compile);
}

#[test]
fn the_page_begins_with_what_is_alarming() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let (dir, out) = (checkpoint(work.path()), work.path().join("plan.toml"));
    let page = work.path().join("report.html");
    ok(&quantize(&dir, &out, &["--scheme", "palette1-group16", "--calibrate", "seeded", "--report", &arg(&page)]));
    let text = fs::read_to_string(&page).expect("a page");
    let place = |part: &str| text.find(part).unwrap_or_else(|| panic!("`{part}` is not on the page"));
    // The model's name, then the facts, then everything else.
    assert!(place("<h1>my-model: quantization plan") < place("weight(s) are stored in one bit: "));
    assert!(place("calibrated on noise") < place("<h2>Schemes"));
    assert!(place("<h2>Bits by block and weight") < place("<title>blocks.0.attn1.to_q.weight: palette1-group16, "));
    for part in ["table class=\"sortable\"", "head.onclick", "1e-", "data-v=\"1\""] {
        place(part);
    }
    assert!(!text.contains("http") && !text.contains("src="), "nothing is fetched");
    assert_eq!(text.matches("<svg").count(), text.matches("</svg>").count());

    // Nothing is alarming about eight bits, but for the noise.
    ok(&quantize(&dir, &out, &["--scheme", "int8", "--calibrate", "seeded", "--report", &arg(&page)]));
    let text = fs::read_to_string(&page).expect("a page");
    assert!(!text.contains("one bit") && text.contains("calibrated on noise"));
}
