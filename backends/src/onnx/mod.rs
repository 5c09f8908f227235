//! ONNX, opset 21.
//!
//! - [`write_model`] writes a file (and its external data) for users;
//! - [`in_memory`] makes the model that the runtime gives to ONNX Runtime, for a graph that was read back from a package;
//! - [`read`] opens any ONNX file to show what it is.
//!
//! A linear layer becomes `Gemm` with `transB = 1`: the weight keeps the checkpoint's `[out, in]` layout, so it is copied
//! through unchanged, and ONNX Runtime packs it when the session starts.

mod lower;
pub mod proto;
pub mod read;
mod write;

pub use lower::Round;
pub use write::{Summary, in_memory, write_model};

/// The operator set that is emitted.
pub const OPSET: i64 = 21;
/// The IR version that goes with it.
pub const IR_VERSION: i64 = 10;
