//! Text encoders through every door that steps go through: goldens of transformers, both targets, quantization, partition, inspection, lint; and what of
//! fp16 UMT5 would lead beyond.

use std::path::Path;

use crate::common::clip::{COREML, ONNX, inspect, snr, verify};
use crate::common::{arg, fails, golden, ok};
use serde_json::Value;

/// Relative L2 error that an fp32 artifact may have against float64 PyTorch.
const FP32_BAR: f64 = 5e-6;

/// Compiles a checkpoint for so many tokens to `out`, whose path is returned.
fn compile(checkpoint: &str, tokens: &str, out: &Path, flags: &[&str]) -> String {
    let place = arg(out);
    ok(&[&["compile", "-q", checkpoint, "--tokens", tokens, "-o", &place], flags].concat());
    place
}

/// A seeded checkpoint that is wide enough to have weights worth compressing.
fn checkpoint(dir: &Path, preset: &str, fields: &[&str]) -> String {
    let out = arg(&dir.join(preset));
    let mut args = vec!["init", "-q", "--preset", preset, "--seed", "5", "-o", &out];
    for field in fields {
        args.extend(["--set", field]);
    }
    ok(&args);
    out
}

fn wide(dir: &Path, preset: &str) -> String {
    match preset {
        "clip-tiny" => checkpoint(
            dir,
            preset,
            &["hidden_size=128", "num_attention_heads=4", "intermediate_size=256", "max_position_embeddings=32"],
        ),
        _ => checkpoint(dir, preset, &["d_model=128", "d_kv=32", "d_ff=256"]),
    }
}

/// Lowest SNR of all results and blocks of a report.
fn lowest(report: &Value) -> f64 {
    let rows = report["rows"].as_array().expect("rows").iter();
    rows.map(|row| row["snr_db"].as_f64().expect("a number")).fold(f64::INFINITY, f64::min)
}

/// A golden: its checkpoint's tokens, and what transformers reaches in float16, in dB, as `text_goldens.py --report` prints; none if that is
/// not finite.
const GOLDENS: [(&str, &str, Option<f64>); 7] = [
    ("text_clip", "77", Some(60.3)),
    ("text_clip_gelu", "13", Some(61.0)),
    ("text_clip_endless", "5", Some(63.8)),
    ("text_t5", "136", Some(59.2)),
    ("text_t5_relu", "12", Some(61.5)),
    ("text_umt5", "40", Some(57.8)),
    ("text_umt5_large", "24", None),
];

#[test]
fn every_golden_of_a_text_encoder_is_checked() {
    let mut there: Vec<String> = std::fs::read_dir(crate::common::repo().join("tests/goldens"))
        .expect("tests/goldens")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .filter(|name| name.starts_with("text_"))
        .collect();
    there.sort();
    let mut listed = GOLDENS.map(|(name, ..)| name);
    listed.sort_unstable();
    assert_eq!(there, listed);
}

#[test]
fn fp32_files_are_transformers_in_float64() {
    let work = tempfile::tempdir().expect("a temporary folder");
    for (name, tokens, _) in GOLDENS {
        let (model, reference) = (arg(&golden(name).join("checkpoint")), arg(&golden(name).join("golden.safetensors")));
        for (file, flags) in [
            ("23.onnx", &[&ONNX[..]].concat()[..]),
            ("21.onnx", &[&ONNX[..], &["--opset", "21"]].concat()),
            ("any.mlpackage", &[&COREML[..], &["--precision", "fp32", "--compute", "any"]].concat()),
            ("ane.mlpackage", &[&COREML[..], &["--precision", "fp32", "--compute", "ane"]].concat()),
        ] {
            let out = compile(&model, tokens, &work.path().join(format!("{name}.{file}")), flags);
            let report = verify(&out, &["--golden", &reference, "--blocks"]);
            let rows = report["rows"].as_array().expect("rows");
            assert!(rows.len() >= 3, "{report}");
            for row in rows {
                let error = row["relative_l2"].as_f64().expect("a number");
                assert!(error <= FP32_BAR, "{name}: {file}: {}: relative L2 {error:e}", row["name"]);
            }
        }
    }
}

