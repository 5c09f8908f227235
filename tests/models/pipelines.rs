//! Whole pipelines: a folder of diffusers becomes a folder that makes a video, and is proved; tokenizers as transformers'.

mod refused;

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{arg, fails, files, golden, ok, run};
use s2dit_runtime::pipeline::{
    Cleaning, Contract, EncoderMask, Levels, Mode, Part, Pipeline, SchedulerKind, Text, Tokenizer,
};
use s2dit_runtime::{Artifact, HostTensor, RunOptions, compare::compare};
use serde_json::Value;

const ONNX: [&str; 2] = ["--target", "onnx"];

fn source(case: &str) -> String {
    arg(&golden(case).join("pipeline"))
}

/// A copy of a golden's pipeline folder, to be damaged.
fn copy(case: &str, to: &Path) -> PathBuf {
    let from = golden(case).join("pipeline");
    for (name, bytes) in files(&from) {
        let place = to.join(name);
        fs::create_dir_all(place.parent().expect("a folder")).expect("a folder");
        fs::write(place, bytes).expect("a file");
    }
    to.to_owned()
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON");
    change(&mut value);
    fs::write(path, value.to_string()).expect("a file");
}

fn tensor(case: &str, name: &str) -> HostTensor {
    let bytes = fs::read(golden(case).join("golden.safetensors")).expect("a golden");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let view = file.tensor(name).expect("a tensor");
    let four = |bytes: &[u8]| -> [u8; 4] { bytes.try_into().expect("four bytes") };
    let data = view.data().chunks_exact(4).map(|bytes| match view.dtype() {
        safetensors::Dtype::F32 => f32::from_le_bytes(four(bytes)),
        safetensors::Dtype::I32 => i32::from_le_bytes(four(bytes)) as f32,
        other => panic!("{other:?}"),
    });
    HostTensor { shape: view.shape().to_vec(), data: data.collect() }
}

fn relative(found: &HostTensor, wanted: &HostTensor) -> f64 {
    assert_eq!(found.shape, wanted.shape);
    compare(&found.data, &wanted.data).relative_l2
}

/// The metadata of a golden.
fn said(case: &str, key: &str) -> String {
    let bytes = fs::read(golden(case).join("golden.safetensors")).expect("a golden");
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).expect("safetensors");
    header.metadata().as_ref().expect("metadata")[key].clone()
}

fn call(artifact: &Path, inputs: &[(&str, &HostTensor)]) -> std::collections::BTreeMap<String, HostTensor> {
    let artifact = Artifact::open(artifact).expect("an artifact");
    let inputs = inputs.iter().map(|(name, tensor)| ((*name).to_owned(), (*tensor).clone())).collect();
    artifact.run(&inputs, &RunOptions { threads: 1, quiet: true, ..RunOptions::default() }).expect("a run")
}

/// Tokens, embeddings and pixels of each pipeline against diffusers' own, with the files that ship.
#[test]
fn the_parts_make_what_diffusers_makes() {
    for (case, size, frames, mask) in
        [("pipeline_wan", "48x32", "9", EncoderMask::Tokens), ("pipeline_ltx", "96x64", "9", EncoderMask::Ones)]
    {
        let work = tempfile::tempdir().expect("a temporary folder");
        let out = work.path().join("out");
        ok(&[&["compile", "-q", &source(case), "--size", size, "--frames", frames, "-o", &arg(&out)][..], &ONNX]
            .concat());
        let pipeline = Pipeline::open(&out).expect("a pipeline");
        pipeline.check_hashes(&mut |_, _| {}).expect("its own files");
        let contract = pipeline.contract();
        assert_eq!((contract.mode, contract.text.encoder_mask), (Mode::Clip, mask));
        let tokenizer = pipeline.tokenizer().expect("a tokenizer");
        for (key, prefix) in [("prompt", ""), ("negative", "negative_")] {
            let tokens = tokenizer.encode(&said(case, key)).expect("tokens");
            assert_eq!(tokens.tensor(), tensor(case, &format!("{prefix}tokens")), "{case}");
            assert_eq!(tokens.mask(), tensor(case, &format!("{prefix}text_mask")), "{case}");
            assert_eq!(tokens.cut, None);
            let ones = HostTensor { shape: tokens.mask().shape, data: vec![1.0; contract.text.tokens] };
            let given = if mask == EncoderMask::Ones { ones } else { tokens.mask() };
            let encoder = pipeline.part(Part::TextEncoder).expect("a text encoder");
            let made = call(&encoder, &[("tokens", &tokens.tensor()), ("text_mask", &given)]);
            let error = relative(&made["text"], &tensor(case, &format!("{prefix}text")));
            assert!(error < 2e-6, "{case}: {error}");
        }
        let latents = tensor(case, "latents");
        let last: usize = latents.shape[1..].iter().product();
        let latent =
            HostTensor { shape: latents.shape[1..].to_vec(), data: latents.data[latents.data.len() - last..].to_vec() };
        assert_eq!(latent.shape, contract.latent.shape());
        let decoder = pipeline.part(Part::Decoder).expect("a decoder");
        let video = call(&decoder, &[("latent", &latent)]).remove("video").expect("a video");
        let wanted = tensor(case, "video");
        let worst = compare(&video.data, &wanted.data).max_abs;
        assert!(video.shape == wanted.shape && worst < 1e-4, "{case}: {worst}");
        let sides = [contract.video.frames.expect("frames"), contract.video.rows, contract.video.cols];
        assert_eq!(sides, wanted.shape[2..]);
    }
}

