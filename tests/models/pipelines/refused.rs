//! What is no pipeline, or no longer the one that was compiled: each is one error that names the file and the field.

use std::fs;
use std::path::Path;

use crate::common::{arg, fails, files, golden, ok, run};
use s2dit_runtime::pipeline::{AssetFile, Contract};
use serde_json::Value;

use super::{ONNX, copy, edit, source};

#[test]
fn what_does_not_fit_is_told() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let mut count = 0;
    let mut damaged = |change: &dyn Fn(&Path), flags: &[&str], parts: &[&str]| {
        count += 1;
        let dir = copy("pipeline_wan", &work.path().join(format!("from{count}")));
        change(&dir);
        let out = work.path().join("out");
        let base = ["compile", "-q", &arg(&dir), "--target", "onnx", "-o", &arg(&out)].map(str::to_owned);
        let size = if flags.contains(&"--size") { vec![] } else { vec!["--size", "48x32", "--frames", "9"] };
        let args: Vec<&str> = base.iter().map(String::as_str).chain(size).chain(flags.iter().copied()).collect();
        let error = fails(&args);
        for part in parts {
            assert!(error.contains(part), "expected `{part}` in: {error}");
        }
        assert!(!out.exists(), "{error}");
    };
    let index = |change: &'static dyn Fn(&mut Value)| move |dir: &Path| edit(&dir.join("model_index.json"), change);
    damaged(
        &index(&|v| v["_class_name"] = "FluxPipeline".into()),
        &[],
        &["\"FluxPipeline\"", "\"WanPipeline\" or \"LTXPipeline\""],
    );
    damaged(
        &index(&|v| {
            v.as_object_mut().unwrap().remove("text_encoder");
        }),
        &[],
        &["model_index.json without \"text_encoder\""],
    );
    damaged(
        &|dir| fs::remove_dir_all(dir.join("vae")).unwrap(),
        &[],
        &["no folder", "vae", "expected a pipeline folder"],
    );
    damaged(&|dir| fs::remove_dir_all(dir.join("tokenizer")).unwrap(), &[], &["no folder", "\"tokenizer\""]);
    damaged(&|_| (), &["--size", "50x32"], &["--size: found 50x32", "multiples of 8", "such as 48x32"]);
    damaged(&|_| (), &["--size", "40x32"], &["--size: found 40x32", "such as"]);
    damaged(&|_| (), &["--size", "48x32", "--frames", "10"], &["--frames: found 10", "such as 9 or 13"]);
    damaged(
        &|_| (),
        &["--size", "48x32", "--frames", "99999999997"],
        &["--frames: found 99999999997, expected at most"],
    );
    damaged(&|dir| edit(&dir.join("text_encoder/config.json"), |v| v["d_model"] = 32.into()), &[], &["text_encoder"]);
    damaged(
        &|dir| {
            edit(&dir.join("tokenizer/tokenizer.json"), |v| {
                let vocab = v["model"]["vocab"].as_array_mut().unwrap();
                (0..200).for_each(|i| vocab.push(serde_json::json!([format!("zz{i}"), -9.0])));
            });
        },
        &[],
        &["tokenizer.json", "expected ids below 288", "of another model"],
    );
    damaged(
        &|dir| {
            fs::rename(dir.join("tokenizer/tokenizer.json"), dir.join("tokenizer/spiece.model")).unwrap();
        },
        &[],
        &["found spiece.model, expected tokenizer.json", "AutoTokenizer.from_pretrained("],
    );
    damaged(&|dir| fs::write(dir.join("tokenizer/tokenizer.json"), "{}").unwrap(), &[], &["not a tokenizer"]);
    damaged(
        &|dir| edit(&dir.join("scheduler/scheduler_config.json"), |v| v["_class_name"] = "DDIMScheduler".into()),
        &[],
        &["\"DDIMScheduler\"", "UniPCMultistepScheduler"],
    );
    damaged(&|_| (), &["--mode", "stream", "--size", "48x32"], &["an autoregressive model"]);
    let usage = |flags: &[&str]| {
        let done = run(&[&["compile", &source("pipeline_wan")][..], &ONNX, flags].concat());
        assert_eq!(done.status.code(), Some(2), "{flags:?}");
        String::from_utf8(done.stderr).expect("UTF-8")
    };
    assert!(usage(&["--size", "48x32", "--component", "vae"]).contains("--component is of one model"));
    assert!(usage(&["--frames", "9"]).contains("--size"));
    assert!(usage(&["--size", "48"]).contains("512x288"));
    assert!(usage(&["--size", "48x32", "--components", "unet"]).contains("text_encoder"));
}

