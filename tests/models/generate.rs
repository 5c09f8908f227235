//! Videos from prompts, with pipelines as they ship, against diffusers' own pipelines on the same noise.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use s2dit_runtime::pipeline::{Part, Pipeline};
use s2dit_runtime::{Artifact, RunOptions};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::common::{arg, fails, files, golden, ok, run};

/// How far a value of the video, in −1 to 1, may be from that of diffusers in float64.
const BAR: f64 = 1e-3;

/// Goldens of pipelines whose clips are made from a prompt.
const CLIPS: [&str; 3] = ["pipeline_wan", "pipeline_wan22", "pipeline_ltx"];

/// A golden of a pipeline and what diffusers was called with.
struct Golden {
    name: &'static str,
    metadata: HashMap<String, String>,
}

impl Golden {
    fn of(name: &'static str) -> Golden {
        let bytes = std::fs::read(golden(name).join("golden.safetensors")).expect("a golden");
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("safetensors");
        Golden { name, metadata: header.metadata().clone().expect("metadata") }
    }

    fn file(&self) -> String {
        arg(&golden(self.name).join("golden.safetensors"))
    }

    fn said(&self, key: &str) -> &str {
        self.metadata.get(key).unwrap_or_else(|| panic!("{}: metadata {key}", self.name))
    }

    /// The pipeline, compiled.
    fn compiled(&self, target: &str, work: &Path, flags: &[&str]) -> String {
        let out = arg(&work.join(format!("{}-{target}", self.name)));
        let size = format!("{}x{}", self.said("width"), self.said("height"));
        let folder = arg(&golden(self.name).join("pipeline"));
        let job = [
            "compile",
            "-q",
            &folder,
            "--target",
            target,
            "--size",
            &size,
            "--frames",
            self.said("num_frames"),
            "-o",
            &out,
        ];
        ok(&[&job[..], flags].concat());
        out
    }

    /// The guidance as a flag.
    fn guidance(&self) -> String {
        let first = self.said("guidance_scale").to_owned();
        self.metadata.get("guidance_scale_2").map_or(first.clone(), |second| format!("{first},{second}"))
    }

    /// What diffusers was called with, as flags.
    fn flags<'a>(&'a self, guidance: &'a str) -> Vec<&'a str> {
        let said = |key| self.said(key);
        let steps = said("num_inference_steps");
        vec!["--prompt", said("prompt"), "--negative", said("negative"), "--steps", steps, "--guidance", guidance]
    }
}

/// The values of a tensor of f32.
fn values(path: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(path).expect("a file");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let view = file.tensor(name).expect("a tensor");
    let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    (view.shape().to_vec(), values)
}

/// The largest distance of two videos.
#[track_caller]
fn distance(found: &(Vec<usize>, Vec<f32>), expected: &(Vec<usize>, Vec<f32>)) -> f64 {
    assert_eq!(found.0, expected.0);
    assert!(found.1.iter().all(|x| x.is_finite()));
    found.1.iter().zip(&expected.1).fold(0.0, |most, (a, b)| most.max(f64::from((a - b).abs())))
}

fn report(flags: &[&str]) -> Value {
    serde_json::from_str(&ok(&[&["generate", "--json"], flags].concat())).expect("JSON")
}

#[test]
fn frames_are_those_of_diffusers() {
    let work = tempfile::tempdir().expect("a temporary folder");
    for golden in CLIPS.map(Golden::of) {
        let expected = values(Path::new(&golden.file()), "video");
        let guidance = golden.guidance();
        let kinds = [("onnx", &[][..]), ("coreml", &["--precision", "fp32"]), ("onnx", &["--batch", "2"])];
        for (target, flags) in kinds {
            let out = work.path().join("video.safetensors");
            let pipeline = golden.compiled(target, work.path(), flags);
            let place = arg(&out);
            let file = golden.file();
            let given = [&[pipeline.as_str(), "--noise", &file, "-o", &place][..], &golden.flags(&guidance)].concat();
            let report = report(&given);
            let distance = distance(&values(&out, "video"), &expected);
            assert!(distance <= BAR, "{}, {target}: {distance:e}", golden.name);
            let parts: Vec<&str> =
                report["stages"].as_array().expect("stages").iter().filter_map(|s| s["part"].as_str()).collect();
            assert_eq!(parts, ["text_encoder", "transformer", "decoder"], "{report}");
            assert_eq!(report["frames"], golden.said("num_frames").parse::<usize>().expect("a number"), "{report}");
            assert!(report["seed"].is_null(), "{report}");
        }
    }
}

