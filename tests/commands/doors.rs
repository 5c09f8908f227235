//! The doors that weights come in through: one checkpoint in every form, on the command line. `examples/reference/door_fixtures.py` makes the
//! files.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{arg, fails, ok, repo, run, s2ditc};
use assert_cmd::assert::OutputAssertExt;
use serde_json::Value;

fn fixture(name: &str) -> String {
    arg(&repo().join("tests/fixtures/doors").join(name))
}

fn compiled(checkpoint: &str, out: &Path, flags: &[&str]) -> String {
    let place = arg(out);
    ok(&[&["compile", "-q", checkpoint, "--target", "onnx", "--latent", "2x4x6", "-o", &place], flags].concat());
    place
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&ok(&[args, &["--json"]].concat())).expect("JSON")
}

#[track_caller]
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{text}\nlacks {part}");
    }
}

/// The same bytes, whichever door the weights came through.
#[test]
fn every_door_leads_to_the_same_artifact() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let bytes = |name: &str, checkpoint: &str, flags: &[&str]| {
        let out = work.path().join(name);
        compiled(checkpoint, &out, flags);
        fs::read(out).expect("a model")
    };
    let plain = bytes("plain.onnx", &fixture("diffusers"), &[]);
    // Away from the configuration: only the flag says it.
    let alone = work.path().join("wan.safetensors");
    fs::copy(fixture("original.safetensors"), &alone).expect("a copy");
    let config = ["--config", &fixture("config.json")];
    assert!(bytes("single.onnx", &arg(&alone), &config) == plain);
    assert!(bytes("flat.onnx", &fixture("flat.pt"), &[]) == plain);
    assert!(bytes("views.onnx", &fixture("views.pt"), &[]) == plain);
    assert!(bytes("training.onnx", &fixture("training.pt"), &["--state-dict", "generator_ema"]) == plain);
    // Beside a loose tensor, an optimizer and values of Python and NumPy: the only one with names of the model, or by its name.
    assert!(bytes("trainer.onnx", &fixture("trainer.pt"), &[]) == plain);
    assert!(bytes("named.onnx", &fixture("trainer.pt"), &["--state-dict", "state_dict"]) == plain);
    let report = json(&["verify", &arg(&work.path().join("plain.onnx")), "--checkpoint", &fixture("views.pt")]);
    assert_eq!(report["passed"], true, "{report}");
    let report = json(&["inspect", &fixture("training.pt"), "--state-dict", "generator_ema", "--latent", "2x4x6"]);
    assert_eq!(report["format"], "a PyTorch checkpoint, its \"generator_ema\"");
    says(report["names"].as_str().expect("names"), &["original names of Wan", "model._fsdp_wrapped_module."]);
}

#[test]
fn how_weights_were_read_is_said_in_one_line() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let out = arg(&work.path().join("a.onnx"));
    let noted = |checkpoint: &str| {
        let done = run(&["compile", checkpoint, "--target", "onnx", "--latent", "2x4x6", "-o", &out, "--force"]);
        done.assert().success().get_output().stderr.clone()
    };
    let flat = String::from_utf8(noted(&fixture("flat.pt"))).expect("UTF-8");
    says(&flat, &["note: read a PyTorch checkpoint: ", "read as those of diffusers"]);
    assert_eq!(flat.matches("note:").count(), 1, "{flat}");
    let plain = String::from_utf8(noted(&fixture("diffusers"))).expect("UTF-8");
    assert!(!plain.contains("note: read"), "{plain}");
    says(&ok(&["inspect", &fixture("flat.pt"), "--latent", "2x4x6"]), &["read as a PyTorch checkpoint: "]);
}

