//! Folders of decoders: what the contract says, and what lies there.

use std::path::Path;

use anyhow::Result;
use s2dit_runtime::DecoderFolder;
use s2dit_runtime::decode::contract::{Chunk, FunctionsPolicy, Precision, StatesPolicy, Target, Video};
use serde::Serialize;

use super::kernel::{FunctionReport, StateReport, bytes};

/// The folder of a decoder.
#[derive(Debug, Serialize)]
pub struct DecoderReport {
    /// The folder.
    pub path: String,
    /// Compiler of the decoder.
    pub compiler: String,
    /// Format of the artifacts.
    pub target: Target,
    /// Arithmetic of the artifacts.
    pub precision: Precision,
    /// The engine that packages are meant for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute: Option<String>,
    /// Place of the states between calls.
    pub states_policy: StatesPolicy,
    /// Spread of the functions over artifacts.
    pub functions_policy: FunctionsPolicy,
    /// Storage of large weights, if in few bits.
    pub quantize: Option<String>,
    /// Hash of the checkpoint.
    pub checkpoint: String,
    /// The latent that one call takes.
    pub chunk: Chunk,
    /// The frames that the calls make.
    pub video: Video,
    /// The functions.
    pub functions: Vec<FunctionReport>,
    /// The states.
    pub states: Vec<StateReport>,
    /// Bytes of all states: what is carried from chunk to chunk.
    pub state_bytes: u64,
    /// Bytes of all files in the folder.
    pub bytes: u64,
}

/// The folder of a decoder.
///
/// # Errors
/// A contract that cannot be read; artifacts that are not there, or not of this contract.
pub(super) fn decoder(path: &Path) -> Result<DecoderReport> {
    let folder = DecoderFolder::open(path)?;
    let contract = folder.contract().clone();
    let quantize = folder.metadata(&contract.functions.first.file).remove("s2ditc.quantize");
    let functions = contract.functions.all().into_iter().map(|(name, f)| FunctionReport {
        name,
        files: vec![f.file.clone()],
        function: f.function.clone(),
        inputs: f.inputs.clone(),
        outputs: f.outputs.clone(),
    });
    let functions = functions.collect();
    let states: Vec<StateReport> = contract.states.iter().map(StateReport::of).collect();
    Ok(DecoderReport {
        path: path.display().to_string(),
        bytes: bytes(path),
        state_bytes: states.iter().map(|s| s.bytes).sum(),
        states,
        functions,
        quantize,
        compiler: contract.compiler,
        target: contract.target,
        precision: contract.precision,
        compute: contract.compute,
        states_policy: contract.states_policy,
        functions_policy: contract.functions_policy,
        checkpoint: contract.checkpoint,
        chunk: contract.chunk,
        video: contract.video,
    })
}
