//! `s2ditc verify` blesses no wrong model: what goldens, checkpoints and quantized artifacts prove, alone and together.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{arg, fails, golden, ok, run};
use prost::Message;
use s2dit_runtime::{Artifact, HostTensor, RunOptions};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

/// A checkpoint of two blocks whose weights are large enough to be compressed.
fn checkpoint(work: &Path, name: &str) -> PathBuf {
    let dir = work.join(name);
    let layout = r#"layout=["lcha","ssa"]"#;
    ok(&["init", "-q", "--preset", "small", "--seed", "7", "--dtype", "bf16", "--set", layout, "-o", &arg(&dir)]);
    dir
}

/// Transposes a square weight of a checkpoint, bf16.
fn transpose(checkpoint: &Path, name: &str, side: usize) {
    let path = checkpoint.join("diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&path).expect("weights");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let index: Value = serde_json::from_slice(&bytes[8..8 + header]).expect("a header");
    let from = 8 + header + index[name]["data_offsets"][0].as_u64().expect("an offset") as usize;
    let before = bytes[from..from + 2 * side * side].to_vec();
    for (row, column) in (0..side).flat_map(|row| (0..side).map(move |column| (row, column))) {
        let (to, at) = (from + 2 * (row * side + column), 2 * (column * side + row));
        bytes[to..to + 2].copy_from_slice(&before[at..at + 2]);
    }
    fs::write(&path, bytes).expect("weights");
}

fn compile(checkpoint: &Path, out: &Path, flags: &[&str]) {
    let (checkpoint, out) = (arg(checkpoint), arg(out));
    let base = ["compile", "-q", &checkpoint, "--target", "onnx", "--latent", "3x4x4", "-o", &out];
    ok(&[&base[..], flags].concat());
}

/// Writes the golden that a model makes: numbers of unit size that depend on a position only, and its velocity.
fn write_golden(model: &Path, out: &Path) {
    let artifact = Artifact::open(model).expect("an artifact");
    let noise = |i: usize| ((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / (1 << 23) as f32 - 1.0;
    let inputs: BTreeMap<String, HostTensor> = artifact
        .inputs()
        .into_iter()
        .map(|port| {
            let shape: Vec<usize> = port.shape.iter().map(|d| *d as usize).collect();
            let n = shape.iter().product::<usize>();
            let data = if port.name == "timestep" { vec![625.0] } else { (0..n).map(noise).collect() };
            (port.name, HostTensor::new(shape, data).expect("a tensor"))
        })
        .collect();
    let options = RunOptions { quiet: true, ..RunOptions::default() };
    let results = artifact.run(&inputs, &options).expect("it runs");
    let tensors = inputs.iter().chain(results.iter().filter(|(name, _)| *name == "velocity"));
    write_tensors(out, tensors.map(|(name, t)| (name.clone(), t.shape.clone(), t.data.clone())).collect());
}

fn write_tensors(out: &Path, tensors: Vec<(String, Vec<usize>, Vec<f32>)>) {
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(name, shape, data)| (name, shape, data.iter().flat_map(|x| x.to_le_bytes()).collect()))
        .collect();
    let views = bytes
        .iter()
        .map(|(name, shape, data)| (name, TensorView::new(Dtype::F32, shape.clone(), data).expect("a tensor")));
    fs::write(out, safetensors::serialize(views, None).expect("safetensors")).expect("a golden");
}

/// Every tensor of a safetensors file in f32.
fn read_tensors(path: &Path) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let bytes = fs::read(path).expect("a golden");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("a golden");
    let data = |data: &[u8]| data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    tensors.tensors().into_iter().map(|(name, t)| (name, t.shape().to_vec(), data(t.data()))).collect()
}

/// Runs `verify --json`, and returns its exit code and report.
fn verify(args: &[&str]) -> (Option<i32>, Value) {
    let out = run(&[&["verify", "-q", "--json"], args].concat());
    let report = serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|e| panic!("{args:?}: {e}: {}", String::from_utf8_lossy(&out.stderr)));
    (out.status.code(), report)
}

