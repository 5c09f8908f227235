//! Streams: kernel folders of every policy against float64 PyTorch, states that survive the process, bad input.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::common::{arg, fails, files, golden, ok, run, s2ditc};
use s2dit_ir::close::{Tolerance, compare_values};
use serde_json::Value;

/// Relative L2 error that a chunk of an fp32 kernel may have against float64 PyTorch.
const FP32_BAR: f64 = 1e-5;
/// SNR in dB of every chunk of an fp16 package whose every result is rounded to fp16, and how far it may fall along the stream.
const FP16_SNR: f64 = 45.0;
const FALL: f64 = -1.0;
/// The same for a recorded stream, a third of which is two or three chunks: rounding alone moves their mean by a decibel or two.
const FALL_OF_A_FEW: f64 = -3.0;

/// Target, precision, states, functions.
type Policy = [&'static str; 4];
const FP32: [Policy; 3] =
    [["onnx", "fp32", "io", "separate"], ["coreml", "fp32", "io", "shared"], ["coreml", "fp32", "io", "separate"]];
const FP16: [Policy; 4] = [
    ["coreml", "fp16", "io", "shared"],
    ["coreml", "fp16", "io", "separate"],
    ["coreml", "fp16", "native", "shared"],
    ["coreml", "fp16", "native", "separate"],
];

fn compile(checkpoint: &Path, latent: &str, policy: Policy, work: &Path) -> PathBuf {
    compile_of(&[arg(checkpoint)], latent, policy, work)
}

/// `source` is a checkpoint with the flags that it is read with.
fn compile_of(source: &[String], latent: &str, policy: Policy, work: &Path) -> PathBuf {
    let [target, precision, states, functions] = policy;
    let out = work.join(policy.join("-"));
    let place = arg(&out);
    let mut args = vec!["compile", "-q", "--mode", "stream", "--latent", latent, "-o", &place];
    args.extend(source.iter().map(String::as_str));
    args.extend(["--target", target, "--precision", precision, "--states", states, "--functions", functions]);
    ok(&args);
    out
}

fn verify(kernel: &Path, reference: &[&str]) -> Value {
    let kernel = arg(kernel);
    let mut args = vec!["verify", "-q", &kernel, "--json", "--min-snr", "0"];
    args.extend(reference);
    serde_json::from_str(&ok(&args)).expect("verify prints JSON")
}

fn figures<'a>(report: &'a Value, name: &'a str) -> impl Iterator<Item = f64> + 'a {
    report["rows"].as_array().expect("rows").iter().map(move |r| r[name].as_f64().expect("a number"))
}

/// Every policy of a golden.
fn check(name: &str, latent: &str, init: Option<&[&str]>) {
    let work = tempfile::tempdir().expect("a temporary folder");
    let folder = golden(name).join("checkpoint");
    let published = folder.join("self_forcing.pt");
    let longsana = folder.join("longsana.pth");
    let source = match init {
        None if longsana.exists() => vec![arg(&longsana)],
        None if published.exists() => [arg(&published), "--state-dict".into(), "generator_ema".into()].to_vec(),
        None => vec![arg(&folder)],
        Some(init) => {
            let place = arg(&work.path().join("checkpoint"));
            ok(&[&["init", "-q", "-o", &place], init].concat());
            vec![place]
        }
    };
    let folder = golden(name);
    let reference = arg(&folder.join("golden.safetensors"));
    for policy in FP32 {
        let report = verify(&compile_of(&source, latent, policy, work.path()), &["--golden", &reference]);
        for error in figures(&report, "relative_l2") {
            assert!(error <= FP32_BAR, "{name} {policy:?}: relative L2 {error:e}");
        }
    }
    let fp16_onnx = compile_of(&source, latent, ["onnx", "fp16", "io", "separate"], work.path());
    let report = verify(&fp16_onnx, &["--golden", &reference]);
    assert!(figures(&report, "snr_db").all(|db| db >= FP16_SNR), "{name} fp16 onnx: {report:#}");
    // The plain layout; the others have the Neural Engine's.
    for (precision, flags) in [("fp32", &[][..]), ("fp16", &["--fp16"])] {
        let plain = arg(&work.path().join(format!("any-{precision}")));
        let base = ["compile", "-q", "--mode", "stream", "--latent", latent, "-o", &plain];
        let source: Vec<&str> = source.iter().map(String::as_str).collect();
        ok(&[&base[..], &source, &["--target", "coreml", "--compute", "any", "--precision", precision]].concat());
        let report = verify(Path::new(&plain), &[&["--golden", &reference], flags].concat());
        let within = match precision {
            "fp32" => figures(&report, "relative_l2").all(|error| error <= FP32_BAR),
            _ => figures(&report, "snr_db").all(|db| db >= FP16_SNR),
        };
        assert!(within, "{name} any {precision}: {report:#}");
    }
    let mut first: Option<Vec<u8>> = None;
    for policy in FP16 {
        let kernel = compile_of(&source, latent, policy, work.path());
        let report = verify(&kernel, &["--golden", &reference, "--fp16"]);
        for db in figures(&report, "snr_db") {
            assert!(db >= FP16_SNR, "{name} {policy:?}: {db} dB");
        }
        let trend = report["trend_db"].as_f64().expect("a number");
        assert!(trend > FALL_OF_A_FEW, "{name} {policy:?}: {trend}");
        let out = work.path().join("latents.safetensors");
        let (kernel, place) = (arg(&kernel), arg(&out));
        ok(&["stream", "-q", &kernel, "--fp16", "--prompt", &reference, "--noise", &reference, "-o", &place]);
        let latents = std::fs::read(&out).expect("latents");
        assert!(*first.get_or_insert_with(|| latents.clone()) == latents, "{name} {policy:?}: not bit-equal");
    }
}

/// Features that are positive parts may all be zero, and what the model adds to the normaliser then is nothing in fp16: no 0/0 for that.
#[test]
fn positive_parts_stream_in_fp16() {
    let work = tempfile::tempdir().expect("a folder");
    let (checkpoint, kernel) = (arg(&work.path().join("checkpoint")), work.path().join("kernel"));
    ok(&["init", "-q", "--preset", "tiny", "--seed", "3", "--set", "feature_map=\"relu\"", "-o", &checkpoint]);
    let base = ["compile", "-q", &checkpoint, "--target", "coreml", "--mode", "stream", "--latent", "8x8"];
    ok(&[&base[..], &["-o", &arg(&kernel)]].concat());
    let report = verify(&kernel, &["--checkpoint", &checkpoint, "--chunks", "8", "--fp16"]);
    assert!(figures(&report, "snr_db").all(|db| db >= FP16_SNR), "{report:#}");
}

macro_rules! goldens {
    ($($name:ident: $latent:literal $(, $init:expr)?;)*) => {
        $(
            #[test]
            fn $name() {
                #[allow(unused_mut, unused_assignments)]
                let mut init: Option<&[&str]> = None;
                $( init = Some(&$init); )?
                check(stringify!($name), $latent, init);
            }
        )*

        #[test]
        fn every_golden_is_checked() {
            let mut listed = vec![$(stringify!($name)),*];
            listed.sort_unstable();
            let mut there: Vec<String> = std::fs::read_dir(crate::common::repo().join("tests/goldens"))
                .expect("tests/goldens")
                .map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8"))
                .filter(|name| ["stream_", "self_forcing_", "longsana_"].iter().any(|of| name.starts_with(of)))
                .collect();
            there.sort();
            assert_eq!(there, listed);
        }
    };
}

goldens! {
    longsana_tiny: "4x6";
    longsana_frames: "5x3";
    self_forcing_tiny: "4x6";
    self_forcing_window: "6x4";
    stream_tiny: "8x8";
    stream_post: "8x4";
    stream_full: "4x8";
    stream_wide: "6x6";
    stream_sink: "6x10";
    stream_last_step: "8x4";
    stream_last_sink: "6x8";
    stream_paths: "8x8";
    stream_small: "8x8", ["--preset", "small", "--seed", "7", "--dtype", "bf16"];
}

fn tiny(work: &Path, policy: Policy) -> PathBuf {
    compile(&golden("stream_tiny").join("checkpoint"), "8x8", policy, work)
}

/// The chunks of a latents file: its data behind the header.
fn latents(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).expect("latents");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    bytes[8 + header..].to_vec()
}

