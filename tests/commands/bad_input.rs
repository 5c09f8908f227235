//! Bad input: one clear error that names the place, exit code 1, nothing half-written, no panic.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::{arg, fails, files, golden, ok, run, s2ditc};
use tempfile::TempDir;

const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

/// A copy of the tiny checkpoint whose files a test may damage.
struct Copy {
    work: TempDir,
}

impl Copy {
    fn of(name: &str) -> Copy {
        let work = tempfile::tempdir().expect("a temporary folder");
        let dir = work.path().join("checkpoint");
        fs::create_dir(&dir).expect("a folder");
        for (file, bytes) in files(&golden(name).join("checkpoint")) {
            fs::write(dir.join(file), bytes).expect("a copy");
        }
        Copy { work }
    }

    fn dir(&self) -> PathBuf {
        self.work.path().join("checkpoint")
    }

    fn weights(&self) -> PathBuf {
        self.dir().join(WEIGHTS)
    }

    /// Compiles to ONNX and Core ML; both must fail alike and leave nothing. Returns the error.
    #[track_caller]
    fn fails(&self, latent: &str) -> String {
        let mut errors = Vec::new();
        for (target, name) in [("onnx", "out.onnx"), ("coreml", "out.mlpackage")] {
            let out = self.work.path().join(name);
            errors.push(fails(&[
                "compile",
                &arg(&self.dir()),
                "--target",
                target,
                "--latent",
                latent,
                "-o",
                &arg(&out),
            ]));
            self.left_nothing();
        }
        assert_eq!(errors[0], errors[1]);
        errors.remove(0)
    }

    #[track_caller]
    fn left_nothing(&self) {
        let left: Vec<_> =
            fs::read_dir(self.work.path()).expect("a folder").map(|e| e.expect("an entry").file_name()).collect();
        assert_eq!(left, ["checkpoint"]);
    }

    /// Replaces the header of the weights by what `edit` makes of it.
    fn edit_header(&self, edit: impl FnOnce(&mut serde_json::Value)) {
        let bytes = fs::read(self.weights()).expect("weights");
        let n = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
        let mut header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + n]).expect("a header");
        edit(&mut header);
        let text = header.to_string();
        let mut out = (text.len() as u64).to_le_bytes().to_vec();
        out.extend(text.as_bytes());
        out.extend(&bytes[8 + n..]);
        fs::write(self.weights(), out).expect("weights");
    }

    fn edit_config(&self, edit: impl FnOnce(&mut serde_json::Value)) {
        let path = self.dir().join("config.json");
        let mut config = serde_json::from_slice(&fs::read(&path).expect("config")).expect("JSON");
        edit(&mut config);
        fs::write(path, config.to_string()).expect("config");
    }
}

#[track_caller]
fn says(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "expected `{part}` in:\n{error}");
    }
}

#[test]
fn truncated_weights() {
    let c = Copy::of("tiny");
    let bytes = fs::read(c.weights()).expect("weights");
    fs::write(c.weights(), &bytes[..bytes.len() - 100]).expect("weights");
    says(&c.fails("3x8x8"), &[WEIGHTS, "expected"]);
    fs::write(c.weights(), &bytes[..5]).expect("weights");
    says(&c.fails("3x8x8"), &[WEIGHTS, "5 bytes"]);
}

#[test]
fn a_header_of_2_to_the_63_bytes() {
    let c = Copy::of("tiny");
    let mut bytes = fs::read(c.weights()).expect("weights");
    bytes[..8].copy_from_slice(&(1u64 << 63).to_le_bytes());
    fs::write(c.weights(), bytes).expect("weights");
    says(&c.fails("3x8x8"), &[WEIGHTS, "9223372036854775808"]);
}

#[test]
fn offsets_that_overlap_or_leave_the_file() {
    let c = Copy::of("tiny");
    c.edit_header(|h| h["proj_out.bias"]["data_offsets"] = h["patch_embedding.bias"]["data_offsets"].clone());
    says(&c.fails("3x8x8"), &[WEIGHTS, "proj_out.bias"]);
    let c = Copy::of("tiny");
    c.edit_header(|h| h["proj_out.bias"]["data_offsets"] = serde_json::json!([1u64 << 40, (1u64 << 40) + 64]));
    says(&c.fails("3x8x8"), &[WEIGHTS, "proj_out.bias"]);
}

