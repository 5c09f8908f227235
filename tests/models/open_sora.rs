//! Open-Sora 2.0 through every door that the other families go through: both targets, tables, quantization, partition, the sampler, inspection; and its
//! pooled text, its guidance and the condition beside its noise.

use std::path::Path;

use crate::common::clip::{self, COREML, ONNX, inspect, snr, verify};
use crate::common::{arg, fails, golden, ok};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;

/// A checkpoint that is wide enough to have weights worth compressing.
fn checkpoint(dir: &Path, name: &str, more: &[&str]) -> String {
    let out = arg(&dir.join(name));
    let fields = ["hidden_size=128", "num_heads=4", "axes_dim=[8,12,12]", "context_in_dim=64", "sample_steps=3"];
    let mut args = vec!["init", "-q", "--preset", "open-sora-tiny", "--seed", "5", "-o", &out];
    for field in fields.iter().chain(more) {
        args.extend(["--set", field]);
    }
    ok(&args);
    out
}

fn compile(checkpoint: &str, out: &Path, flags: &[&str]) -> String {
    clip::compile(checkpoint, "2x6x10", out, flags)
}

/// Its image model: guidance, no condition, fused weights, pairs of neighbours.
const GUIDED: [&str; 4] = ["guidance_embed=true", "cond_embed=false", "fused_qkv=true", "use_liger_rope=false"];

#[test]
fn both_targets_agree_with_the_checkpoint_block_by_block() {
    let work = tempfile::tempdir().expect("a temporary folder");
    for (name, more) in [("plain", &[][..]), ("guided", &GUIDED)] {
        let model = checkpoint(work.path(), name, more);
        let onnx = compile(&model, &work.path().join(format!("{name}.onnx")), &ONNX);
        let report = verify(&onnx, &["--checkpoint", &model, "--blocks"]);
        let names: Vec<&str> =
            report["rows"].as_array().expect("rows").iter().filter_map(|r| r["name"].as_str()).collect();
        assert_eq!(names, ["velocity", "block0", "block1", "block2", "block3"]);
        // The sinusoid of a guidance of 8 has phases of 8000 rad in fp32.
        assert!(snr(&report) > if name == "plain" { 110.0 } else { 85.0 }, "{report}");
        let package = compile(&model, &work.path().join(format!("{name}.mlpackage")), &COREML);
        assert!(snr(&verify(&package, &["--checkpoint", &model, "--blocks", "--fp16"])) > 55.0);
        assert_eq!(inspect(&package)["model"]["family"], "Open-Sora");
        // Every block is recognised, a double one for the video and for the text, and nothing of a formula stands alone.
        let found = &inspect(&model)["recognised"][0];
        assert_eq!((&found["full"], &found["cross"]), (&6.into(), &0.into()), "{found}");
        assert_eq!(
            (&found["leftovers"], &found["near_misses"]),
            (&serde_json::json!({}), &serde_json::json!([])),
            "{found}"
        );
    }
}

#[test]
fn tables_parts_and_few_bits() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let model = checkpoint(work.path(), "model", &[]);
    let tables =
        compile(&model, &work.path().join("t.mlpackage"), &[&COREML[..], &["--timesteps", "from-config"]].concat());
    verify(&tables, &["--checkpoint", &model, "--fp16"]);
    // With tables nothing leaves the Neural Engine: not attention of text and video, the pooled text or the unpacking.
    let lint: Value = serde_json::from_str(&ok(&["lint", &tables, "--json"])).expect("JSON");
    assert_eq!(lint["summary"]["verdict"], "stays", "{lint}");
    // Double and single blocks are counted one after the other.
    let blocks = &lint["packages"][0]["summary"]["functions"][0]["blocks"];
    let ops: Vec<u64> = (0..4).filter_map(|block| blocks[block.to_string()].as_u64()).collect();
    assert!(ops.len() == 4 && ops.iter().all(|ops| *ops > 20), "{blocks}");
    let parts = compile(&model, &work.path().join("parts"), &[&COREML[..], &["--partition", "3"]].concat());
    let report = verify(&parts, &["--checkpoint", &model, "--blocks"]);
    assert_eq!(report["rows"].as_array().map(Vec::len), Some(5), "{report}");
    for (target, scheme, name) in
        [("onnx", "int8", "q.onnx"), ("coreml", "int8", "q8.mlpackage"), ("coreml", "palette4-group16", "q4.mlpackage")]
    {
        let out = compile(&model, &work.path().join(name), &["--target", target, "--quantize", scheme]);
        // Against the same storage: only the arithmetic differs.
        verify(&out, &["--checkpoint", &model, "--quantize", scheme]);
    }
    let plan = arg(&work.path().join("plan.toml"));
    ok(&["quantize", "-q", &model, "--latent", "2x6x10", "--target-size", "2MB", "-o", &plan]);
    let planned = compile(&model, &work.path().join("p.mlpackage"), &[&COREML[..], &["--quantize", &plan]].concat());
    verify(&planned, &["--checkpoint", &model, "--quantize", &plan]);
}