#[test]
fn sixty_four_chunks_do_not_drift() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = arg(&golden("stream_tiny").join("checkpoint"));
    let plot = work.path().join("error.svg");
    for policy in FP16 {
        let kernel = tiny(work.path(), policy);
        let report = verify(&kernel, &["--checkpoint", &checkpoint, "--chunks", "64", "--fp16", "--plot", &arg(&plot)]);
        assert_eq!(figures(&report, "snr_db").count(), 64);
        assert!(figures(&report, "snr_db").all(|db| db >= FP16_SNR), "{policy:?}: {report:#}");
        assert!(report["trend_db"].as_f64().expect("a number") > FALL, "{policy:?}: {}", report["trend_db"]);
        assert!(std::fs::read_to_string(&plot).expect("a plot").starts_with("<svg"));
    }
}

#[test]
fn a_killed_stream_goes_on_bit_for_bit() {
    for policy in [FP32[0], FP16[0], FP16[2]] {
        let work = tempfile::tempdir().expect("a temporary folder");
        let kernel = arg(&tiny(work.path(), policy));
        let at = |name: &str| arg(&work.path().join(name));
        let fp16: &[&str] = if policy[0] == "coreml" { &["--fp16"] } else { &[] };
        let stream = |more: &[&str]| ok(&[&["stream", "-q", &kernel, "--seed", "5"], fp16, more].concat());
        // Killed with no chance to tidy up; the state was saved after every third chunk.
        let (saved, endless) = (at("killed.state"), at("endless.safetensors"));
        let mut child = s2ditc()
            .args(["stream", "-q", &kernel, "--seed", "5", "--prompt-seed", "2", "--chunks", "1000000"])
            .args(fp16)
            .args(["--state-out", &saved, "--save-every", "3", "-o", &endless])
            .stdout(Stdio::null())
            .spawn()
            .expect("s2ditc starts");
        while !Path::new(&saved).exists() {
            assert!(child.try_wait().expect("a child").is_none(), "it ended before it saved");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        child.kill().expect("killed");
        child.wait().expect("a child");
        assert!(!Path::new(&endless).exists(), "an output that is not whole");

        stream(&["--state-in", &saved, "--chunks", "4", "-o", &at("rest")]);
        let json = ok(&["stream", &kernel, "--state-in", &saved, "--chunks", "1", "--json", "-q"]);
        let first =
            serde_json::from_str::<Value>(&json).expect("JSON")["first_chunk"].as_u64().expect("a number") as usize;
        assert!(first >= 3 && first.is_multiple_of(3));
        stream(&["--prompt-seed", "2", "--chunks", &(first + 4).to_string(), "-o", &at("whole")]);
        let (whole, rest) = (latents(Path::new(&at("whole"))), latents(Path::new(&at("rest"))));
        assert!(whole[whole.len() - rest.len()..] == rest, "{policy:?}: the continuation differs");
    }
}

#[test]
fn the_prompt_changes_in_the_stream() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let kernel = arg(&tiny(work.path(), FP32[0]));
    let at = |name: &str| arg(&work.path().join(name));
    let a = arg(&golden("stream_tiny").join("golden.safetensors"));
    let b = arg(&golden("stream_post").join("golden.safetensors"));
    let swap = format!("2={b}");
    ok(&["stream", "-q", &kernel, "--prompt", &a, "--chunks", "4", "-o", &at("a")]);
    ok(&["stream", "-q", &kernel, "--prompt", &a, "--prompt-at", &swap, "--chunks", "4", "-o", &at("ab")]);
    let (plain, swapped) = (latents(Path::new(&at("a"))), latents(Path::new(&at("ab"))));
    let half = plain.len() / 2;
    assert!(plain[..half] == swapped[..half] && plain[half..] != swapped[half..]);
    // The same as to stop and go on with the other prompt.
    ok(&["stream", "-q", &kernel, "--prompt", &a, "--chunks", "2", "--state-out", &at("s")]);
    ok(&["stream", "-q", &kernel, "--prompt", &b, "--state-in", &at("s"), "--chunks", "2", "-o", &at("b")]);
    assert!(latents(Path::new(&at("b"))) == swapped[half..]);
}