/// A folder whose parts are from two compiles, files that are missing or changed, contracts that contradict themselves.
#[test]
fn parts_of_two_compiles_are_noticed() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let from = source("pipeline_wan");
    let compile = |name: &str, frames: &str| {
        let out = work.path().join(name);
        ok(&[&["compile", "-q", &from, "--size", "48x32", "--frames", frames, "-o", &arg(&out)][..], &ONNX].concat());
        out
    };
    let (one, two) = (compile("one", "9"), compile("two", "5"));
    let refused = |parts: &[&str]| {
        for command in [vec!["verify", "--checkpoint", &from], vec!["inspect"]] {
            let error = fails(&[&command[..1], &[&arg(&one)], &command[1..]].concat());
            for part in parts {
                assert!(error.contains(part), "expected `{part}` in: {error}");
            }
        }
    };
    let (own, path) = (fs::read(one.join("Transformer.onnx")).unwrap(), one.join("Transformer.onnx"));
    fs::copy(two.join("Transformer.onnx"), &path).unwrap();
    refused(&["Transformer.onnx", "of another compile"]);
    fs::remove_file(&path).unwrap();
    refused(&["Transformer.onnx", "it is not there"]);
    let mut changed = own.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&path, changed).unwrap();
    refused(&["Transformer.onnx", "found the hash"]);
    fs::write(&path, &own).unwrap();
    ok(&["inspect", &arg(&one)]);

    let contract = one.join("pipeline.json");
    let whole = fs::read(&contract).unwrap();
    let wrong = |change: &dyn Fn(&mut Value), part: &str| {
        edit(&contract, |value| change(value));
        refused(&["pipeline.json", part]);
        fs::write(&contract, &whole).unwrap();
    };
    wrong(&|v| v["id"] = "blake3:0".into(), "not of one compile");
    wrong(&|v| v["version"] = 9.into(), "field `version`: found 9, expected 2");
    wrong(&|v| v["video"]["rows"] = 40.into(), "field `video.rows`: found 40, expected 32");
    wrong(&|v| v["video"]["frames"] = 8.into(), "field `video.frames`: found 8, expected 9");
    wrong(&|v| v["assets"]["decoder"]["path"] = "../x".into(), "field `assets.decoder.path`");
    wrong(&|v| v["assets"]["decoder"]["files"][0]["path"] = "Decoder.onnx/../../x".into(), "expected a file of");
    wrong(&|v| v["sampling"]["guidance"] = (-1).into(), "field `sampling.guidance`");
    wrong(&|v| v["text"]["width"] = "x".into(), "field `text.width`");
    wrong(&|v| v["text"]["padding"] = 288.into(), "field `text.padding`: found 288, expected a token id below 288");
    wrong(&|v| v["sampling"]["batch"] = 3.into(), "field `sampling.batch`: found 3");

    // The weights of another pipeline.
    let error = fails(&["verify", &arg(&one), "--checkpoint", &source("pipeline_wan22")]);
    assert!(error.contains("found weights with the hash"), "{error}");
}