#[test]
fn a_golden_of_another_model_is_not_blessed() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| work.path().join(name);
    let right = checkpoint(work.path(), "right");
    let wrong = checkpoint(work.path(), "wrong");
    transpose(&wrong, "blocks.1.attn1.to_q.weight", 512);
    for model in ["right", "wrong"] {
        compile(&at(model), &at("model.onnx"), &[]);
        write_golden(&at("model.onnx"), &at(&format!("{model}.safetensors")));
    }
    let (checkpoint, plan, artifact) = (arg(&right), arg(&at("plan.toml")), arg(&at("small.onnx")));
    ok(&["quantize", "-q", &checkpoint, "--latent", "3x4x4", "--scheme", "palette2-group16", "-o", &plan]);
    compile(&right, &at("small.onnx"), &["--quantize", &plan]);

    // The bar of the plan is so low that the wrong model reaches it.
    let (right_golden, wrong_golden) = (arg(&at("right.safetensors")), arg(&at("wrong.safetensors")));
    let (code, report) = verify(&[&artifact, "--golden", &wrong_golden]);
    assert_eq!(
        (code, &report["verdict"], &report["passed"]),
        (Some(1), &"no_verdict".into(), &false.into()),
        "{report}"
    );
    let (snr, bar) = (&report["rows"][0]["snr_db"], &report["min_snr_db"]);
    assert!(snr.as_f64() >= bar.as_f64() && bar.as_f64().is_some(), "the wrong model is near enough: {report}");
    let proves = report["proves"].as_str().expect("a sentence");
    assert!(proves.contains("cannot tell a wrong model") && proves.contains("--checkpoint DIR"), "{proves}");
    let text = run(&["verify", "-q", &artifact, "--golden", &wrong_golden]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("NO VERDICT: the bar is "));

    // The checkpoint beside it tells the models apart.
    let both =
        |golden: &str| verify(&[&artifact, "--golden", golden, "--checkpoint", &checkpoint, "--quantize", &plan]);
    let (code, report) = both(&wrong_golden);
    assert_eq!((code, &report["verdict"]), (Some(1), &"failed".into()), "{report}");
    assert_eq!((&report["checks"][0]["passed"], &report["checks"][1]["passed"]), (&false.into(), &true.into()));
    let (code, report) = both(&right_golden);
    assert_eq!((code, &report["verdict"]), (Some(0), &"passed".into()), "{report}");
    assert!(report["proves"].as_str().expect("a sentence").contains("is the golden's model"), "{report}");
    let unnamed = fails(&["verify", &artifact, "--golden", &right_golden, "--checkpoint", &checkpoint]);
    assert!(unnamed.contains("name the plan with --quantize PLAN.toml"), "{unnamed}");

    // A bar that the user names is the user's.
    let (code, report) = verify(&[&artifact, "--golden", &wrong_golden, "--min-snr", "1"]);
    assert_eq!(code, Some(0));
    assert!(report["proves"].as_str().expect("a sentence").contains("does not tell a wrong model"), "{report}");

    // The whole model needs none of that.
    let (code, _) = verify(&[&arg(&at("model.onnx")), "--golden", &right_golden]);
    assert_eq!(code, Some(1), "model.onnx is the wrong model");
    let (code, report) = verify(&[&arg(&at("model.onnx")), "--golden", &wrong_golden]);
    assert_eq!((code, &report["verdict"]), (Some(0), &"passed".into()), "{report}");
}

#[test]
fn an_artifact_of_one_scheme_gets_a_number_and_a_proof() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| work.path().join(name);
    let dir = checkpoint(work.path(), "checkpoint");
    compile(&dir, &at("int8.onnx"), &["--quantize", "int8"]);
    compile(&dir, &at("whole.onnx"), &[]);
    write_golden(&at("whole.onnx"), &at("golden.safetensors"));
    let (artifact, dir, golden) = (arg(&at("int8.onnx")), arg(&dir), arg(&at("golden.safetensors")));

    let (code, report) = verify(&[&artifact, "--golden", &golden]);
    assert_eq!((code, &report["verdict"], &report["min_snr_db"]), (Some(1), &"no_verdict".into(), &Value::Null));
    assert!(report["rows"][0]["snr_db"].as_f64().expect("a number") > 25.0, "{report}");

    for reference in [&["--checkpoint", &dir][..], &["--golden", &golden, "--checkpoint", &dir]] {
        let (code, report) = verify(&[&[&artifact[..]], reference].concat());
        assert_eq!((code, &report["verdict"]), (Some(0), &"passed".into()), "{report}");
        let checks = report["checks"].as_array().expect("checks");
        let stored = checks.last().expect("a check");
        assert!(stored["what"].as_str().expect("text").ends_with("stored in int8 as well"), "{report}");
        let (alike, lost) = (&stored["rows"][0]["snr_db"], &report["rows"][0]["snr_db"]);
        assert!(alike.as_f64() > Some(100.0) && lost.as_f64() < Some(60.0), "{report}");
    }
    let text = ok(&["verify", &artifact, "--checkpoint", &dir]);
    assert!(
        text.contains("passed: nothing says a bar for the comparison above") && text.contains("a pass shows that"),
        "{text}"
    );
    assert!(!text.contains('\u{1b}'), "no colour where nobody looks: {text}");
}

