//! Hand-made kernels: a window of two frames, a running mean, a velocity that depends on everything.

use std::path::Path;

use s2dit_backends::{coreml, onnx};
use s2dit_ir::close::{Tolerance, compare_values};
use s2dit_ir::weights::NoWeights;
use s2dit_ir::{Module, text};
use serde_json::{Value, json};

mod kinds;

use super::contract::KernelSampler;
use super::*;

/// A text with `F` for the float type; states stand where the policy puts them.
fn module(float: &str, native: bool, write: StateWrite) -> Module {
    let (states, ins, reads, writes, returns) = if native {
        (
            format!("state \"window\" : {float}[1, 4]\n state \"mean\" : {float}[1, 2]"),
            String::new(),
            format!(
                "%w = state {{state = \"window\"}} : {float}[1, 4]\n %m = state {{state = \"mean\"}} : {float}[1, 2]"
            ),
            "update \"window\" = %wn\n update \"mean\" = %mn",
            "",
        )
    } else {
        (
            String::new(),
            format!(", %window: {float}[1, 4], %mean: {float}[1, 2]"),
            format!("%w = identity(%window) : {float}[1, 4]\n %m = identity(%mean) : {float}[1, 2]"),
            "",
            ", window_out = %wn, mean_out = %mn",
        )
    };
    let velocity = format!(
        "{reads}
            %x = reshape(%latent) {{shape = [1, 2]}} : F[1, 2]
            %k = reshape(%text_k_0) {{shape = [1, 2]}} : F[1, 2]
            %all = concat(%w, %x) {{axis = 1}} : F[1, 6]
            %masked = add(%all, %mask_0) : F[1, 6]
            %p = softmax(%masked) {{axis = 1}} : F[1, 6]
            %s = reduce_max(%p) {{axes = [1], keep_dims = true}} : F[1, 1]
            %thousandth = literal {{values = [0.001]}} : f32[1]
            %tf = mul(%timestep, %thousandth) : f32[1]
            %t = cast(%tf) {{dtype = \"{float}\"}} : F[1]
            %t2 = reshape(%t) {{shape = [1, 1]}} : F[1, 1]
            %a = mul(%k, %rope_cos_0) : F[1, 2]
            %b = add(%a, %m) : F[1, 2]
            %c = mul(%b, %t2) : F[1, 2]
            %d = add(%c, %s) : F[1, 2]
            %e = add(%d, %x) : F[1, 2]
            %v = reshape(%e) {{shape = [1, 1, 1, 1, 2]}} : F[1, 1, 1, 1, 2]"
    );
    let next = "%tail = slice(%w) {begin = [0, 2], end = [1, 4], stride = [1, 1]} : F[1, 2]
            %wn = concat(%tail, %x) {axis = 1} : F[1, 4]
            %past = mul(%m, %past_weight) : F[1, 2]
            %own = mul(%x, %new_weight) : F[1, 2]
            %mn = add(%past, %own) : F[1, 2]";
    let of_step =
        "%latent: F[1, 1, 1, 1, 2], %timestep: f32[1], %text_k_0: F[1, 1, 2], %rope_cos_0: F[1, 2], %mask_0: F[1, 6]";
    let of_past = "%past_weight: F[1], %new_weight: F[1]";
    let writer = match write {
        StateWrite::Commit => format!(
            "func @commit(%latent: F[1, 1, 1, 1, 2], {of_past}{ins}) {{
            {reads}
            %x = reshape(%latent) {{shape = [1, 2]}} : F[1, 2]
            {next}
            %flat = reshape(%new_weight) {{shape = [1]}} : F[1]
            %done = square(%flat) : F[1]
            {writes}
            return committed = %done{returns}
          }}"
        ),
        StateWrite::LastStep => format!(
            "func @last_step({of_step}, {of_past}{ins}) {{
            {velocity}
            {next}
            {writes}
            return velocity = %v{returns}
          }}"
        ),
    };
    let source = format!(
        "module {{
          {states}
          func @prompt(%text: F[1, 1, 2]) {{
            %two = literal {{values = [2.0]}} : F[1, 1, 2]
            %k = mul(%text, %two) : F[1, 1, 2]
            return text_k_0 = %k
          }}
          func @denoise({of_step}{ins}) {{
            {velocity}
            return velocity = %v
          }}
          {writer}
        }}"
    );
    text::parse(&source.replace("F[", &format!("{float}["))).unwrap_or_else(|e| panic!("{e}"))
}