#[test]
fn a_missing_shard() {
    let c = Copy::of("sharded");
    let shard = "diffusion_pytorch_model-00002-of-00003.safetensors";
    fs::remove_file(c.dir().join(shard)).expect("a shard");
    says(&c.fails("5x4x8"), &[shard]);
}

#[test]
fn all_problems_of_the_tensors_come_together() {
    let c = Copy::of("tiny");
    c.edit_header(|h| {
        let h = h.as_object_mut().expect("an object");
        h["proj_out.weight"]["shape"] = serde_json::json!([48, 16]);
        let moved = h.remove("blocks.0.attn1.to_q.weight").expect("a tensor");
        h.insert("blocks.0.attn1.to_query.weight".into(), moved);
        h["blocks.1.ffn.net.2.bias"]["dtype"] = "I32".into();
    });
    says(
        &c.fails("3x8x8"),
        &[
            "proj_out.weight",
            "[48, 16]",
            "[16, 48]",
            "blocks.0.attn1.to_q.weight",
            "blocks.0.attn1.to_query.weight",
            "blocks.1.ffn.net.2.bias",
            "i32",
        ],
    );
}

#[test]
fn all_problems_of_the_configuration_come_together() {
    let c = Copy::of("tiny");
    c.edit_config(|v| {
        v["rope_in_kernel"] = "mid".into();
        v["layout"][1] = "ssaa".into();
        v["conv_kernel"] = serde_json::json!([3, 4, 3]);
        v["num_heads"] = 2.into();
    });
    says(
        &c.fails("3x8x8"),
        &["config.json", "rope_in_kernel", "mid", "pre", "post", "layout", "ssaa", "conv_kernel", "num_heads"],
    );
}

#[test]
fn a_latent_that_does_not_fit() {
    let c = Copy::of("tiny");
    says(&c.fails("3x5x8"), &["latent rows", "5", "multiple of 2 (the patch size), such as 4 or 6"]);
    says(&c.fails("0x8x8"), &["latent frames", "0"]);
    says(&c.fails("8x8"), &["latent size", "8x8", "FRAMESxROWSxCOLUMNS", "--mode stream"]);
    let out = run(&["compile", &arg(&c.dir()), "--target", "onnx", "--latent", "8xy", "-o", "x.onnx"]);
    assert_eq!(out.status.code(), Some(2), "a malformed size is a usage error");
}

#[test]
fn broken_weights_are_warned_about_by_name() {
    let c = Copy::of("tiny");
    let bytes = fs::read(c.weights()).expect("weights");
    let n = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + n]).expect("a header");
    let at = 8 + n + header["proj_out.bias"]["data_offsets"][0].as_u64().expect("an offset") as usize;
    for (target, name) in [("onnx", "out.onnx"), ("coreml", "out.mlpackage")] {
        let mut nan = bytes.clone();
        nan[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        fs::write(c.weights(), nan).expect("weights");
        let out = c.work.path().join(name);
        let args = [
            "compile",
            "-q",
            &arg(&c.dir()),
            "--target",
            target,
            "--precision",
            "fp16",
            "--latent",
            "3x8x8",
            "-o",
            &arg(&out),
        ];
        let done = run(&args);
        assert!(done.status.success());
        says(&String::from_utf8_lossy(&done.stderr), &["warning", "proj_out.bias", "1 element"]);

        let mut large = bytes.clone();
        large[at..at + 4].copy_from_slice(&1e9f32.to_le_bytes());
        fs::write(c.weights(), large).expect("weights");
        says(&fails(&args), &["proj_out.bias", "fp32"]);
    }
}

#[test]
fn places_that_are_no_checkpoint() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let file = work.path().join("file");
    fs::write(&file, "x").expect("a file");
    for (path, part) in
        [(work.path().join("nothing"), "nothing"), (file, "file"), (work.path().to_path_buf(), "config.json")]
    {
        let out = work.path().join("out.onnx");
        says(&fails(&["compile", &arg(&path), "--target", "onnx", "--latent", "3x8x8", "-o", &arg(&out)]), &[part]);
        assert!(!out.exists());
    }
}

