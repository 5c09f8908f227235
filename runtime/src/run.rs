//! Options of a run, and one IR function in ONNX Runtime.

use std::collections::BTreeMap;
use std::str::FromStr;

use s2dit_backends::onnx::{self, MemoryOptions, WeightMode};
use s2dit_ir::{Function, WeightSource};
use s2dit_passes::emulate::{Arithmetic, emulated};

use crate::error::refuse;
use crate::ranges;
use crate::{Error, ErrorKind, HostTensor, Session, SessionOptions};

/// An engine that executes ONNX graphs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// ONNX Runtime.
    #[default]
    Ort,
    /// tract, a second opinion written independently in Rust.
    Tract,
    /// Apple's runtime of Core AI.
    CoreAi,
}

impl FromStr for Engine {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self, Error> {
        match s {
            "ort" => Ok(Engine::Ort),
            "coreai" => Ok(Engine::CoreAi),
            "tract" if cfg!(feature = "tract") => Ok(Engine::Tract),
            "tract" => refuse!(Input, "{NO_TRACT}"),
            _ => refuse!(Input, "found `{s}`, expected `ort`, `tract` or `coreai`"),
        }
    }
}

pub(crate) const NO_TRACT: &str = "this build has no tract: build with `cargo build --release --features tract`";

/// Options for running an artifact.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Round the result of every fp16 op of a package to fp16, as the Neural Engine stores it. Without it a package's
    /// arithmetic is fp32.
    pub fp16: bool,
    /// Engine that executes the graph.
    pub engine: Engine,
    /// Threads; 0 is one.
    pub threads: usize,
    /// Values to return beside the outputs, by name.
    pub probes: Vec<String>,
    /// Return the largest magnitude of every fp16 value of a package too; see [`crate::ranges`].
    pub ranges: bool,
    /// No notes on standard error.
    pub quiet: bool,
}

/// Runs an IR function with ONNX Runtime; weights stay in their files.
///
/// # Errors
/// An op that ONNX lacks; inputs that do not fit.
pub fn run_function(
    f: &Function,
    weights: &dyn WeightSource,
    arithmetic: Arithmetic,
    inputs: &BTreeMap<String, HostTensor>,
    options: &RunOptions,
) -> Result<BTreeMap<String, HostTensor>, Error> {
    function_session(f, weights, arithmetic, options)?.run(inputs)
}

/// Loads an IR function into ONNX Runtime; weights stay in their files.
///
/// # Errors
/// An op that ONNX lacks; a model that ONNX Runtime does not take.
pub fn function_session(
    f: &Function,
    weights: &dyn WeightSource,
    arithmetic: Arithmetic,
    options: &RunOptions,
) -> Result<Session, Error> {
    let memory = MemoryOptions { weights: WeightMode::Reference, outputs: options.probes.clone() };
    let watched = options.ranges.then(|| ranges::watched(f)).transpose()?;
    let emulated = emulated(watched.as_ref().unwrap_or(f), arithmetic)
        .map_err(|error| Error::new(ErrorKind::Unsupported, error.into()))?;
    let model = onnx::model_in_memory(&emulated, weights, &memory)?;
    Session::from_bytes(&model.bytes, model.folder.as_deref(), &session_options(options, true))
}

pub(crate) fn session_options(options: &RunOptions, keep_weights_mapped: bool) -> SessionOptions {
    SessionOptions { threads: options.threads.max(1), keep_weights_mapped, quiet: options.quiet }
}