#[test]
fn two_transformers_share_the_steps() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let golden = Golden::of("pipeline_wan22");
    let (pipeline, guidance) = (golden.compiled("onnx", work.path(), &[]), golden.guidance());
    let out = arg(&work.path().join("x.webp"));
    let report = report(&[&[pipeline.as_str(), "-o", &out][..], &golden.flags(&guidance)].concat());
    let shares: Vec<u64> =
        report["shares"].as_array().expect("shares").iter().filter_map(|share| share[1].as_u64()).collect();
    assert_eq!(shares.len(), 2, "{report}");
    assert_eq!(shares.iter().sum::<u64>().to_string(), golden.said("num_inference_steps"));
    assert!(shares.iter().all(|steps| *steps > 0), "{report}");
    assert_eq!(report["guidance"], serde_json::json!([4.0, 3.0]));
}

#[test]
fn a_seed_makes_the_same_video_and_another_one_does_not() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let golden = Golden::of("pipeline_wan");
    let pipeline = golden.compiled("onnx", work.path(), &[]);
    let make = |name: &str, flags: &[&str]| -> (PathBuf, Value) {
        let out = work.path().join(name);
        let place = arg(&out);
        let report = report(&[&[pipeline.as_str(), "--steps", "2", "-o", &place], flags].concat());
        (out, report)
    };
    let bytes = |path: &Path| std::fs::read(path).expect("a video");
    let (one, said) = make("one.mp4", &["--prompt", "a cat", "--seed", "3"]);
    let (two, _) = make("two.mp4", &["--prompt", "a cat", "--seed", "3", "--threads", "1"]);
    assert!(bytes(&one) == bytes(&two));
    for (name, flags) in [
        ("seed.mp4", &["--prompt", "a cat", "--seed", "4"][..]),
        ("prompt.mp4", &["--prompt", "a dog", "--seed", "3"]),
        ("guidance.mp4", &["--prompt", "a cat", "--seed", "3", "--guidance", "2"]),
        ("negative.mp4", &["--prompt", "a cat", "--seed", "3", "--negative", "a ball"]),
    ] {
        assert!(bytes(&make(name, flags).0) != bytes(&one), "{name}");
    }
    // What the pipeline says is what nobody says.
    assert!(said["guidance"][0].as_f64().is_some_and(|g| g > 1.0) && said["negative"].is_string(), "{said}");
    assert_eq!([&said["seed"], &said["steps"], &said["frames"]], [3, 2, 9]);
    // Without guidance no negative prompt is asked.
    let (none, said) = make("none.gif", &["--prompt", "a cat", "--guidance", "1"]);
    assert!(said["negative"].is_null(), "{said}");
    assert_eq!(said["stages"][0]["calls"], 1, "{said}");
    // Nor below 1, as in diffusers.
    let (less, said) = make("less.gif", &["--prompt", "a cat", "--guidance", "0"]);
    assert!(
        bytes(&less) == bytes(&none)
            && said["notes"][0].as_str().is_some_and(|note| note.contains("guidance 0 is none")),
        "{said}"
    );
    let long = "a cat walks ".repeat(400);
    let (_, said) = make("long", &["--prompt", &long]);
    let note = said["notes"][0].as_str().unwrap_or_default();
    assert!(note.contains("was cut to 512 tokens") && note.contains("left out, from \"") && note.len() < 200, "{said}");
    assert!(work.path().join("long/00008.png").exists());
}

#[test]
fn what_a_pipeline_cannot_do_is_said() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let golden = Golden::of("pipeline_wan");
    let pipeline = golden.compiled("onnx", work.path(), &[]);
    let out = arg(&work.path().join("x.mp4"));
    let refused = |flags: &[&str], parts: &[&str]| {
        let message = fails(&[&["generate", "-q", "--prompt", "a cat", "-o", &out], flags].concat());
        for part in parts {
            assert!(message.contains(part), "{message}");
        }
        assert!(!Path::new(&out).exists());
    };
    refused(&[&arg(work.path())], &["expected the folder of a pipeline"]);
    refused(&[&pipeline, "--chunks", "2"], &["--chunks", "whole clip"]);
    refused(&[&pipeline, "--prompt-at", "1=a dog"], &["--prompt-at", "whole clip"]);
    refused(&[&pipeline, "--negative", "a dog", "--guidance", "1"], &["--negative", "more than 1"]);
    refused(&[&pipeline, "--guidance", "3,4"], &["--guidance", "one transformer"]);
    refused(&[&pipeline, "--guidance", "1,4"], &["--guidance: found 1,4", "expected a first number above 1"]);
    refused(&[&pipeline, "--fp16"], &["--fp16", "compiled for ONNX", "leave --fp16 out"]);
    for strength in ["-1", "1e38", "NaN", "1001", "inf", "3,-1"] {
        let done = run(&["generate", &pipeline, "--prompt", "a", "-o", &out, "--guidance", strength]);
        let said = String::from_utf8(done.stderr).expect("UTF-8");
        assert!(
            done.status.code() == Some(2) && said.contains("expected a number from 0 to 1000"),
            "{strength}: {said}"
        );
    }
    let ltx = Golden::of("pipeline_ltx").compiled("onnx", work.path(), &[]);
    refused(&[&ltx, "--steps", "1"], &["steps: found 1, expected at least 2", "shift_terminal"]);
    // Found before the work, and no part's fault.
    let nowhere = arg(&work.path().join("nowhere/x.gif"));
    let message = fails(&["generate", "-q", "--prompt", "a cat", "-o", &nowhere, &pipeline]);
    assert!(message.contains("nowhere` does not exist") && !message.contains("Decoder"), "{message}");
    let noise = arg(&work.path().join("none.safetensors"));
    refused(&[&pipeline, "--noise", &noise], &["none.safetensors"]);
    // A part of another compile.
    let decoder = Path::new(&pipeline).join("Decoder.onnx");
    let mut bytes = std::fs::read(&decoder).expect("a decoder");
    bytes.push(0);
    std::fs::write(&decoder, bytes).expect("a decoder");
    refused(&[&pipeline], &["Decoder.onnx", "of another compile"]);
}

