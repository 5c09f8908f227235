//! Pipeline folders of diffusers: one transformer with what lies beside it, and two that share the timesteps.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{arg, fails, ok};
use serde_json::{Value, json};

/// A pipeline folder with seeded transformers; `index` is what its index says beside them.
fn pipeline(work: &Path, transformers: &[&str], index: &Value, scheduler: Option<Value>) -> PathBuf {
    let dir = work.join("pipeline");
    fs::create_dir(&dir).expect("a folder");
    let mut whole = json!({ "_class_name": "WanPipeline", "vae": ["diffusers", "AutoencoderKLWan"], "transformer_2": [null, null] });
    for (seed, name) in transformers.iter().enumerate() {
        let (seed, out) = (seed.to_string(), arg(&dir.join(name)));
        ok(&["init", "-q", "--preset", "wan-tiny", "--seed", &seed, "-o", &out]);
        // As diffusers writes it: what the pipeline and the scheduler know is not there.
        let path = dir.join(name).join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
        for field in ["expand_timesteps", "sample_steps", "flow_shift"] {
            config.as_object_mut().expect("an object").remove(field).expect("a field");
        }
        fs::write(&path, config.to_string()).expect("a file");
        whole[*name] = json!(["diffusers", "WanTransformer3DModel"]);
    }
    for (field, value) in index.as_object().expect("an object") {
        whole[field] = value.clone();
    }
    fs::write(dir.join("model_index.json"), whole.to_string()).expect("a file");
    if let Some(scheduler) = scheduler {
        fs::create_dir(dir.join("scheduler")).expect("a folder");
        fs::write(dir.join("scheduler/scheduler_config.json"), scheduler.to_string()).expect("a file");
    }
    dir
}

fn compile(dir: &Path, out: &Path, flags: &[&str]) -> Value {
    let (dir, out) = (arg(dir), arg(out));
    let text = ok(&[&["compile", &dir, "--target", "onnx", "--latent", "2x8x8", "-o", &out, "--json"], flags].concat());
    serde_json::from_str(&text).expect("JSON")
}

/// Puts the class of a transformer's configuration into the index of its pipeline.
fn index_says_its_class(dir: &Path, component: &str) {
    let read = |path: PathBuf| -> Value { serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON") };
    let mut index = read(dir.join("model_index.json"));
    index[component][1] = read(dir.join(component).join("config.json"))["_class_name"].clone();
    fs::write(dir.join("model_index.json"), index.to_string()).expect("a file");
}

fn field<'v>(summary: &'v Value, name: &str) -> (&'v Value, &'v str) {
    let fields = summary["fields"].as_array().expect("fields");
    let found = fields.iter().find(|field| field["field"] == name).expect("the field");
    (&found["value"], found["file"].as_str().unwrap_or("default"))
}

#[test]
fn a_transformer_with_what_lies_beside_it() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let dir = pipeline(
        work.path(),
        &["transformer"],
        &json!({ "expand_timesteps": true }),
        Some(json!({ "_class_name": "UniPCMultistepScheduler", "flow_shift": 3.5 })),
    );
    let out = work.path().join("a.onnx");
    let made = compile(&dir, &out, &[]);
    assert_eq!(field(&made, "flow_shift").0, 3.5);
    assert!(field(&made, "flow_shift").1.ends_with("scheduler/scheduler_config.json"), "{made}");
    assert_eq!(field(&made, "expand_timesteps").0, true);
    assert!(field(&made, "expand_timesteps").1.ends_with("model_index.json"), "{made}");
    assert_eq!(field(&made, "sample_steps"), (&json!(50), "default"));
    assert!(field(&made, "text_len").1.ends_with("transformer/config.json"), "{made}");
    // The folder of the transformer and its name say the same, and the artifact is of both.
    let transformer = dir.join("transformer");
    for (from, flags) in [(&transformer, &[][..]), (&dir, &["--component", "transformer"][..])] {
        let again = compile(from, &work.path().join("b.onnx"), flags);
        assert_eq!(again["fields"], made["fields"]);
    }
    for checkpoint in [&transformer, &dir] {
        ok(&["verify", &arg(&out), "--checkpoint", &arg(checkpoint), "--blocks"]);
        ok(&["inspect", &arg(checkpoint)]);
    }
    let said = ok(&["compile", &arg(&dir), "--target", "onnx", "--latent", "2x8x8", "-o", &arg(&out)]);
    assert!(said.contains("flow_shift 3.5 of `") && said.contains("sample_steps 50 by default"), "{said}");

    // What config.json says itself counts.
    let path = transformer.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
    config["expand_timesteps"] = false.into();
    config["flow_shift"] = 7.0.into();
    fs::write(&path, config.to_string()).expect("a file");
    let made = compile(&dir, &out, &[]);
    assert_eq!((field(&made, "flow_shift").0, field(&made, "expand_timesteps").0), (&json!(7.0), &json!(false)));
}