/// What a person has who downloaded another model: one error that says what the folder is.
#[test]
fn checkpoints_of_another_family_and_pipelines() {
    let c = Copy::of("tiny");
    fs::write(
        c.dir().join("config.json"),
        r#"{"_class_name": "FluxTransformer2DModel", "num_layers": 19, "joint_attention_dim": 4096}"#,
    )
    .expect("a config");
    let error = c.fails("3x8x8");
    says(
        &error,
        &["config.json: _class_name: found \"FluxTransformer2DModel\", expected \"S2DiTTransformer3DModel\" or"],
    );
    assert!(!error.contains("problems"), "one problem: {error}");
    fs::write(c.dir().join("config.json"), r#"{"architectures": ["BertModel"], "d_model": 4096}"#).expect("a config");
    says(&c.fails("3x8x8"), &["architectures: found [\"BertModel\"]"]);

    let work = tempfile::tempdir().expect("a temporary folder");
    let dir = arg(work.path());
    let index = work.path().join("model_index.json");
    let compile = ["compile", &dir, "--target", "onnx", "--latent", "3x8x8", "-o", "x.onnx"];
    fs::write(
        &index,
        r#"{"_class_name": "WanPipeline", "transformer": ["diffusers", "WanTransformer3DModel"],
            "transformer_2": [null, null], "vae": ["diffusers", "AutoencoderKLWan"]}"#,
    )
    .expect("an index");
    for args in [&compile[..], &["inspect", &dir]] {
        let error = fails(args);
        // Its transformer is not there.
        says(&error, &["/transformer: found No such file", "a checkpoint folder"]);
        assert!(!error.contains("transformer_2") && !error.contains("vae"), "{error}");
    }
    for hostile in ["", "[]", "{", "\u{feff}{}"] {
        fs::write(&index, hostile).expect("an index");
        says(&fails(&compile), &["model_index.json: found bad JSON", "expected a JSON object"]);
    }
    for none in ["{}", "{\"_class_name\": 3, \"transformer\": 3}", "{\"transformer\": [null, null]}"] {
        fs::write(&index, none).expect("an index");
        says(&fails(&compile), &["a pipeline folder", "with no transformer, expected the folder of its transformer"]);
    }
}

#[test]
fn outputs_that_cannot_be_written() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = arg(&golden("tiny").join("checkpoint"));
    let compile = |target: &str, out: &Path| {
        fails(&["compile", &checkpoint, "--target", target, "--latent", "3x8x8", "-o", &arg(out)])
    };
    for (target, ext) in [("onnx", "onnx"), ("coreml", "mlpackage")] {
        says(&compile(target, &work.path().join("no/such").with_extension(ext)), &["no/such", "does not exist"]);
        says(&compile(target, &Path::new("/proc/x").with_extension(ext)), &["/proc/x"]);
        says(&compile(target, &work.path().join("out.txt")), &["out.txt", ext]);
    }
    let taken = work.path().join("home.mlpackage");
    fs::create_dir(&taken).expect("a folder");
    fs::write(taken.join("thesis"), "precious").expect("a file");
    says(&compile("coreml", &taken), &["home.mlpackage", "in the way"]);
    assert_eq!(fs::read(taken.join("thesis")).expect("the file"), b"precious");
}

/// SIGTERM while weights are being written: the old output stays, nothing else does.
#[test]
fn a_terminated_compile_leaves_the_old_output() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = work.path().join("checkpoint");
    ok(&["init", "-q", "--preset", "small", "--set", "ffn_dim=16384", "-o", &arg(&checkpoint)]);
    for (target, name) in [("onnx", "out.onnx"), ("coreml", "out.mlpackage")] {
        let out = work.path().join(name);
        if target == "onnx" {
            fs::write(&out, "old").expect("a file");
        } else {
            fs::create_dir(&out).expect("a folder");
            fs::write(out.join("Manifest.json"), "old").expect("a file");
        }
        let before: Vec<_> = files(&out);
        let mut child = s2ditc()
            .args([
                "compile",
                "-q",
                &arg(&checkpoint),
                "--target",
                target,
                "--precision",
                "fp32",
                "--latent",
                "3x8x8",
                "--force",
                "-o",
                &arg(&out),
            ])
            .spawn()
            .expect("s2ditc starts");
        let partial = |p: &Path| p.file_name().is_some_and(|n| n.to_string_lossy().contains(".partial-"));
        let start = Instant::now();
        let staged = loop {
            let found = fs::read_dir(work.path()).expect("a folder").any(|e| partial(&e.expect("an entry").path()));
            if found || child.try_wait().expect("a status").is_some() || start.elapsed() > Duration::from_secs(60) {
                break found;
            }
            std::thread::sleep(Duration::from_micros(200));
        };
        assert!(staged, "{target}: the compile ended before anything was staged");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
        assert_eq!(child.wait().expect("a status").code(), Some(128 + 15), "{target}");
        assert!(files(&out) == before, "{target}: the old output changed");
        let left: Vec<_> = fs::read_dir(work.path())
            .expect("a folder")
            .map(|e| e.expect("an entry").path())
            .filter(|p| partial(p))
            .collect();
        assert!(left.is_empty(), "{target} left {left:?}");
    }
}