#[test]
fn weights_are_stored_once() {
    use std::os::unix::fs::MetadataExt;
    let work = tempfile::tempdir().expect("a temporary folder");
    let separate = tiny(work.path(), FP16[1]);
    let inode = |name: &str| {
        let file = separate.join(format!("{name}.mlpackage/Data/com.apple.CoreML/weights/weight.bin"));
        std::fs::metadata(file).expect("a weight file").ino()
    };
    assert_eq!(inode("denoise"), inode("commit"));
    let shared = tiny(work.path(), FP16[0]);
    let weights = |dir: &Path| -> u64 {
        let mut seen = std::collections::HashMap::new();
        for (name, _) in files(dir).into_iter().filter(|(name, _)| name.ends_with("weight.bin")) {
            let meta = std::fs::metadata(dir.join(name)).expect("a weight file");
            seen.insert(meta.ino(), meta.len());
        }
        seen.values().sum()
    };
    let (one, apart) = (weights(&shared), weights(&separate));
    assert!(apart <= one + one / 20, "separate packages hold {apart} bytes of weights, one package {one}");
}

#[test]
fn two_compiles_are_the_same_bytes() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let (one, two) = (work.path().join("one"), work.path().join("two"));
    for policy in [FP32[0], FP16[1], FP16[2]] {
        for dir in [&one, &two] {
            std::fs::create_dir_all(dir).expect("a folder");
        }
        let (a, b) = (tiny(&one, policy), tiny(&two, policy));
        assert!(files(&a) == files(&b), "{policy:?}");
    }
}