/// A description that was edited is refused, whatever field it is: by its identity, and, if somebody made a new identity too, by the pipeline folder.
#[test]
fn an_edited_description_is_refused() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let (from, out) = (source("pipeline_wan"), work.path().join("out"));
    ok(&[&["compile", "-q", &from, "--size", "48x32", "--frames", "9", "-o", &arg(&out)][..], &ONNX].concat());
    let path = out.join("pipeline.json");
    let whole = fs::read(&path).unwrap();
    let verify = ["verify", &arg(&out), "--checkpoint", &from];
    let video = arg(&work.path().join("x.gif"));
    let generate = ["generate", "-q", &arg(&out), "--prompt", "a cat", "-o", &video];
    type Edit = fn(&mut Value);
    let edits: [(&str, Edit); 9] = [
        ("sampling.steps", |v| v["sampling"]["steps"] = 3.into()),
        ("sampling.guidance", |v| v["sampling"]["guidance"] = 4.0.into()),
        ("sampling.negative", |v| v["sampling"]["negative"] = "blurred".into()),
        ("sampling.levels", |v| v["sampling"]["levels"] = "linear".into()),
        ("scheduler.config.flow_shift", |v| v["scheduler"]["config"]["flow_shift"] = 5.0.into()),
        ("scheduler.config.extra", |v| v["scheduler"]["config"]["extra"] = 1.into()),
        ("video.fps", |v| v["video"]["fps"] = 24.0.into()),
        ("text.padding", |v| v["text"]["padding"] = 5.into()),
        ("text.cleaning", |v| v["text"]["cleaning"] = "none".into()),
    ];
    for (field, change) in edits {
        edit(&path, change);
        for command in [&verify[..], &generate] {
            let error = fails(command);
            assert!(
                error.contains("pipeline.json`: field `id`") && error.contains("it was edited"),
                "{field}: {error}"
            );
        }
        let mut contract: Contract = serde_json::from_slice(&fs::read(&path).unwrap()).expect("a contract");
        contract.id = contract.identity().expect("an identity");
        fs::write(&path, contract.to_json().expect("JSON")).unwrap();
        let error = fails(&verify);
        assert!(
            error.contains(&format!("pipeline.json`: field `{field}`: found ")) && error.contains(&from),
            "{field}: {error}"
        );
        fs::write(&path, &whole).unwrap();
    }
    // The same description in another layout is the same.
    edit(&path, |_| ());
    ok(&["inspect", "-q", &arg(&out)]);
    assert!(!work.path().join("x.gif").exists());

    // A padding that is a hole in the vocabulary, and a tokenizer of another pipeline, each under an identity that fits.
    let with_identity = |change: &dyn Fn(&mut Contract)| {
        let mut contract: Contract = serde_json::from_slice(&whole).expect("a contract");
        change(&mut contract);
        contract.id = contract.identity().expect("an identity");
        fs::write(&path, contract.to_json().expect("JSON")).unwrap();
    };
    with_identity(&|contract| contract.text.padding = 280);
    let error = fails(&generate);
    assert!(
        error.contains("tokenizer.json`: found no token of the id 280") && error.contains("`text.padding`"),
        "{error}"
    );
    let tokenizer = out.join("Tokenizer/tokenizer.json");
    edit(&tokenizer, |v| v["added_tokens"][0]["special"] = false.into());
    with_identity(&|contract| {
        let file = contract.assets.tokenizer.as_mut().and_then(|asset| asset.files.first_mut()).expect("a file");
        *file = AssetFile::of(&out, "Tokenizer/tokenizer.json").expect("a file");
    });
    let error = fails(&verify);
    assert!(error.contains("field `assets.tokenizer.files`") && error.contains("other contents"), "{error}");
}