#[test]
fn artifacts_that_are_none() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let reference = arg(&golden("tiny").join("golden.safetensors"));
    let junk = work.path().join("junk.onnx");
    fs::write(&junk, vec![0xAB; 4096]).expect("a file");
    let empty = work.path().join("empty.mlpackage");
    fs::create_dir(&empty).expect("a folder");
    for path in [&junk, &empty, &work.path().join("nothing.onnx")] {
        let name = path.file_name().expect("a name").to_str().expect("UTF-8");
        says(&fails(&["verify", &arg(path), "--golden", &reference]), &[name]);
        says(&fails(&["inspect", &arg(path)]), &[name]);
    }
}

/// A package whose parts a test may damage.
fn package(work: &TempDir) -> PathBuf {
    let out = work.path().join("tiny.mlpackage");
    ok(&[
        "compile",
        "-q",
        &arg(&golden("tiny").join("checkpoint")),
        "--target",
        "coreml",
        "--latent",
        "3x8x8",
        "-o",
        &arg(&out),
    ]);
    out
}

/// Damages a part of a package; `verify` must fail and name what is wrong.
#[track_caller]
fn damaged(file: &str, damage: impl FnOnce(&mut Vec<u8>), parts: &[&str]) {
    let work = tempfile::tempdir().expect("a temporary folder");
    let package = package(&work);
    let path = package.join(file);
    let mut bytes = fs::read(&path).expect("a part of the package");
    damage(&mut bytes);
    fs::write(&path, bytes).expect("a part of the package");
    let reference = arg(&golden("tiny").join("golden.safetensors"));
    says(&fails(&["verify", &arg(&package), "--golden", &reference]), parts);
}

const SPEC: &str = "Data/com.apple.CoreML/model.mlmodel";
const BLOBS: &str = "Data/com.apple.CoreML/weights/weight.bin";

/// Changes the model specification of a package.
fn edit_spec(bytes: &mut Vec<u8>, edit: impl FnOnce(&mut s2dit_backends::coreml::proto::Model)) {
    use prost::Message;
    let mut model = s2dit_backends::coreml::proto::Model::decode(bytes.as_slice()).expect("a specification");
    edit(&mut model);
    *bytes = model.encode_to_vec();
}

#[test]
fn packages_with_a_wrong_blob_offset() {
    use s2dit_backends::coreml::proto::value::Value::BlobFileValue;
    for (wrong, part) in [(65, "multiple of 64"), (1 << 40, "outside the file"), (128, "sentinel")] {
        let move_first = |bytes: &mut Vec<u8>| {
            edit_spec(bytes, |model| {
                let program = model.ml_program.as_mut().expect("a program");
                let ops = program.functions.values_mut().flat_map(|f| f.block_specializations.values_mut());
                let mut values =
                    ops.flat_map(|b| &mut b.operations).filter_map(|o| o.attributes.get_mut("val")?.value.as_mut());
                let blob = values.find_map(|v| if let BlobFileValue(b) = v { Some(b) } else { None }).expect("a blob");
                blob.offset = wrong;
            });
        };
        damaged(SPEC, move_first, &["tiny.mlpackage", "weight.bin", &wrong.to_string(), part]);
    }
}

