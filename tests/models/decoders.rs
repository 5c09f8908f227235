//! Video decoders: against diffusers and TAEHV, both targets, whole and streaming, and what is no decoder.

use std::path::{Path, PathBuf};

use crate::common::clip::{inspect, verify};
use crate::common::{arg, fails, golden, ok};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// A decoder's golden: its name, the latent, what diffusers or TAEHV reach in float16 (PSNR of the pictures in dB, from `decoder_goldens.py`), whether it streams.
struct Case {
    name: &'static str,
    latent: [usize; 3],
    pytorch: f64,
    streams: bool,
}

const CASES: [Case; 8] = [
    Case { name: "wan_vae", latent: [3, 3, 4], pytorch: 66.6, streams: true },
    Case { name: "wan_vae_residual", latent: [3, 2, 2], pytorch: 60.9, streams: true },
    Case { name: "wan_vae_uneven", latent: [2, 2, 3], pytorch: 62.0, streams: true },
    Case { name: "ltx_vae", latent: [2, 1, 2], pytorch: 60.7, streams: false },
    Case { name: "ltx_vae_residual", latent: [2, 2, 1], pytorch: 69.2, streams: false },
    Case { name: "ltx_vae_timestep", latent: [2, 1, 1], pytorch: 65.2, streams: false },
    Case { name: "taehv_tiny", latent: [3, 3, 4], pytorch: 73.9, streams: true },
    Case { name: "taehv_patch", latent: [4, 2, 2], pytorch: 67.4, streams: true },
];

impl Case {
    /// The checkpoint: a folder, or the file of weights in it.
    fn checkpoint(&self) -> String {
        let folder = golden(self.name).join("checkpoint");
        let pth = folder.join("taehv.pth");
        let file = folder.join("taehv.safetensors");
        arg(&[pth, file].into_iter().find(|path| path.exists()).unwrap_or(folder))
    }

    fn golden(&self) -> PathBuf {
        golden(self.name).join("golden.safetensors")
    }

    fn size(&self) -> String {
        self.latent.map(|side| side.to_string()).join("x")
    }

    fn plane(&self) -> String {
        self.latent[1..].iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
    }
}

/// A tensor of a file: its shape and its values.
fn tensor(path: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(path).expect("a file");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let view = file.tensor(name).expect("a tensor");
    let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    (view.shape().to_vec(), values)
}

/// The video that `decode` makes with an artifact.
fn decoded(artifact: &str, latents: &Path, work: &Path, flags: &[&str]) -> (Vec<usize>, Vec<f32>) {
    let out = work.join("video.safetensors");
    ok(&[&["decode", "-q", artifact, "--latents", &arg(latents), "-o", &arg(&out)], flags].concat());
    let made = tensor(&out, "video");
    std::fs::remove_file(&out).expect("a video");
    made
}

/// A decoder that takes a timestep, at another one than 0.
#[test]
fn a_decoder_at_its_timestep() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let (golden, to) = (golden("ltx_vae_timestep"), work.path().join("model"));
    std::fs::create_dir(&to).expect("a folder");
    let model = crate::common::with_fields(&golden.join("checkpoint"), &to, r#"{"decode_timestep": 0.05}"#);
    let artifact = compile(&arg(&model), "2x1x1", &work.path().join("a.onnx"), &["--target", "onnx"]);
    let found = decoded(&artifact, &golden.join("golden.safetensors"), work.path(), &[]);
    let expected = tensor(&golden.join("golden.safetensors"), "video_at_0.05");
    let (error, _) = differs(&found, &expected);
    assert!(error <= 5e-6, "{error:e}");
    let (apart, _) = differs(&tensor(&golden.join("golden.safetensors"), "video"), &expected);
    assert!(apart > 1e-2, "{apart:e}: the timestep does nothing");
    // It follows from weights: the artifact takes the latent alone, and has no layers of the embedding.
    let said = inspect(&artifact);
    assert_eq!(said["inputs"].as_array().map(Vec::len), Some(1), "{said}");
    let ops = said["ops"].to_string();
    assert!(ops.contains("Conv") && !["Gemm", "MatMul", "Cos"].iter().any(|op| ops.contains(op)), "{ops}");
}