#[test]
fn a_bidirectional_checkpoint_makes_a_clip() {
    let absolute = Tolerance::absolute;
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| arg(&work.path().join(name));
    let checkpoint = arg(&golden("sharded").join("checkpoint"));
    let mut made = Vec::new();
    for (target, name) in [("onnx", "x.onnx"), ("coreml", "x.mlpackage")] {
        let flags = ["--precision", "fp32", "--latent", "5x4x8"];
        ok(&[&["compile", "-q", &checkpoint, "--target", target, "-o", &at(name)], &flags[..]].concat());
        let negative = arg(&golden("sharded").join("golden.safetensors"));
        let common =
            ["stream", "-q", &at(name), "--prompt-seed", "1", "--steps", "4", "--seed", "3"].map(str::to_string);
        let clip = |more: &[&str]| {
            let mut args = common.to_vec();
            args.extend(more.iter().map(|s| s.to_string()));
            args.extend(["-o".to_string(), at("clip")]);
            ok(&args);
            let bytes = latents(Path::new(&at("clip")));
            bytes.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect::<Vec<f64>>()
        };
        let plain = clip(&[]);
        let guided = clip(&["--negative", &negative, "--guidance", "4"]);
        let neutral = clip(&["--negative", &negative, "--guidance", "1", "--preview", &at("x.gif")]);
        assert!(std::fs::read(at("x.gif")).expect("a picture").starts_with(b"GIF89a"));
        compare_values(&neutral, &plain, absolute(1e-4)).expect("guidance 1 changes nothing");
        assert!(compare_values(&guided, &plain, absolute(1e-2)).is_err(), "guidance 4 changes hardly anything");
        assert!(guided.iter().all(|x| x.is_finite()));
        made.push(guided);
    }
    compare_values(&made[0], &made[1], absolute(1e-4)).expect("the targets agree");
}