/// Euler's first step of LTX-Video: the transformer is the one that diffusers calls, with its text length, its mask and its positions.
#[test]
fn the_transformer_is_diffusers_own() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let (case, out) = ("pipeline_ltx", work.path().join("out"));
    ok(&[&["compile", "-q", &source(case), "--size", "96x64", "--frames", "9", "-o", &arg(&out)][..], &ONNX].concat());
    let pipeline = Pipeline::open(&out).expect("a pipeline");
    let (noise, timesteps, latents) = (tensor(case, "noise"), tensor(case, "timesteps"), tensor(case, "latents"));
    let path = pipeline.part(Part::Transformer).expect("a transformer");
    let timestep = HostTensor { shape: vec![1], data: vec![timesteps.data[0]] };
    let velocity = |prefix: &str| {
        let (text, mask) = (tensor(case, &format!("{prefix}text")), tensor(case, &format!("{prefix}text_mask")));
        let given = [("latent", &noise), ("timestep", &timestep), ("text", &text), ("text_mask", &mask)];
        call(&path, &given).remove("velocity").expect("a velocity").data
    };
    let step = (timesteps.data[1] - timesteps.data[0]) / 1000.0;
    let (with, without) = (velocity(""), velocity("negative_"));
    let guided = with.iter().zip(&without).map(|(with, without)| without + 3.0 * (with - without));
    let data: Vec<f32> = noise.data.iter().zip(guided).map(|(noise, velocity)| noise + step * velocity).collect();
    let first = &latents.data[..data.len()];
    assert!(compare(&data, first).relative_l2 < 5e-6, "{}", compare(&data, first).relative_l2);
}