/// An artifact with an adapter is what PyTorch's own sums make, and says what was merged.
#[test]
fn adapters_are_merged_and_said() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let (peft, diff) = (format!("{}:0.5", fixture("lora_peft.safetensors")), fixture("lora_diff.safetensors"));
    let lora = ["--lora", peft.as_str()];
    let out = compiled(&fixture("diffusers"), &work.path().join("a.onnx"), &lora);
    let metadata = &json(&["inspect", &out])["metadata"];
    let said: Value = serde_json::from_str(metadata["s2ditc.lora"].as_str().expect("the adapters")).expect("JSON");
    assert_eq!((&said[0]["file"], &said[0]["scale"]), (&"lora_peft.safetensors".into(), &0.5.into()), "{said}");
    assert!(said[0]["hash"].as_str().is_some_and(|hash| hash.starts_with("blake3:")), "{said}");
    // The weights as PyTorch merged them, beside those that it left alone.
    let merged = work.path().join("merged");
    merge_files(&merged, "merged_peft.safetensors");
    for door in ["original.safetensors", "flat.pt"] {
        let report = json(&["verify", &out, "--blocks", "--checkpoint", &fixture(door), "--lora", &peft]);
        assert_eq!(report["passed"], true, "{report}");
    }
    let report = json(&["inspect", &arg(&merged), "--latent", "2x4x6"]);
    let lora_report = json(&[&["inspect", &fixture("diffusers"), "--latent", "2x4x6"], &lora[..]].concat());
    assert_eq!(report["hash"], lora_report["hash"], "PyTorch's sums, rounded once");
    // Without its adapter it is another checkpoint, and so is one with another adapter.
    let verify = |artifact: &str, flags: &[&str]| {
        fails(&[&["verify", artifact, "--checkpoint", &fixture("diffusers")], flags].concat())
    };
    let made_with = ": it was made with --lora lora_peft.safetensors:0.5\n";
    says(&verify(&out, &[]), &["was made from checkpoint", made_with]);
    says(&verify(&out, &["--lora", &diff]), &["lora_diff.safetensors:1 is blake3:", made_with]);
    let alone = compiled(&fixture("diffusers"), &work.path().join("alone.onnx"), &[]);
    says(&verify(&alone, &["--lora", &diff]), &[": it was made without --lora"]);
    let blocks = compiled(&fixture("model.gguf"), &work.path().join("blocks.onnx"), &[]);
    says(&verify(&blocks, &[]), &["name the weights that it was made from (a GGUF file has others"]);
    // Two of them, on a package whose weights are compressed after the merge.
    let both = ["--lora", &peft, "--lora", &diff];
    let package = arg(&work.path().join("b.mlpackage"));
    let compile = ["compile", "-q", &fixture("model.gguf"), "--target", "coreml", "--latent", "2x4x6", "-o", &package];
    ok(&[&compile[..], &both].concat());
    let report = json(&[&["verify", &package, "--fp16", "--checkpoint", &fixture("model.gguf")][..], &both].concat());
    assert_eq!(report["passed"], true, "{report}");
}

/// PEFT saves a folder: the adapter, and its alpha in a file beside it.
#[test]
fn an_adapter_in_a_folder_of_peft() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let folder = work.path().join("fast");
    fs::create_dir(&folder).expect("a folder");
    let compile = |lora: &str, out: &str| {
        let out = work.path().join(out);
        compiled(&fixture("diffusers"), &out, &["--lora", lora]);
        (fs::read(&out).expect("a model"), json(&["inspect", &arg(&out)])["metadata"]["s2ditc.checkpoint"].clone())
    };
    let args = ["compile", &fixture("diffusers"), "--lora", &arg(&folder), "--target", "onnx", "--latent", "2x4x6"];
    says(
        &fails(&[&args[..], &["-o", "x.onnx"]].concat()),
        &["fast: found a folder without adapter_model.safetensors, expected a LoRA file"],
    );
    // The alpha of the file is in its metadata: without that, and in adapter_config.json, it is the same adapter.
    let bytes = fs::read(fixture("lora_peft.safetensors")).expect("a file");
    let adapter = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    fs::write(folder.join("adapter_model.safetensors"), safetensors::serialize(adapter.iter(), None).expect("a file"))
        .expect("an adapter");
    fs::write(folder.join("adapter_config.json"), r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 16}"#)
        .expect("a file");
    let (_, hash) = compile(&fixture("lora_peft.safetensors"), "a.onnx");
    let (model, from_folder) = compile(&arg(&folder), "b.onnx");
    assert!(hash.is_string() && hash == from_folder, "{hash} {from_folder}");
    assert!(compile(&arg(&folder.join("adapter_model.safetensors")), "c.onnx").1 == hash);
    assert!(compile(&format!("{}:1", arg(&folder)), "d.onnx").0 == model);
    let report = json(&[
        "verify",
        &arg(&work.path().join("b.onnx")),
        "--checkpoint",
        &fixture("diffusers"),
        "--lora",
        &arg(&folder),
    ]);
    assert_eq!(report["passed"], true, "{report}");
}