/// Every command that opens a compiled pipeline names the file and the field of a damaged description.
#[test]
fn a_damaged_description_is_named_by_every_command() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let (from, out) = (source("pipeline_wan"), arg(&work.path().join("out")));
    let flags = ["--target", "coreml", "--size", "48x32", "--frames", "1"];
    ok(&[&["compile", "-q", &from, "-o", &out][..], &flags].concat());
    let path = Path::new(&out).join("pipeline.json");
    let whole = fs::read_to_string(&path).unwrap();
    let video = arg(&work.path().join("x.gif"));
    let commands: [&[&str]; 8] = [
        &["inspect", &out],
        &["verify", &out, "--checkpoint", &from],
        &["lint", &out],
        &["estimate", &out],
        &["run", &out],
        &["ranges", &out],
        &["stream", &out, "--prompt-seed", "1"],
        &["generate", &out, "--prompt", "a cat", "-o", &video],
    ];
    let half = &whole[..whole.len() / 2];
    let other = whole.replace("s2dit-video-pipeline", "video");
    let field = whole.replace("\"steps\"", "\"step\"");
    for (damaged, part) in [
        ("", "not JSON"),
        (half, "not JSON"),
        ("[]", "field `format`: missing"),
        (&other, "field `format`: found \"video\""),
        (&field, "field `sampling"),
    ] {
        fs::write(&path, damaged).unwrap();
        for command in commands {
            let error = fails(command);
            assert!(error.contains(&format!("{}`: {part}", path.display())), "{command:?}, expected `{part}`: {error}");
        }
    }
    // What it was compiled from is another folder, and a part is not the whole.
    fs::write(&path, &whole).unwrap();
    for command in [
        &["quantize", &out, "--scheme", "int8", "-o", "plan.toml"][..],
        &["compile", &out, "--target", "onnx", "--size", "48x32"],
    ] {
        let error = fails(command);
        assert!(
            error.contains("the folder of a compiled pipeline") && error.contains("expected"),
            "{command:?}: {error}"
        );
    }
    let error = fails(&["generate", &from, "--prompt", "a cat", "-o", &video]);
    assert!(error.contains("found a pipeline folder of diffusers") && error.contains("s2ditc compile"), "{error}");
    let error = fails(&["generate", &format!("{out}/Transformer.mlpackage"), "--prompt", "a cat", "-o", &video]);
    assert!(
        error.contains(&format!("found a part of a compiled pipeline, expected the whole folder, `{out}`")),
        "{error}"
    );
    // Somebody else's file in another folder is not ours to judge.
    let checkpoint = work.path().join("checkpoint");
    for (name, bytes) in files(&golden("pipeline_wan").join("pipeline/transformer")) {
        fs::create_dir_all(&checkpoint).unwrap();
        fs::write(checkpoint.join(name), bytes).unwrap();
    }
    fs::write(checkpoint.join("pipeline.json"), "{}").unwrap();
    ok(&["inspect", &arg(&checkpoint)]);
}

/// What a dry run finds, and how verdicts are said.
#[test]
fn a_dry_run_reads_the_tokenizer_and_a_failure_says_what_failed() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let dry = |name: &str, change: &dyn Fn(&Path)| {
        let dir = copy("pipeline_wan", &work.path().join(name));
        change(&dir);
        fails(&[&["compile", &arg(&dir), "--size", "48x32", "--frames", "9", "--dry-run"][..], &ONNX].concat())
    };
    let error = dry("a", &|dir| fs::remove_file(dir.join("tokenizer/tokenizer.json")).unwrap());
    assert!(error.contains("tokenizer`: found no file of a tokenizer"), "{error}");
    let error = dry("b", &|dir| fs::remove_file(dir.join("tokenizer/tokenizer_config.json")).unwrap());
    assert!(error.contains("field `pad_token`: found none"), "{error}");
    let error =
        dry("c", &|dir| edit(&dir.join("tokenizer/tokenizer.json"), |v| v["added_tokens"][0]["id"] = 77.into()));
    assert!(error.contains("field `added_tokens[0].id`: found 77 for the token"), "{error}");
    let error = dry("d", &|dir| {
        edit(&dir.join("tokenizer/tokenizer_config.json"), |v| {
            v["added_tokens_decoder"] = serde_json::json!({"7": {"content": "<pad>"}});
        });
    });
    assert!(error.contains("field `added_tokens_decoder`: found 7 for the token \"<pad>\", expected 0"), "{error}");
    let error = dry("e", &|dir| fs::remove_dir_all(dir.join("text_encoder")).unwrap());
    assert!(error.contains("no folder") && error.contains("\"text_encoder\""), "{error}");

    let (from, out) = (source("pipeline_wan"), arg(&work.path().join("out")));
    ok(&[&["compile", "-q", &from, "--size", "48x32", "--frames", "1", "-o", &out][..], &ONNX].concat());
    let error = fails(&["verify", &out, "--checkpoint", &from, "--fp16"]);
    assert!(
        error.contains("--fp16: `") && error.contains("was compiled for ONNX") && error.contains("leave --fp16 out"),
        "{error}"
    );
    let done = run(&["verify", &out, "--checkpoint", &from, "--min-snr", "300"]);
    let said = String::from_utf8(done.stdout).expect("UTF-8");
    let last = said.trim().lines().last().unwrap_or_default().to_owned();
    assert!(
        done.status.code() == Some(1) && last.contains("FAILED: below the bar: ") && last.contains("vae"),
        "{said}"
    );
    assert!(!last.contains("every"), "{last}");
    let last = ok(&["verify", &out, "--checkpoint", &from]);
    assert!(last.trim().lines().last().is_some_and(|last| last.starts_with("passed: every file")), "{last}");
}
