//! Every golden of the PyTorch reference, through the files on disk: fp32 and fp16, ONNX and Core ML.

use std::path::Path;

use crate::common::{arg, golden, ok};
use serde_json::Value;

/// Relative L2 error that an fp32 artifact may have against float64 PyTorch.
const FP32_BAR: f64 = 2e-6;
/// SNR in dB of an fp16 package with fp32 arithmetic, and with every result rounded to fp16.
const FP16_SNR: f64 = 60.0;
const FP16_ROUNDED_SNR: f64 = 50.0;

struct Case {
    name: &'static str,
    latent: &'static str,
    /// Arguments of `init` for a golden whose checkpoint is not in the repository.
    init: Option<&'static [&'static str]>,
    /// Fields of a checkpoint's configuration that diffusers keeps in its pipeline, as a JSON object.
    fields: Option<&'static str>,
}

fn check(case: &Case) {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = match case.init {
        None => match case.fields {
            None => golden(case.name).join("checkpoint"),
            Some(fields) => crate::common::with_fields(&golden(case.name).join("checkpoint"), work.path(), fields),
        },
        Some(init) => {
            let dir = work.path().join("checkpoint");
            let mut args = vec!["init", "-q"];
            args.extend(init);
            let dir_arg = arg(&dir);
            args.extend(["-o", &dir_arg]);
            ok(&args);
            dir
        }
    };
    let reference = golden(case.name).join("golden.safetensors");
    let compile = |target: &str, precision: &str, name: &str| {
        let out = work.path().join(name);
        ok(&[
            "compile",
            "-q",
            &arg(&checkpoint),
            "--target",
            target,
            "--latent",
            case.latent,
            "--precision",
            precision,
            "-o",
            &arg(&out),
        ]);
        out
    };
    #[cfg(feature = "tract")]
    second_opinion(case, &checkpoint, &reference, work.path());
    let onnx = compile("onnx", "fp32", "fp32.onnx");
    let ml32 = compile("coreml", "fp32", "fp32.mlpackage");
    let ml16 = compile("coreml", "fp16", "fp16.mlpackage");
    let onnx16 = compile("onnx", "fp16", "fp16.onnx");

    for artifact in [&onnx, &ml32] {
        // The golden of a checkpoint that is not in the repository has no block outputs: they would be large.
        let flags: &[&str] = if case.init.is_none() { &["--blocks"] } else { &[] };
        let report = verify(artifact, &reference, flags);
        for row in rows(&report) {
            let error = row["relative_l2"].as_f64().expect("a number");
            assert!(
                error <= FP32_BAR,
                "{}: {} of {}: relative L2 {error:e}",
                case.name,
                row["name"],
                artifact.display()
            );
        }
    }
    for (artifact, flags, bar) in
        [(&ml16, &[][..], FP16_SNR), (&ml16, &["--fp16"][..], FP16_ROUNDED_SNR), (&onnx16, &[][..], FP16_ROUNDED_SNR)]
    {
        let report = verify(artifact, &reference, flags);
        let snr = rows(&report)[0]["snr_db"].as_f64().expect("a number");
        assert!(snr >= bar, "{}: {} {flags:?}: {snr} dB", case.name, artifact.display());
    }
}

/// tract, an ONNX engine that shares no code with ONNX Runtime, runs the fp32 file too: in both operator sets, block by block.
#[cfg(feature = "tract")]
fn second_opinion(case: &Case, checkpoint: &Path, reference: &Path, work: &Path) {
    for opset in ["21", "23"] {
        let out = work.join(format!("opset{opset}.onnx"));
        let (from, place) = (arg(checkpoint), arg(&out));
        let flags =
            ["--target", "onnx", "--precision", "fp32", "--opset", opset, "--latent", case.latent, "-o", &place];
        ok(&[&["compile", "-q", &from], &flags[..]].concat());
        let blocks: &[&str] = if case.init.is_none() { &["--blocks"] } else { &[] };
        let report = verify(&out, reference, &[&["--engine", "tract"], blocks].concat());
        assert_eq!((&report["engine"], &report["passed"]), (&"tract".into(), &true.into()), "{}: {report}", case.name);
        for row in rows(&report) {
            let error = row["relative_l2"].as_f64().expect("a number");
            assert!(error <= FP32_BAR, "{}: {} by tract: relative L2 {error:e}", case.name, row["name"]);
        }
    }
}