fn contract(float: &str, native: bool, files: [&str; 3]) -> Value {
    contract_of(float, native, files, StateWrite::Commit)
}

fn contract_of(float: &str, native: bool, files: [&str; 3], write: StateWrite) -> Value {
    let port = |name: &str, dtype: &str, shape: &[usize]| json!({"name": name, "dtype": dtype, "shape": shape});
    let latent = port("latent", float, &[1, 1, 1, 1, 2]);
    let states = [("window", "window", [1, 4]), ("mean", "linear_sum", [1, 2])];
    let with_states = |mut ports: Vec<Value>, suffix: &str| {
        if !native {
            ports.extend(states.iter().map(|(n, _, s)| port(&format!("{n}{suffix}"), float, s)));
        }
        ports
    };
    let text_k = port("text_k_0", float, &[1, 1, 2]);
    let denoise = vec![
        latent.clone(),
        port("timestep", "f32", &[1]),
        text_k.clone(),
        port("rope_cos_0", float, &[1, 2]),
        port("mask_0", float, &[1, 6]),
    ];
    let of_past = [port("past_weight", float, &[1]), port("new_weight", float, &[1])];
    let velocity = port("velocity", float, &[1, 1, 1, 1, 2]);
    let (inputs, output) = match write {
        StateWrite::Commit => (vec![latent.clone()], port("committed", float, &[1])),
        StateWrite::LastStep => (denoise.clone(), velocity.clone()),
    };
    let writer = json!({
        "file": files[2], "function": write.name(), "inputs": with_states([inputs, of_past.to_vec()].concat(), ""),
        "outputs": with_states(vec![output], "_out"),
    });
    let mut contract = json!({
        "format": "s2dit-kernel", "version": 1, "compiler": "by hand",
        "target": if files[0].ends_with("onnx") { "onnx" } else { "coreml" },
        "precision": if float == "f16" { "fp16" } else { "fp32" },
        "states_policy": if native { "native" } else { "io" },
        "functions_policy": if files[0] == files[1] { "shared" } else { "separate" },
        "checkpoint": "blake3:00", "config": {},
        "chunk": {"channels": 1, "frames": 1, "rows": 1, "cols": 2}, "window_frames": 2,
        "sink_frames": 0, "state_write": write.name(),
        "text": {"tokens": 1, "dim": 2},
        "sampler": KernelSampler::autoregressive(&[1000.0, 500.0], 5.0),
        "functions": {
            "prompt": {"file": files[0], "function": "prompt", "inputs": [port("text", float, &[1, 1, 2])], "outputs": [text_k]},
            "denoise": {"file": files[1], "function": "denoise", "inputs": with_states(denoise, ""),
                        "outputs": [velocity]},
        },
        "host_inputs": [
            {"name": "rope_cos_0", "kind": "rope", "part": "cos", "grid": [1, 1, 1], "axis_dims": [4, 0, 0], "theta": 100.0},
            {"name": "mask_0", "kind": "window_mask", "window_tokens": 4, "tokens_per_frame": 2, "own_tokens": 2, "empty": -10000.0},
            {"name": "past_weight", "kind": "past_weight"}, {"name": "new_weight", "kind": "new_weight"},
        ],
        "states": states.iter()
            .map(|(n, kind, shape)| json!({"name": n, "dtype": float, "shape": shape, "meaning": "made by hand", "kind": kind}))
            .collect::<Vec<_>>(),
    });
    contract["functions"][write.name()] = writer;
    contract
}

fn write_contract(dir: &Path, contract: &Value) {
    std::fs::write(dir.join(contract::FILE), contract.to_string()).unwrap();
}

fn onnx_kernel(dir: &Path) {
    onnx_kernel_of(dir, StateWrite::Commit);
}