/// A configuration of the user's own takes the place of the transformer's, and what lies beside the transformer stays.
#[test]
fn a_configuration_for_the_transformer_of_a_pipeline() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let scheduler = Some(json!({ "flow_shift": 3.5 }));
    let dir = pipeline(work.path(), &["transformer", "transformer_2"], &json!({ "boundary_ratio": 0.5 }), scheduler);
    let config = work.path().join("mine.json");
    let mut own: Value =
        serde_json::from_slice(&fs::read(dir.join("transformer/config.json")).expect("a file")).expect("JSON");
    (own["text_len"], own["sample_steps"]) = (16.into(), 9.into());
    fs::write(&config, own.to_string()).expect("a file");
    let (out, mine) = (work.path().join("a.onnx"), arg(&config));
    let with = |from: &Path, flags: &[&str]| compile(from, &out, &[&["--config", &mine], flags].concat());
    let transformer = dir.join("transformer");
    for made in [with(&transformer, &[]), with(&dir, &["--component", "transformer"])] {
        assert_eq!((field(&made, "text_len").0, field(&made, "sample_steps").0), (&json!(16), &json!(9)));
        assert_eq!(field(&made, "flow_shift").0, 3.5);
        assert!(field(&made, "flow_shift").1.ends_with("scheduler/scheduler_config.json"), "{made}");
    }
    // The line names what that file does not have, and nothing else.
    let args =
        ["compile", &arg(&transformer), "--config", &mine, "--target", "onnx", "--latent", "2x8x8", "-o", &arg(&out)];
    let said = ok(&args);
    assert!(said.contains("not in mine.json: ") && said.contains("flow_shift 3.5 of `"), "{said}");
    assert!(!said.contains("text_len") && !said.contains("sample_steps"), "{said}");
    // Of two transformers it is that of neither.
    let both = crate::common::run(&[
        "compile",
        &arg(&dir),
        "--config",
        &mine,
        "--target",
        "onnx",
        "--latent",
        "2x8x8",
        "-o",
        &arg(&out),
    ]);
    let message = String::from_utf8_lossy(&both.stderr).into_owned();
    assert!(
        both.status.code() == Some(2) && message.contains("--config, --lora or --state-dict is of one"),
        "{message}"
    );
    // A pipeline of one transformer needs no name.
    fs::remove_dir_all(dir.join("transformer_2")).expect("a folder");
    let index = json!({ "transformer": ["diffusers", "WanTransformer3DModel"] });
    fs::write(dir.join("model_index.json"), index.to_string()).expect("a file");
    assert_eq!(field(&with(&dir, &[]), "text_len").0, 16);
    ok(&["verify", &arg(&out), "--checkpoint", &arg(&dir), "--config", &mine]);
}