#[test]
fn packages_with_damaged_parts() {
    damaged(SPEC, |b| b.truncate(b.len() / 2), &["model.mlmodel"]);
    damaged(SPEC, Vec::clear, &["model.mlmodel"]);
    damaged(SPEC, |b| edit_spec(b, |m| m.specification_version = 4), &["specification version 4"]);
    damaged(SPEC, |b| edit_spec(b, |m| m.ml_program = None), &["ML Program"]);
    let rename = |m: &mut s2dit_backends::coreml::proto::Model| {
        m.description.as_mut().expect("a description").input[0].name = "latents".into();
    };
    damaged(SPEC, |b| edit_spec(b, rename), &["latents", "latent"]);
    damaged(BLOBS, |b| b.truncate(100), &["weight.bin"]);
    damaged(BLOBS, |b| b[4] = 1, &["weight.bin", "version 1"]);
    damaged(BLOBS, |b| b[64] ^= 1, &["weight.bin", "offset 64", "sentinel"]);
    damaged(BLOBS, |b| b[64 + 4] = 2, &["weight.bin", "offset 64", "f32"]);
    damaged("Manifest.json", |b| b.truncate(10), &["Manifest.json"]);
    let swap = |from: &'static str, to: &'static str| {
        move |b: &mut Vec<u8>| *b = String::from_utf8(b.clone()).expect("UTF-8").replace(from, to).into_bytes()
    };
    damaged(
        "Manifest.json",
        swap("com.apple.CoreML/model.mlmodel", "../../../../etc/passwd"),
        &["Manifest.json", "inside the package"],
    );
    damaged("Manifest.json", swap("rootModelIdentifier", "root"), &["Manifest.json", "rootModelIdentifier"]);
}

/// Ops that cannot be run here are all named in one error.
#[test]
fn a_package_with_ops_that_are_not_known() {
    let rename = |bytes: &mut Vec<u8>| {
        edit_spec(bytes, |model| {
            let program = model.ml_program.as_mut().expect("a program");
            for b in program.functions.values_mut().flat_map(|f| f.block_specializations.values_mut()) {
                for op in &mut b.operations {
                    match op.r#type.as_str() {
                        "softmax" => op.r#type = "softermax".into(),
                        "layer_norm" => op.r#type = "layer_norma".into(),
                        _ => {}
                    }
                }
            }
        });
    };
    damaged(SPEC, rename, &["softermax", "layer_norma"]);
}

/// Another tool's ONNX file can be inspected; verifying it against our golden says what does not fit.
#[test]
fn an_onnx_file_that_is_not_ours() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let path = work.path().join("relu.onnx");
    fs::write(&path, foreign_onnx()).expect("a file");
    says(&ok(&["inspect", &arg(&path)]), &["ONNX IR 8, opset 17", "input   x", "1 ops"]);
    let reference = arg(&golden("tiny").join("golden.safetensors"));
    says(&fails(&["verify", &arg(&path), "--golden", &reference]), &["golden.safetensors", "`x`"]);
}

/// y = Relu(x), f32[2], opset 17, encoded by hand.
fn foreign_onnx() -> Vec<u8> {
    fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![tag << 3 | 2, bytes.len() as u8];
        out.extend(bytes);
        out
    }
    let value = |name: &str| {
        let shape = field(1, &[1 << 3, 2]);
        let tensor = [vec![1 << 3, 1], field(2, &shape)].concat();
        [field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat()
    };
    let node = [field(1, b"x"), field(2, b"y"), field(4, b"Relu")].concat();
    let graph = [field(1, &node), field(2, b"g"), field(11, &value("x")), field(12, &value("y"))].concat();
    [vec![1 << 3, 8], field(7, &graph), field(8, &[2 << 3, 17])].concat()
}