#[test]
fn a_clip_needs_a_number_of_steps() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| arg(&work.path().join(name));
    ok(&["init", "-q", "--preset", "tiny", "--set", "chunk_frames=null", "-o", &at("c")]);
    ok(&["compile", "-q", &at("c"), "--target", "onnx", "--latent", "3x8x8", "-o", &at("x.onnx")]);
    let error = fails(&["stream", "-q", &at("x.onnx"), "--prompt-seed", "1"]);
    says(&error, &["x.onnx", "sample_steps", "found a list of noise levels, expected a number of Euler steps"]);
    assert!(!error.contains("--mode stream"), "{error}");
}

#[test]
fn noise_that_is_not_finite_is_named() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let kernel = arg(&tiny(work.path(), FP32[0]));
    let reference = golden("stream_tiny").join("golden.safetensors");
    let bytes = std::fs::read(&reference).expect("a golden");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let index: Value = serde_json::from_slice(&bytes[8..8 + header]).expect("a header");
    for (tensor, flag) in [("stream.noise", "--noise"), ("text", "--prompt")] {
        let mut bytes = bytes.clone();
        let at = 8 + header + index[tensor]["data_offsets"][0].as_u64().expect("an offset") as usize + 3 * 4;
        bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        let file = arg(&work.path().join("nan.safetensors"));
        std::fs::write(&file, bytes).expect("written");
        let prompt: &[&str] = if flag == "--noise" { &["--prompt-seed", "1"] } else { &[] };
        let error = fails(&[&["stream", "-q", &kernel, flag, &file], prompt].concat());
        says(&error, &["nan.safetensors", tensor, "element 3: found NaN"]);
    }
}

#[track_caller]
fn says(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in\n{error}");
    }
}

#[test]
fn what_cannot_be_compiled_is_named() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let out = arg(&work.path().join("k"));
    let tiny = arg(&golden("stream_tiny").join("checkpoint"));
    let compile = |checkpoint: &str, more: &[&str]| {
        fails(&[&["compile", checkpoint, "--mode", "stream", "-o", &out], more].concat())
    };
    let bidirectional = arg(&golden("sharded").join("checkpoint"));
    says(&compile(&bidirectional, &["--target", "onnx", "--latent", "4x8"]), &["chunk_frames", "null", "--mode clip"]);
    let channels = arg(&golden("per_head").join("checkpoint"));
    says(&compile(&channels, &["--target", "onnx", "--latent", "8x8"]), &["out_channels", "3", "4"]);
    says(&compile(&tiny, &["--target", "onnx", "--latent", "8x8", "--states", "native"]), &["--states io"]);
    let native = ["--target", "coreml", "--latent", "8x8", "--states", "native", "--precision", "fp32"];
    says(&compile(&tiny, &native), &["fp16"]);
    says(&compile(&tiny, &["--target", "onnx", "--latent", "3x8x8"]), &["3x8x8", "ROWSxCOLUMNS"]);
    says(&compile(&tiny, &["--target", "onnx", "--latent", "5x8"]), &["latent rows", "5"]);
    assert!(!Path::new(&out).exists());
}