/// Packages with every result rounded to fp16 lose about as much as the classes of transformers do in fp16: at most 1.5 dB more, in both layouts.
#[test]
fn fp16_is_as_near_as_pytorchs() {
    let work = tempfile::tempdir().expect("a temporary folder");
    for (name, tokens, pytorch) in GOLDENS {
        let (model, reference) = (arg(&golden(name).join("checkpoint")), arg(&golden(name).join("golden.safetensors")));
        for compute in ["ane", "any"] {
            let out = work.path().join(format!("{name}.{compute}.mlpackage"));
            let out = compile(&model, tokens, &out, &[&COREML[..], &["--compute", compute]].concat());
            let found = lowest(&verify(&out, &["--golden", &reference, "--blocks", "--fp16"]));
            let bar = pytorch.map_or(50.0, |db| db - 1.5);
            assert!(found >= bar, "{name}: {compute}: {found} dB, PyTorch {pytorch:?} dB");
        }
    }
}

#[test]
fn parts_and_few_bits() {
    let work = tempfile::tempdir().expect("a temporary folder");
    for preset in ["clip-tiny", "t5-tiny", "umt5-tiny"] {
        let model = wide(work.path(), preset);
        let file = |name: &str| work.path().join(format!("{preset}.{name}"));
        let onnx = compile(&model, "12", &file("onnx"), &ONNX);
        let report = verify(&onnx, &["--checkpoint", &model, "--blocks"]);
        assert!(snr(&report) > 110.0, "{report}");
        let parts = compile(&model, "12", &file("parts"), &[&COREML[..], &["--partition", "2"]].concat());
        let report = verify(&parts, &["--checkpoint", &model, "--blocks"]);
        let results = if preset == "clip-tiny" { 2 } else { 1 };
        assert_eq!(report["rows"].as_array().map(Vec::len), Some(results + 3), "{report}");
        for (target, scheme, name) in [
            ("onnx", "int8", "q.onnx"),
            ("coreml", "int8", "q8.mlpackage"),
            ("coreml", "palette4-group16", "q4.mlpackage"),
        ] {
            let out = compile(&model, "12", &file(name), &["--target", target, "--quantize", scheme]);
            // Against the same storage: only the arithmetic differs.
            verify(&out, &["--checkpoint", &model, "--quantize", scheme]);
            // Every projection, and the table of tokens.
            let quantized = inspect(&out)["weights_by_dtype"].clone();
            assert!(quantized.as_object().is_some_and(|types| types.len() > 1), "{quantized}");
        }
        let plan = arg(&file("plan.toml"));
        ok(&["quantize", "-q", &model, "--tokens", "12", "--min-snr", "25", "-o", &plan]);
        assert!(std::fs::read_to_string(&plan).expect("a plan").contains("\ntokens = 12\n"));
        let planned = compile(&model, "12", &file("p.mlpackage"), &[&COREML[..], &["--quantize", &plan]].concat());
        verify(&planned, &["--checkpoint", &model, "--quantize", &plan]);
    }
}

#[test]
fn inspect_says_what_a_text_encoder_is() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let model = checkpoint(work.path(), "clip-tiny", &[]);
    let report = &inspect(&model)["model"];
    assert_eq!((&report["family"], &report["variant"]), (&"CLIP".into(), &"text encoder".into()), "{report}");
    assert_eq!((&report["grid"], &report["latent"]), (&serde_json::json!([1, 1, 16]), &Value::Null));
    assert_eq!(report["inputs"], serde_json::json!([{"name": "tokens", "shape": [1, 16]}]));
    let text = ok(&["inspect", &model, "--tokens", "7"]);
    assert!(text.contains("CLIP, text encoder") && text.contains("7 text tokens"), "{text}");
    let package = compile(&model, "9", &work.path().join("a.mlpackage"), &COREML);
    let report = inspect(&package);
    assert_eq!(report["inputs"][0]["dtype"], "i32", "{report}");
    assert_eq!((&report["metadata"]["s2ditc.tokens"], &report["model"]["family"]), (&"9".into(), &"CLIP".into()));
    let other = ok(&["compile", &model, "--target", "onnx", "--tokens", "9", "--emit", "ir"]);
    assert!(
        other.contains("input \"tokens\" : tokens {vocabulary = 96}") && other.contains("output \"pooled\" : pooled"),
        "{other}"
    );
}

