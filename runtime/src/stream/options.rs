//! Options of a stream.

use crate::Engine;

/// Options for running a kernel.
#[derive(Clone, Debug, Default)]
pub struct StreamOptions {
    /// Round the result of every fp16 op of a package to fp16, as the Neural Engine stores it.
    pub fp16: bool,
    /// Keep the largest magnitude of every fp16 value of a package; see [`StreamSession::ranges`](super::StreamSession::ranges).
    pub ranges: bool,
    /// Engine that computes the functions: ONNX Runtime, or Apple's runtime of Core AI.
    pub engine: Engine,
    /// Threads; 0 is one.
    pub threads: usize,
    /// No notes on standard error.
    pub quiet: bool,
}
