//! The kernel contract: `contract.json`, all that a host needs to stream with a kernel folder.
//!
//! These types are the format's one definition: the compiler writes with them what the session reads with them.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use s2dit_backends::input::{LARGEST_JSON, read_text};
use s2dit_files::choice;
use s2dit_ir::ops::RopePart;
use s2dit_ir::{DType, Interface};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::contract_file::ContractFile;
use crate::error::refuse;
use crate::ports::is_name;
pub use crate::ports::{Part, Port};
pub use crate::sampler::KernelSampler;
use crate::{Error, ErrorKind, Timesteps};

/// The contract's file in a kernel folder.
pub const FILE: &str = "contract.json";
/// The value of the field `format`.
pub const FORMAT: &str = "s2dit-kernel";
/// The version that this build writes and reads.
pub const VERSION: u32 = 1;

const IS: ContractFile = ContractFile {
    file: FILE,
    format: FORMAT,
    version: VERSION,
    what: "kernel",
    expected: "expected the folder of a kernel, as `s2ditc compile --mode stream` makes it",
};

/// A kernel folder's contract.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Contract {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// Compiler of the kernel: `s2ditc 0.1.0`.
    pub compiler: String,
    /// Format of the artifacts.
    pub target: Target,
    /// Arithmetic of the artifacts.
    pub precision: Precision,
    /// Place of the states between calls.
    pub states_policy: StatesPolicy,
    /// Spread of the functions over artifacts.
    pub functions_policy: FunctionsPolicy,
    /// Content hash of the checkpoint: `blake3:…`.
    pub checkpoint: String,
    /// The checkpoint's `config.json`.
    pub config: Value,
    /// The latent that one call makes.
    pub chunk: Chunk,
    /// Roles of the functions' inputs and results. A kernel of an earlier compiler has none: then they have the names that
    /// [`Contract::names`] tells.
    #[serde(default, skip_serializing_if = "Interface::is_empty")]
    pub interface: Interface,
    /// Latent frames that the key and value windows hold.
    pub window_frames: usize,
    /// Latent frames at the start of the stream whose keys and values stay beside the windows.
    #[serde(default)]
    pub sink_frames: usize,
    /// Which pass over a chunk writes the states, and so which function.
    #[serde(default)]
    pub state_write: StateWrite,
    /// The prompt.
    pub text: Text,
    /// The sampler.
    pub sampler: KernelSampler,
    /// The only timesteps that `denoise` takes, if it has tables for them; without this field it takes any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timesteps: Option<Timesteps>,
    /// The device that the packages are for, if they were compiled for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// What the packages have for the device's sake: names of passes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lowerings: Vec<String>,
    /// The functions.
    pub functions: Functions,
    /// Inputs that the host computes.
    pub host_inputs: Vec<HostInput>,
    /// The states, as the functions declare them. They start as zeros.
    pub states: Vec<State>,
    /// Places of the network's buffers in packed states.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packing: Vec<Packed>,
}

/// The format that is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// ONNX files, opset 21 or 23.
    Onnx,
    /// Core ML packages, iOS 18.
    CoreMl,
    /// Core AI assets, iOS 27. Experimental.
    CoreAi,
}

choice!(Target, "target", Onnx = "onnx", CoreMl = "coreml", CoreAi = "coreai");

impl Target {
    /// Extension of a file or package.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Target::Onnx => "onnx",
            Target::CoreMl => "mlpackage",
            Target::CoreAi => "aimodel",
        }
    }
}

/// Arithmetic of an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Everything in fp32.
    Fp32,
    /// fp16, with fp32 islands where fp16 would lose the answer.
    Fp16,
    /// fp16 weights, everything else in fp32 [Core AI].
    #[serde(rename = "fp16-weights")]
    Fp16Weights,
}

choice!(Precision, "precision", Fp32 = "fp32", Fp16 = "fp16", Fp16Weights = "fp16-weights");

/// The place of the states between calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StatesPolicy {
    /// With the host: inputs `NAME` of the functions that read them, outputs `NAME_out` of the one that writes them.
    Io,
    /// The model keeps them: Core ML states.
    Native,
}

