//! A split network: its functions, its states, and what the host computes for it.

use s2dit_ir::Module;
use s2dit_ir::ops::{OpError, RopeTable};

/// The value of a window mask where there is no key: finite, and far below every score.
pub const EMPTY: f64 = -10_000.0;

/// An input that the host computes for each chunk, in float64.
#[derive(Clone, Debug, PartialEq)]
pub enum HostInput {
    /// `[N, d/2]` cos or sin of the angles of a grid whose first frame is the chunk's absolute index.
    Rope(RopeTable),
    /// `[1, 1, 1, sinks + window + own]`: 0 where there is a key, [`EMPTY`] in slots that are not filled yet, and in those of sinks that are
    /// in the window as well.
    WindowMask {
        /// Tokens of the sinks.
        sink_tokens: usize,
        /// Tokens of the window.
        window_tokens: usize,
        /// Tokens of a frame.
        tokens_per_frame: usize,
        /// Tokens of the chunk.
        own_tokens: usize,
    },
    /// `[1, 1, 1, sinks]`: 1 in the slots of the frames that the chunk has, 0 elsewhere.
    SinkMask {
        /// Tokens of the sinks.
        sink_tokens: usize,
        /// Tokens of a frame.
        tokens_per_frame: usize,
    },
    /// `[1]`: n/(n+1) with n chunks committed.
    PastWeight,
    /// `[1]`: 1/(n+1).
    NewWeight,
}

/// The contents of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateKind {
    /// Keys or values of the stream's first frames, if there are sinks, and behind them of the last frames, oldest first.
    Window,
    /// A mean of the sums of linear attention; in fp16 the high half.
    Mean,
    /// The low half of a mean: what the high half leaves out.
    MeanLow,
    /// The last frames of a convolution's input.
    Tail,
}

/// A state and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct StateInfo {
    /// Name of the state in the module.
    pub name: String,
    /// Contents of the state.
    pub kind: StateKind,
    /// Provenance of the op that reads it.
    pub scope: String,
}

/// A split network.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Functions `denoise`, `commit` or `last_step`, and `prompt`, with states.
    pub module: Module,
    /// Inputs that the host computes, by name.
    pub host_inputs: Vec<(String, HostInput)>,
    /// The states, in the module's order.
    pub states: Vec<StateInfo>,
    /// Values of the prompt and their provenance, in order: results of `prompt`, inputs of the others.
    pub prompt_values: Vec<(String, String)>,
}

/// A graph that cannot be split.
#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    /// The interface names no input of a role.
    #[error("the interface names no input that is {0}, which a stream needs")]
    Role(&'static str),
    /// An input that no host of a stream has a value for.
    #[error(
        "the input `{0}` is neither a latent nor a time nor a text nor a mask of text tokens, which is all that a stream is given: make it a constant \
         of the model, or leave it out when the model is exported"
    )]
    Input(String),
    /// A parameter is not there or not what it should be.
    #[error("the graph has no parameter `{0}` of the shape that a chunk has")]
    Parameter(String),
    /// No value depends on the prompt alone.
    #[error("no value depends on the parameter `{0}` alone: the function `prompt` would be empty")]
    Prompt(String),
    /// Frames are mixed by what is no formula that is split.
    #[error("the graph cannot be split into chunks: {scope} `{op}` is not computed frame by frame: {reason}")]
    Mixed {
        /// The op and its type.
        op: String,
        /// The module that it is in.
        scope: String,
        /// Why this mixes frames, or what else is wrong, and what is expected.
        reason: String,
    },
    /// A table of rotations is no formula that goes on for later frames.
    #[error(
        "the graph cannot be split into chunks: in `{scope}` a rotation of queries or keys has a table {ty} whose later frames are not known: {reason}"
    )]
    Rotation {
        /// The module that it is in.
        scope: String,
        /// Type of the table.
        ty: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A result does not have the frames of the chunk.
    #[error(
        "the result `{name}` does not have the frames of the latent where the latent has them: a stream goes on with a velocity of its shape"
    )]
    Result {
        /// Name of the result.
        name: String,
    },
    /// An op's constraint does not hold: a defect of the pass.
    #[error(transparent)]
    Op(#[from] OpError),
}

/// The place of a buffer in the packed state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// The buffer: a state before packing.
    pub name: String,
    /// Shape of the buffer.
    pub shape: Vec<usize>,
    /// First row of the buffer.
    pub row: usize,
    /// Number of the buffer's rows; the last one is filled up with zeros.
    pub rows: usize,
}
