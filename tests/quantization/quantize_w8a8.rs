//! int8 weights with int8 activations: `quantize --scheme w8a8`, and what is compiled from the plan.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{arg, fails, ok, python, repo};
use s2dit_runtime::{Artifact, HostTensor, RunOptions};

fn checkpoint(work: &Path) -> PathBuf {
    let dir = work.join("checkpoint");
    let layout = r#"layout=["lcha","ssa"]"#;
    ok(&["init", "-q", "--preset", "small", "--seed", "7", "--dtype", "bf16", "--set", layout, "-o", &arg(&dir)]);
    dir
}

fn plan(checkpoint: &Path, out: &Path) -> serde_json::Value {
    let (checkpoint, out) = (arg(checkpoint), arg(out));
    let args = ["quantize", "-q", "--json", &checkpoint, "--latent", "3x4x4", "--scheme", "w8a8", "-o", &out];
    serde_json::from_str(&ok(&args)).expect("JSON")
}

fn compile(checkpoint: &Path, target: &str, precision: &str, how: &Path, out: &Path) {
    let (checkpoint, how, out) = (arg(checkpoint), arg(how), arg(out));
    let base = ["compile", "-q", &checkpoint, "--target", target, "--latent", "3x4x4", "--precision", precision];
    ok(&[&base[..], &["--quantize", &how, "-o", &out]].concat());
}

fn judge(script: &str, path: &Path) {
    let script = repo().join("tests/conformance").join(script);
    let output = Command::new(python::interpreter()).arg(&script).arg(path).output().expect("python starts");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{text}", script.display());
}

/// The velocity of an artifact on inputs that depend on their names only.
fn velocity(path: &Path) -> Vec<f32> {
    let artifact = Artifact::open(path).expect("an artifact");
    let inputs: BTreeMap<String, HostTensor> = artifact
        .inputs()
        .into_iter()
        .map(|port| {
            let shape: Vec<usize> = port.shape.iter().map(|d| usize::try_from(*d).expect("a static extent")).collect();
            let n: usize = shape.iter().product();
            let data = match port.name.as_str() {
                "timestep" => vec![612.5; n],
                name => (0..n as u32)
                    .map(|i| {
                        let x = i.wrapping_add(name.len() as u32 * 7919).wrapping_mul(0x9e37_79b1);
                        // Roughly normal: the sum of three uniform numbers.
                        let part = |shift: u32| ((x >> shift) & 1023) as f32 / 512.0 - 1.0;
                        part(0) + part(10) + part(20)
                    })
                    .collect(),
            };
            (port.name, HostTensor { shape, data })
        })
        .collect();
    let outputs = artifact.run(&inputs, &RunOptions::default()).expect("a run");
    outputs["velocity"].data.clone()
}

/// The plan with no other scale than that of one weight.
fn with_scale_of(plan: &str, name: &str) -> String {
    let entries = plan.split("[[weight]]").map(|entry| {
        let kept = |line: &&str| !line.starts_with("input_scale") || entry.contains(name);
        entry.lines().filter(kept).collect::<Vec<_>>().join("\n")
    });
    entries.collect::<Vec<_>>().join("\n[[weight]]")
}

fn relative(x: &[f32], r: &[f32]) -> f64 {
    let sum = |f: &dyn Fn(f64, f64) -> f64| x.iter().zip(r).map(|(x, r)| f(f64::from(*x), f64::from(*r))).sum::<f64>();
    (sum(&|x, r| (x - r) * (x - r)) / sum(&|_, r| r * r)).sqrt()
}

