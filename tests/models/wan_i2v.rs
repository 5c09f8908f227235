//! Wan with an image, with channels beside the noise, and with a timestep for each token: against diffusers' goldens block by block, recognised,
//! quantized, in parts, and sampled.

use std::path::Path;

use crate::common::clip::compile;
use crate::common::{arg, fails, golden, ok, with_fields};
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::Value;

/// How far below PyTorch's own fp16 a package may be whose every result is rounded to fp16, in dB.
const BELOW_TORCH: f64 = 1.5;
/// The same of the velocity: diffusers computes the norm and the modulation of the head in fp32.
const HEAD_BELOW_TORCH: f64 = 2.5;
/// Relative L2 error of an fp32 file against float64 diffusers.
const FP32_BAR: f64 = 2e-6;

/// The checkpoint of a golden with what its pipeline knows.
fn checkpoint(name: &str, work: &Path, fields: &str) -> String {
    arg(&with_fields(&golden(name).join("checkpoint"), work, fields))
}

fn ti2v(work: &Path) -> String {
    checkpoint("wan_ti2v", work, r#"{"text_len": 16, "expand_timesteps": true, "sample_steps": 2}"#)
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&ok(args)).expect("JSON")
}

fn rows(report: &Value) -> Vec<(String, f64, f64)> {
    let row = |row: &Value| {
        let number = |field: &str| row[field].as_f64().expect("a number");
        (row["name"].as_str().expect("a name").to_owned(), number("snr_db"), number("relative_l2"))
    };
    report["rows"].as_array().expect("rows").iter().map(row).collect()
}

/// A safetensors file with one tensor of a pattern that is nowhere zero.
fn tensor(path: &Path, name: &str, shape: &[usize]) -> String {
    let count: usize = shape.iter().product();
    let data: Vec<u8> = (0..count).flat_map(|i| ((i as f32 * 0.7).sin() + 0.01).to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, shape.to_vec(), &data).expect("a tensor");
    std::fs::write(path, serialize([(name, view)], None).expect("a file")).expect("a file");
    arg(path)
}

fn read(path: &str, name: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(path).expect("a file");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let view = file.tensor(name).expect("a tensor");
    let data = view.data().as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
    (view.shape().to_vec(), data)
}

/// `torch`: what diffusers reaches in float16 as `from_pretrained(torch_dtype=…)` loads it, in dB: the velocity, then each block
/// (`wan_goldens.py --report`).
fn against_diffusers(name: &str, checkpoint: &str, latent: &str, work: &Path, torch: &[f64]) {
    let reference = arg(&golden(name).join("golden.safetensors"));
    let onnx = compile(checkpoint, latent, &work.join("a.onnx"), &["--target", "onnx"]);
    let found = rows(&json(&["verify", &onnx, "--golden", &reference, "--blocks", "--json"]));
    assert_eq!(found.len(), torch.len(), "{found:?}");
    for (row, _, error) in found {
        assert!(error <= FP32_BAR, "{name}: {row}: {error:e}");
    }
    let package = compile(checkpoint, latent, &work.join("a.mlpackage"), &["--target", "coreml"]);
    let found = rows(&json(&["verify", &package, "--golden", &reference, "--blocks", "--fp16", "--json"]));
    assert_eq!(found.len(), torch.len(), "{found:?}");
    for ((row, snr, _), torch) in found.iter().zip(torch) {
        let below = if row == "velocity" { HEAD_BELOW_TORCH } else { BELOW_TORCH };
        assert!(*snr >= torch - below, "{name}: {row}: {snr:.1} dB, PyTorch {torch:.1}: {found:?}");
    }
}

/// Every block is recognised, and nothing of a formula stands alone.
fn recognised(checkpoint: &str, latent: &str, blocks: usize) {
    let found = &json(&["inspect", checkpoint, "--latent", latent, "--json"])["recognised"][0];
    assert_eq!((&found["full"], &found["cross"]), (&blocks.into(), &blocks.into()), "{found}");
    let nothing = (&serde_json::json!({}), &serde_json::json!([]));
    assert_eq!((&found["leftovers"], &found["near_misses"]), nothing, "{found}");
}

#[test]
fn an_image_beside_the_text() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let model = checkpoint("wan_i2v", work.path(), r#"{"sample_steps": 2}"#);
    against_diffusers("wan_i2v", &model, "3x8x8", work.path(), &[63.8, 66.0, 64.0]);
    recognised(&model, "3x8x8", 2);
}

#[test]
fn a_first_and_a_last_image() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let model = checkpoint("wan_flf2v", work.path(), "{}");
    against_diffusers("wan_flf2v", &model, "2x8x6", work.path(), &[62.8, 65.6, 63.7]);
    recognised(&model, "2x8x6", 2);
}

