//! Files that people bring: safetensors, whole or sharded, JSON, sizes, and what is wrong with them.
//!
//! - [`Problems`](problems::Problems) is everything that is wrong with an input, told at once.
//! - [`SafetensorsFile`] is one mapped file; [`WeightStore`] is a folder of them; [`writer`] makes such files.
//! - [`FloatType`] names the element types of weights on the command line; [`parse_size`] reads sizes in bytes; [`choice!`] makes a choice by name of
//!   an enum.
//!
//! This crate knows no model and no target.

mod choice;
mod float_type;
mod hash;
pub mod header;
mod index;
pub mod json;
pub mod problems;
mod safetensors;
mod size;
mod store;
pub mod writer;

pub use float_type::FloatType;
pub use safetensors::{SafetensorsFile, TensorInfo};
pub use size::parse_size;
pub use store::{INDEX_FILE, WEIGHTS_FILE, WeightStore};