/// A checkpoint in which some weights are replaced.
fn merge_files(to: &Path, merged: &str) {
    fs::create_dir(to).expect("a folder");
    fs::copy(fixture("diffusers/config.json"), to.join("config.json")).expect("a copy");
    let read = |name: &str| fs::read(fixture(name)).expect("a file");
    let (plain, merged) = (read("diffusers/diffusion_pytorch_model.safetensors"), read(merged));
    let plain = safetensors::SafeTensors::deserialize(&plain).expect("safetensors");
    let merged = safetensors::SafeTensors::deserialize(&merged).expect("safetensors");
    let views = plain.iter().map(|(name, view)| (name.to_owned(), merged.tensor(name).unwrap_or(view)));
    fs::write(to.join("diffusion_pytorch_model.safetensors"), safetensors::serialize(views, None).expect("a file"))
        .expect("weights");
}

/// Weights in blocks of four bits, through the compiler and back.
#[test]
fn a_gguf_file_is_compiled() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let out = compiled(&fixture("model.gguf"), &work.path().join("a.onnx"), &[]);
    let dequantised = work.path().join("dequantised");
    merge_files(&dequantised, "gguf_model.safetensors");
    let report = json(&["verify", &out, "--blocks", "--checkpoint", &arg(&dequantised)]);
    assert_eq!(report["passed"], true, "{report}");
    says(&ok(&["inspect", &fixture("model.gguf"), "--latent", "2x4x6"]), &["GGUF (", " Q8_0", "original names"]);
}

/// A snapshot in the cache of a hub, as its own tools lay it out, and what is said where there is none.
#[test]
fn a_checkpoint_by_name() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let repository = work.path().join("hub/models--some--wan");
    let compile = |flags: &[&str]| {
        let out = arg(&work.path().join("a.onnx"));
        let args = ["compile", "some/wan", "--target", "onnx", "--latent", "2x4x6", "-o", &out];
        let mut command = s2ditc();
        command.args(args).args(flags).current_dir(work.path()).env("HF_HOME", work.path()).env_remove("HF_HUB_CACHE");
        command.env_remove("HUGGINGFACE_HUB_CACHE").output().expect("s2ditc starts").assert()
    };
    let said = |assert: assert_cmd::assert::Assert| {
        String::from_utf8(assert.code(1).get_output().stderr.clone()).expect("UTF-8")
    };
    let fetch = "`hf download some/wan --exclude \"*encoder*/*\"` fetches it";
    says(&said(compile(&[])), &["some/wan: found nothing there, and no such repository in", "/hub`", fetch]);
    let snapshot: PathBuf = repository.join("snapshots/0123abc");
    fs::create_dir_all(snapshot.join("transformer")).expect("a folder");
    fs::create_dir(repository.join("refs")).expect("a folder");
    fs::write(repository.join("refs/main"), "0123abc").expect("a reference");
    says(&said(compile(&[])), &["neither config.json nor model_index.json in its snapshot", fetch]);
    for file in ["config.json", "diffusion_pytorch_model.safetensors"] {
        fs::copy(fixture(&format!("diffusers/{file}")), snapshot.join("transformer").join(file)).expect("a copy");
    }
    compile(&["-q"]).success();
    let report = json(&["verify", &arg(&work.path().join("a.onnx")), "--checkpoint", &fixture("flat.pt")]);
    assert_eq!(report["passed"], true, "{report}");

    // With its index it is a pipeline folder as any other: of two transformers both, or the one that is named.
    let transformer = serde_json::json!(["diffusers", "WanTransformer3DModel"]);
    let index = serde_json::json!({ "boundary_ratio": 0.5, "transformer": transformer, "transformer_2": transformer });
    fs::write(snapshot.join("model_index.json"), index.to_string()).expect("an index");
    fs::create_dir(snapshot.join("transformer_2")).expect("a folder");
    for file in ["config.json", "diffusion_pytorch_model.safetensors"] {
        fs::copy(fixture(&format!("diffusers/{file}")), snapshot.join("transformer_2").join(file)).expect("a copy");
    }
    says(&said(compile(&[])), &["two transformers go into a folder"]);
    compile(&["-q", "--component", "transformer_2"]).success();
    let pair = arg(&work.path().join("pair"));
    let mut command = s2ditc();
    command.args(["compile", "-q", "some/wan", "--target", "onnx", "--latent", "2x4x6", "-o", &pair]);
    command.current_dir(work.path()).env("HF_HUB_CACHE", work.path().join("hub")).assert().success();
    assert!(work.path().join("pair/experts.json").is_file() && work.path().join("pair/transformer_2.onnx").is_file());
}