#[test]
fn the_contract_says_what_a_host_needs() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let from = copy("pipeline_wan22", &work.path().join("from"));
    fs::write(from.join("README.md"), "---\nlicense: apache-2.0\n---\n# x\n").expect("a README");
    let compile = |name: &str, flags: &[&str]| {
        let out = work.path().join(name);
        let text = ok(&[
            &["compile", &arg(&from), "--size", "32x32", "--frames", "5", "--json", "-q", "-o", &arg(&out)][..],
            &ONNX,
            flags,
        ]
        .concat());
        (out, serde_json::from_str::<Value>(&text).expect("JSON"))
    };
    let (out, report) = compile("a", &[]);
    let contract = Contract::read(&out).expect("a contract");
    assert_eq!(serde_json::to_value(&contract).expect("JSON"), report["contract"]);
    assert_eq!(contract.class, "WanPipeline");
    assert_eq!((contract.latent.shape(), contract.video.frames), ([1, 4, 2, 4, 4], Some(5)));
    assert_eq!((contract.text.tokens, contract.text.width, contract.text.vocabulary), (512, 24, 288));
    assert_eq!((contract.text.padding, contract.text.cleaning), (0, Cleaning::Wan));
    assert!(contract.text.zero_padding && !contract.text.step_mask && !contract.text.pooled);
    assert_eq!(contract.scheduler.kind, SchedulerKind::Unipc);
    assert_eq!(contract.scheduler.config["flow_shift"], 4.0);
    assert_eq!(contract.scheduler.config["disable_corrector"], serde_json::json!([2]));
    assert_eq!((contract.sampling.levels, contract.sampling.guidance), (Levels::Scheduler, 5.0));
    assert_eq!(contract.source.licence.as_deref(), Some("apache-2.0"));
    let transformer = contract.assets.transformer.as_ref().expect("transformers");
    let components: Vec<&str> = transformer.checkpoints.iter().map(|made| made.component.as_str()).collect();
    assert_eq!(components, ["transformer", "transformer_2"]);
    let card = fs::read_to_string(out.join("README.md")).expect("a card");
    assert!(card.starts_with("---\nlicense: apache-2.0\n---\n") && card.contains("`Transformer`"), "{card}");
    assert!(card.contains("Not measured."), "{card}");

    // The same input and flags, the same bytes; what is there is replaced whole.
    let again = compile("a", &[]).0;
    let (other, _) = compile("b", &["--threads", "1"]);
    assert_eq!(files(&again), files(&other));

    let shown = ok(&["inspect", &arg(&out)]);
    for part in
        ["pipeline WanPipeline for onnx", "5 frames of 32×32 pixels", "UniPCMultistepScheduler", "licence apache-2.0"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let report: Value = serde_json::from_str(&ok(&["inspect", "--json", &arg(&out)])).expect("JSON");
    assert_eq!(report["parts"].as_array().expect("parts").len(), 3);

    // The proof, and its figures in the card.
    let report = ok(&["verify", "-q", &arg(&out), "--checkpoint", &arg(&from), "--card", "--json"]);
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!((&report["passed"], report["parts"].as_array().expect("parts").len()), (&true.into(), 4));
    assert_eq!(report["chain"].as_array().expect("a chain").len(), 4, "{report}");
    let card = fs::read_to_string(out.join("README.md")).expect("a card");
    assert!(card.contains("| `transformer_2` |") && card.contains("one after the other"), "{card}");
    // A card that somebody else wrote stays.
    fs::write(out.join("README.md"), "mine").expect("a file");
    let error = fails(&["verify", "-q", &arg(&out), "--checkpoint", &arg(&from), "--card"]);
    assert!(error.contains("--force") && fs::read(out.join("README.md")).is_ok_and(|text| text == b"mine"), "{error}");
    Pipeline::open(&out).expect("still whole");

    // Only some parts, and nothing at all.
    let (some, _) = compile("some", &["--components", "decoder"]);
    let opened = Pipeline::open(&some).expect("a pipeline");
    assert!(opened.tokenizer().unwrap_err().to_string().contains("without a tokenizer"));
    assert!(opened.part(Part::Transformer).unwrap_err().to_string().contains("without the asset `transformer`"));
    assert!(opened.part(Part::Decoder).expect("a decoder").exists());
    let dry = ok(&[&["compile", &arg(&from), "--size", "32x32", "--dry-run"][..], &ONNX].concat());
    assert!(dry.contains("50 steps, guidance 5, two calls a step"), "{dry}");
    assert!(dry.contains("81 frames of 32x32 pixels") && dry.contains("transformer and transformer_2"), "{dry}");
}