#[test]
fn a_timestep_for_each_token() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let model = ti2v(work.path());
    against_diffusers("wan_ti2v", &model, "3x8x12", work.path(), &[62.9, 66.5, 64.3, 62.6]);
    recognised(&model, "3x8x12", 3);
    let lint: Value = json(&["lint", &arg(&work.path().join("a.mlpackage")), "--json"]);
    assert!(!lint.to_string().contains("from-config"), "tables are no remedy: {lint}");
    let out = arg(&work.path().join("t.mlpackage"));
    let tables = ["--target", "coreml", "--timesteps", "from-config", "--latent", "3x8x12", "-o", &out];
    let message = fails(&[&["compile", &model], &tables[..]].concat());
    assert!(message.contains("`timestep`: found [1, 72]") && message.contains("--timesteps any"), "{message}");
}

/// The same weights with one timestep for all tokens make the same of it as with as many equal ones.
#[test]
fn text_to_video_needs_no_timestep_for_each_token() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let scalar = checkpoint("wan_ti2v", work.path(), r#"{"text_len": 16, "sample_steps": 2}"#);
    let each = work.path().join("each");
    std::fs::create_dir(&each).expect("a folder");
    let each = ti2v(&each);
    let mut clips = Vec::new();
    for (model, name) in [(&scalar, "scalar"), (&each, "each")] {
        let onnx = compile(model, "3x8x12", &work.path().join(format!("{name}.onnx")), &["--target", "onnx"]);
        let clip = arg(&work.path().join(format!("{name}.safetensors")));
        ok(&["stream", "-q", &onnx, "--prompt-seed", "1", "-o", &clip]);
        clips.push(read(&clip, "latent"));
    }
    assert_eq!(clips[0].0, [1, 6, 3, 8, 12]);
    let norm = |xs: &[f32]| xs.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let difference: Vec<f32> = clips[0].1.iter().zip(&clips[1].1).map(|(a, b)| a - b).collect();
    assert!(norm(&difference) < 1e-5 * norm(&clips[0].1), "{}", norm(&difference) / norm(&clips[0].1));
    let tables = work.path().join("t.mlpackage");
    compile(&scalar, "3x8x12", &tables, &["--target", "coreml", "--timesteps", "from-config"]);
}

#[test]
fn parts_and_few_bits_of_both() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let wide = [
        "num_attention_heads=4",
        "attention_head_dim=32",
        "ffn_dim=256",
        "text_dim=64",
        "num_layers=2",
        "sample_steps=2",
    ];
    for (preset, more) in
        [("wan-tiny-i2v", &["added_kv_proj_dim=128", "image_dim=64"][..]), ("wan-tiny", &["expand_timesteps=true"][..])]
    {
        let dir = work.path().join(preset);
        std::fs::create_dir(&dir).expect("a folder");
        let model = arg(&dir.join("checkpoint"));
        let sets = wide.iter().chain(more).flat_map(|set| ["--set", set]);
        let init: Vec<&str> =
            ["init", "-q", "--preset", preset, "--seed", "5", "-o", &model].into_iter().chain(sets).collect();
        ok(&init);
        let passed = |artifact: &str, flags: &[&str]| {
            let report = json(&[&["verify", artifact, "--checkpoint", &model, "--json"], flags].concat());
            assert_eq!(report["passed"], true, "{preset}: {report}");
        };
        let coreml = ["--target", "coreml"];
        let parts = compile(&model, "2x8x12", &dir.join("parts"), &[&coreml[..], &["--partition", "2"]].concat());
        passed(&parts, &["--blocks", "--fp16"]);
        for (target, scheme, name) in [("onnx", "int8", "q.onnx"), ("coreml", "palette4-group16", "q4.mlpackage")] {
            let out = compile(&model, "2x8x12", &dir.join(name), &["--target", target, "--quantize", scheme]);
            passed(&out, &["--quantize", scheme]);
        }
        let plan = arg(&dir.join("plan.toml"));
        ok(&["quantize", "-q", &model, "--target-size", "1MB", "-o", &plan]);
        let planned =
            compile(&model, "2x8x12", &dir.join("p.mlpackage"), &[&coreml[..], &["--quantize", &plan]].concat());
        passed(&planned, &["--quantize", &plan]);
        let any = compile(&model, "2x8x12", &dir.join("any.mlpackage"), &[&coreml[..], &["--compute", "any"]].concat());
        passed(&any, &["--blocks"]);
        let found = &json(&["inspect", &any, "--json"])["recognised"][0];
        assert_eq!((&found["full"], &found["cross"]), (&2.into(), &2.into()), "{found}");
    }
}

