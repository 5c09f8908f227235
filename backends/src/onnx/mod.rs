//! ONNX, opset 21, or 23 where the graph has rotary embeddings.
//!
//! - [`write_models`] writes files (and their external data) for users;
//! - [`model_in_memory`] makes the model that the runtime gives to ONNX Runtime, for a graph that was read back from a package;
//! - [`identity`] ties a model to its external data, [`pair`] puts both in place as one;
//! - [`read`] opens any ONNX file to show what it is.
//!
//! A linear layer becomes `Gemm` with `transB = 1` on the flattened rows: the weight keeps the checkpoint's `[out, in]`
//! layout, so it is copied through unchanged, and ONNX Runtime packs it when the session starts. (`Transpose` and `MatMul`
//! take twice as long to load and twice the memory; a transposed copy in the file would cost compile time.)
//!
//! States become inputs `NAME` and outputs `NAME_out`: the caller carries them from step to step.
//!
//! ```
//! use s2dit_backends::onnx;
//! use s2dit_ir::weights::NoWeights;
//!
//! let module = s2dit_ir::text::parse(
//!     "module { func @main(%x: f32[1, 4]) {
//!         %y = softmax(%x) {axis = 1} : f32[1, 4]
//!         return y = %y
//!     } }",
//! )?;
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("model.onnx");
//! let models = [(&module.functions[0], path.as_path())];
//! let no_data = || unreachable!("a model without weights has no external data");
//! let summary = onnx::write_models(&models, &NoWeights, Default::default, no_data, |_| String::new(), &mut |_, _| {})?;
//! assert_eq!(summary.ops, 1);
//! assert_eq!(onnx::read::Model::open(&path)?.nodes()[0].op_type, "Softmax");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cost;
pub mod identity;
mod lower;
mod memory;
pub mod pair;
pub mod proto;
pub mod read;
mod stored;
mod write;

#[cfg(test)]
pub(crate) use cost::MODEL as COST;
pub use memory::{InMemory, MemoryOptions, WeightMode, model_in_memory};
pub use write::{INLINE_LIMIT, Summary, write_models};

/// The operator set that is emitted, if no op needs a later one.
pub const OPSET: i64 = 21;
/// The IR version that goes with it.
pub const IR_VERSION: i64 = 10;