#[test]
fn a_shift_of_the_other_scheduler_and_a_wrong_one() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let dir = pipeline(work.path(), &["transformer"], &json!({}), Some(json!({ "shift": 2.5 })));
    let out = work.path().join("a.onnx");
    assert_eq!(field(&compile(&dir, &out, &[]), "flow_shift").0, 2.5);
    let file = dir.join("scheduler/scheduler_config.json");
    let args = ["compile", &arg(&dir), "--target", "onnx", "--latent", "2x8x8", "-o", &arg(&out)];
    for (text, part) in [
        (r#"{"flow_shift": "x"}"#, "scheduler_config.json: flow_shift: found \"x\", expected a number above 0"),
        (r#"{"shift": 1e300}"#, "scheduler_config.json: shift: found 1e300"),
        ("{", "scheduler_config.json: found bad JSON"),
    ] {
        fs::write(&file, text).expect("a file");
        let message = fails(&args);
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn two_transformers_share_the_timesteps() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| arg(&work.path().join(name));
    let scheduler = json!({ "flow_shift": 3.0 });
    let dir =
        pipeline(work.path(), &["transformer", "transformer_2"], &json!({ "boundary_ratio": 0.8 }), Some(scheduler));
    let made = compile(&dir, &work.path().join("pair"), &[]);
    assert_eq!((&made["boundary"], made["experts"].as_array().map(Vec::len)), (&json!(800.0), Some(2)), "{made}");
    let said: Value = serde_json::from_slice(&fs::read(at("pair/experts.json")).expect("a file")).expect("JSON");
    assert_eq!(said["boundary"], 800.0);
    assert_eq!(said["experts"][1], json!({ "name": "transformer_2", "file": "transformer_2.onnx" }));
    for name in ["transformer", "transformer_2"] {
        ok(&["verify", &at(&format!("pair/{name}.onnx")), "--checkpoint", &arg(&dir.join(name)), "--blocks"]);
        // One of them alone is the same file.
        compile(&dir, &work.path().join(format!("{name}.onnx")), &["--component", name]);
        let bytes = |path: &str| fs::read(path).expect("a file");
        assert_eq!(bytes(&at(&format!("pair/{name}.onnx"))), bytes(&at(&format!("{name}.onnx"))));
    }
    // Of five steps with shift 3 two are at 800 or above: 1000 and 923; 818 is one too, and 667 and 429 are not.
    let clip = |artifact: &str, name: &str| {
        ok(&["stream", "-q", &at(artifact), "--prompt-seed", "1", "--steps", "5", "-o", &at(name)]);
        fs::read(at(name)).expect("a clip")
    };
    let both = clip("pair", "both.safetensors");
    assert_ne!(both, clip("pair/transformer.onnx", "high.safetensors"));
    assert_ne!(both, clip("pair/transformer_2.onnx", "low.safetensors"));
    let ask = |boundary: f64| {
        let mut changed = said.clone();
        changed["boundary"] = boundary.into();
        fs::write(at("pair/experts.json"), changed.to_string()).expect("a file");
        clip("pair", "other.safetensors")
    };
    assert_eq!(ask(818.0), both);
    assert_ne!(ask(819.0), both);
    assert_eq!(ask(667.0), both);
    assert_ne!(ask(666.0), both);
    // Below all steps, and above all but the first.
    assert_eq!(ask(1.0), clip("pair/transformer.onnx", "high.safetensors"));

    // It is replaced as a whole, and by nothing that it does not know.
    compile(&dir, &work.path().join("pair"), &[]);
    fs::write(at("pair/note.txt"), "mine").expect("a file");
    let args = ["compile", &arg(&dir), "--target", "onnx", "--latent", "2x8x8", "-o", &at("pair")];
    assert!(fails(&args).contains("note.txt"));
}

/// Found before anything is written, and not when a clip is made.
#[test]
fn transformers_of_two_models_are_refused() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let dir = pipeline(work.path(), &["transformer", "transformer_2"], &json!({ "boundary_ratio": 0.8 }), None);
    let out = work.path().join("pair");
    let (second, place) = (dir.join("transformer_2"), arg(&out));
    for (preset, parts) in [
        (
            "wan-tiny-i2v",
            ["input `latent`: found f32[1, 9, 2, 8, 8]", "expected f32[1, 4, 2, 8, 8], as `transformer` has"],
        ),
        (
            "ltx-tiny",
            ["class: found LTXVideoTransformer3DModel", "expected WanTransformer3DModel, as `transformer` has"],
        ),
    ] {
        fs::remove_dir_all(&second).expect("removed");
        ok(&["init", "-q", "--preset", preset, "-o", &arg(&second)]);
        index_says_its_class(&dir, "transformer_2");
        let message = fails(&["compile", &arg(&dir), "--target", "onnx", "--latent", "2x8x8", "-o", &place]);
        for part in parts.iter().chain(&["component `transformer_2`", "--component"]) {
            assert!(message.contains(part), "{message}\nlacks {part}");
        }
        assert!(!out.exists());
    }
    // The same model with other steps.
    fs::remove_dir_all(&second).expect("removed");
    ok(&["init", "-q", "--preset", "wan-tiny", "-o", &arg(&second)]);
    index_says_its_class(&dir, "transformer_2");
    let path = second.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
    config["flow_shift"] = 7.5.into();
    fs::write(&path, config.to_string()).expect("a file");
    let message = fails(&["compile", &arg(&dir), "--target", "onnx", "--latent", "2x8x8", "-o", &place]);
    assert!(
        message.contains("component `transformer_2`") && message.contains("sampler: found 50 Euler steps of shift 7.5"),
        "{message}"
    );
    assert!(!out.exists());
}

#[test]
fn packages_of_two_transformers() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| arg(&work.path().join(name));
    let dir = pipeline(work.path(), &["transformer", "transformer_2"], &json!({ "boundary_ratio": 0.875 }), None);
    let dir = arg(&dir);
    let args = ["compile", "-q", &dir, "--target", "coreml", "--latent", "2x8x8", "-o"];
    ok(&[&args[..], &[&at("pair")]].concat());
    ok(&[&args[..], &[&at("parts"), "--partition", "2"]].concat());
    for pair in ["pair", "parts"] {
        ok(&["stream", "-q", &at(pair), "--prompt-seed", "1", "--steps", "2", "-o", &at("clip.safetensors")]);
    }
    let report: Value = serde_json::from_str(&ok(&["inspect", &at("pair"), "--json"])).expect("JSON");
    assert_eq!((&report["kind"], report["experts"].as_array().map(Vec::len)), (&json!("experts"), Some(2)), "{report}");
    assert!(ok(&["inspect", &at("parts")]).contains("below it"));
    for pair in ["pair", "parts"] {
        ok(&["lint", &at(pair)]);
    }
    for command in [&["verify", "--checkpoint", &dir][..], &["ranges"]] {
        let pair = at("pair");
        let message = fails(&[&command[..1], &[&pair], &command[1..]].concat());
        assert!(message.contains("found 2 transformers, expected one of them"), "{message}");
        assert!(message.contains("/transformer_2.mlpackage`"), "{message}");
    }
}