/// Which pass over a chunk writes the states of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateWrite {
    /// One of its own, at t = 0 on the finished chunk (Self-Forcing, arXiv 2506.08009): the function `commit`.
    #[default]
    Commit,
    /// The last denoising step, on the noisy chunk at its t: the function `last_step` takes the place of `denoise` there.
    LastStep,
}

impl StateWrite {
    /// The name in a contract and a configuration, and the function's.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            StateWrite::Commit => "commit",
            StateWrite::LastStep => "last_step",
        }
    }
}

/// The spread of the functions over artifacts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FunctionsPolicy {
    /// All functions in one package.
    Shared,
    /// An artifact for each function.
    Separate,
}

/// The latent `[1, channels, frames, rows, cols]` of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Latent channels.
    pub channels: usize,
    /// Latent frames.
    pub frames: usize,
    /// Latent rows.
    pub rows: usize,
    /// Latent columns.
    pub cols: usize,
}

impl Chunk {
    /// `[1, C, F, H, W]`
    #[must_use]
    pub const fn shape(&self) -> [usize; 5] {
        [1, self.channels, self.frames, self.rows, self.cols]
    }
}

/// The prompt `[1, tokens, dim]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// Tokens, padding included.
    pub tokens: usize,
    /// Width of an embedding.
    pub dim: usize,
}

impl Text {
    /// `[1, L, text_dim]`
    #[must_use]
    pub const fn shape(&self) -> [usize; 3] {
        [1, self.tokens, self.dim]
    }
}

/// The functions of a kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Functions {
    /// The function that depends on the text only; called once a prompt.
    pub prompt: Function,
    /// The velocity of a noisy chunk; reads the states.
    pub denoise: Function,
    /// Takes the clean chunk; writes the states. Only with [`StateWrite::Commit`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<Function>,
    /// As `denoise`, for the sampler's last step; writes the states too. Only with [`StateWrite::LastStep`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_step: Option<Function>,
}

impl Functions {
    /// The functions under their names in the contract.
    #[must_use]
    pub fn all(&self) -> Vec<(&'static str, &Function)> {
        let writers = [StateWrite::Commit, StateWrite::LastStep].into_iter();
        let writers = writers.filter_map(|pass| Some((pass.name(), self.writer(pass)?)));
        [("prompt", &self.prompt), ("denoise", &self.denoise)].into_iter().chain(writers).collect()
    }

    /// The function that writes the states in this pass, if there is one.
    #[must_use]
    pub fn writer(&self, pass: StateWrite) -> Option<&Function> {
        match pass {
            StateWrite::Commit => self.commit.as_ref(),
            StateWrite::LastStep => self.last_step.as_ref(),
        }
    }
}

/// A function of a kernel: where it is and what it takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Function {
    /// The artifact, in the kernel folder.
    pub file: String,
    /// The function's name in the artifact.
    pub function: String,
    /// Inputs that the host passes, states excluded if they are native.
    pub inputs: Vec<Port>,
    /// Outputs that come back.
    pub outputs: Vec<Port>,
    /// If the function is spread over several packages: all of them, in the order in which they run; `file` is then the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
}

/// An input of the functions that read states, which the host computes; see [`super::host`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostInput {
    /// The input's name.
    pub name: String,
    /// Contents of the input.
    #[serde(flatten)]
    pub kind: HostInputKind,
}