#[test]
fn a_clip_takes_its_image_and_condition_and_nothing_less() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| work.path().join(name);
    let model = checkpoint("wan_i2v", work.path(), r#"{"sample_steps": 2}"#);
    let onnx = compile(&model, "3x8x8", &at("a.onnx"), &["--target", "onnx"]);
    let image = tensor(&at("image.safetensors"), "image", &[1, 257, 20]);
    let condition = tensor(&at("condition.safetensors"), "condition", &[1, 5, 3, 8, 8]);
    let clip = arg(&at("clip.safetensors"));
    let stream = ["stream", "-q", &onnx, "--prompt-seed", "1", "-o", &clip];
    let made = |flags: &[&str]| {
        ok(&[&stream[..], flags].concat());
        read(&clip, "latent")
    };
    let whole = made(&["--image", &image, "--condition", &condition]);
    assert_eq!(whole.0, [1, 4, 3, 8, 8]);
    let other = tensor(&at("other.safetensors"), "condition", &[1, 5, 3, 8, 8]);
    assert_eq!(made(&["--image", &image, "--condition", &other]), whole);
    // With a seeded prompt, for trials, what is not named is seeded too; noise may be recorded.
    let drawn = made(&[]);
    assert!(drawn == made(&[]) && drawn != whole && drawn.0 == whole.0);
    let noise = tensor(&at("noise.safetensors"), "noise", &[1, 4, 3, 8, 8]);
    let with_noise = made(&["--image", &image, "--condition", &condition, "--noise", &noise]);
    assert!(with_noise != whole && with_noise.0 == whole.0);
    let prompt = tensor(&at("prompt.safetensors"), "text", &[1, 512, 12]);
    let stream = ["stream", "-q", &onnx, "--prompt", &prompt, "-o", &clip];
    let refused = |flags: &[&str], parts: &[&str]| {
        let message = fails(&[&stream[..], flags].concat());
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    refused(&["--image", &image, "--condition", &condition, "--noise", &condition], &["no tensor `noise`"]);
    refused(&["--condition", &condition], &["takes an image", "--image FILE", "[1, 257, 20]"]);
    refused(&["--image", &image], &["takes channels beside the noise", "--condition FILE", "[1, 5, 3, 8, 8]"]);
    let small = tensor(&at("small.safetensors"), "image", &[1, 256, 20]);
    refused(&["--image", &small, "--condition", &condition], &["found [1, 256, 20], expected [1, 257, 20]"]);
    refused(&["--image", &condition, "--condition", &condition], &["no tensor `image`"]);
    // A golden without the image is no golden of this model.
    let golden = arg(&golden("wan_tiny").join("golden.safetensors"));
    let message = fails(&["verify", &onnx, "--golden", &golden]);
    assert!(message.contains("no tensor `image`"), "{message}");
}

/// Older programs wrote a norm of the image's queries, which diffusers ignores.
#[test]
fn a_norm_that_nothing_reads_may_be_there() {
    let work = tempfile::tempdir().expect("a temporary folder");
    for (name, latent, ignored) in [("wan_i2v", "3x8x8", true), ("wan_tiny", "3x8x8", false)] {
        let dir = work.path().join(name);
        std::fs::create_dir(&dir).expect("a folder");
        let model = checkpoint(name, &dir, "{}");
        let file = Path::new(&model).join("diffusion_pytorch_model.safetensors");
        let bytes = std::fs::read(&file).expect("weights");
        let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
        let idle = [0; 96];
        let more = TensorView::new(Dtype::BF16, vec![48], &idle).expect("a tensor");
        let views = tensors.iter().chain([("blocks.1.attn2.norm_added_q.weight", more)]);
        std::fs::write(&file, serialize(views, None).expect("a file")).expect("weights");
        let args = ["inspect", &model, "--latent", latent];
        if ignored {
            ok(&args);
        } else {
            assert!(fails(&args).contains("norm_added_q.weight: found an unknown tensor"));
        }
    }
}

#[test]
fn a_first_frame_is_kept_where_each_token_has_its_time() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| work.path().join(name);
    let model = ti2v(work.path());
    let onnx = compile(&model, "3x8x12", &at("a.onnx"), &["--target", "onnx"]);
    let frame = tensor(&at("frame.safetensors"), "condition", &[1, 6, 1, 8, 12]);
    let clip = arg(&at("clip.safetensors"));
    let stream = ["stream", "-q", &onnx, "--prompt-seed", "1", "-o", &clip];
    ok(&[&stream[..], &["--condition", &frame]].concat());
    let (given, made) = (read(&frame, "condition").1, read(&clip, "latent").1);
    for channel in 0..6 {
        assert_eq!(
            made[channel * 288..channel * 288 + 96],
            given[channel * 96..(channel + 1) * 96],
            "channel {channel}"
        );
    }
    ok(&stream);
    assert_ne!(read(&clip, "latent").1[96..288], made[96..288], "the other frames see the first");
    let message = fails(&[&stream[..], &["--image", &frame]].concat());
    assert!(message.contains("takes no image"), "{message}");
    // One timestep for all tokens: nothing can be given.
    std::fs::create_dir(at("one")).expect("a folder");
    let scalar = checkpoint("wan_tiny", &at("one"), r#"{"text_len": 16, "sample_steps": 2}"#);
    let onnx = compile(&scalar, "3x8x8", &at("one.onnx"), &["--target", "onnx"]);
    let message = fails(&["stream", &onnx, "--prompt-seed", "1", "--condition", &frame, "-o", &clip]);
    assert!(message.contains("--condition") && message.contains("one timestep for all tokens"), "{message}");
}

/// A golden's checkpoint as Wan's own repository has it: its names, and `WanModel` with `model_type`.
fn original(name: &str, kind: &str, work: &Path) -> String {
    const NAMES: [(&str, &str); 22] = [
        ("attn1.to_out.0", "self_attn.o"),
        ("attn2.to_out.0", "cross_attn.o"),
        ("attn2.add_k_proj", "cross_attn.k_img"),
        ("attn2.add_v_proj", "cross_attn.v_img"),
        ("attn2.norm_added_k", "cross_attn.norm_k_img"),
        ("attn1.to_", "self_attn."),
        ("attn2.to_", "cross_attn."),
        ("attn1.norm_", "self_attn.norm_"),
        ("attn2.norm_", "cross_attn.norm_"),
        ("ffn.net.0.proj", "ffn.0"),
        ("ffn.net.2", "ffn.2"),
        ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
        ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
        ("condition_embedder.time_proj", "time_projection.1"),
        ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
        ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
        ("condition_embedder.image_embedder.norm1", "img_emb.proj.0"),
        ("condition_embedder.image_embedder.ff.net.0.proj", "img_emb.proj.1"),
        ("condition_embedder.image_embedder.ff.net.2", "img_emb.proj.3"),
        ("condition_embedder.image_embedder.norm2", "img_emb.proj.4"),
        ("condition_embedder.image_embedder.pos_embed", "img_emb.emb_pos"),
        ("proj_out", "head.head"),
    ];
    let from = golden(name).join("checkpoint");
    let bytes = std::fs::read(from.join("diffusion_pytorch_model.safetensors")).expect("weights");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let renamed = |name: &str| match name {
        "scale_shift_table" => "head.modulation".to_owned(),
        _ if name.starts_with("blocks.") && name.contains(".norm2.") => name.replace("norm2", "norm3"),
        _ => match NAMES.iter().find(|(ours, _)| name.contains(ours)) {
            Some((ours, theirs)) => name.replace(ours, theirs),
            None => name.replace("scale_shift_table", "modulation"),
        },
    };
    let views: Vec<(String, TensorView<'_>)> = tensors.iter().map(|(name, view)| (renamed(name), view)).collect();
    let folder = work.join(format!("original_{name}"));
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("diffusion_pytorch_model.safetensors"), serialize(views, None).expect("a file"))
        .expect("weights");
    let ours: Value = serde_json::from_slice(&std::fs::read(from.join("config.json")).expect("a file")).expect("JSON");
    let heads = ours["num_attention_heads"].as_u64().expect("a number");
    let width = heads * ours["attention_head_dim"].as_u64().expect("a number");
    let mut config = serde_json::json!({
        "_class_name": "WanModel", "model_type": kind, "dim": width, "num_heads": heads, "in_dim": ours["in_channels"],
        "out_dim": ours["out_channels"], "text_len": if kind == "ti2v" { 16 } else { 512 },
    });
    for field in ["ffn_dim", "freq_dim", "num_layers", "eps", "text_dim", "cross_attn_norm", "image_dim"] {
        if !ours[field].is_null() {
            config[field] = ours[field].clone();
        }
    }
    std::fs::write(folder.join("config.json"), config.to_string()).expect("a file");
    arg(&folder)
}

/// Wan's own configurations of models that take pictures.
#[test]
fn models_of_pictures_as_their_own_repositories_have_them() {
    let work = tempfile::tempdir().expect("a temporary folder");
    for (name, kind, latent) in
        [("wan_i2v", "i2v", "3x8x8"), ("wan_flf2v", "flf2v", "2x8x6"), ("wan_ti2v", "ti2v", "3x8x12")]
    {
        let model = original(name, kind, work.path());
        let onnx = compile(&model, latent, &work.path().join(format!("{name}.onnx")), &["--target", "onnx"]);
        let file = arg(&golden(name).join("golden.safetensors"));
        let report = json(&["verify", &onnx, "--golden", &file, "--blocks", "--json"]);
        assert_eq!(report["passed"], true, "{name}: {report}");
    }
}