fn verify(artifact: &Path, reference: &Path, flags: &[&str]) -> Value {
    let (artifact, reference) = (arg(artifact), arg(reference));
    let mut args = vec!["verify", &artifact, "--golden", &reference, "--json"];
    args.extend(flags);
    serde_json::from_str(&ok(&args)).expect("verify prints JSON")
}

fn rows(report: &Value) -> &Vec<Value> {
    report["rows"].as_array().expect("rows")
}

macro_rules! goldens {
    ($($name:ident: $latent:literal $(with $fields:literal)? $(, $init:expr)?;)*) => {
        $(
            #[test]
            fn $name() {
                #[allow(unused_mut, unused_assignments)]
                let mut init: Option<&'static [&'static str]> = None;
                $( init = Some(&$init); )?
                #[allow(unused_mut, unused_assignments)]
                let mut fields: Option<&'static str> = None;
                $( fields = Some($fields); )?
                check(&Case { name: stringify!($name), latent: $latent, init, fields });
            }
        )*

        #[test]
        fn every_golden_is_checked() {
            let mut listed = vec![$(stringify!($name)),*];
            listed.sort_unstable();
            let mut there: Vec<String> = std::fs::read_dir(crate::common::repo().join("tests/goldens"))
                .expect("tests/goldens")
                .map(|e| e.expect("an entry"))
                .filter(|e| e.path().is_dir())
                .map(|e| e.file_name().into_string().expect("UTF-8"))
                // Judged by stream.rs, text_encoders.rs, decoders.rs, pipelines.rs, generate.rs, import_pt2.rs, import_onnx.rs, run.rs, tutorials.rs, and the tests of the samplers.
                .filter(|name| !["stream_", "self_forcing_", "longsana_", "text_", "taehv_", "pipeline_", "tokenizer_"].iter().any(|other| name.starts_with(other)))
                .filter(|name| !name.split('_').any(|part| part == "vae"))
                .filter(|name| !["import", "packages", "schedulers", "tutorial"].contains(&name.as_str()))
                .collect();
            there.sort();
            assert_eq!(there, listed);
        }
    };
}

goldens! {
    tiny: "3x8x8";
    odd: "2x12x8";
    post: "4x8x4";
    per_head: "1x12x8";
    sharded: "5x4x8";
    stride3: "2x6x12";
    padded: "2x10x14";
    paths: "2x8x12";
    relu: "3x8x8";
    wan_tiny: "3x8x8" with r#"{"text_len": 16}"#;
    wan_uneven: "2x12x8" with r#"{"text_len": 12}"#;
    wan_sharded: "4x6x10" with r#"{"text_len": 8}"#;
    wan_i2v: "3x8x8";
    wan_flf2v: "2x8x6";
    wan_ti2v: "3x8x12" with r#"{"text_len": 16, "expand_timesteps": true}"#;
    ltx_tiny: "3x4x6" with r#"{"text_len": 16}"#;
    ltx_uneven: "2x5x7" with r#"{"text_len": 11, "frame_rate": 30, "causal_temporal_positioning": false}"#;
    ltx_sharded: "4x3x5" with r#"{"text_len": 9, "frame_rate": 24}"#;
    open_sora_tiny: "2x6x10" with r#"{"text_len": 9}"#;
    open_sora_guided: "3x3x5" with r#"{"text_len": 6}"#;
    sana_tiny: "3x6x10" with r#"{"text_len": 16}"#;
    sana_uneven: "2x5x7" with r#"{"text_len": 11}"#;
    sana_sharded: "4x10x6" with r#"{"text_len": 9}"#;
    small: "3x16x24", ["--preset", "small", "--seed", "7", "--dtype", "bf16"];
}