fn onnx_kernel_of(dir: &Path, write: StateWrite) {
    for f in &module("f32", false, write).functions {
        let path = dir.join(format!("{}.onnx", f.name));
        let no_data = || panic!("no external data");
        onnx::write_models(
            &[(f, path.as_path())],
            &NoWeights,
            BTreeMap::new,
            no_data,
            |_| String::new(),
            &mut |_, _| {},
        )
        .unwrap();
    }
    let writer = format!("{}.onnx", write.name());
    write_contract(dir, &contract_of("f32", false, ["prompt.onnx", "denoise.onnx", &writer], write));
}

fn package(dir: &Path, float: &str, native: bool) {
    package_of(dir, float, native, StateWrite::Commit);
}

fn package_of(dir: &Path, float: &str, native: bool, write: StateWrite) {
    let package = dir.join("kernel.mlpackage");
    std::fs::create_dir(&package).unwrap();
    let about = coreml::Options::default();
    coreml::write_package(&module(float, native, write), &NoWeights, &about, BTreeMap::new, &package, &mut |_, _| {})
        .unwrap();
    write_contract(dir, &contract_of(float, native, ["kernel.mlpackage"; 3], write));
}

fn noise(chunk: u64) -> Vec<HostTensor> {
    let at = |i: u64| ((chunk * 4 + i) as f32 * 0.7).sin();
    (0..2).map(|s| HostTensor { shape: vec![1, 1, 1, 1, 2], data: vec![at(2 * s), at(2 * s + 1)] }).collect()
}

fn prompt(a: f32, b: f32) -> HostTensor {
    HostTensor { shape: vec![1, 1, 2], data: vec![a, b] }
}

fn open(dir: &Path, fp16: bool) -> StreamSession {
    StreamSession::open(
        dir,
        &StreamOptions { fp16, threads: 1, quiet: true, ranges: false, ..StreamOptions::default() },
    )
    .unwrap_or_else(|e| panic!("{e:#}"))
}

fn stream(dir: &Path, fp16: bool, chunks: u64) -> (Vec<Vec<f32>>, StreamSession) {
    let mut s = open(dir, fp16);
    s.set_prompt(prompt(0.5, -0.25)).unwrap();
    let made = (0..chunks).map(|c| s.next_chunk(&noise(c)).unwrap_or_else(|e| panic!("{e:#}")).data).collect();
    (made, s)
}

/// The kernel in float64, straight from its definition.
fn by_hand(chunks: u64, write: StateWrite) -> Vec<Vec<f64>> {
    let k = [1.0, -0.5];
    let (mut past, mut mean): (Vec<[f64; 2]>, [f64; 2]) = (Vec::new(), [0.0; 2]);
    let mut made = Vec::new();
    for n in 0..chunks {
        let noise = noise(n);
        let mut x = [0, 1].map(|i| f64::from(noise[0].data[i]));
        let sigmas = [1.0, 5.0 * 0.5 / (1.0 + 4.0 * 0.5)];
        let mut noisy = x;
        for (step, sigma) in sigmas.into_iter().enumerate() {
            noisy = x;
            let window = &past[past.len().saturating_sub(2)..];
            let keys: Vec<f64> = window.iter().flatten().chain(&x).copied().collect();
            let largest = keys.iter().copied().fold(f64::MIN, f64::max);
            let s = 1.0 / keys.iter().map(|key| (key - largest).exp()).sum::<f64>();
            for i in 0..2 {
                let cos = (n as f64 * 100f64.powf(-2.0 * i as f64 / 4.0)).cos();
                let v = (k[i] * cos + mean[i]) * sigma + s + x[i];
                x[i] -= sigma * v;
                if step == 0 {
                    x[i] = (1.0 - sigmas[1]) * x[i] + sigmas[1] * f64::from(noise[1].data[i]);
                }
            }
        }
        let written = if write == StateWrite::Commit { x } else { noisy };
        for i in 0..2 {
            mean[i] = (n as f64 * mean[i] + written[i]) / (n as f64 + 1.0);
        }
        past.push(written);
        made.push(x.to_vec());
    }
    made
}