/// A scheduler that `generate` could not sample is found by `compile`.
#[test]
fn a_scheduler_that_is_not_supported_is_not_compiled() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let pipeline = work.path().join("pipeline");
    for (name, bytes) in files(&golden("pipeline_ltx").join("pipeline")) {
        let to = pipeline.join(name);
        std::fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        std::fs::write(to, bytes).expect("a file");
    }
    let path = pipeline.join("scheduler/scheduler_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).expect("a scheduler")).expect("JSON");
    config["use_karras_sigmas"] = true.into();
    std::fs::write(&path, config.to_string()).expect("a scheduler");
    let message =
        fails(&["compile", &arg(&pipeline), "--target", "onnx", "--size", "96x64", "--frames", "9", "--dry-run"]);
    assert!(
        message.contains("scheduler_config.json") && message.contains("use_karras_sigmas: found true"),
        "{message}"
    );
}

/// A clip's preview with the decoder of the pipeline that the transformer lies in.
#[test]
fn a_preview_of_a_clip_is_decoded() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let pipeline = Golden::of("pipeline_wan").compiled("onnx", work.path(), &[]);
    let at = |name: &str| arg(&work.path().join(name));
    let transformer = arg(&Path::new(&pipeline).join("Transformer.onnx"));
    let (preview, latents, video) = (at("preview.webp"), at("latents.safetensors"), at("video.webp"));
    let said =
        ok(&["stream", &transformer, "--prompt-seed", "1", "--steps", "2", "--preview", &preview, "-o", &latents]);
    assert!(!said.contains("shows latents as colours"), "{said}");
    let decoder = arg(&Path::new(&pipeline).join("Decoder.onnx"));
    ok(&["decode", "-q", &decoder, "--latents", &latents, "-o", &video]);
    assert!(std::fs::read(&preview).expect("a preview") == std::fs::read(&video).expect("a video"));
    // Beside no decoder it is latents.
    let alone = work.path().join("alone.onnx");
    std::fs::copy(&transformer, &alone).expect("a copy");
    let said = ok(&["stream", &arg(&alone), "--prompt-seed", "1", "--steps", "2", "--preview", &preview]);
    assert!(said.contains("shows latents as colours"), "{said}");
    let error = fails(&["stream", &pipeline, "--prompt-seed", "1"]);
    assert!(error.contains("a pipeline that makes clips") && error.contains("s2ditc generate"), "{error}");
}

/// Our own pipeline that streams, of small seeded parts, compiled.
fn own_stream(work: &Path) -> String {
    let dir = work.join("own");
    std::fs::create_dir(&dir).expect("a folder");
    let at = |name: &str| arg(&dir.join(name));
    let clip =
        ["vocab_size=634", "eos_token_id=633", "hidden_size=24", "num_attention_heads=3", "intermediate_size=48"];
    let clip: Vec<&str> = clip.into_iter().flat_map(|field| ["--set", field]).collect();
    ok(&[&["init", "-q", "--preset", "clip-tiny", "-o", &at("text_encoder")][..], &clip].concat());
    for (name, from) in
        [("transformer", golden("stream_tiny").join("checkpoint")), ("tokenizer", golden("tokenizer_clip"))]
    {
        std::fs::create_dir(dir.join(name)).expect("a folder");
        for (file, bytes) in files(&from) {
            std::fs::write(dir.join(name).join(file), bytes).expect("a file");
        }
    }
    ok(&["init", "-q", "--preset", "taehv-tiny", "--set", "latent_channels=4", "-o", &at("vae")]);
    let index = r#"{"_class_name": "S2DiTPipeline", "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "transformer": ["diffusers", "S2DiTTransformer3DModel"], "vae": ["s2ditc", "TAEHV"]}"#;
    std::fs::write(dir.join("model_index.json"), index).expect("an index");
    let out = arg(&work.join("stream.pipeline"));
    ok(&["compile", "-q", &arg(&dir), "--target", "onnx", "--size", "64x64", "--mode", "stream", "-o", &out]);
    out
}