#[test]
fn what_cannot_be_compiled() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| arg(&work.path().join(name));
    let dir = pipeline(work.path(), &["transformer", "transformer_2"], &json!({}), None);
    let (dir, transformer) = (arg(&dir), arg(&dir.join("transformer")));
    let refused = |from: &str, out: &str, flags: &[&str], parts: &[&str]| {
        let args = ["compile", from, "--target", "onnx", "--latent", "2x8x8", "-o", &at(out)];
        let message = fails(&[&args[..], flags].concat());
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    // Flags that do not go with what is there: exit code 2.
    let unused = |from: &str, out: &str, flags: &[&str], part: &str| {
        let args = ["compile", from, "--target", "onnx", "--latent", "2x8x8", "-o", &at(out)];
        let done = crate::common::run(&[&args[..], flags].concat());
        let message = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.code() == Some(2) && message.contains(part), "{message}");
    };
    refused(&dir, "x", &[], &["model_index.json: boundary_ratio: found no such field", "--component"]);
    refused(&dir, "x.onnx", &["--component", "transformer_3"], &["found \"transformer_3\"", "transformer_2"]);
    unused(&transformer, "x.onnx", &["--component", "transformer"], "has no model_index.json");
    let index = Path::new(&dir).join("model_index.json");
    let with = |ratio: Value| {
        let transformer = json!(["diffusers", "WanTransformer3DModel"]);
        let text = json!({ "boundary_ratio": ratio, "transformer": transformer, "transformer_2": transformer });
        fs::write(&index, text.to_string()).expect("a file");
    };
    for wrong in [json!(null), json!(0), json!(1.5), json!("0.9")] {
        with(wrong);
        refused(&dir, "x", &[], &["boundary_ratio: found", "expected a number between 0 and 1"]);
    }
    with(json!(0.9));
    refused(&dir, "x.onnx", &[], &["two transformers go into a folder"]);
    unused(&dir, "x", &["--emit", "ir"], "--emit is of one checkpoint, and");
    unused(&dir, "x", &["--mode", "stream"], "--mode stream is of one checkpoint");
    unused(&dir, "x", &["--quantize", &at("plan.toml")], "--quantize PLAN is of one checkpoint");
    for command in [["inspect", &dir].as_slice(), &["quantize", &dir, "--scheme", "int8", "-o", &at("p.toml")]] {
        let message = fails(command);
        assert!(message.contains("2 transformers") && message.contains("transformer_2\""), "{message}");
    }
    fs::remove_dir_all(Path::new(&dir).join("transformer_2")).expect("a folder");
    refused(&dir, "x.onnx", &["--component", "transformer_2"], &["pipeline/transformer_2: found No such file"]);
}

