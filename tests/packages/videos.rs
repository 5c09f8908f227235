//! Videos as files, judged by FFmpeg and Pillow: every frame, the rate, the size, and how far the pictures are from what they show.

use std::process::Command;

use serde_json::Value;

use crate::common::{arg, fails, golden, ok, python, repo};

/// dB that a video of H.264 keeps at least of these pictures, which are noise: four pixels share a colour. Of smooth ones it keeps 36.
const MP4_PSNR: f64 = 19.0;
/// And a GIF, of 256 colours a frame.
const GIF_PSNR: f64 = 19.0;

#[test]
fn outside_decoders_see_the_frames() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| arg(&work.path().join(name));
    let (decoder, latents) = (at("decoder"), arg(&golden("wan_vae").join("golden.safetensors")));
    let checkpoint = arg(&golden("wan_vae").join("checkpoint"));
    ok(&["compile", "-q", &checkpoint, "--target", "onnx", "--mode", "stream", "--latent", "3x4", "-o", &decoder]);
    let names = ["numbers.safetensors", "x.mp4", "x.webp", "x.gif", "frames"];
    for name in names {
        ok(&["decode", "-q", &decoder, "--latents", &latents, "--fps", "12.5", "-o", &at(name)]);
    }
    let made = Command::new(python::of_video())
        .arg(repo().join("tests/conformance/check_video.py"))
        .args(names.map(at))
        .output()
        .expect("Python");
    let said = String::from_utf8_lossy(&made.stdout);
    assert!(made.status.success(), "{said}{}", String::from_utf8_lossy(&made.stderr));
    let reports: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(reports.len(), 4, "{said}");
    for report in &reports {
        assert_eq!([&report["frames"], &report["rows"], &report["cols"]], [9, 24, 32], "{report}");
        let fps = report["fps"].as_f64().unwrap_or(12.5);
        assert!((fps - 12.5).abs() < 1e-9, "{report}");
    }
    let [mp4, webp, gif, frames] = &reports[..] else { unreachable!("four reports") };
    let psnr = |report: &Value| report["psnr"].as_f64().expect("a number");
    assert!(psnr(mp4) > MP4_PSNR && psnr(gif) > GIF_PSNR, "{said}");
    // Lossless.
    assert!(webp["psnr"].is_null() && frames["psnr"].is_null(), "{said}");
    assert_eq!([&mp4["codec"], &mp4["pixels"]], ["h264", "yuv420p"], "{mp4}");
    assert_eq!(mp4["colours"], serde_json::json!([1, 1]), "BT.709 in the narrow range: {mp4}");
    assert_eq!([&mp4["keys"], &mp4["steady"]], [&Value::from(1), &Value::from(true)], "{mp4}");
    assert!((mp4["seconds"].as_f64().expect("seconds") - 9.0 / 12.5).abs() < 1e-3, "{mp4}");
    assert!([webp, gif].iter().all(|r| r["software"].as_str().is_some_and(|s| s.contains("s2ditc"))), "{said}");
}

#[test]
fn what_a_format_does_not_hold_is_said_before_the_work() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| arg(&work.path().join(name));
    let (decoder, latents) = (at("decoder"), arg(&golden("wan_vae").join("golden.safetensors")));
    let checkpoint = arg(&golden("wan_vae").join("checkpoint"));
    ok(&["compile", "-q", &checkpoint, "--target", "onnx", "--mode", "stream", "--latent", "3x4", "-o", &decoder]);
    std::fs::write(at("x.mp4"), "somebody else's film").expect("a file");
    let message = fails(&["decode", "-q", &decoder, "--latents", &latents, "-o", &at("x.mp4")]);
    assert!(message.contains("--force") && message.contains("x.mp4"), "{message}");
    assert_eq!(std::fs::read(at("x.mp4")).expect("a file"), b"somebody else's film");
}
