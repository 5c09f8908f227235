//! Compression of trained weights: those of examples/toyworld, beside what PyTorch makes with them in float64. Random weights are all alike; trained ones have outliers.

use std::path::{Path, PathBuf};

use crate::common::{arg, ok, repo, run};

/// The pretrained transformer of the toy world.
fn checkpoint() -> PathBuf {
    repo().join("examples/toyworld/weights/pretrained")
}

/// A step of it, of a clip of the world, half-way.
fn golden() -> PathBuf {
    repo().join("examples/toyworld/weights/golden_clip.safetensors")
}

/// The distance of a package from PyTorch in dB, with every result rounded to fp16.
fn snr_db(work: &Path, name: &str, quantize: &[&str]) -> f64 {
    let package = arg(&work.join(format!("{name}.mlpackage")));
    let checkpoint = arg(&checkpoint());
    let mut command = vec!["compile", "-q", &checkpoint, "--target", "coreml", "--latent", "3x8x8"];
    command.extend(quantize.iter().flat_map(|scheme| ["--quantize", scheme]));
    ok(&[&command[..], &["-o", &package]].concat());
    // The verdict is not of interest: fewer bits than a bar allows are compared, too.
    let printed =
        run(&["verify", "-q", "--json", &package, "--golden", &arg(&golden()), "--fp16", "--min-snr", "1"]).stdout;
    let report: serde_json::Value = serde_json::from_slice(&printed).expect("a report");
    let [row] = report["rows"].as_array().expect("rows").as_slice() else { panic!("one result: {report}") };
    assert_eq!((row["non_finite"].as_u64(), row["reference_non_finite"].as_u64()), (Some(0), Some(0)), "{report}");
    row["snr_db"].as_f64().expect("decibels")
}

#[test]
fn more_bits_are_nearer_to_pytorch() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let of = |name: &str| snr_db(work.path(), name, &[name]);
    let whole = snr_db(work.path(), "whole", &[]);
    let (int8, palettes) = (of("int8"), ["palette8", "palette6", "palette4", "palette3"].map(of));
    assert!(whole > 50.0, "{whole}");
    assert!(whole > int8 + 10.0 && int8 > 28.0, "int8 {int8} of {whole}");
    for pair in palettes.windows(2) {
        assert!(pair[0] > pair[1] + 3.0, "{palettes:?}");
    }
    assert!(palettes[0] > 28.0 && palettes[2] > 6.0, "{palettes:?}");
}

/// What calibration is for shows on trained weights and what they see. The one sample is the golden's: this is the gain on what was calibrated for.
#[test]
fn calibration_on_what_the_model_sees_helps() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let (checkpoint, samples) = (arg(&checkpoint()), arg(&golden()));
    let plan = arg(&work.path().join("plan.toml"));
    // No --latent: the samples say it.
    ok(&["quantize", "-q", &checkpoint, "--scheme", "palette4", "--calibrate", &samples, "-o", &plan]);
    let (with, without) = (snr_db(work.path(), "with", &[&plan]), snr_db(work.path(), "without", &["palette4"]));
    assert!(with > without + 1.0, "calibrated {with} dB, as it is {without} dB");
}

#[test]
fn recorded_ranges_leave_room_in_fp16() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let package = arg(&work.path().join("toy.mlpackage"));
    ok(&["compile", "-q", &arg(&checkpoint()), "--target", "coreml", "--latent", "3x8x8", "-o", &package]);
    let printed = ok(&["ranges", "-q", "--json", &package, "--golden", &arg(&golden())]);
    let report: serde_json::Value = serde_json::from_str(&printed).expect("a report");
    let rows = report["rows"].as_array().expect("rows");
    assert!(rows.len() > 100, "{}", rows.len());
    let largest = rows.iter().map(|value| value["largest"].as_f64().expect("a number")).max_by(f64::total_cmp);
    let largest = largest.expect("rows");
    assert!(largest > 1.0 && largest < 32_752.0, "{largest}");
}