/// A prompt's embeddings as a file, made with the parts by hand.
fn encoded(pipeline: &str, prompt: &str, to: &Path) -> String {
    let opened = Pipeline::open(pipeline.as_ref()).expect("a pipeline");
    let tokens = opened.tokenizer().expect("a tokenizer").encode(prompt).expect("tokens");
    let encoder = Artifact::open(&opened.part(Part::TextEncoder).expect("an encoder")).expect("an artifact");
    let inputs = std::collections::BTreeMap::from([("tokens".to_owned(), tokens.tensor())]);
    let text = encoder.run(&inputs, &RunOptions { quiet: true, ..RunOptions::default() }).expect("text");
    let text = text.into_iter().find(|(name, _)| name == "text").expect("text").1;
    let bytes: Vec<u8> = text.data.iter().flat_map(|x| x.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, text.shape, &bytes).expect("a tensor");
    safetensors::serialize_to_file([("text", view)], None, to).expect("a file");
    arg(to)
}

#[test]
fn a_stream_decodes_while_it_goes_on() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| work.path().join(name);
    let pipeline = own_stream(work.path());
    let (first, second) = ("a cat walks through the snow", "a storm");
    let video = at("x.safetensors");
    let place = arg(&video);
    let flags = ["--prompt", first, "--prompt-at", "2=a storm", "--chunks", "4", "--seed", "5", "-o", &place];
    let said = report(&[&[pipeline.as_str()][..], &flags].concat());
    assert_eq!([&said["chunks"], &said["steps"], &said["seed"]], [4, 4, 5], "{said}");
    // The same, part by part.
    let (one, two) =
        (encoded(&pipeline, first, &at("1.safetensors")), encoded(&pipeline, second, &at("2.safetensors")));
    let (latents, by_hand) = (arg(&at("latents.safetensors")), at("by-hand.safetensors"));
    let kernel = arg(&Path::new(&pipeline).join("Transformer"));
    let later = format!("2={two}");
    let job = [
        "stream",
        "-q",
        &kernel,
        "--prompt",
        &one,
        "--prompt-at",
        &later,
        "--chunks",
        "4",
        "--seed",
        "5",
        "-o",
        &latents,
    ];
    ok(&job);
    let decoder = arg(&Path::new(&pipeline).join("Decoder"));
    ok(&["decode", "-q", &decoder, "--latents", &latents, "-o", &arg(&by_hand)]);
    let (found, expected) = (values(&video, "video"), values(&by_hand, "video"));
    assert_eq!(found.0, [1, 3, said["frames"].as_u64().expect("frames") as usize, 64, 64]);
    assert_eq!(distance(&found, &expected), 0.0);
    // A preview of the same stream is decoded too: of the pipeline, and of its kernel.
    let frames = |name: &str| std::fs::read(at(name)).expect("a video");
    let webp = arg(&at("x.webp"));
    ok(&[
        "generate",
        "-q",
        &pipeline,
        "--prompt",
        first,
        "--prompt-at",
        "2=a storm",
        "--chunks",
        "4",
        "--seed",
        "5",
        "-o",
        &webp,
    ]);
    for (artifact, name) in [(&pipeline, "whole.webp"), (&kernel, "kernel.webp")] {
        let place = arg(&at(name));
        let flags =
            ["--prompt", &one, "--prompt-at", &later, "--chunks", "4", "--seed", "5", "--preview", &place, "--json"];
        let said: Value = serde_json::from_str(&ok(&[&["stream", artifact][..], &flags].concat())).expect("JSON");
        assert_eq!(said["is_decoded"], true, "{said}");
        assert!(frames(name) == frames("x.webp"), "{name}");
    }
    let estimate = fails(&["estimate", &pipeline]);
    assert!(estimate.contains("a pipeline for ONNX"), "{estimate}");
    // Five seconds if nobody says how long.
    let usual = report(&[&pipeline, "--prompt", "", "-o", &arg(&at("x.mp4"))]);
    assert_eq!(usual["chunks"], 7, "{usual}");
    let refused = |flags: &[&str], part: &str| {
        let message =
            fails(&[&["generate", "-q", &pipeline, "--prompt", "x", "-o", &arg(&at("no.mp4"))], flags].concat());
        assert!(message.contains(part), "{message}");
    };
    refused(&["--steps", "3"], "--steps is for clips");
    refused(&["--guidance", "3"], "--guidance is for clips");
    refused(&["--chunks", "2", "--prompt-at", "2=y"], "0 to 1");
}
