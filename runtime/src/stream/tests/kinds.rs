//! The kinds of a stream's errors.

use super::*;
use crate::ErrorKind;

#[track_caller]
fn is<T>(result: Result<T, Error>, kind: ErrorKind, says: &str) {
    let error = result.err().expect("an error");
    assert_eq!(error.kind(), kind, "{error:#}");
    assert!(format!("{error:#}").contains(says), "expected `{says}` in: {error:#}");
}

#[test]
fn prompts_and_noise_that_do_not_fit_are_inputs() {
    let dir = tempfile::tempdir().unwrap();
    onnx_kernel(dir.path());
    is(open(dir.path(), false).next_chunk(&noise(0)), ErrorKind::Input, "no prompt");
    let (_, mut s) = stream(dir.path(), false, 1);
    is(s.next_chunk(&noise(1)[..1]), ErrorKind::Input, "found 1");
    is(s.set_prompt(prompt(f32::NAN, 0.0)), ErrorKind::Input, "prompt: element 0 is NaN");
    let mask = |data: &[f32]| Some(HostTensor { shape: vec![1, data.len()], data: data.to_vec() });
    let masked = |mask| Prompt { text: prompt(0.0, 0.0), mask };
    is(
        s.set_prompt(masked(mask(&[1.0]))),
        ErrorKind::Input,
        "found one, expected none: the kernel takes the text alone",
    );
    // The same kernel, if its function `prompt` took a mask.
    s.contract.interface = serde_json::from_value(
        serde_json::json!({"inputs": [{"name": "m", "role": "text_mask"}], "outputs": [], "milestones": []}),
    )
    .unwrap();
    for (mask, says) in [
        (None, "mask of the prompt: found none, expected [1, 1]"),
        (mask(&[1.0, 0.0]), "mask of the prompt: found shape [1, 2], expected [1, 1]"),
        (mask(&[0.5]), "mask of the prompt: element 0: found 0.5"),
        (mask(&[0.0]), "no token that counts"),
    ] {
        is(s.set_prompt(masked(mask)), ErrorKind::Input, says);
    }
    let rounded = StreamOptions { fp16: true, quiet: true, ..StreamOptions::default() };
    is(StreamSession::open(dir.path(), &rounded), ErrorKind::Input, "applies to packages only");
    let contract = Contract::read(dir.path()).unwrap();
    let none = Module { functions: Vec::new(), ..module("f32", false, StateWrite::Commit) };
    let in_memory = StreamSession::in_memory(contract, &none, &NoWeights, &StreamOptions::default());
    is(in_memory, ErrorKind::Input, "no function `prompt`");
}

#[test]
fn a_result_that_is_not_finite_is_the_engines() {
    let dir = tempfile::tempdir().unwrap();
    onnx_kernel(dir.path());
    let mut s = open(dir.path(), false);
    s.set_prompt(prompt(f32::MAX, 0.0)).unwrap();
    is(s.next_chunk(&noise(0)), ErrorKind::Engine, "chunk 0: the network's result has NaN or infinite elements");
}

#[test]
fn a_state_that_does_not_fit_is_a_state() {
    let dir = tempfile::tempdir().unwrap();
    onnx_kernel(dir.path());
    let (_, mut s) = stream(dir.path(), false, 1);
    let file = dir.path().join("stream.safetensors");
    is(s.restore(&file), ErrorKind::Io, "cannot read");
    is(s.save(Destination::new(&dir.path().join("none/x"))), ErrorKind::Io, "does not exist");
    std::fs::write(&file, b"junk").unwrap();
    is(s.restore(&file), ErrorKind::State, "not safetensors");
    std::fs::remove_file(&file).unwrap();
    s.save(Destination::new(&file)).unwrap();
    s.contract.window_frames = 7;
    is(s.restore(&file), ErrorKind::State, "window_frames is 2, but the kernel's is 7");
    s.contract.window_frames = 2;
    // The same tensor that is an input where the caller passes it.
    s.prompt = Some(HostTensor { shape: vec![1, 2, 2], data: vec![0.0; 4] }.into());
    s.save(Destination::new(&file)).unwrap();
    is(s.restore(&file), ErrorKind::State, "stream.safetensors`: prompt: found shape [1, 2, 2]");
    assert_eq!(s.chunks(), 1);
}

#[test]
fn a_contract_that_contradicts_itself_is_an_artifact() {
    let dir = tempfile::tempdir().unwrap();
    onnx_kernel(dir.path());
    let mut changed = contract("f32", false, ["prompt.onnx", "denoise.onnx", "commit.onnx"]);
    changed["timesteps"] = json!([7.0]);
    write_contract(dir.path(), &changed);
    // A timestep that is not listed is an input where the caller asks for it.
    is(StreamSession::open(dir.path(), &StreamOptions::default()), ErrorKind::Artifact, "expected 7");
    changed["timesteps"] = json!([1000.0, 2500.0 / 3.0]);
    changed["functions"]["prompt"]["file"] = json!("gone.onnx");
    write_contract(dir.path(), &changed);
    is(StreamSession::open(dir.path(), &StreamOptions::default()), ErrorKind::Artifact, "it is not there");
}