/// ‖x − y‖ / ‖y‖ and the PSNR in dB of pictures in −1 to 1.
#[track_caller]
fn differs(x: &(Vec<usize>, Vec<f32>), y: &(Vec<usize>, Vec<f32>)) -> (f64, f64) {
    assert_eq!((&x.0, x.1.len()), (&y.0, y.1.len()));
    assert!(x.1.iter().all(|x| x.is_finite()));
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
    let error = squares(&mut x.1.iter().zip(&y.1).map(|(x, y)| f64::from(*x) - f64::from(*y)));
    let norm = squares(&mut y.1.iter().map(|y| f64::from(*y)));
    let mean = error / y.1.len() as f64;
    ((error / norm).sqrt(), -10.0 * (mean / 4.0).log10())
}

fn compile(checkpoint: &str, latent: &str, out: &Path, flags: &[&str]) -> String {
    crate::common::clip::compile(checkpoint, latent, out, flags)
}

#[test]
fn clips_are_what_pytorch_makes() {
    for case in &CASES {
        let work = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| work.path().join(name);
        let expected = tensor(&case.golden(), "video");
        for (name, flags) in [
            ("a.onnx", &["--target", "onnx"][..]),
            ("b.onnx", &["--target", "onnx", "--opset", "21"]),
            ("a.mlpackage", &["--target", "coreml", "--precision", "fp32"]),
        ] {
            let artifact = compile(&case.checkpoint(), &case.size(), &at(name), flags);
            let (error, _) = differs(&decoded(&artifact, &case.golden(), work.path(), &[]), &expected);
            assert!(error <= 5e-6, "{}: {name}: {error:e}", case.name);
        }
        for (name, flags, rounded) in [
            ("h.mlpackage", &["--target", "coreml"][..], &["--fp16"][..]),
            ("g.mlpackage", &["--target", "coreml", "--compute", "gpu"], &["--fp16"]),
            ("h.onnx", &["--target", "onnx", "--precision", "fp16"], &[]),
        ] {
            let artifact = compile(&case.checkpoint(), &case.size(), &at(name), flags);
            let (_, psnr) = differs(&decoded(&artifact, &case.golden(), work.path(), rounded), &expected);
            println!("{}: {name}: {psnr:.1} dB, PyTorch {:.1} dB", case.name, case.pytorch);
            assert!(
                psnr >= 50.0 && psnr >= case.pytorch - 1.5,
                "{}: {name}: {psnr} dB, PyTorch {} dB",
                case.name,
                case.pytorch
            );
        }
        let report = verify(&arg(&at("a.onnx")), &["--checkpoint", &case.checkpoint(), "--blocks"]);
        let names: Vec<&str> =
            report["rows"].as_array().expect("rows").iter().filter_map(|r| r["name"].as_str()).collect();
        assert_eq!(names[..2], ["video", "block0"], "{report}");
        assert_eq!(inspect(&arg(&at("g.mlpackage")))["metadata"]["s2ditc.compute"], "gpu");
    }
}

#[test]
fn a_stream_is_what_the_clip_is() {
    for case in CASES.iter().filter(|case| case.streams) {
        let work = tempfile::tempdir().expect("a temporary folder");
        let expected = tensor(&case.golden(), "video");
        for (i, (flags, chunk, rounded)) in [
            (&["--target", "onnx"][..], "1", &[][..]),
            // The last chunk is not full.
            (&["--target", "onnx"], "2", &[]),
            (&["--target", "coreml", "--precision", "fp32"], "1", &[]),
            (&["--target", "coreml", "--functions", "separate"], "2", &["--fp16"]),
            (&["--target", "coreml", "--states", "native"], "1", &["--fp16"]),
        ]
        .into_iter()
        .enumerate()
        {
            let flags = [flags, &["--mode", "stream", "--chunk", chunk]].concat();
            let folder = compile(&case.checkpoint(), &case.plane(), &work.path().join(format!("decoder{i}")), &flags);
            let (error, psnr) = differs(&decoded(&folder, &case.golden(), work.path(), rounded), &expected);
            // The command's own proof: against the clip that the checkpoint's fp32 graph makes.
            let report = verify(&folder, &[&["--checkpoint", &case.checkpoint(), "--chunks", "3"], rounded].concat());
            assert_eq!(report["rows"].as_array().map(Vec::len), Some(3), "{report}");
            verify(&folder, &[&["--golden", &arg(&case.golden())], rounded].concat());
            assert_eq!(inspect(&folder)["chunk"]["frames"], chunk.parse::<usize>().expect("a number"));
            if rounded.is_empty() {
                assert!(error <= 1e-5, "{}: {flags:?}: {error:e}", case.name);
            } else {
                assert!(psnr >= 50.0 && psnr >= case.pytorch - 1.5, "{}: {flags:?}: {psnr} dB", case.name);
            }
        }
    }
}