#[test]
fn what_cannot_be_streamed_is_named() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let kernel = arg(&tiny(work.path(), FP32[0]));
    let at = |name: &str| arg(&work.path().join(name));
    let stream = |more: &[&str]| fails(&[&["stream", &kernel, "-o", &at("out")], more].concat());
    let (small, clip) =
        (arg(&golden("stream_wide").join("golden.safetensors")), arg(&golden("tiny").join("golden.safetensors")));
    let usage = run(&["stream", &kernel, "-o", &at("out")]);
    assert_eq!(usage.status.code(), Some(2));
    says(&String::from_utf8_lossy(&usage.stderr), &["--prompt"]);
    says(&stream(&["--prompt", &small]), &["text", "[1, 5, 24]", "[1, 8, 24]"]);
    says(&stream(&["--prompt", &at("none")]), &["none"]);
    says(&stream(&["--prompt-seed", "1", "--noise", &small]), &["stream.noise", "[6, 2, 1, 3, 3, 6, 6]"]);
    says(&stream(&["--prompt-seed", "1", "--noise", &clip]), &["stream.noise", "clip mode"]);
    let noise = arg(&golden("stream_tiny").join("golden.safetensors"));
    says(&stream(&["--prompt", &noise, "--noise", &noise, "--chunks", "8"]), &["--chunks", "8", "7"]);
    // Noise of no chunk would make a file without a latent.
    let bytes = std::fs::read(&noise).expect("a golden");
    let whole =
        safetensors::SafeTensors::deserialize(&bytes).expect("safetensors").tensor("stream.noise").expect("noise");
    let shape = [&[0][..], &whole.shape()[1..]].concat();
    let none = safetensors::tensor::TensorView::new(whole.dtype(), shape, &[]).expect("a tensor");
    let none = safetensors::serialize([("stream.noise", none)], None).expect("a file");
    std::fs::write(at("none.safetensors"), none).expect("written");
    let message = stream(&["--prompt", &noise, "--noise", &at("none.safetensors")]);
    says(&message, &["none.safetensors", "stream.noise", "found [0, ", "noise of 0 chunks, expected 1 or more"]);
    assert!(!Path::new(&at("out")).exists());
    ok(&["stream", "-q", &kernel, "--prompt", &noise, "--noise", &noise, "--state-out", &at("used.state")]);
    let message = stream(&["--noise", &noise, "--state-in", &at("used.state")]);
    says(&message, &["--noise: found no noise from chunk 7 on in", "golden.safetensors"]);
    says(
        &stream(&["--prompt-seed", "1", "--chunks", "2", "--prompt-at", &format!("2={noise}")]),
        &["chunk 2", "0 to 1"],
    );
    says(&stream(&["--prompt-seed", "1", "--fp16"]), &["packages only"]);

    // A state of another model, of another precision, and no state at all.
    let other = arg(&compile(&golden("stream_post").join("checkpoint"), "8x4", FP32[0], &{
        let dir = work.path().join("other");
        std::fs::create_dir(&dir).expect("a folder");
        dir
    }));
    ok(&["stream", "-q", &other, "--prompt-seed", "1", "--state-out", &at("other.state")]);
    says(&stream(&["--state-in", &at("other.state")]), &["another model"]);
    says(&stream(&["--state-in", &noise]), &["stream state"]);
    let half = arg(&tiny(work.path(), FP16[0]));
    ok(&["stream", "-q", &half, "--prompt-seed", "1", "--state-out", &at("half.state")]);
    says(&stream(&["--state-in", &at("half.state")]), &["precision", "fp16", "fp32"]);
    let mut cut = std::fs::read(at("half.state")).expect("a state");
    cut.truncate(cut.len() / 2);
    std::fs::write(at("cut.state"), cut).expect("written");
    says(&fails(&["stream", &half, "--state-in", &at("cut.state")]), &["cut.state"]);

    // A kernel that is not whole.
    let contract =
        std::fs::read_to_string(work.path().join(FP32[0].join("-")).join("contract.json")).expect("a contract");
    let broken = work.path().join("broken");
    std::fs::create_dir(&broken).expect("a folder");
    std::fs::write(broken.join("contract.json"), contract).expect("written");
    says(&fails(&["stream", &arg(&broken), "--prompt-seed", "1"]), &["prompt.onnx", "not there"]);
    std::fs::write(broken.join("contract.json"), "{}").expect("written");
    says(&fails(&["verify", &arg(&broken), "--golden", &noise]), &["contract.json", "format"]);
    says(&fails(&["stream", &arg(work.path()), "--prompt-seed", "1"]), &["contract.json"]);
    assert!(!Path::new(&at("out")).exists());
}

