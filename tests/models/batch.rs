//! `compile --batch 2`: a step that takes a prompt and its negative at once computes of each what a step of one computes, in both targets and both layouts.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::common::clip::{COREML, ONNX, compile, snr, verify};
use crate::common::{arg, golden, ok, s2ditc, with_fields};
use s2dit_runtime::{Artifact, HostTensor, RunOptions};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

/// A golden of each family, with every input that a family has, its latent and the fields that diffusers keeps elsewhere.
const GOLDENS: [(&str, &str, &str); 8] = [
    ("tiny", "3x8x8", "{}"),
    ("padded", "2x10x14", "{}"),
    ("wan_tiny", "3x8x8", r#"{"text_len": 16}"#),
    ("wan_i2v", "3x8x8", "{}"),
    ("wan_ti2v", "3x8x12", r#"{"text_len": 16, "expand_timesteps": true}"#),
    ("ltx_tiny", "3x4x6", r#"{"text_len": 16}"#),
    ("sana_tiny", "3x6x10", r#"{"text_len": 16}"#),
    ("open_sora_tiny", "2x6x10", r#"{"text_len": 9}"#),
];

type Tensors = BTreeMap<String, HostTensor>;

fn read(path: &Path) -> Tensors {
    let bytes = fs::read(path).expect("a file");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let data = |data: &[u8]| data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let tensor = |t: &TensorView<'_>| HostTensor::new(t.shape().to_vec(), data(t.data())).expect("a tensor");
    file.tensors().iter().map(|(name, t)| (name.clone(), tensor(t))).collect()
}

fn write(path: &Path, tensors: &Tensors) {
    let bytes: BTreeMap<&str, Vec<u8>> = tensors
        .iter()
        .map(|(name, t)| (name.as_str(), t.data.iter().flat_map(|x| x.to_le_bytes()).collect()))
        .collect();
    let view = |name: &str| TensorView::new(Dtype::F32, tensors[name].shape.clone(), &bytes[name]).expect("a tensor");
    let views = bytes.keys().map(|name| ((*name).to_owned(), view(name)));
    fs::write(path, safetensors::serialize(views, None).expect("safetensors")).expect("a file");
}

/// The golden of two clips: the first is PyTorch's; the second has other inputs, and what the step of one, which the golden judges, makes of them.
fn golden_of_two(name: &str, of_one: &Path, to: &Path) {
    let first = read(&golden(name).join("golden.safetensors"));
    let artifact = Artifact::open(of_one).expect("an artifact");
    let ports: Vec<String> = artifact.inputs().into_iter().map(|port| port.name).collect();
    let mut inputs: Tensors =
        first.iter().filter(|(name, _)| ports.contains(name)).map(|(n, t)| (n.clone(), t.clone())).collect();
    for (_, tensor) in inputs.iter_mut().filter(|(name, _)| !["timestep", "guidance"].contains(&name.as_str())) {
        tensor.data.reverse();
    }
    let probes = first.keys().filter(|name| name.starts_with("block")).cloned().collect();
    let options = RunOptions { quiet: true, probes, ..RunOptions::default() };
    let mut second = artifact.run(&inputs, &options).expect("it runs");
    second.extend(inputs);
    let both = |name: &str, one: &HostTensor| match name {
        "timestep" | "guidance" => one.clone(),
        _ => {
            let shape = [&[2], &one.shape[1..]].concat();
            HostTensor::new(shape, [&one.data[..], &second[name].data].concat()).expect("a tensor")
        }
    };
    write(to, &first.iter().map(|(name, one)| (name.clone(), both(name, one))).collect());
}

#[test]
fn each_clip_of_a_batch_is_what_it_is_alone() {
    for (name, latent, fields) in GOLDENS {
        let work = tempfile::tempdir().expect("a temporary folder");
        let at = |file: &str| work.path().join(file);
        let checkpoint = arg(&with_fields(&golden(name).join("checkpoint"), work.path(), fields));
        compile(&checkpoint, latent, &at("one.onnx"), &ONNX);
        golden_of_two(name, &at("one.onnx"), &at("two.safetensors"));
        let two = arg(&at("two.safetensors"));
        let onnx = compile(&checkpoint, latent, &at("two.onnx"), &["--target", "onnx", "--batch", "2"]);
        let bar = ["--min-snr", "100"];
        verify(&onnx, &[&["--golden", &two, "--blocks"], &bar[..]].concat());
        verify(&onnx, &["--checkpoint", &checkpoint, "--blocks"]);
        let opset = ["--target", "onnx", "--batch", "2", "--opset", "21"];
        let older = compile(&checkpoint, latent, &at("older.onnx"), &opset);
        verify(&older, &[&["--golden", &two], &bar[..]].concat());
        let layouts: [(&str, &[&str]); 4] = [
            ("ane", &[]),
            ("heads", &["--attention", "per-head"]),
            ("any", &["--compute", "any"]),
            ("parts", &["--partition", "2"]),
        ];
        for (layout, flags) in layouts {
            let batch = [&COREML[..], &["--batch", "2"], flags].concat();
            let package = if layout == "parts" { at(layout) } else { at(&format!("{layout}.mlpackage")) };
            let exact = compile(&checkpoint, latent, &package, &[&batch[..], &["--precision", "fp32"]].concat());
            verify(&exact, &[&["--golden", &two], &bar[..]].concat());
            if layout != "parts" {
                fs::remove_dir_all(&package).expect("a package");
                let half = compile(&checkpoint, latent, &package, &batch);
                let report = verify(&half, &["--golden", &two, "--fp16", "--blocks", "--min-snr", "45"]);
                println!("{name} {layout}: {:.1} dB", snr(&report));
            }
        }
    }
}

/// Guidance with one call for both prompts makes the clip that two calls make.
#[test]
fn guidance_in_one_call() {
    for (name, latent, fields) in
        GOLDENS.into_iter().filter(|(name, ..)| ["wan_tiny", "ltx_tiny", "open_sora_tiny"].contains(name))
    {
        let work = tempfile::tempdir().expect("a temporary folder");
        let at = |file: &str| work.path().join(file);
        let checkpoint = arg(&with_fields(&golden(name).join("checkpoint"), work.path(), fields));
        let clip = read(&golden(name).join("golden.safetensors"));
        let prompt = |tensors: &Tensors| -> Tensors {
            let of_prompt = ["text", "text_mask", "pooled"];
            tensors
                .iter()
                .filter(|(name, _)| of_prompt.contains(&name.as_str()))
                .map(|(n, t)| (n.clone(), t.clone()))
                .collect()
        };
        let positive = prompt(&clip);
        let mut negative = positive.clone();
        negative.values_mut().for_each(|tensor| tensor.data.reverse());
        write(&at("positive.safetensors"), &positive);
        write(&at("negative.safetensors"), &negative);
        let mut clips = Vec::new();
        for batch in ["1", "2"] {
            let out = at(&format!("{batch}.onnx"));
            let artifact = compile(&checkpoint, latent, &out, &["--target", "onnx", "--batch", batch]);
            let made = arg(&at(&format!("{batch}.safetensors")));
            let [positive, negative] = ["positive", "negative"].map(|name| arg(&at(&format!("{name}.safetensors"))));
            let mut flags = vec!["stream", "-q", &artifact, "--prompt", &positive, "--steps", "3", "-o", &made];
            let condition = arg(&at("condition.safetensors"));
            if name == "open_sora_tiny" {
                let shape = [1, clip["latent"].shape[1] - 4, 2, 6, 10];
                let zeros = HostTensor::new(shape.to_vec(), vec![0.0; shape.iter().product()]).expect("a tensor");
                write(&at("condition.safetensors"), &[("condition".to_owned(), zeros)].into());
                flags.extend(["--condition", &condition]);
            }
            if batch == "2" {
                let refused = s2ditc().args(&flags).output().expect("s2ditc starts");
                let said = String::from_utf8(refused.stderr).expect("UTF-8");
                assert!(said.contains("compiled with --batch 2") && said.contains("--negative"), "{said}");
            }
            flags.extend(["--negative", &negative, "--guidance", "5"]);
            ok(&flags);
            clips.push(read(Path::new(&made))["latent"].clone());
        }
        let [one, two] = &clips[..] else { unreachable!("two clips") };
        assert_eq!(one.shape, two.shape);
        let off = one.data.iter().zip(&two.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let most = one.data.iter().map(|x| x.abs()).fold(0.0, f32::max);
        assert!(off <= 1e-4 * most && most.is_finite(), "{name}: {off} of {most}");
    }
}

/// Weights are stored as for a step of one clip: a plan serves both.
#[test]
fn a_plan_serves_any_batch() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |file: &str| arg(&work.path().join(file));
    let checkpoint = at("checkpoint");
    ok(&["init", "-q", "--preset", "small", "--seed", "1", "-o", &checkpoint]);
    let plan = at("plan.toml");
    ok(&["quantize", "-q", &checkpoint, "--scheme", "palette4-group16", "--latent", "1x4x4", "-o", &plan]);
    let base = ["compile", "-q", &checkpoint, "--target", "coreml", "--latent", "1x8x8", "--json"];
    let made = |batch: &str| -> Value {
        let out = at(&format!("{batch}.mlpackage"));
        let flags = ["--batch", batch, "--quantize", &plan, "-o", &out];
        serde_json::from_str(&ok(&[&base[..], &flags].concat())).expect("JSON")
    };
    let (one, two) = (made("1"), made("2"));
    assert_eq!(one["quantized"], two["quantized"]);
    verify(&at("2.mlpackage"), &["--checkpoint", &checkpoint, "--quantize", &plan]);
}

#[test]
fn a_batch_is_for_clips() {
    let checkpoint = arg(&golden("stream_tiny").join("checkpoint"));
    let base = ["compile", &checkpoint, "--target", "onnx", "--latent", "8x8", "-o", "x"];
    let refused = s2ditc().args(base).args(["--mode", "stream", "--batch", "2"]).output().expect("s2ditc starts");
    let said = String::from_utf8(refused.stderr).expect("UTF-8");
    assert!(refused.status.code() == Some(2) && said.contains("--batch is for clips"), "{said}");
}
