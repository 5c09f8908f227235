//! The kind of an error says what a caller can do; the text names the place.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use s2dit_backends::onnx;
use s2dit_ir::weights::NoWeights;
use s2dit_ir::{Module, text};
use s2dit_passes::emulate::Arithmetic;
use s2dit_runtime::sampler::{self, KernelSampler};
use s2dit_runtime::stream::contract::Contract;
use s2dit_runtime::{
    Artifact, Engine, Error, ErrorKind, HostTensor, Partition, RunOptions, Session, SessionOptions, StreamOptions,
    StreamSession, Timesteps, function_session, interface, library, run_function,
};

#[track_caller]
fn is<T>(result: Result<T, Error>, kind: ErrorKind, says: &str) {
    let error = result.err().expect("an error");
    assert_eq!(error.kind(), kind, "{error:?}");
    let told = format!("{error:#}");
    assert_eq!(told, format!("{:#}", anyhow::Error::new(error)), "the same from either crate");
    assert!(told.contains(says), "expected `{says}` in: {told}");
}

/// A function of one parameter `x` that returns `y`.
fn module(parameter: &str, body: &str) -> Module {
    text::parse(&format!("module {{ func @main(%x: {parameter}) {{\n{body}\nreturn y = %y\n}} }}")).unwrap()
}

/// An ONNX file of `y = x²`, x f32 `[1, 2]`.
fn square(path: &Path) {
    let module = module("f32[1, 2]", "%y = square(%x) : f32[1, 2]");
    let no_data = || unreachable!("nothing large");
    let models = [(&module.functions[0], path)];
    onnx::write_models(&models, &NoWeights, Default::default, no_data, |_| String::new(), &mut |_, _| {}).unwrap();
}

fn quiet() -> RunOptions {
    RunOptions { quiet: true, ..RunOptions::default() }
}

fn x(shape: &[usize]) -> BTreeMap<String, HostTensor> {
    let data = vec![1.0; shape.iter().product()];
    BTreeMap::from([("x".to_string(), HostTensor { shape: shape.into(), data })])
}

#[test]
fn what_the_file_system_refuses_is_io() {
    let work = tempfile::tempdir().unwrap();
    let none = work.path().join("none");
    is(Artifact::open(&none), ErrorKind::Io, "found nothing");
    is(Partition::open(&none), ErrorKind::Io, "cannot read");
    is(StreamSession::open(&none, &StreamOptions::default()), ErrorKind::Io, "found nothing");
}

#[test]
fn a_file_of_another_kind_is_a_matter_of_the_artifact() {
    let work = tempfile::tempdir().unwrap();
    let at = |name: &str| work.path().join(name);
    fs::write(at("text.onnx"), "not a model").unwrap();
    is(Artifact::open(&at("text.onnx")), ErrorKind::Artifact, "text.onnx");
    is(Artifact::open(work.path()), ErrorKind::Artifact, "a folder without Manifest.json");
    fs::write(at("partition.json"), "{}").unwrap();
    is(Artifact::open(work.path()), ErrorKind::Artifact, "not the description of a partition");
    is(StreamSession::open(work.path(), &StreamOptions::default()), ErrorKind::Artifact, "without contract.json");
    // The reader of text files reports what is not UTF-8 as an I/O error.
    fs::write(at("partition.json"), [0xff]).unwrap();
    is(Partition::open(work.path()), ErrorKind::Artifact, "not UTF-8 at 0");
    fs::write(at("contract.json"), "{}").unwrap();
    is(StreamSession::open(work.path(), &StreamOptions::default()), ErrorKind::Artifact, "field `format`: missing");
    is(Contract::parse("nonsense"), ErrorKind::Artifact, "not JSON");
    let said = |field: &str| BTreeMap::from([(field.to_string(), "soon".to_string())]);
    is(Timesteps::of(&said("s2ditc.timesteps")), ErrorKind::Artifact, "`soon`");
    is(interface::of(&said(interface::INTERFACE)), ErrorKind::Artifact, "roles of inputs");
    let none = KernelSampler::FlowMatchingAr { timesteps: vec![], sigmas: vec![] };
    is(none.check(), ErrorKind::Artifact, "found 0 timesteps");
}