/// The Neural Engine has all of CLIP but for the ids and their rows, which come before its first op.
#[test]
fn clip_stays_on_the_neural_engine() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let model = checkpoint(
        work.path(),
        "clip-tiny",
        &["max_position_embeddings=77", "hidden_size=64", "num_attention_heads=4"],
    );
    let package = compile(&model, "77", &work.path().join("a.mlpackage"), &COREML);
    let lint: Value = serde_json::from_str(&ok(&["lint", &package, "--json"])).expect("JSON");
    assert_eq!(lint["summary"]["verdict"], "stays", "{lint}");
    let verdicts = &lint["summary"]["verdicts"];
    assert_eq!((&verdicts["may_leave"], &verdicts["leaves"]), (&0.into(), &0.into()), "{verdicts}");
    let ahead = verdicts["ahead"].as_u64().expect("ops before the engine");
    assert!((2..=8).contains(&ahead), "{verdicts}");
    let most = lint["summary"]["budget"]["most"].as_u64().expect("ops of a block");
    assert!((20..=40).contains(&most), "{most} ops in a block");
}

/// What leads beyond fp16 in PyTorch does not in a package, and `ranges` says how near it comes.
#[test]
fn the_ranges_of_umt5_hold() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let (model, reference) = (
        arg(&golden("text_umt5_large").join("checkpoint")),
        arg(&golden("text_umt5_large").join("golden.safetensors")),
    );
    for compute in ["ane", "any"] {
        let out = work.path().join(format!("{compute}.mlpackage"));
        let out = compile(&model, "24", &out, &[&COREML[..], &["--compute", compute]].concat());
        let report: Value =
            serde_json::from_str(&ok(&["ranges", &out, "--golden", &reference, "--json"])).expect("JSON");
        assert_eq!(report["overflows"], 0, "{report}");
        // Products may reach half of what fp16 holds; the largest come to a third of that.
        let at_risk = |row: &&Value| row["verdict"] == "at_risk";
        let rows: Vec<&Value> = report["rows"].as_array().expect("rows").iter().filter(at_risk).collect();
        assert!(rows.iter().all(|row| row["limit"] == 32752.0), "{report}");
        assert!(report["at_risk"] == rows.len() && rows.len() <= 3, "{report}");
        let largest = report["rows"][0]["largest"].as_f64().expect("a number");
        // 3.2e5 between blocks, which is 5e3 as it is kept.
        assert!((4e3..1.6e4).contains(&largest), "{largest}");
    }
}

#[test]
fn a_pipeline_folder_has_a_text_encoder() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let pipeline = work.path().join("pipeline");
    std::fs::create_dir(&pipeline).expect("a folder");
    for (preset, name) in [("umt5-tiny", "text_encoder"), ("wan-tiny", "transformer")] {
        ok(&["init", "-q", "--preset", preset, "-o", &arg(&pipeline.join(name))]);
    }
    std::fs::create_dir(pipeline.join("scheduler")).expect("a folder");
    let index = r#"{"_class_name": "WanPipeline", "text_encoder": ["transformers", "UMT5EncoderModel"],
        "transformer": ["diffusers", "WanTransformer3DModel"], "scheduler": ["diffusers", "UniPCMultistepScheduler"]}"#;
    std::fs::write(pipeline.join("model_index.json"), index).expect("an index");
    let out = work.path().join("t.onnx");
    let of = |name: &'static str| [&ONNX[..], &["--component", name]].concat();
    let made = compile(&arg(&pipeline), "8", &out, &of("text_encoder"));
    let encoder = arg(&pipeline.join("text_encoder"));
    verify(&made, &["--checkpoint", &encoder, "--blocks"]);
    let place = arg(&work.path().join("x.onnx"));
    let wrong = |name: &'static str, size: [&str; 2]| {
        fails(&[&["compile", "-q", &arg(&pipeline), "-o", &place][..], &size, &of(name)].concat())
    };
    let scheduler = wrong("scheduler", ["--tokens", "8"]);
    assert!(
        scheduler.contains("a model of the pipeline folder") && scheduler.contains("UMT5EncoderModel"),
        "{scheduler}"
    );
    assert!(wrong("text_encoder", ["--latent", "3x8x8"]).contains("--tokens N"));
    assert!(wrong("transformer", ["--tokens", "8"]).contains("--latent FRAMESxROWSxCOLUMNS"));
}