/// Every chunk is within `bar` of what it should be.
fn assert_near(made: &[Vec<f32>], expected: &[Vec<f64>], bar: f64) {
    assert_eq!(made.len(), expected.len());
    for (chunk, (made, expected)) in made.iter().zip(expected).enumerate() {
        let made: Vec<f64> = made.iter().copied().map(f64::from).collect();
        compare_values(&made, expected, Tolerance::absolute(bar)).unwrap_or_else(|e| panic!("chunk {chunk}: {e}"));
    }
}

#[test]
fn every_form_of_a_kernel_streams() {
    let commits = by_hand(6, StateWrite::Commit);
    for write in [StateWrite::Commit, StateWrite::LastStep] {
        let expected = by_hand(6, write);
        let mut pairs = commits.iter().flatten().zip(expected.iter().flatten());
        assert!(
            write == StateWrite::Commit || pairs.any(|(a, b)| (a - b).abs() > 0.1),
            "the two protocols should differ"
        );
        let [onnx, io32, io16, native] = [(); 4].map(|()| tempfile::tempdir().unwrap());
        onnx_kernel_of(onnx.path(), write);
        package_of(io32.path(), "f32", false, write);
        package_of(io16.path(), "f16", false, write);
        package_of(native.path(), "f16", true, write);
        for dir in [&onnx, &io32] {
            assert_near(&stream(dir.path(), false, 6).0, &expected, 1e-5);
        }
        for fp16 in [false, true] {
            let (a, a_end) = stream(io16.path(), fp16, 6);
            let (b, b_end) = stream(native.path(), fp16, 6);
            assert_eq!(a, b, "native states differ from states that are passed");
            assert_eq!(a_end.states(), b_end.states());
            assert!(a_end.states().values().flat_map(|t| &t.data).all(|x| half::f16::from_f32(*x).to_f32() == *x));
            assert_near(&a, &expected, 2e-2);
        }
    }
}

#[test]
fn progress_counts_every_call() {
    for (write, calls) in [(StateWrite::Commit, 3), (StateWrite::LastStep, 2)] {
        let dir = tempfile::tempdir().unwrap();
        onnx_kernel_of(dir.path(), write);
        let mut s = open(dir.path(), false);
        s.set_prompt(prompt(0.5, -0.25)).unwrap();
        let mut told = Vec::new();
        s.next_chunk_with(&noise(0), |done, all| told.push((done, all))).unwrap();
        assert_eq!(told, (1..=calls).map(|done| (done, calls)).collect::<Vec<_>>());
        assert_eq!(s.chunks(), 1);
    }
}

#[test]
fn a_restored_stream_goes_on_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("stream.safetensors");
    for (native, float) in [(false, "f32"), (true, "f16")] {
        let kernel = tempfile::tempdir().unwrap();
        match native {
            false => onnx_kernel(kernel.path()),
            true => package(kernel.path(), float, true),
        }
        let (whole, end) = stream(kernel.path(), false, 6);
        stream(kernel.path(), false, 3).1.save(Destination::new(&file)).unwrap();
        let mut again = open(kernel.path(), false);
        again.restore(&file).unwrap();
        assert_eq!(again.chunks(), 3);
        let rest: Vec<_> = (3..6).map(|c| again.next_chunk(&noise(c)).unwrap().data).collect();
        assert_eq!(rest, whole[3..]);
        assert_eq!(again.states(), end.states());
    }
}

#[test]
fn the_prompt_changes_in_the_stream() {
    let dir = tempfile::tempdir().unwrap();
    onnx_kernel(dir.path());
    let (whole, _) = stream(dir.path(), false, 3);
    let (mut made, mut s) = stream(dir.path(), false, 2);
    s.set_prompt(prompt(3.0, 3.0)).unwrap();
    made.push(s.next_chunk(&noise(2)).unwrap().data);
    assert_eq!(made[..2], whole[..2]);
    assert_ne!(made[2], whole[2]);
}