#[test]
fn an_export_of_another_tool_is_proved_against_the_checkpoint() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let dir = golden("tiny").join("checkpoint");
    let out = arg(&work.path().join("export.onnx"));
    ok(&["compile", "-q", &arg(&dir), "--target", "onnx", "--opset", "21", "--latent", "3x8x8", "-o", &out]);
    // Another tool knows nothing of our metadata.
    let mut model = s2dit_backends::onnx::proto::ModelProto::decode(&*fs::read(&out).expect("a model")).expect("ONNX");
    model.metadata_props.clear();
    fs::write(&out, model.encode_to_vec()).expect("a model");
    let (code, report) = verify(&[&out, "--checkpoint", &arg(&dir)]);
    assert_eq!((code, &report["verdict"]), (Some(0), &"passed".into()), "{report}");
    assert!(report["proves"].as_str().expect("a sentence").contains("which another tool made"), "{report}");
    let (code, report) = verify(&[&out, "--checkpoint", &arg(&dir), "--min-snr", "300"]);
    assert_eq!((code, &report["verdict"]), (Some(1), &"failed".into()));
    let failed = run(&["verify", "-q", &out, "--checkpoint", &arg(&dir), "--min-snr", "300"]);
    let text = String::from_utf8_lossy(&failed.stdout).into_owned();
    assert!(text.contains("FAILED") && text.contains("run it again with --blocks"), "{text}");
}

/// What is wrong with a golden is said of the golden, by tensor.
#[test]
fn goldens_that_do_not_fit_are_named() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| arg(&work.path().join(name));
    let out = at("tiny.onnx");
    ok(&[
        "compile",
        "-q",
        &arg(&golden("tiny").join("checkpoint")),
        "--target",
        "onnx",
        "--latent",
        "3x8x8",
        "-o",
        &out,
    ]);
    let whole = read_tensors(&golden("tiny").join("golden.safetensors"));
    for (tensor, at_element) in [("latent", 7), ("velocity", 3)] {
        let mut broken = whole.clone();
        let (.., data) = broken.iter_mut().find(|(name, ..)| name == tensor).expect("a tensor");
        data[at_element] = f32::NAN;
        write_tensors(Path::new(&at("nan.safetensors")), broken);
        let error = fails(&["verify", &out, "--golden", &at("nan.safetensors")]);
        let expected = format!("nan.safetensors`, tensor `{tensor}`: element {at_element}: found NaN");
        assert!(error.contains(&expected), "{error}");
    }
    let mut other = whole;
    let (_, shape, _) = other.iter_mut().find(|(name, ..)| name == "text").expect("text");
    shape.swap(1, 2);
    write_tensors(Path::new(&at("swapped.safetensors")), other);
    for command in ["verify", "ranges"] {
        let artifact = if command == "ranges" { at("tiny.mlpackage") } else { out.clone() };
        if command == "ranges" {
            let dir = arg(&golden("tiny").join("checkpoint"));
            ok(&["compile", "-q", &dir, "--target", "coreml", "--latent", "3x8x8", "-o", &artifact]);
        }
        let error = fails(&[command, &artifact, "--golden", &at("swapped.safetensors")]);
        assert!(error.contains("swapped.safetensors`, tensor `text`: found [1, "), "{command}: {error}");
    }
}

#[test]
fn a_quantized_kernel_is_proved_like_a_clip() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| work.path().join(name);
    let right = checkpoint(work.path(), "right");
    let wrong = checkpoint(work.path(), "wrong");
    transpose(&wrong, "blocks.1.attn1.to_q.weight", 512);
    let kernel = |dir: &Path, name: &str, flags: &[&str]| {
        let (dir, out) = (arg(dir), arg(&at(name)));
        let base = ["compile", "-q", &dir, "--mode", "stream", "--target", "onnx", "--latent", "4x4", "-o", &out];
        ok(&[&base[..], flags].concat());
        out
    };
    let plan = arg(&at("plan.toml"));
    ok(&["quantize", "-q", &arg(&right), "--latent", "3x4x4", "--scheme", "palette4-group16", "-o", &plan]);
    let small = kernel(&right, "small.kernel", &["--quantize", &plan]);
    for model in ["right", "wrong"] {
        let whole = kernel(&at(model), &format!("{model}.kernel"), &[]);
        stream_golden(Path::new(&whole), &at(&format!("{model}.safetensors")));
    }
    let dir = arg(&right);
    for (model, alone, together) in [("right", "no_verdict", "passed"), ("wrong", "no_verdict", "failed")] {
        let golden = arg(&at(&format!("{model}.safetensors")));
        let (code, report) = verify(&[&small, "--golden", &golden]);
        // A golden that is too far away fails at once.
        let below = report["rows"][0]["snr_db"].as_f64() < report["min_snr_db"].as_f64();
        let alone = if below { "failed" } else { alone };
        assert_eq!((code, &report["verdict"]), (Some(1), &alone.into()), "{model}: {report}");
        let (code, report) = verify(&[&small, "--golden", &golden, "--checkpoint", &dir, "--quantize", &plan]);
        let passed = together == "passed";
        assert_eq!((code, &report["verdict"]), (Some(i32::from(!passed)), &together.into()), "{model}: {report}");
        assert_eq!((&report["checks"][0]["passed"], &report["checks"][1]["passed"]), (&passed.into(), &true.into()));
    }
    let nan = at("nan.safetensors");
    let mut tensors = read_tensors(&at("right.safetensors"));
    let (.., data) = tensors.iter_mut().find(|(name, ..)| name == "stream.latents").expect("latents");
    data[5] = f32::INFINITY;
    write_tensors(&nan, tensors);
    let error = fails(&["verify", &small, "--golden", &arg(&nan)]);
    assert!(error.contains("nan.safetensors`, tensor `stream.latents`: element 5: found inf"), "{error}");
}