/// A seeded decoder for Wan's latents that is small.
fn tiny(work: &Path) -> String {
    let out = arg(&work.join("tiny"));
    ok(&["init", "-q", "--preset", "taehv-tiny", "--seed", "3", "-o", &out]);
    out
}

/// A file of latents of some frames.
fn latents(path: &Path, shape: &[usize], name: &str) -> PathBuf {
    let values: Vec<u8> =
        (0..shape.iter().product::<usize>()).flat_map(|i| (i as f32 * 0.618).sin().to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, shape.to_vec(), &values).expect("a tensor");
    std::fs::write(path, safetensors::serialize([(name, view)], None).expect("a file")).expect("latents");
    path.to_owned()
}

#[test]
fn the_tiny_decoder_stays_on_the_neural_engine() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let model = tiny(work.path());
    let clip = compile(&model, "2x8x32", &work.path().join("a.mlpackage"), &["--target", "coreml"]);
    let stream = ["--target", "coreml", "--mode", "stream", "--chunk", "1"];
    let stream = compile(&model, "8x32", &work.path().join("decoder"), &stream);
    for artifact in [&clip, &stream] {
        let lint: Value = serde_json::from_str(&ok(&["lint", artifact, "--json", "--deny-fallback"])).expect("JSON");
        assert_eq!(lint["summary"]["verdict"], "stays", "{lint}");
    }
}

/// A thousand chunks need the memory of fifty.
#[test]
#[cfg(target_os = "linux")]
fn memory_does_not_grow_with_the_chunks() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let model = tiny(work.path());
    let folder = compile(&model, "4x4", &work.path().join("decoder"), &["--target", "onnx", "--mode", "stream"]);
    let peak = |frames: usize| -> u64 {
        let input = latents(&work.path().join("l.safetensors"), &[1, 4, frames, 4, 4], "latent");
        let out = arg(&work.path().join("v.safetensors"));
        let mut command = crate::common::s2ditc();
        command.args(["decode", "-q", "--threads", "1", "--force", &folder, "--latents", &arg(&input), "-o", &out]);
        let mut child = command.spawn().expect("s2ditc starts");
        let mut most = 0;
        loop {
            most = most.max(resident(child.id()));
            if let Some(status) = child.try_wait().expect("a child") {
                assert!(status.success());
                return most;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    };
    let (few, many) = (peak(50), peak(1000));
    let (shape, video) = tensor(&work.path().join("v.safetensors"), "video");
    assert_eq!(shape, [1, 3, 1 + 4 * 999, 32, 32]);
    assert!(video.iter().all(|x| x.is_finite() && x.abs() <= 1.0));
    assert!(many <= few + few / 10, "peak of {few} KiB with 50 chunks, {many} KiB with 1000");
}

/// The most memory that a process or a child of it has had, in KiB.
#[cfg(target_os = "linux")]
fn resident(process: u32) -> u64 {
    let read = |file: String| std::fs::read_to_string(file).unwrap_or_default();
    let status = read(format!("/proc/{process}/status"));
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    let own = line.trim().trim_end_matches(" kB").parse().unwrap_or_default();
    let children = read(format!("/proc/{process}/task/{process}/children"));
    let of_children = children.split_whitespace().filter_map(|id| id.parse().ok()).map(resident);
    of_children.fold(own, u64::max)
}

#[test]
fn latents_of_a_stream_are_decoded() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| work.path().join(name);
    let model = tiny(work.path());
    let folder = compile(&model, "2x3", &at("decoder"), &["--target", "onnx", "--mode", "stream", "--chunk", "2"]);
    let stream = latents(&at("s.safetensors"), &[3, 1, 4, 2, 2, 3], "stream.latents");
    let (shape, _) = decoded(&folder, &stream, work.path(), &[]);
    assert_eq!(shape, [1, 3, 1 + 4 * 5, 16, 24]);
    let text = ok(&["decode", &folder, "--latents", &arg(&stream), "-o", &arg(&at("v.safetensors")), "--json"]);
    let summary: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&summary["latent_frames"], &summary["video"][2]), (&6.into(), &21.into()), "{summary}");
}

