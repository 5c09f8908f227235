//! LTX-Video through every door that the other families go through: both targets, tables, quantization, partition, the sampler, inspection; and its
//! mask of text tokens.

use std::path::Path;

use crate::common::clip::{self, COREML, ONNX, inspect, snr, verify};
use crate::common::{arg, fails, golden, ok};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;

/// A checkpoint that is wide enough to have weights worth compressing.
fn checkpoint(dir: &Path) -> String {
    let out = arg(&dir.join("ltx"));
    let fields = ["num_attention_heads=4", "attention_head_dim=32", "cross_attention_dim=128", "caption_channels=64"];
    let mut args = vec!["init", "-q", "--preset", "ltx-tiny", "--seed", "5", "-o", &out];
    for field in fields.iter().chain(&["sample_steps=3"]) {
        args.extend(["--set", field]);
    }
    ok(&args);
    out
}

fn compile(checkpoint: &str, out: &Path, flags: &[&str]) -> String {
    clip::compile(checkpoint, "2x5x7", out, flags)
}

#[test]
fn both_targets_agree_with_the_checkpoint_block_by_block() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let model = checkpoint(work.path());
    let onnx = compile(&model, &work.path().join("a.onnx"), &ONNX);
    let report = verify(&onnx, &["--checkpoint", &model, "--blocks"]);
    let names: Vec<&str> = report["rows"].as_array().expect("rows").iter().filter_map(|r| r["name"].as_str()).collect();
    assert_eq!(names, ["velocity", "block0", "block1", "block2"]);
    assert!(snr(&report) > 110.0, "{report}");
    let package = compile(&model, &work.path().join("a.mlpackage"), &COREML);
    assert!(snr(&verify(&package, &["--checkpoint", &model, "--blocks", "--fp16"])) > 55.0);
    assert_eq!(inspect(&package)["model"]["family"], "LTX-Video");
    // Every block is recognised, and nothing of a formula stands alone.
    let found = &inspect(&model)["recognised"][0];
    assert_eq!((&found["full"], &found["cross"]), (&3.into(), &3.into()), "{found}");
    assert_eq!(
        (&found["leftovers"], &found["near_misses"]),
        (&serde_json::json!({}), &serde_json::json!([])),
        "{found}"
    );
}

#[test]
fn tables_parts_and_few_bits() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let model = checkpoint(work.path());
    let tables =
        compile(&model, &work.path().join("t.mlpackage"), &[&COREML[..], &["--timesteps", "from-config"]].concat());
    verify(&tables, &["--checkpoint", &model, "--fp16"]);
    // Nothing leaves the Neural Engine: not the norms without a gain, the mask, or the rotation before heads are split.
    let lint: Value = serde_json::from_str(&ok(&["lint", &tables, "--json"])).expect("JSON");
    assert_eq!(lint["summary"]["verdict"], "stays", "{lint}");
    let most = lint["summary"]["budget"]["most"].as_u64().expect("ops of a block");
    assert!(most <= 60, "{most} ops in a block");
    let parts = compile(&model, &work.path().join("parts"), &[&COREML[..], &["--partition", "3"]].concat());
    let report = verify(&parts, &["--checkpoint", &model, "--blocks"]);
    assert_eq!(report["rows"].as_array().map(Vec::len), Some(4), "{report}");
    for (target, scheme, name) in
        [("onnx", "int8", "q.onnx"), ("coreml", "int8", "q8.mlpackage"), ("coreml", "palette4-group16", "q4.mlpackage")]
    {
        let out = compile(&model, &work.path().join(name), &["--target", target, "--quantize", scheme]);
        // Against the same storage: only the arithmetic differs.
        verify(&out, &["--checkpoint", &model, "--quantize", scheme]);
    }
    let plan = arg(&work.path().join("plan.toml"));
    ok(&["quantize", "-q", &model, "--latent", "2x5x7", "--target-size", "1.5MB", "-o", &plan]);
    let planned = compile(&model, &work.path().join("p.mlpackage"), &[&COREML[..], &["--quantize", &plan]].concat());
    verify(&planned, &["--checkpoint", &model, "--quantize", &plan]);
}

