//! Files that people bring: weights in several formats, JSON, sizes, and what is wrong with them.
//!
//! - [`Problems`](problems::Problems) is everything that is wrong with an input, told at once.
//! - A [`Door`] is one mapped file of weights: [`SafetensorsFile`], [`TorchFile`], [`GgufFile`]. [`writer`] makes safetensors files.
//! - A [`Mapped`] file is what doors read from.
//! - A [`WeightStore`] is what comes through the doors of a checkpoint, under which names, with what is added to it.
//! - [`FloatType`] names the element types of weights on the command line; [`parse_size`] reads sizes in bytes, [`size`](size()) writes them; [`choice!`] makes a choice by name of
//!   an enum.
//!
//! This crate knows no model and no target.

pub mod arrays;
mod choice;
mod door;
mod float_type;
mod gguf;
mod hash;
pub mod header;
pub mod hub;
mod index;
pub mod json;
mod mapped;
mod merge;
mod open;
pub mod problems;
mod safetensors;
mod size;
mod store;
pub mod toml_text;
mod torch;
pub mod writer;

pub use door::{Door, WEIGHTS};
pub use float_type::FloatType;
pub use gguf::GgufFile;
pub use hash::hash_of;
pub use header::TensorInfo;
pub use index::shards;
pub use mapped::Mapped;
pub use merge::{Change, Factor};
pub use open::open as open_door;
pub use safetensors::SafetensorsFile;
pub use size::{parse_size, size};
pub use store::{INDEX_ENDING, INDEX_FILE, TRANSFORMERS_FILE, WEIGHTS_FILE, WeightStore, index_of};
pub use torch::{StateDict, StridedTensor, TorchFile, named_tensors};