/// Packages with every result rounded to fp16 lose about as much as the project's own model does in fp16: at most 1.5 dB more, block by block.
#[test]
fn fp16_is_as_near_as_pytorchs() {
    // What `open_sora_goldens.py --report` prints: velocity, then the blocks.
    for (name, latent, fields, pytorch) in [
        ("open_sora_tiny", "2x6x10", r#"{"text_len": 9}"#, [60.2, 65.4, 63.8, 62.4, 61.6]),
        ("open_sora_guided", "3x3x5", r#"{"text_len": 6}"#, [58.9, 65.4, 63.8, 63.4, 62.6]),
    ] {
        let work = tempfile::tempdir().expect("a temporary folder");
        let model = crate::common::with_fields(&golden(name).join("checkpoint"), work.path(), fields);
        let out = arg(&work.path().join("a.mlpackage"));
        ok(&["compile", "-q", &arg(&model), "--target", "coreml", "--latent", latent, "-o", &out]);
        let reference = arg(&golden(name).join("golden.safetensors"));
        let report = verify(&out, &["--golden", &reference, "--blocks", "--fp16"]);
        let rows = report["rows"].as_array().expect("rows");
        assert_eq!(rows.len(), pytorch.len(), "{report}");
        for (row, pytorch) in rows.iter().zip(pytorch) {
            let snr = row["snr_db"].as_f64().expect("a number");
            assert!(snr >= pytorch - 1.5, "{name}: {}: {snr} dB, PyTorch {pytorch} dB", row["name"]);
        }
    }
}

/// The project's file under its own name, beside a configuration.
#[test]
fn the_projects_file_is_named_with_its_configuration() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let model =
        crate::common::with_fields(&golden("open_sora_tiny").join("checkpoint"), work.path(), r#"{"text_len": 9}"#);
    let file = work.path().join("Open_Sora_v2.safetensors");
    std::fs::rename(model.join("diffusion_pytorch_model.safetensors"), &file).expect("a file");
    let (file, config, out) = (arg(&file), arg(&model.join("config.json")), arg(&work.path().join("a.onnx")));
    ok(&["compile", "-q", &file, "--config", &config, "--target", "onnx", "--latent", "2x6x10", "-o", &out]);
    verify(&out, &["--golden", &arg(&golden("open_sora_tiny").join("golden.safetensors"))]);
}

/// A safetensors file of ramps.
fn tensors(path: &Path, shapes: &[(&str, &[usize])], phase: f32) -> String {
    let data: Vec<(&str, &[usize], Vec<u8>)> = shapes
        .iter()
        .map(|(name, shape)| {
            let values = (0..shape.iter().product()).map(|i: usize| (i as f32 * 0.7 + phase).sin());
            (*name, *shape, values.flat_map(f32::to_le_bytes).collect())
        })
        .collect();
    let views = data
        .iter()
        .map(|(name, shape, bytes)| (*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).expect("a tensor")));
    std::fs::write(path, safetensors::serialize(views, None).expect("a file")).expect("a file");
    arg(path)
}

/// The clip that some flags make.
fn clip(artifact: &str, work: &Path, flags: &[&str]) -> Vec<u8> {
    let out = arg(&work.join("clip.safetensors"));
    ok(&[&["stream", "-q", artifact, "-o", &out], flags].concat());
    let bytes = std::fs::read(&out).expect("a clip");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let latent = file.tensor("latent").expect("a latent");
    assert_eq!(latent.shape(), [1, 4, 2, 6, 10]);
    latent.data().to_vec()
}

const TEXT: (&str, &[usize]) = ("text", &[1, 8, 64]);
const POOLED: (&str, &[usize]) = ("pooled", &[1, 24]);

#[test]
fn a_clip_is_sampled_of_text_pooled_text_and_a_condition() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| work.path().join(name);
    let model = checkpoint(work.path(), "model", &[]);
    let onnx = compile(&model, &at("a.onnx"), &ONNX);
    let shape: &[usize] = &[1, 5, 2, 6, 10];
    let [one, other] = [0.0, 1.0].map(|phase| tensors(&at(&format!("c{phase}")), &[("condition", shape)], phase));
    let [prompt, negative] = [0.0, 2.0].map(|phase| tensors(&at(&format!("p{phase}")), &[TEXT, POOLED], phase));
    let made = |flags: &[&str]| clip(&onnx, work.path(), flags);
    let first = made(&["--prompt", &prompt, "--condition", &one]);
    assert_ne!(first, made(&["--prompt", &prompt, "--condition", &other]), "the condition is not seen");
    assert_ne!(first, made(&["--prompt", &negative, "--condition", &one]), "the prompt is not seen");
    assert_ne!(
        first,
        made(&["--prompt", &prompt, "--condition", &one, "--negative", &negative, "--guidance", "3"]),
        "the negative prompt is not seen"
    );
    made(&["--prompt-seed", "3", "--condition", &one]);

    let out = arg(&at("x.safetensors"));
    let text_alone = tensors(&at("text"), &[TEXT], 0.0);
    let narrow = tensors(&at("narrow"), &[TEXT, ("pooled", &[1, 23])], 0.0);
    for (flags, says) in [
        (
            &["--prompt", &text_alone, "--condition", &one][..],
            "no tensor `pooled` [1, 24]: one embedding of the whole prompt",
        ),
        (&["--prompt", &narrow, "--condition", &one], "tensor `pooled`: found [1, 23], expected [1, 24]"),
        (&["--prompt", &prompt], "takes channels beside the noise: name them with --condition FILE"),
        (
            &["--prompt", &prompt, "--condition", &one, "--guidance", "3"],
            "takes no strength of guidance: give the prompt to go away from",
        ),
    ] {
        let message = fails(&[&["stream", "-q", &onnx, "-o", &out], flags].concat());
        assert!(message.contains(says), "{message}");
    }
    let kernel = arg(&at("kernel"));
    let message =
        fails(&["compile", &model, "--target", "onnx", "--mode", "stream", "--latent", "6x10", "-o", &kernel]);
    assert!(message.contains("OpenSoraMMDiTModel") && message.contains("--mode clip"), "{message}");
}