#[test]
fn what_does_not_fit_is_named() {
    let dir = tempfile::tempdir().unwrap();
    onnx_kernel(dir.path());
    let (_, mut s) = stream(dir.path(), false, 1);
    let long = HostTensor { shape: vec![1, 2, 2], data: vec![0.0; 4] };
    let error = |r: Result<(), Error>| format!("{:#}", r.unwrap_err());
    assert!(error(s.set_prompt(long)).contains("found shape [1, 2, 2], expected [1, 1, 2]"));
    let wide = HostTensor { shape: vec![1, 1, 1, 1, 3], data: vec![0.0; 3] };
    assert!(error(s.next_chunk(&[wide.clone(), wide]).map(|_| ())).contains("expected [1, 1, 1, 1, 2]"));
    assert!(error(s.next_chunk(&noise(1)[..1]).map(|_| ())).contains("found 1"));
    assert!(error(open(dir.path(), false).next_chunk(&noise(0)).map(|_| ())).contains("no prompt"));
    assert_eq!(s.chunks(), 1);

    let file = dir.path().join("stream.safetensors");
    s.save(Destination::new(&file)).unwrap();
    let other = tempfile::tempdir().unwrap();
    onnx_kernel(other.path());
    let mut changed = contract("f32", false, ["prompt.onnx", "denoise.onnx", "commit.onnx"]);
    changed["checkpoint"] = json!("blake3:ff");
    write_contract(other.path(), &changed);
    let message = error(open(other.path(), false).restore(&file));
    assert!(message.contains("another model") && message.contains("blake3:00"), "{message}");
    changed["checkpoint"] = json!("blake3:00");
    changed["config"] = json!({"rope_theta": 500.0});
    write_contract(other.path(), &changed);
    let message = error(open(other.path(), false).restore(&file));
    assert!(message.contains("config.json, field `rope_theta`: found nothing, expected 500.0"), "{message}");
    std::fs::write(&file, b"junk").unwrap();
    assert!(error(s.restore(&file)).contains("stream state"));
}

#[test]
fn a_damaged_state_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    onnx_kernel(dir.path());
    let contract = Contract::read(dir.path()).unwrap();
    let (_, s) = stream(dir.path(), false, 1);
    let file = dir.path().join("stream.safetensors");
    let refused = |change: &dyn Fn(&mut Snapshot)| {
        let mut snapshot =
            Snapshot { chunks: s.chunks, seed: Some(u64::MAX), states: s.states.clone(), prompt: s.prompt.clone() };
        change(&mut snapshot);
        state::save(Destination::new(&file), &contract, &snapshot).unwrap();
        let error = open(dir.path(), false).restore(&file).err()?;
        Some(format!("{error:#}"))
    };
    assert_eq!(refused(&|_| {}), None);
    let first = std::fs::read(&file).unwrap();
    assert_eq!(refused(&|_| {}), None);
    assert!(std::fs::read(&file).unwrap() == first, "the same stream is the same bytes");
    let far = refused(&|s| s.chunks = state::MOST_CHUNKS + 1).unwrap();
    assert!(far.contains("field `chunks`: found `1099511627777`, expected a number up to 1099511627776"), "{far}");
    let nan = refused(&|s| s.states.get_mut("window").unwrap().data[2] = f32::NAN).unwrap();
    assert!(nan.contains("tensor `state.window`: element 2: found NaN"), "{nan}");
}

#[test]
fn artifacts_of_another_kernel_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let files = ["prompt.onnx", "denoise.onnx", "commit.onnx"];
    let ours = contract("f32", false, files);
    for f in &module("f32", false, StateWrite::Commit).functions {
        let path = dir.path().join(format!("{}.onnx", f.name));
        let mut theirs = ours.clone();
        if f.name == "denoise" {
            theirs["window_frames"] = json!(7);
        }
        let metadata = || BTreeMap::from([(made_for::CONTRACT.to_string(), theirs.to_string())]);
        let no_data = || panic!("no external data");
        onnx::write_models(&[(f, path.as_path())], &NoWeights, metadata, no_data, |_| String::new(), &mut |_, _| {})
            .unwrap();
    }
    write_contract(dir.path(), &ours);
    let error = format!("{:#}", StreamSession::open(dir.path(), &StreamOptions::default()).err().unwrap());
    assert!(error.contains("denoise.onnx") && error.contains("field `window_frames`: found 2"), "{error}");
    onnx_kernel(dir.path());
    let mut made = ours;
    made["compiler"] = json!("s2ditc 0.1.0");
    write_contract(dir.path(), &made);
    let error = format!("{:#}", StreamSession::open(dir.path(), &StreamOptions::default()).err().unwrap());
    assert!(error.contains("no `s2ditc.contract`"), "{error}");
}