#[test]
fn a_restored_stream_keeps_its_seed() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let kernel = arg(&tiny(work.path(), FP32[0]));
    let at = |name: &str| arg(&work.path().join(name));
    let start = ["stream", "-q", &kernel, "--prompt-seed", "2", "--seed", "18446744073709551615"];
    ok(&[&start[..], &["--chunks", "3", "-o", &at("whole")]].concat());
    ok(&[&start[..], &["--chunks", "1", "--state-out", &at("s")]].concat());
    let go_on = ["stream", "-q", &kernel, "--state-in", &at("s")];
    ok(&[&go_on[..], &["--chunks", "2", "-o", &at("rest")]].concat());
    let (whole, rest) = (latents(Path::new(&at("whole"))), latents(Path::new(&at("rest"))));
    assert!(whole[whole.len() - rest.len()..] == rest, "the continuation has other noise");
    let conflict = fails(&[&go_on[..], &["--seed", "5"]].concat());
    says(&conflict, &["--seed", "found 5", "expected 18446744073709551615"]);
    let noise = arg(&golden("stream_tiny").join("golden.safetensors"));
    ok(&["stream", "-q", &kernel, "--prompt-seed", "2", "--noise", &noise, "--chunks", "1", "--state-out", &at("s")]);
    says(&fails(&go_on), &["recorded noise", "--seed"]);
}

#[test]
fn inputs_are_not_written_over() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let kernel = tiny(work.path(), FP32[0]);
    let at = |name: &str| arg(&work.path().join(name));
    let golden = golden("stream_tiny").join("golden.safetensors");
    for name in ["prompt", "swap", "noise", "golden"] {
        std::fs::copy(&golden, at(name)).expect("a copy");
    }
    std::os::unix::fs::symlink(at("noise"), at("link")).expect("a link");
    let before = files(work.path());
    let swap = format!("1={}", at("swap"));
    let inputs = ["--prompt", &at("prompt"), "--prompt-at", &swap, "--noise", &at("noise"), "--chunks", "2"];
    let kernel = arg(&kernel);
    let stream = |more: &[&str]| fails(&[&["stream", "-q", &kernel], &inputs[..], more].concat());
    for (flag, place, input) in [
        ("-o", "prompt", "--prompt"),
        ("--state-out", "swap", "--prompt-at"),
        ("-o", "link", "--noise"),
        ("--state-out", "onnx-fp32-io-separate/contract.json", "ARTIFACT"),
        ("--state-out", "onnx-fp32-io-separate/denoise.onnx", "ARTIFACT"),
        ("-o", "onnx-fp32-io-separate/new", "ARTIFACT"),
    ] {
        says(&stream(&[flag, &at(place)]), &[flag, place, input]);
    }
    says(&stream(&["-o", &at("x"), "--state-out", &at("./x")]), &["--state-out", "./x", "-o"]);
    std::os::unix::fs::symlink(at("golden"), at("error.svg")).expect("a link");
    says(
        &fails(&["verify", "-q", &kernel, "--golden", &at("golden"), "--plot", &at("error.svg")]),
        &["--plot", "error.svg", "--golden"],
    );
    std::fs::remove_file(at("error.svg")).expect("a link");
    assert!(files(work.path()) == before, "an input was written over");

    // A stream may go on in the place of its state, but its chunks may not go there.
    ok(&["stream", "-q", &kernel, "--prompt-seed", "1", "--state-out", &at("s")]);
    ok(&["stream", "-q", &kernel, "--state-in", &at("s"), "--state-out", &at("s")]);
    says(&fails(&["stream", "-q", &kernel, "--state-in", &at("s"), "-o", &at("s")]), &["-o", "--state-in"]);
}

#[test]
fn what_cannot_be_verified_is_named() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let kernel = arg(&tiny(work.path(), FP32[1]));
    let reference = arg(&golden("stream_tiny").join("golden.safetensors"));
    let verify = |more: &[&str]| fails(&[&["verify", &kernel], more].concat());
    says(&verify(&["--golden", &arg(&golden("tiny").join("golden.safetensors"))]), &["stream.noise", "clip mode"]);
    says(&verify(&["--golden", &reference, "--fp16"]), &["fp32", "--fp16"]);
    says(&verify(&["--golden", &reference, "--chunks", "9"]), &["9", "7"]);
    says(&verify(&["--golden", &reference, "--blocks"]), &["--blocks"]);
    says(&verify(&["--checkpoint", &arg(&golden("stream_post").join("checkpoint"))]), &["was made from checkpoint"]);
    let usage = run(&["verify", &kernel]);
    assert_eq!(usage.status.code(), Some(2));
    says(&String::from_utf8_lossy(&usage.stderr), &["--golden", "--checkpoint"]);
}