#[test]
fn a_package_computes_what_the_onnx_file_does() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = checkpoint(work.path());
    let path = work.path().join("plan.toml");
    let made = plan(&checkpoint, &path);
    let entries = made["plan"]["weight"].as_array().expect("weights");
    let scaled = entries.iter().filter(|w| w["input_scale"].as_f64().is_some_and(|s| s > 0.0)).count();
    assert!(scaled * 10 > entries.len() * 8, "{scaled} of {}", entries.len());
    let of_time = entries.iter().filter(|w| w["name"].as_str().is_some_and(|n| n.contains(".time_")));
    assert!(of_time.clone().count() > 0 && of_time.clone().all(|w| w["input_scale"].is_null()));
    let snr = made["plan"]["snr_db"].as_f64().expect("measured");
    assert!(snr > 25.0, "{snr} dB");

    // A difference of fp32 rounding takes some activations to the next step, and after a few products the two are as far apart as
    // the steps are coarse: products are compared one by one.
    let text = fs::read_to_string(&path).expect("the plan");
    let (package, onnx) = (work.path().join("x.mlpackage"), work.path().join("x.onnx"));
    let only = work.path().join("only.toml");
    for name in ["patch_embedding", "blocks.0.attn1.to_k", "blocks.0.attn1.local_mix", "blocks.1.ffn.net.2", "proj_out"]
    {
        fs::write(&only, with_scale_of(&text, &format!("name = \"{name}.weight\""))).expect("a plan");
        compile(&checkpoint, "coreml", "fp32", &only, &package);
        compile(&checkpoint, "onnx", "fp32", &only, &onnx);
        let error = relative(&velocity(&package), &velocity(&onnx));
        assert!(error < 1e-4, "{name}: the two differ by {error}");
    }

    compile(&checkpoint, "coreml", "fp32", &path, &package);
    compile(&checkpoint, "onnx", "fp32", &path, &onnx);
    let apart = -20.0 * relative(&velocity(&package), &velocity(&onnx)).log10();
    assert!(apart > snr - 3.0, "the two are {apart} dB apart, the plan has {snr} dB");
    let whole = work.path().join("whole.onnx");
    compile(&checkpoint, "onnx", "fp32", Path::new("int8"), &whole);
    let error = relative(&velocity(&whole), &velocity(&onnx));
    assert!(error > 1e-3, "activations are as they were: {error}");

    judge("check_mlpackage.py", &package);
    judge("check_onnx.py", &onnx);
    let half = work.path().join("half.mlpackage");
    compile(&checkpoint, "coreml", "fp16", &path, &half);
    judge("check_mlpackage.py", &half);
    ok(&["verify", "-q", &arg(&half), "--checkpoint", &arg(&checkpoint)]);
    ok(&["verify", "-q", &arg(&half), "--checkpoint", &arg(&checkpoint), "--fp16"]);
    ok(&["verify", "-q", &arg(&package), "--checkpoint", &arg(&checkpoint), "--quantize", &arg(&path)]);
    ok(&["lint", &arg(&half)]);
    ok(&["inspect", &arg(&half)]);
    // The graph is run after each pass, after the plan's too, whose statistics lie beside it.
    let each = ["compile", "-q", &arg(&checkpoint), "--target", "coreml", "--latent", "3x4x4", "--verify-each"];
    ok(&[&each[..], &["--quantize", &arg(&path), "-o", &arg(&work.path().join("each.mlpackage"))]].concat());
}

#[test]
fn an_override_takes_the_activations_with_it_and_a_bad_scale_is_named() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = checkpoint(work.path());
    let path = work.path().join("plan.toml");
    plan(&checkpoint, &path);
    let text = fs::read_to_string(&path).expect("the plan");
    let ir = |plan: &str| {
        fs::write(&path, plan).expect("the plan");
        let base = ["compile", "-q", &arg(&checkpoint), "--target", "onnx", "--latent", "3x4x4", "--emit", "ir"];
        ok(&[&base[..], &["--quantize", &arg(&path)]].concat())
    };
    let count = |ir: &str| ir.matches("= quantize(").count();
    let all = count(&ir(&text));
    // Queries, keys and values share one input.
    let products = text.matches("input_scale = ").count();
    assert!(all > 0 && all < products, "{all} inputs of {products} products");
    let none = ir(&text.replace("[override]\n", "[override]\n\"*\" = \"palette8\"\n"));
    assert_eq!(count(&none), 0);

    let first = text.lines().find(|l| l.starts_with("input_scale = ")).expect("a scale");
    fs::write(&path, text.replacen(first, "input_scale = -0.5", 1)).expect("the plan");
    let (checkpoint, plan, out) = (arg(&checkpoint), arg(&path), arg(&work.path().join("x.onnx")));
    let compile = ["compile", &checkpoint, "--target", "onnx", "--latent", "3x4x4", "-o", &out, "--quantize"];
    let error = fails(&[&compile[..], &[plan.as_str()]].concat());
    assert!(error.contains("input_scale: found -0.5, expected a scale above 0"), "{error}");
    let out = crate::common::run(&[&compile[..], &["w8a8"]].concat());
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("s2ditc quantize --scheme w8a8"));
}