#[test]
fn what_does_not_fit_is_a_matter_of_the_input() {
    let work = tempfile::tempdir().unwrap();
    let path = work.path().join("square.onnx");
    square(&path);
    let artifact = Artifact::open(&path).unwrap();
    is(artifact.run(&x(&[2, 2]), &quiet()), ErrorKind::Input, "found shape [2, 2]");
    is(artifact.run(&BTreeMap::new(), &quiet()), ErrorKind::Input, "missing");
    is(artifact.run(&x(&[1, 2]), &RunOptions { fp16: true, ..quiet() }), ErrorKind::Input, "mlpackages only");
    let mut session = Session::from_file(&path, &SessionOptions::default()).unwrap();
    is(session.run_with(|_| None), ErrorKind::Input, "missing");
    let few = BTreeMap::from([("x".to_string(), HostTensor { shape: vec![1, 2], data: vec![1.0] })]);
    is(session.run(&few), ErrorKind::Input, "input `x`");
    is("gpu".parse::<Engine>(), ErrorKind::Input, "expected `ort`, `tract` or `coreai`");
    is(Timesteps::new(vec![1000.0]).check(1.0), ErrorKind::Input, "found 1, expected 1000");

    let sampler = KernelSampler::autoregressive(&[1000.0], 5.0);
    let same = |x: &HostTensor, _: f64, _: usize| Ok::<_, Error>(x.clone());
    is(sampler::autoregressive(&sampler, &[], same), ErrorKind::Input, "found 0 tensor(s)");
}

#[test]
fn what_is_not_run_here_is_unsupported() {
    let flags = module("i8[1, 2]", "%y = cast(%x) {dtype = \"f32\"} : f32[1, 2]");
    let run = run_function(&flags.functions[0], &NoWeights, Arithmetic::AsTyped, &x(&[1, 2]), &quiet());
    is(run, ErrorKind::Unsupported, "cannot be fed");
}

#[test]
fn an_engine_that_fails_and_a_weight_that_is_gone_have_their_kinds() {
    is(Session::from_bytes(b"not a model", None, &SessionOptions::default()), ErrorKind::Engine, "cannot load");
    let weight = module("f32[1, 2]", "%0 = load {tensor = \"gone\"} : f32[1, 2]\n%y = add(%x, %0) : f32[1, 2]");
    let loaded = function_session(&weight.functions[0], &NoWeights, Arithmetic::AsTyped, &quiet());
    is(loaded, ErrorKind::Artifact, "gone");
}

/// What a run of the next test by itself is to be told: the library's place is read from the environment of the process.
const EXPECTED: &str = "S2DITC_TEST_EXPECTED";
const PLACE: &str = "ORT_DYLIB_PATH";
const NOWHERE: &str = "/nowhere/libonnxruntime.so";

/// Runs itself in an environment for each case, which asks for the library there.
#[test]
fn a_library_that_cannot_be_had_is_its_own_kind() {
    if let Ok(says) = env::var(EXPECTED) {
        if says != "cannot be used" {
            is(library::locate(|_| {}), ErrorKind::Library, &says);
        }
        let options = SessionOptions { quiet: true, ..SessionOptions::default() };
        is(Session::from_bytes(b"", None, &options), ErrorKind::Library, &says);
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let junk = work.path().join("junk.so");
    fs::write(&junk, "no library").unwrap();
    let alone = |place: &Path, says: &str| {
        let mut test = Command::new(env::current_exe().unwrap());
        test.args(["--exact", "a_library_that_cannot_be_had_is_its_own_kind", "--nocapture"]);
        test.env(EXPECTED, says).env("XDG_CACHE_HOME", work.path().join("cache")).env("PATH", "").env(PLACE, place);
        let output = test.output().unwrap();
        assert!(output.status.success(), "{says}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
    };
    alone(Path::new(NOWHERE), "found no file");
    alone(&junk, "cannot be used");
    // No library and nothing to fetch one with: the cause is an I/O error, the matter is the library.
    alone(Path::new(""), "cannot run python3");
}
