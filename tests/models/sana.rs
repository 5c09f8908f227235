//! SANA-Video through every door that the other families go through: both targets, tables, quantization, partition, the sampler, inspection; and its
//! linear attention.

use std::path::Path;

use crate::common::clip::{self, COREML, ONNX, inspect, snr, verify};
use crate::common::{arg, fails, golden, ok};
use s2dit_ir::{DType, convert};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;

/// A checkpoint that is wide enough to have weights worth compressing.
fn checkpoint(dir: &Path) -> String {
    let out = arg(&dir.join("sana"));
    let mut args = vec!["init", "-q", "--preset", "sana-tiny", "--seed", "5", "-o", &out];
    for field in [
        "num_attention_heads=4",
        "attention_head_dim=32",
        "num_cross_attention_heads=4",
        "cross_attention_head_dim=32",
        "cross_attention_dim=128",
        "caption_channels=64",
        "sample_steps=3",
    ] {
        args.extend(["--set", field]);
    }
    ok(&args);
    out
}

fn compile(checkpoint: &str, out: &Path, flags: &[&str]) -> String {
    clip::compile(checkpoint, "3x6x10", out, flags)
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
    // Any engine: the sums of linear attention stay fp32.
    let any = [&COREML[..], &["--compute", "any", "--precision", "fp16"]].concat();
    let any = compile(&model, &work.path().join("any.mlpackage"), &any);
    assert!(snr(&verify(&any, &["--checkpoint", &model, "--blocks", "--fp16"])) > 55.0);
    assert_eq!(inspect(&package)["model"]["family"], "SANA-Video");
    // Every block is recognised, and nothing of a formula stands alone.
    let found = &inspect(&model)["recognised"][0];
    assert_eq!((&found["linear"], &found["cross"], &found["lcha"]), (&3.into(), &3.into(), &0.into()), "{found}");
    assert_eq!(found["regions"][0]["scope"], "transformer_blocks.0.attn1");
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
    // Nothing leaves the Neural Engine: not linear attention, the mask, or convolutions over rows, columns and frames.
    let lint: Value = serde_json::from_str(&ok(&["lint", &tables, "--json"])).expect("JSON");
    assert_eq!(lint["summary"]["verdict"], "stays", "{lint}");
    let most = lint["summary"]["budget"]["most"].as_u64().expect("ops of a block");
    assert!(most <= 90, "{most} ops in a block");
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
    ok(&["quantize", "-q", &model, "--latent", "3x6x10", "--target-size", "1.5MB", "-o", &plan]);
    let planned = compile(&model, &work.path().join("p.mlpackage"), &[&COREML[..], &["--quantize", &plan]].concat());
    verify(&planned, &["--checkpoint", &model, "--quantize", &plan]);
}