/// The contents of a host input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HostInputKind {
    /// Cosines or sines `[F·h·w, d/2]` of `pos · θ^(−2i/d_axis)`, tokens in (frame, row, column) order. The frame's position
    /// is its absolute index in the stream.
    Rope {
        /// cos or sin.
        part: RopePart,
        /// Frames of a chunk, rows, columns.
        grid: [usize; 3],
        /// Head dimensions given to (time, height, width).
        axis_dims: [usize; 3],
        /// Base θ.
        theta: f64,
    },
    /// What is added to the attention scores, `[…, sink_tokens + window_tokens + own_tokens]`: 0 where there is a key, `empty` where there
    /// is none. The window is filled from its end. A sink is a key once its frame has left the window, so that no frame is attended
    /// to twice.
    WindowMask {
        /// Tokens of the sinks.
        #[serde(default, skip_serializing_if = "is_zero")]
        sink_tokens: usize,
        /// Tokens that the window holds.
        window_tokens: usize,
        /// Tokens of one frame.
        tokens_per_frame: usize,
        /// Tokens of the chunk, after the window.
        own_tokens: usize,
        /// Added where there is no key: finite, because fp16 attention turns −∞ into NaN.
        empty: f32,
    },
    /// What the chunk's own keys and values weigh in the slots of the sinks, `sink_tokens` of them: 1 in the slot of a frame that the chunk
    /// has, 0 elsewhere. Slots are in the order of the stream's frames.
    SinkMask {
        /// Tokens of the sinks.
        sink_tokens: usize,
        /// Tokens of one frame.
        tokens_per_frame: usize,
    },
    /// `n / (n + 1)` with `n` chunks committed so far: what the stored means weigh.
    PastWeight,
    /// `1 / (n + 1)`: what the chunk's own sums weigh.
    NewWeight,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// A state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Name of the state.
    pub name: String,
    /// Element type of the state.
    pub dtype: DType,
    /// Shape of the state.
    pub shape: Vec<usize>,
    /// Contents of the state, for people.
    pub meaning: String,
    /// Contents of the state, for programs.
    pub kind: StateKind,
}

/// The contents of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateKind {
    /// Keys or values of the stream's first `sink_frames` frames, and behind them of the last `window_frames` frames, oldest first.
    Window,
    /// Mean of the chunks' sums `Σ k·vᵀ`.
    LinearSum,
    /// Mean of the chunks' sums `Σ k`.
    LinearNorm,
    /// The last frames of a convolution's input.
    ConvTail,
    /// Several buffers; see [`Contract::packing`].
    Packed,
}

/// A buffer inside a packed state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    /// The buffer.
    pub buffer: String,
    /// The state that holds it.
    pub state: String,
    /// The first row of the state that is the buffer's.
    pub row: usize,
    /// Number of the buffer's rows.
    pub rows: usize,
    /// The buffer's shape.
    pub shape: Vec<usize>,
}

/// Names of the inputs and the result that every kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names<'a> {
    /// The noisy or clean chunk.
    pub latent: &'a str,
    /// The timestep.
    pub time: &'a str,
    /// The prompt.
    pub text: &'a str,
    /// What of the prompt counts, if the kernel takes that.
    pub text_mask: Option<&'a str>,
    /// The velocity.
    pub velocity: &'a str,
}