#[test]
fn what_does_not_fit_is_told() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let out = arg(&work.path().join("x.onnx"));
    let model = checkpoint(work.path(), "clip-tiny", &[]);
    let compile = |model: &str, flags: &[&str]| {
        fails(&[&["compile", "-q", model, "--target", "onnx", "-o", &out][..], flags].concat())
    };
    let long = compile(&model, &["--tokens", "17"]);
    assert!(long.contains("found 17, expected 1 to 16 (max_position_embeddings of config.json)"), "{long}");
    assert!(
        compile(&model, &["--tokens", "8", "--timesteps", "from-config"]).contains("CLIPTextModel (a text encoder)")
    );
    let usage = |flags: &[&str]| {
        let args = [&["compile", "-q", &model, "--target", "onnx", "-o", &out][..], flags].concat();
        let done = crate::common::run(&args);
        assert_eq!(done.status.code(), Some(2));
        String::from_utf8(done.stderr).expect("UTF-8")
    };
    assert!(usage(&[]).contains("--tokens N"));
    assert!(usage(&["--tokens", "8", "--latent", "1x2x3"]).contains("cannot be used with"));

    let with = |preset: &str, name: &str, fields: &str| {
        let dir = work.path().join(name);
        std::fs::create_dir(&dir).expect("a folder");
        let seeded = work.path().join(preset);
        if !seeded.exists() {
            checkpoint(work.path(), preset, &[]);
        }
        arg(&crate::common::with_fields(&seeded, &dir, fields))
    };
    let decoder = with("clip-tiny", "gpt", r#"{"architectures": ["GPT2LMHeadModel"]}"#);
    let error = compile(&decoder, &["--tokens", "8"]);
    assert!(error.contains("GPT2LMHeadModel") && error.contains("\"CLIPTextModel\" or \"T5EncoderModel\""), "{error}");
    let decoder = with("t5-tiny", "decoder", r#"{"is_decoder": true}"#);
    assert!(compile(&decoder, &["--tokens", "8"]).contains("is_decoder: found true"));
    let deeper = with("umt5-tiny", "deeper", r#"{"num_layers": 4}"#);
    let error = compile(&deeper, &["--tokens", "8"]);
    assert!(error.contains("encoder.block.3") && error.contains("none of its"), "{error}");
    let wider = with("t5-tiny", "wider", r#"{"d_kv": 8}"#);
    assert!(compile(&wider, &["--tokens", "8"]).contains("SelfAttention.q.weight"), "shapes");

    // Ids beyond the vocabulary in a golden.
    let good = arg(&work.path().join("good.onnx"));
    ok(&["compile", "-q", &model, "--target", "onnx", "--tokens", "3", "-o", &good]);
    let file = work.path().join("golden.safetensors");
    let (ids, text) = ([1i32, 96, 2].map(i32::to_le_bytes).concat(), vec![0u8; 3 * 48 * 4]);
    let view = |dtype, shape: &[usize], data| {
        safetensors::tensor::TensorView::new(dtype, shape.to_vec(), data).expect("a tensor")
    };
    let tensors = [
        ("tokens", view(safetensors::Dtype::I32, &[1, 3], &ids)),
        ("text", view(safetensors::Dtype::F32, &[1, 3, 48], &text)),
    ];
    std::fs::write(&file, safetensors::serialize(tensors, None).expect("a file")).expect("a golden");
    let error = fails(&["verify", &good, "--golden", &arg(&file)]);
    assert!(
        error.contains("tensor `tokens`") && error.contains("found 96, expected a token id, an integer from 0 to 95"),
        "{error}"
    );
}