#[test]
fn what_comes_through_no_door() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let out = work.path().join("a.onnx");
    let compile = |checkpoint: &str, flags: &[&str]| {
        let place = arg(&out);
        let error =
            fails(&[&["compile", checkpoint, "--target", "onnx", "--latent", "2x4x6", "-o", &place], flags].concat());
        assert!(!out.exists(), "{checkpoint}");
        error
    };
    says(&compile(&fixture("code.pt"), &[]), &["code.pt", "posix.system", "a pickle with code in it"]);
    says(&compile(&fixture("training.pt"), &[]), &["\"generator\"", "\"generator_ema\"", "--state-dict"]);
    says(&compile(&fixture("old.pt"), &[]), &["old.pt", "torch.save before PyTorch 1.6", "torch.save it again"]);
    says(&compile(&fixture("compressed.pt"), &[]), &["compressed.pt", "a compressed entry", "zip -0"]);
    says(&compile(&fixture("big_endian.pt"), &[]), &["big_endian.pt", "byteorder", "\"big\""]);
    says(&compile(&fixture("plain.pt"), &[]), &["plain.pt", "an unknown tensor"]);
    let no_fp8 = "expected bf16, f16 or f32: fp8 is not read; take a bf16 or a GGUF file of the same model";
    says(&compile(&fixture("fp8.pt"), &[]), &["fp8.pt", "found a tensor of fp8", no_fp8]);
    says(&compile(&fixture("fp8.safetensors"), &[]), &["fp8.safetensors: found 2 tensor(s) of fp8, such as `", no_fp8]);
    says(&compile(&fixture("types.gguf"), &[]), &["types.gguf", "unknown tensor"]);
    let lora = fixture("lora_unknown.safetensors");
    says(&compile(&fixture("diffusers"), &["--lora", &lora]), &["lora_unknown.safetensors", "3 key(s)", "x.hada_w1_a"]);
    let config = fixture("none.json");
    says(&compile(&fixture("original.safetensors"), &["--config", &config]), &["none.json"]);
    let usage = run(&["verify", &fixture("none.onnx"), "--golden", &fixture("x"), "--lora", &lora]);
    says(&String::from_utf8_lossy(&usage.stderr), &["--checkpoint"]);
    let usage = run(&["compile", &fixture("diffusers"), "--lora", "x:nan", "--target", "onnx", "--latent", "2x4x6"]);
    assert_eq!(usage.status.code(), Some(2));
    // What is read is not written over.
    let own = work.path().join("lora.onnx");
    fs::copy(&lora, &own).expect("a copy");
    let own = arg(&own);
    let args = ["compile", &fixture("diffusers"), "--lora", &own, "--target", "onnx", "--latent", "2x4x6", "-o", &own];
    says(&fails(&args), &["which is the input --config or --lora"]);
}

/// What is no checkpoint is called what it is.
#[test]
fn a_file_of_another_kind_is_named() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let golden = arg(&crate::common::golden("tiny").join("golden.safetensors"));
    for lora in ["lora_peft.safetensors", "lora_kohya.safetensors", "lora_diff.safetensors"] {
        says(
            &fails(&["inspect", &fixture(lora)]),
            &[lora, "found a LoRA, expected the checkpoint that it is for, with --lora FILE"],
        );
    }
    says(&fails(&["inspect", &golden]), &["golden.safetensors: found latents, a prompt or a golden"]);
    let plan = arg(&work.path().join("plan.toml"));
    fs::write(&plan, "version = 1\n").expect("a file");
    says(&fails(&["inspect", &plan]), &["a plan of `s2ditc quantize`", "compile --quantize PLAN"]);
    // A torch.save file that was cut off in its first bytes.
    let cut = work.path().join("cut.pt");
    fs::write(&cut, &fs::read(fixture("flat.pt")).expect("a file")[..33]).expect("a file");
    says(
        &fails(&["inspect", &arg(&cut), "--config", &fixture("config.json")]),
        &["the beginning of a zip file", "fetch the file again"],
    );
}