#[test]
fn a_pipeline_for_core_ml_is_proved_in_4_bits() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let (from, out) = (source("pipeline_ltx"), arg(&work.path().join("out")));
    let flags = ["--target", "coreml", "--size", "64x64", "--frames", "9", "--quantize", "palette4"];
    ok(&[&["compile", "-q", &from, "-o", &out][..], &flags].concat());
    let contract = Contract::read(out.as_ref()).expect("a contract");
    let asset = |part| contract.assets.of(part).expect("an asset").clone();
    assert_eq!(asset(Part::Decoder).compute.as_deref(), Some("gpu"));
    assert_eq!((asset(Part::Decoder).compression, asset(Part::Transformer).compute), (None, Some("ane".into())));
    let card = fs::read_to_string(Path::new(&out).join("README.md")).expect("a card");
    assert!(card.contains("## Estimate") && card.contains("- transformer: "), "{card}");
    let flags = ["--fp16", "--json", "--card"];
    let report = ok(&[&["verify", "-q", &out, "--checkpoint", &from][..], &flags].concat());
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["passed"], true, "{report}");
    // Sizes, fidelity and the estimate are there together.
    let proved = fs::read_to_string(Path::new(&out).join("README.md")).expect("a card");
    let section = |card: &str, name: &str| {
        card.split(&format!("\n## {name}\n"))
            .nth(1)
            .map(|rest| rest.split("\n## ").next().unwrap_or_default().to_owned())
    };
    assert_eq!(section(&proved, "Estimate"), section(&card, "Estimate"), "{proved}");
    assert!(
        section(&proved, "Fidelity").is_some_and(|text| text.contains("dB") && text.contains("rounded to fp16")),
        "{proved}"
    );
    assert!(proved.contains("| weights | on disk |"), "{proved}");
}

/// Compiling costs little, and 4 bits without a plan much: both are told, of what was compressed.
#[test]
fn what_compression_costs_is_told() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let (from, out) =
        (arg(&crate::common::repo().join("examples/toyworld/weights/toyworld")), arg(&work.path().join("out")));
    let flags = ["--target", "coreml", "--mode", "stream", "--size", "64x64", "--quantize", "palette4-group16"];
    ok(&[&["compile", "-q", &from, "-o", &out][..], &flags].concat());
    let verify = ["verify", "-q", &out, "--checkpoint", &from, "--fp16", "--chunks", "1", "--card"];
    let report: Value = serde_json::from_str(&ok(&[&verify[..], &["--json"]].concat())).expect("JSON");
    let part = |name: &str| {
        report["parts"].as_array().expect("parts").iter().find(|part| part["part"] == name).expect("a part").clone()
    };
    let (alike, of_weights) = (&part("transformer")["least_snr_db"], &part("transformer")["of_weights_snr_db"]);
    let (alike, of_weights) = (alike.as_f64().expect("a number"), of_weights.as_f64().expect("a number"));
    assert!(report["passed"] == true && alike > 45.0 && of_weights < 20.0, "{report}");
    // Its weights are too small to be compressed, and the decoder's were not.
    for name in ["text_encoder", "decoder"] {
        assert_eq!(part(name)["of_weights_snr_db"], Value::Null, "{name}");
    }
    let said = ok(&verify);
    assert!(said.contains("against the uncompressed weights") && said.contains("stored alike"), "{said}");
    let card = fs::read_to_string(Path::new(&out).join("README.md")).expect("a card");
    assert!(card.contains("what the compression costs"), "{card}");
}