/// Of two transformers the summary says who made which steps, and each may have a guidance of its own.
#[test]
fn two_transformers_share_steps_and_guide_apart() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| arg(&work.path().join(name));
    let scheduler = Some(json!({ "flow_shift": 3.0 }));
    let dir = pipeline(work.path(), &["transformer", "transformer_2"], &json!({ "boundary_ratio": 0.8 }), scheduler);
    compile(&dir, &work.path().join("pair"), &[]);
    let prompt = |name: &str, value: f32| {
        let data: Vec<u8> = (0..8 * 32).flat_map(|i| (value * (i % 7) as f32).to_le_bytes()).collect();
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1, 8, 32], &data).expect("a tensor");
        fs::write(at(name), safetensors::serialize([("text", view)], None).expect("safetensors")).expect("a file");
        at(name)
    };
    let (positive, negative, pair) = (prompt("p.safetensors", 0.3), prompt("n.safetensors", -0.2), at("pair"));
    let made = |guidance: &str| -> (Value, Vec<u8>) {
        let out = at("clip.safetensors");
        let base =
            ["stream", &pair, "--prompt", &positive, "--negative", &negative, "--steps", "10", "--json", "-o", &out];
        let summary = serde_json::from_str(&ok(&[&base[..], &["--guidance", guidance]].concat())).expect("JSON");
        (summary, fs::read(out).expect("a clip"))
    };
    let (summary, one) = made("4");
    // Of 10 steps of shift 3, those of timesteps 1000, 964, 923, 875 and 818 are at 800 and above.
    assert_eq!(summary["shares"], json!([["transformer", 5], ["transformer_2", 5]]), "{summary}");
    let (summary, two) = made("4,1");
    assert_eq!((&summary["guidance"], &summary["second_guidance"]), (&json!(4.0), &json!(1.0)), "{summary}");
    assert!(one != two && one == made("4,4").1);
    let said = crate::common::run(&["stream", &pair, "--prompt", &positive, "--steps", "10"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("10 Euler steps (5 of transformer, 5 of transformer_2)"), "{said}");
    compile(&dir, &work.path().join("a.onnx"), &["--component", "transformer"]);
    let alone = at("a.onnx");
    let refused =
        crate::common::run(&["stream", &alone, "--prompt", &positive, "--negative", &negative, "--guidance", "4,3"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && said.contains("G,G2 is for two transformers"), "{said}");
}

/// The index of a pipeline and the configuration of its transformer must mean the same class.
#[test]
fn an_index_of_another_class_is_refused() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let index = json!({ "transformer": ["diffusers", "LTXVideoTransformer3DModel"] });
    let dir = pipeline(work.path(), &["transformer"], &index, None);
    for path in [arg(&dir), arg(&dir.join("transformer"))] {
        let said = fails(&["inspect", &path, "--latent", "2x8x8"]);
        for part in [
            "model_index.json: transformer: found the class \"LTXVideoTransformer3DModel\", expected WanTransformer3DModel",
            "config.json",
        ] {
            assert!(said.contains(part), "{said}");
        }
    }
}

/// A pair of experts inside one is refused: links that lead back would be followed forever.
#[cfg(unix)]
#[test]
fn experts_that_lead_back_are_refused() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let dir = pipeline(work.path(), &["transformer", "transformer_2"], &json!({ "boundary_ratio": 0.5 }), None);
    let pair = work.path().join("pair");
    compile(&dir, &pair, &[]);
    let mut description: Value =
        serde_json::from_slice(&fs::read(pair.join("experts.json")).expect("a file")).expect("JSON");
    description["experts"][0]["file"] = "transformer".into();
    fs::write(pair.join("experts.json"), description.to_string()).expect("a file");
    std::os::unix::fs::symlink(".", pair.join("transformer")).expect("a link");
    let said = fails(&["inspect", &arg(&pair)]);
    assert!(said.contains("found a pair of experts, expected an expert of the pair"), "{said}");
}

/// A clip of a model that makes video chunk by chunk is seldom what is wanted.
#[test]
fn a_clip_of_an_autoregressive_model_comes_with_a_note() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let out = arg(&work.path().join("a.onnx"));
    let said = |checkpoint: &str, latent: &str, flags: &[&str]| {
        let checkpoint = arg(&crate::common::repo().join("tests/goldens").join(checkpoint));
        let base = ["compile", &checkpoint, "--target", "onnx", "--latent", latent, "-o", &out];
        let done = crate::common::run(&[&base[..], flags].concat());
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stderr).into_owned()
    };
    let note = "note: a whole clip of an autoregressive model";
    let of_chunks = said("self_forcing_tiny/checkpoint/self_forcing.pt", "3x4x6", &["--state-dict", "generator_ema"]);
    assert!(of_chunks.contains(note) && of_chunks.contains("--mode stream"), "{of_chunks}");
    assert!(!said("wan_tiny/checkpoint", "3x8x8", &[]).contains(note));
}