#[test]
fn a_folder_that_is_no_kernel_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let open = |path: &Path| {
        let options = StreamOptions { quiet: true, ..StreamOptions::default() };
        format!("{:#}", StreamSession::open(path, &options).err().unwrap())
    };
    assert!(open(dir.path()).contains("without contract.json"));
    assert!(open(&dir.path().join("no")).contains("found nothing"));
    std::fs::write(dir.path().join("clip.onnx"), b"").unwrap();
    assert!(open(&dir.path().join("clip.onnx")).contains("clip mode"));

    let files = ["prompt.onnx", "denoise.onnx", "commit.onnx"];
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut c = contract("f32", false, files);
        change(&mut c);
        write_contract(dir.path(), &c);
        open(dir.path())
    };
    assert!(refused(&|c| c["version"] = json!(2)).contains("found 2, expected 1"));
    assert!(refused(&|c| c["format"] = json!("mp4")).contains("expected \"s2dit-kernel\""));
    assert!(refused(&|c| c["window_frames"] = json!(3)).contains("host input `mask_0`"));
    for (field, wrong) in [("timesteps", json!([1001, 500])), ("sigmas", json!([1, 1])), ("sigmas", json!([1]))] {
        let error = refused(&|c| c["sampler"][field] = wrong.clone());
        assert!(error.contains("field `sampler") && error.contains("descend") == (wrong != json!([1])), "{error}");
    }
    assert!(refused(&|c| c["host_inputs"][1]["empty"] = json!(1)).contains("a finite number below 0"));
    let error = refused(&|c| c["states"][1]["shape"] = json!("wide"));
    assert!(error.contains("field `states[1].shape`"), "{error}");
    assert!(
        refused(&|c| c["functions"]["commit"]["file"] = json!("../commit.onnx"))
            .contains("a name in the kernel folder")
    );
    assert!(refused(&|_| {}).contains("prompt.onnx"));

    // One function writes the states, the one that the contract says.
    let error = refused(&|c| c["state_write"] = json!("last_step"));
    assert!(error.contains("field `functions.last_step`: missing"), "{error}");
    let error = refused(&|c| c["functions"]["last_step"] = c["functions"]["commit"].clone());
    assert!(error.contains("found `commit` and `last_step`, expected `commit` alone"), "{error}");
    let error = refused(&|c| c["state_write"] = json!("never"));
    assert!(
        error.contains("field `state_write`: unknown variant `never`, expected `commit` or `last_step`"),
        "{error}"
    );
    let error = refused(&|c| c["sink_frames"] = json!(1));
    assert!(error.contains("host input `mask_0`: found sinks of 0 tokens, expected 1 frames of 2"), "{error}");
}

#[test]
fn a_contract_survives_the_round_trip() {
    for (native, write) in [(false, StateWrite::Commit), (true, StateWrite::LastStep)] {
        let value = contract_of("f16", native, ["kernel.mlpackage"; 3], write);
        let contract = Contract::parse(&value.to_string()).unwrap();
        assert_eq!(Contract::parse(&contract.to_json().unwrap()).unwrap(), contract);
        assert_eq!(serde_json::from_str::<Value>(&contract.to_json().unwrap()).unwrap(), value);
        let all: Vec<&str> = contract.functions.all().iter().map(|(name, _)| *name).collect();
        assert_eq!(all, ["prompt", "denoise", write.name()]);
    }
    // Contracts from before there was a choice.
    let mut old = contract("f32", false, ["prompt.onnx", "denoise.onnx", "commit.onnx"]);
    let fields = old.as_object_mut().unwrap();
    assert!(fields.remove("state_write").is_some() && fields.remove("sink_frames").is_some());
    let old = Contract::parse(&old.to_string()).unwrap();
    assert_eq!((old.state_write, old.sink_frames), (StateWrite::Commit, 0));
}