impl Contract {
    /// Names of the inputs and the result that every kernel has.
    #[must_use]
    pub fn names(&self) -> Names<'_> {
        Names {
            latent: self.interface.latent().unwrap_or("latent"),
            time: self.interface.time().unwrap_or("timestep"),
            text: self.interface.text().unwrap_or("text"),
            text_mask: self.interface.text_mask(),
            velocity: self.interface.output().unwrap_or("velocity"),
        }
    }

    /// Extents of the prompt's mask, if the kernel takes one.
    #[must_use]
    pub fn mask_shape(&self) -> Option<[usize; 2]> {
        self.interface.text_mask().map(|_| [1, self.text.tokens])
    }

    /// Reads the contract of the kernel folder `dir`.
    ///
    /// # Errors
    /// Not a kernel folder; a contract of another format or version, or one that contradicts itself.
    pub fn read(dir: &Path) -> Result<Contract, Error> {
        if !dir.exists() {
            return Err(Error::new(ErrorKind::Io, anyhow!(no_contract(dir))));
        }
        Contract::of_folder(dir).map_err(Error::artifact)
    }

    fn of_folder(dir: &Path) -> Result<Contract> {
        let path = dir.join(FILE);
        let shown = path.display();
        if !path.is_file() {
            bail!("{}", no_contract(dir));
        }
        let text = read_text(&path, LARGEST_JSON).with_context(|| format!("cannot read `{shown}`"))?;
        Contract::parse(&text).with_context(|| format!("`{shown}`"))
    }

    /// Parses and checks a contract.
    ///
    /// # Errors
    /// Another format or version; a field that is missing or of another type; a contract that contradicts itself.
    pub fn parse(text: &str) -> Result<Contract, Error> {
        IS.parse(text, |contract| Ok(Contract::check(contract)?)).map_err(Error::artifact)
    }

    /// The artifacts, each once.
    #[must_use]
    pub fn files(&self) -> Vec<&str> {
        let functions: Vec<&Function> = self.functions.all().into_iter().map(|(_, f)| f).collect();
        let whole = functions.iter().map(|f| f.file.as_str());
        let mut files: Vec<&str> =
            whole.chain(functions.iter().flat_map(|f| &f.parts).map(|part| part.file.as_str())).collect();
        let mut seen = HashSet::new();
        files.retain(|file| seen.insert(*file));
        files
    }

    /// Target, precision and policies in a few words.
    #[must_use]
    pub fn summary(&self) -> String {
        let states = match self.states_policy {
            StatesPolicy::Io => "states io",
            StatesPolicy::Native => "states native",
        };
        let functions = match self.functions_policy {
            FunctionsPolicy::Shared => "functions shared",
            FunctionsPolicy::Separate => "functions separate",
        };
        format!("{}, {}, {states}, {functions}", self.target, self.precision)
    }

    /// The contract as the text of [`FILE`].
    ///
    /// # Errors
    /// A number that JSON lacks.
    pub fn to_json(&self) -> Result<String, Error> {
        let text = serde_json::to_string_pretty(self).map_err(|error| Error::input(error.into()))?;
        Ok(text + "\n")
    }

    /// Checks that the contract fits itself.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check(&self) -> Result<(), Error> {
        // A timestep that is not listed is here the contract's own.
        self.fits_itself().map_err(|error| Error::new(ErrorKind::Artifact, error))
    }

    fn fits_itself(&self) -> Result<()> {
        self.sampler.check()?;
        if let Some(listed) = &self.timesteps {
            let KernelSampler::FlowMatchingAr { timesteps, .. } = &self.sampler;
            timesteps.iter().try_for_each(|&t| listed.check(t)).context("field `sampler.timesteps`")?;
        }
        self.writer()?;
        let chunk = &self.chunk;
        if chunk.shape().contains(&0) {
            bail!("field `chunk`: found {:?}, expected no zero", chunk.shape());
        }
        check_shape("field `chunk`", &chunk.shape())?;
        check_shape("field `text`", &self.text.shape())?;
        for state in &self.states {
            check_shape(&format!("state `{}`", state.name), &state.shape)?;
        }
        let mut names = HashSet::new();
        for name in self.states.iter().map(|s| &s.name).chain(self.host_inputs.iter().map(|h| &h.name)) {
            if !names.insert(name) {
                bail!("`{name}` is declared twice among states and host inputs");
            }
        }
        for (name, function) in self.functions.all() {
            // A contract must not reach outside its folder.
            let files = function.parts.iter().map(|part| &part.file).chain([&function.file]);
            if let Some(file) = files.into_iter().find(|file| !is_name(file)) {
                bail!("function `{name}`: found file `{file}`, expected a name in the kernel folder");
            }
            let parts = function.parts.iter().flat_map(|part| part.inputs.iter().chain(&part.outputs));
            for port in function.inputs.iter().chain(&function.outputs).chain(parts) {
                check_shape(&format!("function `{name}`: `{}`", port.name), &port.shape)?;
            }
        }
        for host in &self.host_inputs {
            self.check_host_input(host)?;
        }
        for packed in &self.packing {
            if !self.states.iter().any(|s| s.name == packed.state) {
                bail!(
                    "field `packing`: buffer `{}` lies in state `{}`, which there is not",
                    packed.buffer,
                    packed.state
                );
            }
        }
        Ok(())
    }

    /// The function that writes the states, and its name.
    ///
    /// # Errors
    /// There is none, or another one: never of a contract that was checked.
    pub fn writer(&self) -> Result<(&'static str, &Function), Error> {
        let name = self.state_write.name();
        let others = self.functions.all().len() - 2;
        match self.functions.writer(self.state_write) {
            Some(function) if others == 1 => Ok((name, function)),
            Some(_) => refuse!(
                Artifact,
                "field `functions`: found `commit` and `last_step`, expected `{name}` alone, as `state_write` says"
            ),
            None => refuse!(
                Artifact,
                "field `functions.{name}`: missing, expected the function that writes the states, as `state_write` says"
            ),
        }
    }

    fn check_host_input(&self, host: &HostInput) -> Result<()> {
        let name = &host.name;
        let elements = match host.kind {
            HostInputKind::Rope { grid, axis_dims, theta, .. } => {
                if grid[0] != self.chunk.frames {
                    bail!("host input `{name}`: found a grid of {} frames, expected {}", grid[0], self.chunk.frames);
                }
                if axis_dims.iter().any(|d| d % 2 != 0) || !theta.is_finite() || theta <= 0.0 {
                    bail!(
                        "host input `{name}`: found axis_dims {axis_dims:?} and theta {theta}, expected even ones and a \
                         positive one"
                    );
                }
                let pairs = axis_dims.iter().fold(0, |sum: usize, d| sum.saturating_add(*d)) / 2;
                grid.iter().fold(pairs, |n, extent| n.saturating_mul(*extent))
            }
            HostInputKind::WindowMask { sink_tokens, window_tokens, tokens_per_frame, own_tokens, empty } => {
                if !empty.is_finite() || empty >= 0.0 {
                    bail!("host input `{name}`: found {empty} where there is no key, expected a finite number below 0");
                }
                check_tokens(name, "a window", window_tokens, self.window_frames, tokens_per_frame)?;
                check_tokens(name, "sinks", sink_tokens, self.sink_frames, tokens_per_frame)?;
                sink_tokens.saturating_add(window_tokens).saturating_add(own_tokens)
            }
            HostInputKind::SinkMask { sink_tokens, tokens_per_frame } => {
                check_tokens(name, "sinks", sink_tokens, self.sink_frames, tokens_per_frame)?;
                sink_tokens
            }
            HostInputKind::PastWeight | HostInputKind::NewWeight => 1,
        };
        for (function, ports) in self.functions.all() {
            let Some(port) = ports.inputs.iter().find(|p| p.name == *name) else { continue };
            if port.shape.iter().product::<usize>() != elements {
                bail!(
                    "host input `{name}` of `{function}`: found shape {:?}, expected {elements} elements",
                    port.shape
                );
            }
        }
        Ok(())
    }
}

