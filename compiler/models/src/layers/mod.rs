//! Layers that video transformers share, in plain tensor ops: patches, embeddings, attention, blocks, the output head.
//!
//! A layer reads its weights by the names that diffusers gives them, under the module path that the model has entered. Shapes in comments: D hidden
//! width, A heads, d = D/A, N tokens of the grid (frames F, rows h, columns w), L text tokens.

mod attention;
mod block;
mod builder;
mod dims;
mod embed;
mod rope;
mod specs;
mod step;

pub(crate) use block::Conditions;
pub use builder::BuildError;
pub(crate) use builder::{Built, Layers};
pub(crate) use dims::Dims;
pub use dims::QkNorm;
pub(crate) use rope::Rope;
pub(crate) use specs::group;
pub(crate) use step::{Blocks, Inputs, step};