/// Our own pipeline: CLIP from its vocabulary and merges, a model that streams, a decoder that streams.
#[test]
fn a_stream_of_our_own() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let dir = work.path().join("own");
    fs::create_dir(&dir).expect("a folder");
    let at = |name: &str| arg(&dir.join(name));
    let clip =
        ["vocab_size=634", "eos_token_id=633", "hidden_size=24", "num_attention_heads=3", "intermediate_size=48"];
    let clip: Vec<&str> = clip.into_iter().flat_map(|field| ["--set", field]).collect();
    ok(&[&["init", "-q", "--preset", "clip-tiny", "-o", &at("text_encoder")][..], &clip].concat());
    fs::create_dir(dir.join("transformer")).expect("a folder");
    for (name, bytes) in files(&golden("stream_tiny").join("checkpoint")) {
        fs::write(dir.join("transformer").join(name), bytes).expect("a file");
    }
    fs::create_dir(dir.join("tokenizer")).expect("a folder");
    for (name, bytes) in files(&golden("tokenizer_clip")) {
        fs::write(dir.join("tokenizer").join(name), bytes).expect("a file");
    }
    ok(&["init", "-q", "--preset", "taehv-tiny", "--set", "latent_channels=4", "-o", &at("vae")]);
    let index = r#"{"_class_name": "S2DiTPipeline", "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "transformer": ["diffusers", "S2DiTTransformer3DModel"], "vae": ["s2ditc", "TAEHV"]}"#;
    fs::write(dir.join("model_index.json"), index).expect("an index");
    let out = arg(&work.path().join("out"));
    ok(&["compile", "-q", &arg(&dir), "--target", "onnx", "--size", "64x64", "--mode", "stream", "-o", &out]);
    let pipeline = Pipeline::open(out.as_ref()).expect("a pipeline");
    let contract = pipeline.contract();
    assert_eq!(
        (contract.mode, contract.scheduler.kind, contract.video.frames),
        (Mode::Stream, SchedulerKind::Kernel, None)
    );
    assert_eq!((contract.latent.shape(), contract.sampling.steps), ([1, 4, 3, 8, 8], 4));
    assert_eq!((contract.text.padding, contract.text.encoder_mask), (633, EncoderMask::None));
    let tokens = pipeline.tokenizer().expect("a tokenizer").encode("a cat walks through the snow").expect("tokens");
    assert_eq!((tokens.ids.len(), tokens.ids[0], tokens.ids[7]), (8, 632, 633));
    let report = ok(&["verify", "-q", &out, "--checkpoint", &arg(&dir), "--chunks", "3", "--json"]);
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!((&report["passed"], report["chain"].as_array().expect("a list").len()), (&true.into(), 0), "{report}");
    // On a phone: a chunk is the kernel's calls and the decoder's; the prompt is encoded once.
    let phone = arg(&work.path().join("phone"));
    ok(&["compile", "-q", &arg(&dir), "--target", "coreml", "--size", "64x64", "--mode", "stream", "-o", &phone]);
    let whole: Value = serde_json::from_str(&ok(&["estimate", "--json", &phone])).expect("JSON");
    let part = |index: usize| &whole["components"][index];
    let calls: Vec<u64> = (0..3).filter_map(|index| part(index)["calls"].as_u64()).collect();
    // Four steps and the commit; three latent frames, which the decoder takes at once.
    assert_eq!(calls, [1, 5, 1], "{whole}");
    let likely = |value: &Value| value["likely"].as_f64().expect("a number");
    let chunk = likely(&part(1)["ms"]) + likely(&part(2)["ms"]);
    assert!((likely(&whole["total_ms"]) - chunk).abs() < 1e-9 * chunk && whole["frames"] == 12, "{whole}");
    let memory = |index: usize| part(index)["peak_memory_bytes"].as_u64().expect("bytes");
    let working = whole["memory"]["working"].as_u64().expect("bytes");
    assert!(
        working >= memory(0).max(memory(1)).max(memory(2)) && working <= memory(0).max(memory(1) + memory(2)),
        "{whole}"
    );
    let kernel: Value =
        serde_json::from_str(&ok(&["estimate", "--json", &format!("{phone}/Transformer")])).expect("JSON");
    assert_eq!(likely(&kernel["chunk_ms"]), likely(&part(1)["ms"]));
    let decoder: Value = serde_json::from_str(&ok(&["estimate", "--json", &format!("{phone}/Decoder")])).expect("JSON");
    assert_eq!(likely(&decoder["step_ms"]), likely(&part(2)["ms"]));
    // A clip of a model that makes chunks is not sampled.
    let error = fails(&["compile", "-q", &arg(&dir), "--target", "onnx", "--size", "64x64", "-o", &out]);
    assert!(error.contains("use --mode stream"), "{error}");
}