#[test]
fn distilled_guidance_goes_into_the_network() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| work.path().join(name);
    let model = checkpoint(work.path(), "model", &GUIDED);
    let onnx = compile(&model, &at("a.onnx"), &ONNX);
    let prompt = tensors(&at("prompt"), &[TEXT, POOLED], 0.0);
    let made = |guidance: &str| clip(&onnx, work.path(), &["--prompt", &prompt, "--guidance", guidance]);
    assert_ne!(made("3.5"), made("4"));
    assert_eq!(made("5"), clip(&onnx, work.path(), &["--prompt", &prompt]), "the default is another");
    let out = arg(&at("x.safetensors"));
    let message = fails(&["stream", "-q", &onnx, "--prompt", &prompt, "--negative", &prompt, "-o", &out]);
    assert!(message.contains("takes the strength of guidance as an input: give --guidance G alone"), "{message}");
}

#[test]
fn what_is_no_checkpoint_of_it() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let source = golden("open_sora_tiny").join("checkpoint");
    let says = |name: &str, fields: &str, latent: &str, wanted: &[&str]| {
        let to = work.path().join(name);
        std::fs::create_dir(&to).expect("a folder");
        let model = crate::common::with_fields(&source, &to, fields);
        let out = arg(&to.join("a.onnx"));
        let message = fails(&["compile", "-q", &arg(&model), "--target", "onnx", "--latent", latent, "-o", &out]);
        assert!(wanted.iter().all(|part| message.contains(part)), "{message}");
    };
    says("axes", r#"{"axes_dim": [4, 6, 8]}"#, "1x2x2", &["axes_dim: found [4, 6, 8]", "add up to 16"]);
    says("deep", r#"{"depth": 3}"#, "1x2x2", &["double_blocks.2: found none of its"]);
    says("fused", r#"{"fused_qkv": true}"#, "1x2x2", &["double_blocks.0.img_attn.qkv.weight", "no such tensor"]);
    says("guided", r#"{"guidance_embed": true}"#, "1x2x2", &["guidance_in"]);
    says("odd", "{}", "1x3x2", &["latent rows: found 3, expected a multiple of 2"]);
}