/// Checks that `what` has whole frames of tokens, and how many.
fn check_tokens(name: &str, what: &str, tokens: usize, frames: usize, per_frame: usize) -> Result<()> {
    if per_frame.checked_mul(frames) != Some(tokens) {
        bail!("host input `{name}`: found {what} of {tokens} tokens, expected {frames} frames of {per_frame}");
    }
    Ok(())
}

/// No tensor of a stream has more elements.
const MOST_ELEMENTS: usize = 1 << 31;

fn check_shape(place: &str, shape: &[usize]) -> Result<()> {
    let elements = shape.iter().try_fold(1usize, |n, &extent| n.checked_mul(extent)).filter(|n| *n <= MOST_ELEMENTS);
    match elements {
        Some(_) => Ok(()),
        None => bail!("{place}: found shape {shape:?}, expected at most {MOST_ELEMENTS} elements"),
    }
}

/// The error about a folder that is no kernel folder: what it is, and how to get one.
fn no_contract(dir: &Path) -> String {
    let shown = dir.display();
    let clip = dir.extension().is_some_and(|e| e == "mlpackage" || e == "onnx");
    let found = match () {
        () if !dir.exists() => "nothing",
        () if clip => "an artifact of clip mode",
        () if dir.is_file() => "a file",
        () => "a folder without contract.json",
    };
    format!("`{shown}`: expected a kernel folder, as `s2ditc compile --mode stream` makes, found {found}")
}