/// Packages with every result rounded to fp16 lose about as much as the class of diffusers does in fp16: at most 1.5 dB more, block by block.
#[test]
fn fp16_is_as_near_as_pytorchs() {
    // What `sana_goldens.py --report` prints: of the velocity, and of each block.
    for (name, latent, fields, pytorch) in [
        ("sana_tiny", "3x6x10", r#"{"text_len": 16}"#, &[61.2, 65.1, 63.7, 62.8][..]),
        ("sana_uneven", "2x5x7", r#"{"text_len": 11}"#, &[62.2, 63.4, 61.2]),
        ("sana_sharded", "4x10x6", r#"{"text_len": 9}"#, &[63.2, 65.2, 63.3]),
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

/// Queries whose positive part is zero: PyTorch in float16 divides zero by zero, in float32 by 1e-15. Files of every precision make zero.
#[test]
fn queries_of_zeros_get_zeros() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let model =
        crate::common::with_fields(&golden("sana_uneven").join("checkpoint"), work.path(), r#"{"text_len": 11}"#);
    let weights = model.join("diffusion_pytorch_model.safetensors");
    let bytes = std::fs::read(&weights).expect("weights");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let zeros = vec![0u8; 66 * 4];
    let views = file.tensors().into_iter().map(|(name, view)| match name.as_str() {
        "transformer_blocks.0.attn1.norm_q.weight" => {
            (name, TensorView::new(Dtype::F32, vec![66], &zeros).expect("a tensor"))
        }
        _ => (name, view),
    });
    let views: Vec<_> = views.collect();
    std::fs::remove_file(&weights).expect("a copy");
    std::fs::write(&weights, safetensors::serialize(views, None).expect("a file")).expect("weights");
    let model = arg(&model);
    for (name, flags, verify_flags) in [
        ("a.onnx", &["--target", "onnx"][..], &[][..]),
        ("h.onnx", &["--target", "onnx", "--precision", "fp16"], &[]),
        ("a.mlpackage", &["--target", "coreml"], &["--fp16"]),
        ("f.mlpackage", &["--target", "coreml", "--precision", "fp32"], &[]),
        ("any.mlpackage", &["--target", "coreml", "--compute", "any"], &["--fp16"]),
    ] {
        let out = arg(&work.path().join(name));
        ok(&[&["compile", "-q", &model, "--latent", "2x5x7", "-o", &out], flags].concat());
        let report = verify(&out, &[&["--checkpoint", &model, "--blocks"], verify_flags].concat());
        assert!(snr(&report) > 50.0, "{name}: {report}");
    }
}

/// A prompt file.
fn prompt(path: &Path, text: &[f32], mask: &[f32]) -> String {
    let bytes = |x: &[f32]| x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let (text, mask) = (bytes(text), bytes(mask));
    let views = [
        ("text", TensorView::new(Dtype::F32, vec![1, 8, 64], &text).expect("a tensor")),
        ("text_mask", TensorView::new(Dtype::F32, vec![1, 8], &mask).expect("a tensor")),
    ];
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
    assert_eq!(latent.shape(), [1, 4, 3, 6, 10]);
    latent.data().to_vec()
}

#[test]
fn a_clip_is_sampled_of_the_tokens_that_count() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| work.path().join(name);
    let model = checkpoint(work.path());
    let onnx = compile(&model, &at("a.onnx"), &ONNX);
    let text: Vec<f32> = (0..8 * 64).map(|i| (i as f32 * 0.7).sin()).collect();
    // Another padding behind five tokens.
    let other: Vec<f32> = text.iter().enumerate().map(|(i, x)| if i < 5 * 64 { *x } else { -3.0 * x }).collect();
    let (five, all) = ([1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0], [1.0; 8]);
    let made = |name: &str, text: &[f32], mask: &[f32]| clip(&onnx, &prompt(&at(name), text, mask), work.path());
    let short = made("a", &text, &five);
    assert_eq!(short, made("b", &other, &five), "padding that a mask hides is seen");
    assert_ne!(made("c", &text, &all), made("d", &other, &all), "tokens that count are not seen");
    let kernel = arg(&at("kernel"));
    let message =
        fails(&["compile", &model, "--target", "onnx", "--mode", "stream", "--latent", "6x10", "-o", &kernel]);
    assert!(message.contains("SanaVideoTransformer3DModel") && message.contains("--mode clip"), "{message}");
}

#[test]
fn what_is_no_checkpoint_of_it() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let source = golden("sana_tiny").join("checkpoint");
    let says = |name: &str, fields: &str, latent: &str, wanted: &[&str]| {
        let to = work.path().join(name);
        std::fs::create_dir(&to).expect("a folder");
        let model = crate::common::with_fields(&source, &to, fields);
        let out = arg(&to.join("a.onnx"));
        let message = fails(&["compile", "-q", &arg(&model), "--target", "onnx", "--latent", latent, "-o", &out]);
        assert!(wanted.iter().all(|part| message.contains(part)), "{message}");
    };
    says("guided", r#"{"guidance_embeds": true}"#, "1x2x2", &["guidance_embeds: found true, expected false"]);
    says("cross", r#"{"num_cross_attention_heads": 4}"#, "1x2x2", &["num_cross_attention_heads: found 4, expected 2"]);
    says("deep", r#"{"num_layers": 4}"#, "1x2x2", &["transformer_blocks.3: found none of its", "4 blocks (4×linear)"]);
    says("wide", r#"{"mlp_ratio": 2.5}"#, "1x2x2", &["ff.conv_inverted.weight", "[240, 48, 1, 1]"]);
    says(
        "gains",
        r#"{"norm_elementwise_affine": true}"#,
        "1x2x2",
        &["transformer_blocks.0.norm2.weight", "no such tensor"],
    );
    says("odd", "{}", "1x3x2", &["latent rows: found 3, expected a multiple of 2"]);
    says("long", r#"{"rope_max_seq_len": 4}"#, "1x2x10", &["rope_max_seq_len"]);
    // Another family's fields.
    says("other", r#"{"ffn_dim": 144}"#, "1x2x2", &["ffn_dim: found an unknown field"]);
}

/// A kernel of LongSANA, whose checkpoint is at `model`.
fn kernel(model: &str, latent: &str, out: &Path, flags: &[&str]) -> String {
    let out = arg(out);
    ok(&[&["compile", "-q", model, "--mode", "stream", "--latent", latent, "-o", &out], flags].concat());
    out
}

/// Tensors of a file.
fn tensors(path: &str) -> Vec<(String, Vec<f32>)> {
    let bytes = std::fs::read(path).expect("a file");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let values = |view: TensorView<'_>| {
        let dtype = if view.dtype() == Dtype::F16 { DType::F16 } else { DType::F32 };
        let mut values = vec![0.0; view.data().len() / dtype.size()];
        convert::to_f32(dtype, view.data(), &mut values);
        values
    };
    file.tensors().into_iter().map(|(name, view)| (name, values(view))).collect()
}

/// Sums would have grown two hundredfold.
#[test]
fn two_hundred_chunks_of_longsana_stay_in_fp16() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| arg(&work.path().join(name));
    let model = at("model");
    let fields = ["--set", "num_frame_per_block=2", "--set", "num_layers=2", "--set", "denoising_step_list=[1000,889]"];
    ok(&[&["init", "-q", "--preset", "longsana-tiny", "--seed", "3", "-o", &model], &fields[..]].concat());
    let made = kernel(&model, "4x6", &work.path().join("kernel"), &["--target", "coreml"]);
    let report = verify(&made, &["--checkpoint", &model, "--chunks", "200", "--fp16"]);
    let rows: Vec<f64> =
        report["rows"].as_array().expect("rows").iter().map(|row| row["snr_db"].as_f64().expect("a number")).collect();
    assert_eq!(rows.len(), 200);
    assert!(rows.iter().all(|db| *db >= 45.0), "{rows:?}");
    assert!(report["trend_db"].as_f64().expect("a number") > -1.0, "{}", report["trend_db"]);

    let largest = |state: &str| {
        let states = tensors(state).into_iter().filter(|(name, _)| name.starts_with("state."));
        states.flat_map(|(_, x)| x).fold(0.0f32, |most, x| most.max(x.abs()))
    };
    let stream = |chunks: &str, state: &str| {
        let chunks = ["--chunks", chunks, "--state-out", state];
        ok(&[&["stream", "-q", &made, "--fp16", "--prompt-seed", "1"], &chunks[..]].concat());
        largest(state)
    };
    let (few, many) = (stream("2", &at("few")), stream("200", &at("many")));
    assert!(many < 1.5 * few, "the largest state of 2 chunks is {few}, of 200 chunks {many}");
}

/// Queries whose positive part is zero, in a stream: see `queries_of_zeros_get_zeros`.
#[test]
fn queries_of_zeros_get_zeros_in_a_stream() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let model = crate::common::with_fields(&golden("longsana_tiny").join("checkpoint"), work.path(), "{}");
    let weights = model.join("diffusion_pytorch_model.safetensors");
    let bytes = std::fs::read(&weights).expect("weights");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let zeros = vec![0u8; 48 * 2];
    let views = file.tensors().into_iter().map(|(name, view)| match name.as_str() {
        "transformer_blocks.0.attn1.norm_q.weight" => {
            (name, TensorView::new(Dtype::BF16, vec![48], &zeros).expect("a tensor"))
        }
        _ => (name, view),
    });
    let views: Vec<_> = views.collect();
    std::fs::remove_file(&weights).expect("a copy");
    std::fs::write(&weights, safetensors::serialize(views, None).expect("a file")).expect("weights");
    let model = arg(&model);
    for (name, flags, verify_flags) in [
        ("onnx", &["--target", "onnx"][..], &[][..]),
        ("half", &["--target", "onnx", "--precision", "fp16"], &[]),
        ("coreml", &["--target", "coreml"], &["--fp16"]),
        ("any", &["--target", "coreml", "--compute", "any"], &["--fp16"]),
    ] {
        let made = kernel(&model, "4x6", &work.path().join(name), flags);
        let report = verify(&made, &[&["--checkpoint", &model, "--chunks", "3"], verify_flags].concat());
        let rows = report["rows"].as_array().expect("rows");
        assert!(rows.iter().all(|row| row["snr_db"].as_f64().is_some_and(|db| db > 50.0)), "{name}: {report}");
    }
}

#[test]
fn a_stream_is_of_the_tokens_that_count() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| arg(&work.path().join(name));
    let checkpoint = golden("longsana_tiny").join("checkpoint");
    let made = kernel(&arg(&checkpoint), "4x6", &work.path().join("kernel"), &["--target", "onnx"]);
    let golden = arg(&golden("longsana_tiny").join("golden.safetensors"));
    let given = tensors(&golden);
    let of = |name: &str| &given.iter().find(|(other, _)| other == name).expect("a tensor").1;
    let bytes = |x: &[f32]| x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let write = |name: &str, tensors: &[(&str, Vec<usize>, Vec<f32>)]| {
        let data: Vec<Vec<u8>> = tensors.iter().map(|(.., x)| bytes(x)).collect();
        let views = tensors.iter().zip(&data).map(|((name, shape, _), data)| {
            (*name, TensorView::new(Dtype::F32, shape.clone(), data).expect("a tensor"))
        });
        std::fs::write(at(name), safetensors::serialize(views, None).expect("a file")).expect("a prompt");
        at(name)
    };
    let latents = |prompt: &str| {
        ok(&[
            "stream",
            "-q",
            &made,
            "--prompt",
            prompt,
            "--chunks",
            "2",
            "--state-out",
            &at("state"),
            "-o",
            &at("latents"),
        ]);
        std::fs::remove_file(at("state")).expect("a state");
        tensors(&at("latents"))
    };
    let (text, mask) = (of("text").clone(), of("text_mask").clone());
    assert_eq!(mask.iter().sum::<f32>(), 7.0);
    let other: Vec<f32> = text.iter().enumerate().map(|(i, x)| if i < 7 * 32 { *x } else { -3.0 * x }).collect();
    let prompt = |name: &str, text: &[f32], mask: Option<&[f32]>| {
        let mut tensors = vec![("text", vec![1, 10, 32], text.to_vec())];
        tensors.extend(mask.map(|mask| ("text_mask", vec![1, mask.len()], mask.to_vec())));
        write(name, &tensors)
    };
    let short = latents(&golden);
    assert!(short == latents(&prompt("a", &other, Some(&mask))), "padding that a mask hides is seen");
    assert!(short != latents(&prompt("b", &text, Some(&[1.0; 10]))), "tokens that count are not seen");
    // A stream that is saved keeps the mask.
    let prompt_file = prompt("c", &text, Some(&mask));
    ok(&["stream", "-q", &made, "--prompt", &prompt_file, "--chunks", "1", "--state-out", &at("one")]);
    ok(&["stream", "-q", &made, "--state-in", &at("one"), "--chunks", "1", "-o", &at("rest")]);
    let (whole, rest) = (&short[0].1, &tensors(&at("rest"))[0].1);
    assert!(whole[rest.len()..] == rest[..], "the continuation differs");

    for (prompt, wanted) in [
        (prompt("d", &text, None), "no tensor `text_mask` [1, 10]"),
        (prompt("e", &text, Some(&[1.0; 9])), "tensor `text_mask`: found [1, 9], expected [1, 10]"),
        (prompt("f", &text, Some(&[0.0; 10])), "no token that counts"),
    ] {
        let message = fails(&["stream", "-q", &made, "--prompt", &prompt, "--chunks", "1"]);
        assert!(message.contains(wanted), "{message}");
    }
}

/// The project's own file joins queries, keys and values; what it holds beside the network is left out.
#[test]
fn the_projects_own_file_is_read() {
    let file = arg(&golden("longsana_frames").join("checkpoint").join("longsana.pth"));
    let found = inspect(&file);
    assert_eq!(found["model"]["family"], "LongSANA", "{found}");
    let shown = ok(&["inspect", &file]);
    assert!(shown.contains("original names of LongSANA read as those of diffusers"), "{shown}");
    assert!(shown.contains("streaming 1 latent frames a step:"), "{shown}");
    // A file whose joined products are of another width.
    let work = tempfile::tempdir().expect("a temporary folder");
    let fields = r#"{"num_attention_heads": 4, "num_cross_attention_heads": 4, "cross_attention_dim": 88}"#;
    let other = crate::common::with_fields(&golden("longsana_frames").join("checkpoint"), work.path(), fields);
    let message = fails(&["inspect", &arg(&other.join("longsana.pth"))]);
    assert!(message.contains("x_embedder.proj.weight") && message.contains("[88, 4, 1, 1, 1]"), "{message}");
}

#[test]
fn what_is_no_longsana() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let says = |name: &str, source: &str, fields: &str, wanted: &[&str]| {
        let to = work.path().join(name);
        std::fs::create_dir(&to).expect("a folder");
        let model = arg(&crate::common::with_fields(&golden(source).join("checkpoint"), &to, fields));
        let out = arg(&to.join("kernel"));
        let args = ["compile", "-q", &model, "--target", "coreml", "--mode", "stream", "--latent", "4x6", "-o", &out];
        let message = fails(&args);
        assert!(wanted.iter().all(|part| message.contains(part)), "{message}");
        assert!(!Path::new(&out).exists(), "{name}: an output of a compile that failed");
    };
    let causal = "SanaVideoCausalTransformer3DModel";
    says("clip", "sana_tiny", "{}", &["_class_name: found SanaVideoTransformer3DModel", causal, "--mode clip"]);
    says("cached", "longsana_tiny", r#"{"num_cached_blocks": 4}"#, &["num_cached_blocks: found 4, expected -1"]);
    says(
        "steps",
        "longsana_tiny",
        r#"{"denoising_step_list": [960, 1000]}"#,
        &["denoising_step_list: found [960,1000]"],
    );
    says("sampler", "longsana_tiny", r#"{"sample_steps": 50}"#, &["sample_steps: found an unknown field"]);
    says("deep", "longsana_tiny", r#"{"num_layers": 3}"#, &["transformer_blocks.2: found none of its"]);
}