#[test]
fn prompts_become_the_tokens_of_transformers() {
    let text = fs::read_to_string(golden("tokenizers.json")).expect("a golden");
    let all: Value = serde_json::from_str(&text).expect("JSON");
    let work = tempfile::tempdir().expect("a temporary folder");
    let clip = work.path().join("clip");
    let own = golden("pipeline_wan").join("pipeline/tokenizer/tokenizer.json");
    let built = s2dit_emit::pipeline::tokenizer_json(&golden("tokenizer_clip")).expect("a tokenizer");
    fs::write(&clip, built).expect("a file");
    let tokenizer = |path: &Path, tokens: usize, padding: &Value, cleaning: Cleaning| {
        let text = Text {
            tokens,
            width: 8,
            vocabulary: 700,
            padding: padding.as_u64().expect("an id") as u32,
            cleaning,
            encoder_mask: EncoderMask::None,
            zero_padding: false,
            step_mask: false,
            pooled: false,
        };
        Tokenizer::open(path, text).expect("a tokenizer")
    };
    let kinds = [
        ("t5", tokenizer(&own, 48, &all["t5_padding"], Cleaning::None)),
        ("wan", tokenizer(&own, 512, &all["t5_padding"], Cleaning::Wan)),
        ("clip", tokenizer(&clip, 77, &all["clip_padding"], Cleaning::None)),
    ];
    let mut cut = 0;
    for case in all["cases"].as_array().expect("cases") {
        let prompt = case["prompt"].as_str().expect("a prompt");
        assert_eq!(Cleaning::Wan.clean(prompt), case["cleaned"].as_str().expect("a prompt"), "{prompt:?}");
        for (kind, tokenizer) in &kinds {
            let wanted = &case[*kind];
            let found = tokenizer.encode(prompt).expect("tokens");
            let ids: Vec<u64> = found.ids[..found.counting].iter().map(|id| u64::from(*id)).collect();
            assert_eq!(serde_json::json!(ids), wanted["ids"], "{kind}: {prompt:?}");
            let padding = &all[if *kind == "clip" { "clip_padding" } else { "t5_padding" }];
            assert!(found.ids[found.counting..].iter().all(|id| padding == *id));
            let (whole, length) = (wanted["whole"].as_u64().unwrap(), wanted["length"].as_u64().unwrap());
            let left = found.cut.as_ref().map_or(0, |cut| cut.tokens as u64);
            assert_eq!((left, found.ids.len() as u64), (whole.saturating_sub(length), length), "{kind}: {prompt:?}");
            if let Some(found) = found.cut {
                assert!(prompt.trim_end().ends_with(found.text.as_str()) || kind == &"wan", "{found:?}");
                cut += 1;
            }
        }
    }
    assert!(cut >= 4, "{cut}");
}

/// A call of two prompts, for a clip with one transformer and with two.
#[test]
fn one_call_serves_a_prompt_and_its_negative() {
    let work = tempfile::tempdir().expect("a temporary folder");
    for (case, size) in [("pipeline_wan22", "32x32"), ("pipeline_ltx", "64x64")] {
        let (from, out) = (source(case), arg(&work.path().join(case)));
        let flags = ["--target", "coreml", "--size", size, "--frames", "9", "--batch", "2"];
        ok(&[&["compile", "-q", &from, "-o", &out][..], &flags].concat());
        let contract = Contract::read(out.as_ref()).expect("a contract");
        assert_eq!((contract.sampling.batch, contract.latent.shape()[0]), (2, 1));
        let card = fs::read_to_string(Path::new(&out).join("README.md")).expect("a card");
        assert!(card.contains("one call a step for the prompt and its negative"), "{card}");
        let report = ok(&["verify", "-q", &out, "--checkpoint", &from, "--json"]);
        let report: Value = serde_json::from_str(&report).expect("JSON");
        assert_eq!((&report["passed"], report["chain"].as_array().map(Vec::len)), (&true.into(), Some(4)), "{report}");
        assert_eq!(report["below"], serde_json::json!([]));
    }
    let usage = |flags: &[&str]| {
        let done = run(&[&["compile", &source("pipeline_wan")][..], &ONNX, flags].concat());
        (done.status.code(), String::from_utf8(done.stderr).expect("UTF-8"))
    };
    let (code, error) = usage(&["--size", "48x32", "--batch", "3", "-o", "x"]);
    assert!(code == Some(2) && error.contains("--batch: found 3, expected 1 or 2"), "{error}");
    let (code, error) = usage(&["--size", "48x32", "--batch", "2", "--mode", "stream", "-o", "x"]);
    assert!(code == Some(2) && error.contains("--batch is for clips"), "{error}");
}

