//! Layers that models share, in plain tensor ops. Those of video transformers: patches, embeddings, attention, blocks, the output head.
//!
//! A layer reads its weights by the names that diffusers gives them, under the module path that the model has entered. Shapes in comments: D hidden
//! width, A heads, d = D/A, N tokens of the grid (frames F, rows h, columns w), L text tokens, M image tokens.

mod attention;
mod block;
mod builder;
mod component;
mod dims;
mod embed;
pub(crate) mod frames;
mod image;
mod pixart;
mod rope;
mod specs;
mod step;
mod text;
mod time;

pub(crate) use block::{Conditions, Modulation};
pub use builder::BuildError;
pub(crate) use builder::{Built, Layers};
pub(crate) use component::{Made, component};
pub use dims::QkNorm;
pub(crate) use dims::{Dims, check_values};
pub(crate) use rope::Rope;
pub(crate) use specs::{CrossSpecs, group};
pub(crate) use step::{Blocks, Extras, Inputs, step};
pub(crate) use text::{TEXT_MASK, TOKENS, UNSEEN, check_text};