/// Packages with every result rounded to fp16 lose about as much as the class of diffusers does in fp16: at most 1.5 dB more.
#[test]
fn fp16_is_as_near_as_pytorchs() {
    // What `ltx_goldens.py --report` prints.
    for (name, latent, fields, pytorch) in [
        ("ltx_tiny", "3x4x6", r#"{"text_len": 16}"#, 61.1),
        ("ltx_uneven", "2x5x7", r#"{"text_len": 11, "frame_rate": 30, "causal_temporal_positioning": false}"#, 61.0),
        ("ltx_sharded", "4x3x5", r#"{"text_len": 9, "frame_rate": 24}"#, 62.5),
    ] {
        let work = tempfile::tempdir().expect("a temporary folder");
        let model = crate::common::with_fields(&golden(name).join("checkpoint"), work.path(), fields);
        let out = arg(&work.path().join("a.mlpackage"));
        ok(&["compile", "-q", &arg(&model), "--target", "coreml", "--latent", latent, "-o", &out]);
        let reference = arg(&golden(name).join("golden.safetensors"));
        let report = verify(&out, &["--golden", &reference, "--blocks", "--fp16"]);
        for row in report["rows"].as_array().expect("rows") {
            let snr = row["snr_db"].as_f64().expect("a number");
            assert!(snr >= pytorch - 1.5, "{name}: {}: {snr} dB, PyTorch {pytorch} dB", row["name"]);
        }
    }
}

/// A prompt file; the mask is left out if it is empty.
fn prompt(path: &Path, text: &[f32], mask: &[f32]) -> String {
    let bytes = |x: &[f32]| x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let (text, masked) = (bytes(text), bytes(mask));
    let mut views = vec![("text", TensorView::new(Dtype::F32, vec![1, 8, 64], &text).expect("a tensor"))];
    if !mask.is_empty() {
        views.push(("text_mask", TensorView::new(Dtype::F32, vec![1, mask.len()], &masked).expect("a tensor")));
    }
    std::fs::write(path, safetensors::serialize(views, None).expect("a file")).expect("a prompt");
    arg(path)
}

/// The clip of a prompt.
fn clip(artifact: &str, prompt: &str, work: &Path) -> Vec<u8> {
    let out = arg(&work.join("clip.safetensors"));
    ok(&["stream", "-q", artifact, "--prompt", prompt, "-o", &out]);
    let bytes = std::fs::read(&out).expect("a clip");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let latent = file.tensor("latent").expect("a latent");
    assert_eq!(latent.shape(), [1, 8, 2, 5, 7]);
    latent.data().to_vec()
}

#[test]
fn a_clip_is_sampled_of_the_tokens_that_count() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| work.path().join(name);
    let model = checkpoint(work.path());
    let onnx = compile(&model, &at("a.onnx"), &ONNX);
    let seeded = arg(&at("seeded.safetensors"));
    ok(&["stream", "-q", &onnx, "--prompt-seed", "1", "-o", &seeded]);

    let text: Vec<f32> = (0..8 * 64).map(|i| (i as f32 * 0.7).sin()).collect();
    // Another padding behind five tokens.
    let other: Vec<f32> = text.iter().enumerate().map(|(i, x)| if i < 5 * 64 { *x } else { -3.0 * x }).collect();
    let (five, all) = ([1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0], [1.0; 8]);
    let made = |name: &str, text: &[f32], mask: &[f32]| clip(&onnx, &prompt(&at(name), text, mask), work.path());
    let short = made("a", &text, &five);
    assert_eq!(short, made("b", &other, &five), "padding that a mask hides is seen");
    assert_ne!(made("c", &text, &all), made("d", &other, &all), "tokens that count are not seen");
    assert_ne!(short, made("c", &text, &all));

    for (mask, says) in [
        (&[][..], "no tensor `text_mask` [1, 8]: 1 where a token of the prompt counts"),
        (&[1.0; 7], "tensor `text_mask`: found [1, 7], expected [1, 8]"),
        (&[0.0; 8], "no token that counts"),
        (&[1.0, 1.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0], "element 2: found 0.5"),
    ] {
        let file = prompt(&at("bad"), &text, mask);
        let message = fails(&["stream", "-q", &onnx, "--prompt", &file, "-o", &seeded]);
        assert!(message.contains(says), "{message}");
    }
    let kernel = arg(&at("kernel"));
    let message = fails(&["compile", &model, "--target", "onnx", "--mode", "stream", "--latent", "5x7", "-o", &kernel]);
    assert!(message.contains("LTXVideoTransformer3DModel") && message.contains("--mode clip"), "{message}");
}

/// A golden whose mask is none.
#[test]
fn a_mask_of_a_golden_is_checked() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let model = crate::common::with_fields(&golden("ltx_tiny").join("checkpoint"), work.path(), r#"{"text_len": 16}"#);
    let onnx = arg(&work.path().join("a.onnx"));
    ok(&["compile", "-q", &arg(&model), "--target", "onnx", "--latent", "3x4x6", "-o", &onnx]);
    let bytes = std::fs::read(golden("ltx_tiny").join("golden.safetensors")).expect("a golden");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let nothing = vec![0u8; 16 * 4];
    let views = file.tensors().into_iter().map(|(name, view)| match name.as_str() {
        "text_mask" => (name, TensorView::new(Dtype::F32, vec![1, 16], &nothing).expect("a tensor")),
        _ => (name, view),
    });
    let bad = work.path().join("bad.safetensors");
    std::fs::write(&bad, safetensors::serialize(views, None).expect("a file")).expect("a golden");
    let message = fails(&["verify", &onnx, "--golden", &arg(&bad)]);
    assert!(message.contains("tensor `text_mask`") && message.contains("no token that counts"), "{message}");
}

#[test]
fn what_is_no_checkpoint_of_it() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let source = golden("ltx_tiny").join("checkpoint");
    let says = |name: &str, fields: &str, wanted: &[&str]| {
        let to = work.path().join(name);
        std::fs::create_dir(&to).expect("a folder");
        let model = crate::common::with_fields(&source, &to, fields);
        let out = arg(&to.join("a.onnx"));
        let message = fails(&["compile", "-q", &arg(&model), "--target", "onnx", "--latent", "1x2x2", "-o", &out]);
        assert!(wanted.iter().all(|part| message.contains(part)), "{message}");
    };
    says("patches", r#"{"patch_size": 2}"#, &["patch_size: found 2, expected 1"]);
    says("text", r#"{"cross_attention_dim": 2048}"#, &["cross_attention_dim: found 2048, expected 48"]);
    says("deep", r#"{"num_layers": 4}"#, &["transformer_blocks.3: found none of its 25 tensors", "4 blocks (4×full)"]);
    says("gains", r#"{"norm_elementwise_affine": true}"#, &["transformer_blocks.0.norm1.weight", "no such tensor"]);
}