/// The golden that a kernel makes of numbers that depend on a position only: one chunk.
fn stream_golden(kernel: &Path, out: &Path) {
    let mut session = s2dit_runtime::StreamSession::open(
        kernel,
        &s2dit_runtime::StreamOptions {
            fp16: false,
            threads: 2,
            quiet: true,
            ranges: false,
            ..s2dit_runtime::StreamOptions::default()
        },
    )
    .expect("a kernel");
    let contract = session.contract().clone();
    let value = |i: usize| ((i as u64 + 9).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / (1 << 23) as f32 - 1.0;
    let tensor = |shape: &[usize], from: usize| {
        let n = shape.iter().product::<usize>();
        HostTensor::new(shape.to_vec(), (from..from + n).map(value).collect()).expect("a tensor")
    };
    let (chunk, text) = (contract.chunk.shape(), tensor(&contract.text.shape(), 0));
    session.set_prompt(text.clone()).expect("a prompt");
    let elements: usize = chunk.iter().product();
    let noise: Vec<HostTensor> = (0..contract.sampler.steps()).map(|step| tensor(&chunk, step * elements)).collect();
    let made = session.next_chunk(&noise).expect("a chunk");
    let joined: Vec<f32> = noise.iter().flat_map(|n| n.data.iter().copied()).collect();
    let shape = |lead: &[usize]| [lead, &chunk[..]].concat();
    write_tensors(
        out,
        vec![
            ("stream.noise".into(), shape(&[1, noise.len()]), joined),
            ("stream.latents".into(), shape(&[1]), made.data),
            ("text".into(), text.shape, text.data),
        ],
    );
}

/// A block that differs is named; the results decide.
#[test]
fn blocks_locate_and_results_decide() {
    let work = tempfile::tempdir().expect("a folder");
    let at = |name: &str| arg(&work.path().join(name));
    let (model, package) = (arg(&golden("tiny").join("checkpoint")), at("x.onnx"));
    ok(&["compile", "-q", &model, "--latent", "3x8x8", "-o", &package]);
    let bytes = fs::read(golden("tiny").join("golden.safetensors")).expect("a golden");
    let read = safetensors::SafeTensors::deserialize(&bytes).expect("a golden");
    let changed = |name: &str, block: &str, to: f32| {
        let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = (read.tensors().into_iter())
            .map(|(name, view)| {
                let mut data = view.data().to_vec();
                if name == block {
                    data[..4].copy_from_slice(&to.to_le_bytes());
                }
                (name, view.shape().to_vec(), data)
            })
            .collect();
        let views = tensors
            .iter()
            .map(|(name, shape, data)| (name, TensorView::new(Dtype::F32, shape.clone(), data).expect("a view")));
        fs::write(at(name), safetensors::serialize(views, None).expect("bytes")).expect("a file");
        at(name)
    };
    let (code, report) = verify(&[&package, "--golden", &changed("b.safetensors", "block1", 100.0), "--blocks"]);
    assert_eq!((code, &report["passed"], &report["first_block_below"]), (Some(0), &true.into(), &"block1".into()));
    let said = ok(&["verify", "-q", &package, "--golden", &at("b.safetensors"), "--blocks"]);
    assert!(said.contains("the first block below the bar is block1, and the results are not"), "{said}");
    let (code, report) = verify(&[&package, "--golden", &changed("v.safetensors", "velocity", 100.0), "--blocks"]);
    assert_eq!((code, &report["passed"], &report["first_block_below"]), (Some(1), &false.into(), &Value::Null));
}