#[test]
fn goldens_that_do_not_fit() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let out = work.path().join("tiny.onnx");
    ok(&[
        "compile",
        "-q",
        &arg(&golden("tiny").join("checkpoint")),
        "--target",
        "onnx",
        "--latent",
        "3x8x8",
        "-o",
        &arg(&out),
    ]);
    let other = arg(&golden("odd").join("golden.safetensors"));
    says(&fails(&["verify", &arg(&out), "--golden", &other]), &["latent", "[1, 4, 3, 8, 8]"]);
    says(&fails(&["verify", &arg(&out), "--checkpoint", &arg(&golden("odd").join("checkpoint"))]), &["blake3:"]);
    let weights = arg(&golden("tiny").join("checkpoint").join(WEIGHTS));
    says(&fails(&["verify", &arg(&out), "--golden", &weights]), &["latent"]);

    // A block of another shape: the file that has it is named.
    let bytes = fs::read(golden("tiny").join("golden.safetensors")).expect("a golden");
    let whole = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let zeros = [0; 4 * 6];
    let small = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1, 2, 3], &zeros).expect("a tensor");
    let views = whole.iter().map(|(name, view)| (name.to_owned(), if name == "block1" { small.clone() } else { view }));
    let changed = work.path().join("changed.safetensors");
    fs::write(&changed, safetensors::serialize(views, None).expect("a file")).expect("written");
    let message = fails(&["verify", &arg(&out), "--golden", &arg(&changed), "--blocks"]);
    says(
        &message,
        &["changed.safetensors`, tensor `block1`: found [1, 2, 3], expected [1, ", "which `", ".onnx` gives"],
    );
}

#[test]
fn a_result_below_the_bar_fails_without_an_error() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let out = work.path().join("tiny.onnx");
    ok(&[
        "compile",
        "-q",
        &arg(&golden("tiny").join("checkpoint")),
        "--target",
        "onnx",
        "--latent",
        "3x8x8",
        "-o",
        &arg(&out),
    ]);
    let reference = arg(&golden("tiny").join("golden.safetensors"));
    let done = run(&["verify", &arg(&out), "--golden", &reference, "--blocks", "--min-snr", "200"]);
    assert_eq!(done.status.code(), Some(1));
    says(&String::from_utf8_lossy(&done.stdout), &["FAILED", "the first block below the bar is block0"]);
}

#[test]
fn a_plan_is_not_written_over() {
    let c = Copy::of("tiny");
    let plan = arg(&c.work.path().join("plan.toml"));
    fs::write(&plan, "precious").expect("a plan");
    let args = ["--target", "onnx", "--latent", "3x8x8", "--quantize", &plan, "--emit", "ir", "-o", &plan];
    says(&fails(&[&["compile", &arg(&c.dir())], &args[..]].concat()), &["-o", "--quantize", "plan.toml"]);
    assert_eq!(fs::read_to_string(&plan).expect("a plan"), "precious");
}

#[test]
fn a_checkpoint_with_another_configuration_is_another_model() {
    let c = Copy::of("stream_tiny");
    let (dir, at) = (arg(&c.dir()), |name: &str| arg(&c.work.path().join(name)));
    let compile = |out: &str| {
        ok(&["compile", "-q", &dir, "--target", "onnx", "--latent", "3x8x8", "-o", &at(&format!("{out}.onnx"))]);
        ok(&["compile", "-q", &dir, "--target", "onnx", "--mode", "stream", "--latent", "8x8", "-o", &at(out)]);
    };
    compile("one");
    ok(&["stream", "-q", &at("one"), "--prompt-seed", "1", "--state-out", &at("state")]);
    let mut was = serde_json::Value::Null;
    c.edit_config(|config| was = std::mem::replace(&mut config["rope_theta"], 77.0.into()));
    let was = if was.is_null() { "10000".to_owned() } else { was.to_string() };
    for artifact in ["one", "one.onnx"] {
        let error = fails(&["verify", "-q", &at(artifact), "--checkpoint", &dir]);
        says(&error, &["config.json", "field `rope_theta`: found 77.0", &format!("expected {was}")]);
    }
    compile("two");
    let error = fails(&["stream", "-q", &at("two"), "--state-in", &at("state")]);
    says(&error, &["another model", "field `rope_theta`", "expected 77.0"]);

    // Weights of one compile beside the models of another, as a killed process may leave them.
    fs::copy(at("two/weights.data"), at("two/kept")).expect("a copy");
    fs::copy(at("one/weights.data"), at("two/weights.data")).expect("a copy");
    for args in [&["inspect", &at("two/denoise.onnx")][..], &["stream", "-q", &at("two"), "--prompt-seed", "1"]] {
        says(&fails(args), &["weights.data", "expected the weights of blake3:", "not of one compile"]);
    }
    let mut longer = fs::read(at("two/kept")).expect("weights");
    longer.extend(longer.clone());
    fs::write(at("two/weights.data"), &longer).expect("weights");
    says(&fails(&["inspect", &at("two/denoise.onnx")]), &["weights.data", &format!("found {}", longer.len())]);
    fs::rename(at("two/kept"), at("two/weights.data")).expect("weights");
    ok(&["inspect", &at("two/denoise.onnx")]);

    // Artifacts of one kernel in the folder of the other, and an edited contract.
    fs::copy(at("one/denoise.onnx"), at("two/denoise.onnx")).expect("a copy");
    let error = fails(&["stream", "-q", &at("two"), "--prompt-seed", "1"]);
    says(&error, &["two/denoise.onnx", "field `config.rope_theta`", "found 77.0"]);
    let contract = c.work.path().join("one/contract.json");
    let text = fs::read_to_string(&contract).expect("a contract");
    for (from, to, field) in [
        ("\"functions_policy\": \"separate\"", "\"functions_policy\": \"shared\"", "functions_policy"),
        ("\"precision\": \"fp32\"", "\"precision\": \"fp16\"", "precision"),
        ("\"precision\"", "\"by\": \"me\", \"precision\"", "by"),
    ] {
        assert!(text.contains(from), "{from}");
        fs::write(&contract, text.replace(from, to)).expect("a contract");
        let error = fails(&["stream", "-q", &at("one"), "--prompt-seed", "1"]);
        says(&error, &["onnx", "contract.json", &format!("field `{field}`")]);
    }
}

