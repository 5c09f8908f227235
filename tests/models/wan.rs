//! Wan through every door that S2DiT goes through: both targets, tables, quantization, partition, the sampler, inspection. Images, a time
//! for each token and pipeline folders are in `wan_i2v.rs` and `wan_pipeline.rs`.

use std::path::Path;

use crate::common::clip::{self, snr, verify};
use crate::common::{arg, fails, golden, ok};
use serde_json::Value;

/// A checkpoint that is wide enough to have weights worth compressing.
fn checkpoint(dir: &Path) -> String {
    checkpoint_of(dir, &["sample_steps=3"])
}

fn checkpoint_of(dir: &Path, more: &[&str]) -> String {
    let out = arg(&dir.join("wan"));
    let set = |field: &str| vec!["--set".to_owned(), field.to_owned()];
    let mut args: Vec<String> =
        ["init", "-q", "--preset", "wan-tiny", "--seed", "5", "-o", &out].map(String::from).to_vec();
    for field in ["num_attention_heads=4", "attention_head_dim=32", "ffn_dim=256", "text_dim=64"].iter().chain(more) {
        args.extend(set(field));
    }
    ok(&args);
    out
}

fn compile(checkpoint: &str, out: &Path, flags: &[&str]) -> String {
    clip::compile(checkpoint, "2x8x12", out, flags)
}

#[test]
fn both_targets_agree_with_the_checkpoint_block_by_block() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let model = checkpoint(work.path());
    let onnx = compile(&model, &work.path().join("a.onnx"), &["--target", "onnx"]);
    let report = verify(&onnx, &["--checkpoint", &model, "--blocks"]);
    let names: Vec<&str> = report["rows"].as_array().expect("rows").iter().filter_map(|r| r["name"].as_str()).collect();
    assert_eq!(names, ["velocity", "block0", "block1", "block2"]);
    assert!(snr(&report) > 110.0, "{report}");
    let package = compile(&model, &work.path().join("a.mlpackage"), &["--target", "coreml"]);
    assert!(snr(&verify(&package, &["--checkpoint", &model, "--blocks", "--fp16"])) > 50.0);
    let inspect = |path: &str| -> Value { serde_json::from_str(&ok(&["inspect", path, "--json"])).expect("JSON") };
    assert_eq!(inspect(&package)["model"]["family"], "Wan");
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
    let coreml = ["--target", "coreml"];
    let tables =
        compile(&model, &work.path().join("t.mlpackage"), &[&coreml[..], &["--timesteps", "from-config"]].concat());
    verify(&tables, &["--checkpoint", &model, "--fp16"]);
    let parts = compile(&model, &work.path().join("parts"), &[&coreml[..], &["--partition", "3"]].concat());
    let report = verify(&parts, &["--checkpoint", &model, "--blocks"]);
    assert_eq!(report["rows"].as_array().map(Vec::len), Some(4), "{report}");
    for (target, scheme, name) in
        [("onnx", "int8", "q.onnx"), ("coreml", "int8", "q8.mlpackage"), ("coreml", "palette4-group16", "q4.mlpackage")]
    {
        let out = compile(&model, &work.path().join(name), &["--target", target, "--quantize", scheme]);
        // Against the same storage: only the arithmetic differs.
        verify(&out, &["--checkpoint", &model, "--quantize", scheme]);
    }
    // As many rows as a weight has columns: the table of 50 timesteps is no weight all the same.
    let many = checkpoint_of(&work.path().join("many"), &["sample_steps=50"]);
    let scheme = ["--quantize", "palette4-group16"];
    let flags = [&coreml[..], &["--timesteps", "from-config"], &scheme].concat();
    let out = compile(&many, &work.path().join("many.mlpackage"), &flags);
    verify(&out, &[&["--checkpoint", &many], &scheme[..]].concat());
    let plan = arg(&work.path().join("many.toml"));
    ok(&["quantize", "-q", &many, "--scheme", "palette4-group16", "-o", &plan]);
    let flags = [&coreml[..], &["--timesteps", "from-config", "--quantize", &plan]].concat();
    let out = compile(&many, &work.path().join("planned.mlpackage"), &flags);
    verify(&out, &["--checkpoint", &many, "--quantize", &plan]);
    let plan = arg(&work.path().join("plan.toml"));
    ok(&["quantize", "-q", &model, "--target-size", "1MB", "-o", &plan]);
    let planned = compile(&model, &work.path().join("p.mlpackage"), &[&coreml[..], &["--quantize", &plan]].concat());
    verify(&planned, &["--checkpoint", &model, "--quantize", &plan]);
}

#[test]
fn a_clip_is_sampled_and_a_stream_is_refused() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let model = checkpoint(work.path());
    let onnx = compile(&model, &work.path().join("a.onnx"), &["--target", "onnx"]);
    let clip = arg(&work.path().join("clip.safetensors"));
    ok(&["stream", "-q", &onnx, "--prompt-seed", "1", "-o", &clip]);
    let bytes = std::fs::read(&clip).expect("a clip");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + header]).expect("a header");
    assert_eq!(header["latent"]["shape"], serde_json::json!([1, 4, 2, 8, 12]));
    let message = fails(&["compile", &model, "--target", "onnx", "--mode", "stream", "--latent", "8x12", "-o", &clip]);
    assert!(message.contains("WanTransformer3DModel") && message.contains("--mode clip"), "{message}");
}

/// diffusers keeps some tensors in fp32 when it loads a model in bf16, and saves them so.
#[test]
fn weights_of_several_types() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let copy = crate::common::with_fields(&golden("wan_tiny").join("checkpoint"), work.path(), r#"{"text_len": 16}"#);
    let file = copy.join("diffusion_pytorch_model.safetensors");
    let bytes = std::fs::read(&file).expect("weights");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let wide = |name: &str| ["time_embedder", "scale_shift_table", "norm2"].iter().any(|part| name.contains(part));
    let stored: Vec<(String, safetensors::Dtype, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, view)| {
            let halves = view.data().as_chunks::<2>().0;
            let data = match wide(name) {
                true => halves.iter().flat_map(|h| [0, 0, h[0], h[1]]).collect(),
                false => view.data().to_vec(),
            };
            let dtype = if wide(name) { safetensors::Dtype::F32 } else { safetensors::Dtype::BF16 };
            (name.to_owned(), dtype, view.shape().to_vec(), data)
        })
        .collect();
    let views = stored.iter().map(|(name, dtype, shape, data)| {
        (name, safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).expect("a tensor"))
    });
    std::fs::write(&file, safetensors::serialize(views, None).expect("a file")).expect("weights");
    let out = arg(&work.path().join("a.onnx"));
    ok(&["compile", "-q", &arg(&copy), "--target", "onnx", "--latent", "3x8x8", "-o", &out]);
    let reference = arg(&golden("wan_tiny").join("golden.safetensors"));
    assert!(snr(&verify(&out, &["--golden", &reference, "--blocks"])) > 110.0);
}
