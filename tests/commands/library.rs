//! What programs in Rust may build on. The compiler is the judge: a part of the library that goes, or takes or returns something else, does not fit what this file says of
//! it. Whoever has to change a line here makes a breaking change, which the changelog names and the version shows.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use s2ditc::backends::coreml::lint::Rules;
use s2ditc::backends::output::Destination;
use s2ditc::cli::{self, Answer, Failure, Host, Listener, Silent};
use s2ditc::emit;
use s2ditc::files::arrays::{self, Array, Arrays};
use s2ditc::inspect::{self, InspectReport};
use s2ditc::lint::{self, Brief, Linted};
use s2ditc::models::checkpoint::{Checkpoint, Origin};
use s2ditc::models::size::Size;
use s2ditc::proof::generate::{self, MOST_STEPS, Recorded, Report, Request};
use s2ditc::proof::verify;
use s2ditc::runtime::pipeline::{Contract, Mode, Part, Tokenizer};
use s2ditc::runtime::predict::{self, Port, Predictor};
use s2ditc::runtime::{
    Artifact, Error, ErrorKind, HostTensor, Pipeline, RunOptions, StreamOptions, StreamSession, library,
};

/// Takes a function of the type that is promised.
fn promised<T>(_: T) {}

#[test]
fn commands() {
    let call =
        |args: Vec<OsString>, listener: Arc<dyn Listener>| -> Result<Answer, Failure> { cli::call(args, listener) };
    promised(|args: Vec<OsString>| -> bool { cli::runs_models(args) });
    promised::<fn(&Host) -> std::process::ExitCode>(cli::main);
    promised::<fn() -> clap::Command>(cli::command);
    let answer = call(vec!["passes".into()], Arc::new(Silent)).expect("a list of passes");
    assert!(answer.passed && !answer.printed.is_empty());
    assert!(matches!(call(vec!["unknown".into()], Arc::new(Silent)), Err(Failure::Usage(_))));
    promised(|failure: Failure| match failure {
        Failure::Work(text) | Failure::Usage(text) => Some(text),
        Failure::Stopped => None,
    });
}

#[test]
fn models_and_reports() {
    promised::<fn(&Origin, Option<Size>) -> anyhow::Result<InspectReport>>(inspect::inspect);
    promised::<fn(&Path, &Rules, &[PathBuf]) -> anyhow::Result<Vec<Linted>>>(lint::lint);
    promised::<fn(&[Linted], &Rules) -> Brief>(Brief::of);
    promised::<fn(&Path, &verify::Reference, &verify::Options) -> anyhow::Result<verify::VerifyReport>>(verify::verify);
    promised::<
        fn(
            &Checkpoint,
            &emit::Options,
            Destination<'_>,
            &mut emit::Watch,
            &mut dyn FnMut(u64, u64),
        ) -> anyhow::Result<emit::Summary>,
    >(emit::compile);
}

#[test]
fn packages_that_predict() {
    promised::<fn(&Path, &predict::Options) -> Result<Predictor, Error>>(Predictor::open);
    promised::<fn(&Predictor) -> Vec<String>>(Predictor::functions);
    promised::<fn(&Predictor, Option<&str>) -> Result<[Vec<Port>; 3], Error>>(Predictor::ports);
    promised::<fn(&Predictor, Option<&str>) -> Result<Arrays, Error>>(Predictor::new_states);
    promised::<fn(&mut Predictor, Option<&str>, &Arrays, &mut Arrays) -> Result<Arrays, Error>>(Predictor::predict);
    promised::<fn(s2ditc::ir::TensorType, Vec<u8>) -> Option<Array>>(Array::new);
    promised(|path: &Path| -> Arrays { arrays::read(path).expect("arrays") });
    promised::<fn(&Path) -> Result<Artifact, Error>>(Artifact::open);
    promised::<fn(PathBuf)>(library::prefer);
    promised::<fn(&Error) -> ErrorKind>(Error::kind);
    let _ = predict::Options { fp16: true, threads: 1, quiet: true, weights_in_memory: true };
}

#[test]
fn streams_and_pipelines() {
    promised::<fn(&Path, &StreamOptions) -> Result<StreamSession, Error>>(StreamSession::open);
    promised::<fn(&mut StreamSession, HostTensor) -> Result<(), Error>>(StreamSession::set_prompt);
    promised::<fn(&mut StreamSession, &[HostTensor]) -> Result<HostTensor, Error>>(StreamSession::next_chunk);
    promised::<fn(&StreamSession, Destination<'_>) -> Result<(), Error>>(StreamSession::save);
    promised::<fn(&mut StreamSession, &Path) -> Result<(), Error>>(StreamSession::restore);
    promised::<fn(&Path) -> Result<Pipeline, Error>>(Pipeline::open);
    promised::<fn(&Pipeline) -> &Contract>(Pipeline::contract);
    promised::<fn(&Pipeline, Part) -> Result<PathBuf, Error>>(Pipeline::part);
    promised::<fn(&Pipeline) -> Result<Tokenizer, Error>>(Pipeline::tokenizer);
    promised::<fn(&Pipeline, &Request, &RunOptions, generate::Watch<'_>, generate::Push<'_>) -> anyhow::Result<Report>>(
        generate::frames,
    );
    promised::<fn(&Pipeline, &Request, Destination<'_>, &RunOptions, generate::Watch<'_>) -> anyhow::Result<Report>>(
        generate::generate,
    );
    let noise = HostTensor::new([1], vec![0.0]).map(Recorded::Tensor);
    let _ = Request { prompt: "a fox".into(), steps: Some(MOST_STEPS), noise, ..Request::default() };
    promised(|report: Report| (report.mode == Mode::Clip, report.frames, report.stages.len(), report.notes));
}