/// The estimate of a pipeline is that of its parts, as often as they are called.
#[test]
fn a_pipeline_is_estimated_part_by_part() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let estimate = |path: &str| -> Value { serde_json::from_str(&ok(&["estimate", path, "--json"])).expect("JSON") };
    let number = |value: &Value| value.as_f64().filter(|x| x.is_finite()).expect("a number");
    let compile = |case: &str, name: &str, flags: &[&str]| {
        let out = arg(&work.path().join(name));
        ok(&[&["compile", "-q", &source(case), "--target", "coreml", "-o", &out][..], flags].concat());
        out
    };
    let wan = compile("pipeline_wan", "wan", &["--size", "48x32", "--frames", "9"]);
    let whole = estimate(&wan);
    let calls = |value: &Value| {
        value["components"]
            .as_array()
            .expect("parts")
            .iter()
            .map(|part| part["calls"].as_u64().expect("calls"))
            .collect::<Vec<_>>()
    };
    // Two prompts; 50 steps with a prompt and its negative; one clip.
    assert_eq!(calls(&whole), [2, 100, 1]);
    let mut all = 0.0;
    let mut largest = 0.0f64;
    for (index, file) in ["TextEncoder.mlpackage", "Transformer.mlpackage", "Decoder.mlpackage"].iter().enumerate() {
        let alone = estimate(&arg(&Path::new(&wan).join(file)));
        let part = &whole["components"][index];
        let ms = number(&alone["step_ms"]["likely"]) * number(&part["calls"]);
        assert!((number(&part["ms"]["likely"]) - ms).abs() < 1e-9 * ms, "{file}: {part}");
        assert_eq!(part["peak_memory_bytes"], alone["peak_memory_bytes"], "{file}");
        all += ms;
        largest = largest.max(number(&part["peak_memory_bytes"]));
    }
    assert!((number(&whole["total_ms"]["likely"]) - all).abs() < 1e-9 * all, "{whole}");
    assert!((number(&whole["frames_per_second"]["likely"]) - 9e3 / all).abs() < 1e-9 * 9e3 / all, "{whole}");
    assert_eq!(number(&whole["memory"]["working"]), largest);
    assert!(number(&whole["memory"]["all"]) > largest);
    let said = ok(&["estimate", &wan]);
    for part in [
        "pipeline",
        "text encoder",
        "100 calls",
        "meant for the GPU",
        "memory, working",
        "memory, all loaded",
        "first load",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // The model card says the same.
    let card = fs::read_to_string(Path::new(&wan).join("README.md")).expect("a card");
    let brief = ok(&["estimate", "-q", &wan]);
    let brief = brief.trim().split_once(": ").expect("a name").1;
    assert!(card.contains(&format!("- {brief}")) && card.contains("- transformer: 100 calls"), "{card}\n{brief}");
    // Guidance in one call, two transformers, and what is not there.
    let batch = compile("pipeline_wan", "batch", &["--size", "48x32", "--frames", "9", "--batch", "2"]);
    assert_eq!(calls(&estimate(&batch)), [2, 50, 1]);
    let pair = estimate(&compile(
        "pipeline_wan22",
        "pair",
        &["--size", "32x32", "--frames", "5", "--components", "transformer"],
    ));
    assert_eq!((calls(&pair), pair["components"][0]["networks"].as_array().map(Vec::len)), (vec![100], Some(2)));
    let each: Vec<u64> =
        (0..2).filter_map(|i| pair["components"][0]["networks"][i]["functions"][0]["calls"].as_u64()).collect();
    assert!(each.iter().all(|calls| *calls > 0) && each.iter().sum::<u64>() == 100, "{each:?}");
    assert!(pair["notes"].to_string().contains("without its decoder"), "{pair}");
    assert_eq!((&pair["is_whole"], &pair["frames_per_second"]), (&false.into(), &Value::Null));
    let onnx = arg(&work.path().join("onnx"));
    ok(&[&["compile", "-q", &source("pipeline_wan"), "--size", "48x32", "--frames", "1", "-o", &onnx][..], &ONNX]
        .concat());
    let error = fails(&["estimate", &onnx]);
    assert!(error.contains("a pipeline for ONNX"), "{error}");
    let done = run(&["estimate", &wan, "--report", "x.html"]);
    assert!(
        done.status.code() == Some(2) && String::from_utf8_lossy(&done.stderr).contains("--report is of one network")
    );
    let done = run(&["estimate", &wan, "--other-ms", "5"]);
    assert!(done.status.code() == Some(2) && String::from_utf8_lossy(&done.stderr).contains("--other-ms"));
    // Its scheduler chooses timesteps, so lint has no tables to offer.
    for path in [&wan, &arg(&Path::new(&wan).join("Transformer.mlpackage"))] {
        let said = ok(&["lint", "--all", path]);
        assert!(said.contains("fp32") && !said.contains("--timesteps"), "{said}");
    }
    let alone = arg(&work.path().join("alone.mlpackage"));
    let transformer = arg(&golden("pipeline_wan").join("pipeline/transformer"));
    ok(&["compile", "-q", &transformer, "--target", "coreml", "--latent", "3x4x6", "-o", &alone]);
    assert!(ok(&["lint", "--all", &alone]).contains("--timesteps from-config"));
}