/// A strided grid is only made where a block is strided: a side may be below the stride that nothing uses.
#[test]
fn a_grid_smaller_than_a_stride_that_no_block_uses() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let dir = arg(&work.path().join("checkpoint"));
    ok(&["init", "-q", "--preset", "tiny", "--set", r#"layout=["lcha"]"#, "-o", &dir]);
    for (target, name) in [("onnx", "x.onnx"), ("coreml", "x.mlpackage")] {
        let out = arg(&work.path().join(name));
        ok(&["compile", "-q", &dir, "--target", target, "--latent", "1x2x2", "-o", &out]);
        ok(&["verify", "-q", &out, "--checkpoint", &dir]);
    }
}

#[test]
fn timesteps_too_near_name_the_fields_that_they_come_from() {
    let c = Copy::of("tiny");
    c.edit_config(|config| config["flow_shift"] = 1e6.into());
    for mode in [&["--latent", "3x8x8"][..], &["--mode", "stream", "--latent", "8x8"]] {
        let out = arg(&c.work.path().join(if mode.len() > 2 { "kernel" } else { "out.mlpackage" }));
        let base = ["compile", &arg(&c.dir()), "--target", "coreml", "--timesteps", "from-config", "-o", &out];
        let error = fails(&[&base[..], mode].concat());
        says(
            &error,
            &["checkpoint/config.json`", "`sample_steps` and `flow_shift`", "--timesteps any", "tell them apart"],
        );
    }
}

/// Weights a millionth of their size are zeros in fp16.
#[test]
fn weights_that_vanish_in_fp16_are_warned_about() {
    let c = Copy::of("tiny");
    let bytes = fs::read(c.weights()).expect("weights");
    let n = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + n]).expect("a header");
    let name = "blocks.0.attn2.to_v.weight";
    let offsets = [0, 1].map(|i| 8 + n + header[name]["data_offsets"][i].as_u64().expect("an offset") as usize);
    let mut small = bytes;
    for element in small[offsets[0]..offsets[1]].as_chunks_mut::<4>().0 {
        *element = (f32::from_le_bytes(*element) * 1e-7).to_le_bytes();
    }
    fs::write(c.weights(), small).expect("weights");
    let compile = |precision: &str| {
        let out = arg(&c.work.path().join("out.mlpackage"));
        let base = ["compile", "-q", &arg(&c.dir()), "--target", "coreml", "--latent", "3x8x8", "-o", &out];
        let done = run(&[&base[..], &["--precision", precision]].concat());
        assert!(done.status.success());
        String::from_utf8_lossy(&done.stderr).into_owned()
    };
    let warned = compile("fp16");
    says(&warned, &[&format!("warning: tensor `{name}`: "), "% of its elements are too small for fp16"]);
    assert_eq!(warned.matches("warning").count(), 1, "{warned}");
    assert_eq!(compile("fp32"), "");
}
