//! Kernel folders: what the contract says, and what lies there.

use std::path::Path;

use anyhow::Result;
use s2dit_runtime::stream::contract::{
    Chunk, FunctionsPolicy, KernelSampler, Port, Precision, State, StateWrite, StatesPolicy, Target, Text,
};
use s2dit_runtime::{KernelFolder, Timesteps};
use serde::Serialize;

/// A kernel folder.
#[derive(Debug, Serialize)]
pub struct KernelReport {
    /// The folder.
    pub path: String,
    /// Compiler of the kernel.
    pub compiler: String,
    /// Target, precision and policies in a few words.
    pub summary: String,
    /// Format of the artifacts.
    pub target: Target,
    /// The oldest systems that load the packages, such as `iOS 18, macOS 15`; nothing for ONNX files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_os: Option<String>,
    /// Arithmetic of the artifacts.
    pub precision: Precision,
    /// Place of the states between calls.
    pub states_policy: StatesPolicy,
    /// Spread of the functions over artifacts.
    pub functions_policy: FunctionsPolicy,
    /// Storage of large weights, if in few bits.
    pub quantize: Option<String>,
    /// Hash of the checkpoint.
    pub checkpoint: String,
    /// The latent that one call makes.
    pub chunk: Chunk,
    /// Latent frames that the windows hold.
    pub window_frames: usize,
    /// Latent frames at the start of the stream that stay beside the windows.
    pub sink_frames: usize,
    /// Which pass over a chunk writes the states.
    pub state_write: StateWrite,
    /// The prompt.
    pub text: Text,
    /// The sampler.
    pub sampler: KernelSampler,
    /// The only timesteps that `denoise` takes, if it does not take any.
    pub timesteps: Option<Timesteps>,
    /// The functions, in the order they are called.
    pub functions: Vec<FunctionReport>,
    /// Inputs that the host computes: (name, kind).
    pub host_inputs: Vec<(String, String)>,
    /// The states.
    pub states: Vec<StateReport>,
    /// Bytes of all states: what a stream carries from chunk to chunk.
    pub state_bytes: u64,
    /// Bytes of all files in the folder.
    pub bytes: u64,
}

/// A function of a kernel.
#[derive(Debug, Serialize)]
pub struct FunctionReport {
    /// Name of the function in the contract.
    pub name: &'static str,
    /// The artifacts, in the order in which they run: more than one if the function is spread over several.
    pub files: Vec<String>,
    /// Name of the function in the artifacts.
    pub function: String,
    /// Inputs that the host passes.
    pub inputs: Vec<Port>,
    /// Outputs that come back.
    pub outputs: Vec<Port>,
}

/// A state of a kernel.
#[derive(Debug, Serialize)]
pub struct StateReport {
    /// Name of the state.
    pub name: String,
    /// Element type of the state.
    pub dtype: String,
    /// Shape of the state.
    pub shape: Vec<usize>,
    /// Bytes of the state.
    pub bytes: u64,
    /// Contents of the state, for people.
    pub meaning: String,
}

impl StateReport {
    pub(super) fn of(state: &State) -> StateReport {
        StateReport {
            name: state.name.clone(),
            dtype: state.dtype.to_string(),
            shape: state.shape.clone(),
            bytes: (state.shape.iter().product::<usize>() * state.dtype.size()) as u64,
            meaning: state.meaning.clone(),
        }
    }
}

/// A kernel folder.
///
/// # Errors
/// A contract that cannot be read; artifacts that are not there, or not of this contract.
pub(super) fn kernel(path: &Path) -> Result<KernelReport> {
    let folder = KernelFolder::open(path)?;
    let contract = folder.contract().clone();
    let quantize = folder.metadata(&contract.functions.denoise.file).remove("s2ditc.quantize");
    let minimum_os = folder.minimum_os(&contract.functions.denoise.file);
    let functions = contract.functions.all().into_iter().map(|(name, f)| FunctionReport {
        name,
        files: match &f.parts[..] {
            [] => vec![f.file.clone()],
            parts => parts.iter().map(|part| part.file.clone()).collect(),
        },
        function: f.function.clone(),
        inputs: f.inputs.clone(),
        outputs: f.outputs.clone(),
    });
    let states: Vec<StateReport> = contract.states.iter().map(StateReport::of).collect();
    let kind = |kind: &_| serde_json::to_value(kind).ok().and_then(|v| v["kind"].as_str().map(str::to_string));
    Ok(KernelReport {
        path: path.display().to_string(),
        bytes: bytes(path),
        state_bytes: states.iter().map(|s| s.bytes).sum(),
        states,
        functions: functions.collect(),
        host_inputs: contract.host_inputs.iter().map(|h| (h.name.clone(), kind(&h.kind).unwrap_or_default())).collect(),
        quantize,
        summary: contract.summary(),
        minimum_os,
        compiler: contract.compiler,
        target: contract.target,
        precision: contract.precision,
        states_policy: contract.states_policy,
        functions_policy: contract.functions_policy,
        checkpoint: contract.checkpoint,
        chunk: contract.chunk,
        window_frames: contract.window_frames,
        sink_frames: contract.sink_frames,
        state_write: contract.state_write,
        text: contract.text,
        sampler: contract.sampler,
        timesteps: contract.timesteps,
    })
}

/// Bytes of all files in a folder, links not followed; a file of two names counts once.
pub(super) fn bytes(folder: &Path) -> u64 {
    let (mut seen, mut ahead, mut sum) = (std::collections::HashSet::new(), vec![folder.to_path_buf()], 0);
    while let Some(at) = ahead.pop() {
        for entry in std::fs::read_dir(at).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            if found.is_dir() {
                ahead.push(entry.path());
            } else if seen.insert(identity(&found, entry.path())) {
                sum += found.len();
            }
        }
    }
    sum
}

#[cfg(unix)]
fn identity(found: &std::fs::Metadata, _: std::path::PathBuf) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (found.dev(), found.ino())
}

#[cfg(not(unix))]
fn identity(_: &std::fs::Metadata, path: std::path::PathBuf) -> std::path::PathBuf {
    path
}