/// A scheduler of which diffusers writes what JSON lacks, and that another class of pipelines cannot be sampled with.
#[test]
fn dpm_solver_of_a_pipeline_folder() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let text = fs::read_to_string(golden("schedulers/dpm_solver.json")).expect("a golden");
    let scheduler = serde_json::from_str::<Value>(&text).expect("JSON")["config"].to_string();
    let scheduler = scheduler.replace("\"lambda_min_clipped\":null", "\"lambda_min_clipped\": -Infinity");
    assert!(scheduler.contains("-Infinity"), "{scheduler}");
    let wan = copy("pipeline_wan", &work.path().join("wan"));
    fs::write(wan.join("scheduler/scheduler_config.json"), &scheduler).unwrap();
    let out = work.path().join("out");
    ok(&[&["compile", "-q", &arg(&wan), "--size", "48x32", "--frames", "1", "-o", &arg(&out)][..], &ONNX].concat());
    let contract = Contract::read(&out).expect("a contract");
    assert_eq!(
        (contract.scheduler.kind, contract.scheduler.class.as_str()),
        (SchedulerKind::DpmSolver, "DPMSolverMultistepScheduler")
    );
    ok(&["verify", "-q", &arg(&out), "--checkpoint", &arg(&wan)]);
    let video = work.path().join("x.gif");
    ok(&["generate", "-q", &arg(&out), "--prompt", "a cat", "--steps", "4", "-o", &arg(&video)]);
    assert!(video.exists() && ok(&["inspect", &arg(&out)]).contains("sampling: DPMSolverMultistepScheduler"));
    // LTX-Video's pipeline passes noise levels.
    let ltx = copy("pipeline_ltx", &work.path().join("ltx"));
    fs::write(ltx.join("scheduler/scheduler_config.json"), &scheduler).unwrap();
    let error =
        fails(&[&["compile", "-q", &arg(&ltx), "--size", "64x64", "--frames", "9", "--dry-run"][..], &ONNX].concat());
    assert!(error.contains("scheduler_config.json") && error.contains("does not take"), "{error}");
}

/// A pipeline whose transformer has an adapter is proved with that adapter, and with no other.
#[test]
fn a_pipeline_with_an_adapter_is_proved() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let adapter = |name: &str, step: f32| {
        let bytes: Vec<u8> = (0..96).flat_map(|i| (step * (i % 7) as f32 - 0.1).to_le_bytes()).collect();
        let tensor = |shape: &[usize]| {
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), &bytes).expect("a tensor")
        };
        let key = |which: &str| format!("transformer.blocks.0.attn1.to_q.lora_{which}.weight");
        let path = work.path().join(name);
        safetensors::serialize_to_file([(key("A"), tensor(&[2, 48])), (key("B"), tensor(&[48, 2]))], None, &path)
            .expect("a file");
        arg(&path)
    };
    let (own, other) = (adapter("own.safetensors", 0.05), adapter("other.safetensors", 0.06));
    let (from, out) = (source("pipeline_wan"), arg(&work.path().join("out")));
    let flags = ["--target", "onnx", "--size", "48x32", "--frames", "1", "--lora", &own];
    ok(&[&["compile", "-q", &from, "-o", &out][..], &flags].concat());
    let report = ok(&["verify", "-q", &out, "--checkpoint", &from, "--lora", &own, "--json"]);
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!((&report["passed"], report["chain"].as_array().map(Vec::len)), (&true.into(), Some(4)), "{report}");
    for flags in [&[][..], &["--lora", &other]] {
        let error = fails(&[&["verify", "-q", &out, "--checkpoint", &from][..], flags].concat());
        assert!(error.contains("transformer") && error.contains("found weights with the hash"), "{error}");
    }
}
