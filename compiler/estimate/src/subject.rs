//! What is estimated: the functions of a step as a target gets them, how often a chunk calls each, and how much video that makes.

mod artifact;
mod model;

use s2dit_ir::{Function, Interface};

pub use artifact::{decoder, kernel, open, package, partition};
pub use model::{Lowered, Mode, Options, model};

/// A function that the host calls.
#[derive(Clone, Debug)]
pub struct Callable {
    /// Name of the function.
    pub name: String,
    /// The packages that it is spread over, one function each, in the order in which they run.
    pub parts: Vec<Function>,
    /// Calls a chunk; 0 for what is called once a prompt.
    pub calls: usize,
}

/// What is estimated.
#[derive(Clone, Debug)]
pub struct Subject {
    /// A file, folder or preset.
    pub name: String,
    /// `configuration`, `checkpoint`, `package`, `partition`, `kernel` or `decoder`.
    pub what: &'static str,
    /// The model's family and its layers, if they are known.
    pub model: Option<String>,
    /// Size of the latent that a step makes, if it is known.
    pub latent: Option<String>,
    /// Latent frames of a call, if they are known.
    pub latent_frames: Option<usize>,
    /// Storage of the weights in words.
    pub weights: String,
    /// Whether chunks follow each other.
    pub streams: bool,
    /// Roles of inputs, and the blocks.
    pub interface: Interface,
    /// Kind of each block, if it is known.
    pub kinds: Vec<String>,
    /// The functions, the denoising step first.
    pub functions: Vec<Callable>,
    /// Bytes of states that the model keeps itself.
    pub state_bytes: u64,
    /// Whether the functions lie in packages that do not share weights in memory.
    pub separate: bool,
    /// Frames of video that a chunk, or the clip, becomes.
    pub frames: Option<usize>,
    /// Bytes on disk, of what lies there.
    pub bytes_on_disk: Option<u64>,
    /// What a reader should know.
    pub notes: Vec<String>,
}