#[test]
fn what_is_no_decoder_is_refused() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| work.path().join(name);
    let says = |args: &[&str], wanted: &[&str]| {
        let message = fails(args);
        assert!(wanted.iter().all(|part| message.contains(part)), "{message}");
    };
    let model = tiny(work.path());
    let out = arg(&at("out"));
    let folder = compile(&model, "2x3", &at("decoder"), &["--target", "onnx", "--mode", "stream"]);
    let clip = compile(&model, "2x2x3", &at("a.onnx"), &["--target", "onnx"]);
    // Latents of another channel count, of other sides, of another number of frames.
    let wide = arg(&latents(&at("wide.safetensors"), &[1, 16, 2, 2, 3], "latent"));
    says(&["decode", &folder, "--latents", &wide, "-o", &out], &["16 channels", "expected 4 channels, 2x3"]);
    says(&["decode", &clip, "--latents", &wide, "-o", &out], &["16 channels", "expected 4 channels"]);
    let long = arg(&latents(&at("long.safetensors"), &[1, 4, 3, 2, 3], "latent"));
    says(&["decode", &clip, "--latents", &long, "-o", &out], &["3 latent frame(s), expected 2", "--mode stream"]);
    let other = arg(&latents(&at("other.safetensors"), &[1, 4, 3, 2, 3], "noise"));
    says(&["decode", &folder, "--latents", &other, "-o", &out], &["no tensor `latent`"]);
    says(&["decode", &arg(&at("none")), "--latents", &long, "-o", &out], &["none"]);
    assert!(!Path::new(&out).exists());
    // Sizes that cannot be made.
    let onnx = arg(&at("out.onnx"));
    says(&["compile", &model, "--target", "onnx", "--latent", "0x2x3", "-o", &onnx], &["latent frames: found 0"]);
    says(&["compile", &model, "--target", "onnx", "--latent", "9000x900x1600", "-o", &onnx], &["at most", "elements"]);
    says(&["compile", &model, "--target", "onnx", "--mode", "stream", "--latent", "3x2x3", "-o", &out], &["--chunk 3"]);
    // LTX-Video's decoder looks ahead.
    let ltx = arg(&golden("ltx_vae").join("checkpoint"));
    says(&["compile", &ltx, "--target", "onnx", "--mode", "stream", "--latent", "2x2", "-o", &out], &["--mode clip"]);
    // Configurations of other autoencoders.
    let fields = |name: &str, case: &str, fields: &str, wanted: &[&str]| {
        let to = at(name);
        std::fs::create_dir(&to).expect("a folder");
        let model = crate::common::with_fields(&golden(case).join("checkpoint"), &to, fields);
        says(&["compile", &arg(&model), "--target", "onnx", "--latent", "1x2x2", "-o", &onnx], wanted);
    };
    fields(
        "image",
        "wan_vae",
        r#"{"_class_name": "AutoencoderKL"}"#,
        &["AutoencoderKL", "no other family of models is read"],
    );
    // A decoder without a timestep has no weights for one, and a timestep is a number.
    fields("conditioned", "ltx_vae_residual", r#"{"timestep_conditioning": true}"#, &["timestep_scale_multiplier"]);
    fields(
        "changes",
        "ltx_vae",
        r#"{"timestep_conditioning": true}"#,
        &["timestep_conditioning: found true, and a level"],
    );
    fields(
        "late",
        "ltx_vae",
        r#"{"decode_timestep": 0.05}"#,
        &["decode_timestep: found 0.05", "with timestep_conditioning"],
    );
    fields("far", "ltx_vae_timestep", r#"{"decode_timestep": 50}"#, &["decode_timestep: found 50", "from 0 to 1"]);
    fields(
        "noisy",
        "ltx_vae",
        r#"{"decoder_inject_noise": [true, false, false, false, false]}"#,
        &["decoder_inject_noise"],
    );
    fields("means", "wan_vae", r#"{"z_dim": 5}"#, &["latents_mean: found 4 numbers, expected 5"]);
    fields("wide", "wan_vae", r#"{"decoder_base_dim": 6}"#, &["decoder.conv_in.weight", "[24, 4, 3, 3, 3]"]);
    fields(
        "levels",
        "wan_vae",
        r#"{"temperal_downsample": [true]}"#,
        &["temperal_downsample: found 1 entries, expected 3"],
    );
}
