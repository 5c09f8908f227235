//! The IR of s2ditc: a typed, static-shape graph of tensor ops.
//!
//! - [`Module`] = functions + states + [`interface`]. [`Function`] = a petgraph graph in which every node is one op with one result.
//! - [`Op`] is a closed enum; each op's attributes, type inference, reference evaluation and cost live in one file
//!   of [`ops`]. What a composite op stands for lives in one file of [`decompose`], which takes [`build`].
//! - Weights are *constant subgraphs*: `load` leaves with ops over them. Nothing is computed until a backend asks
//!   [`weights`] for the bytes.
//! - [`compress`] stores weights in few bits: palettes found by exact k-means, integers with scales.
//! - [`convert`] rounds slices of floats to other types, with the processor's vectors where it has them.
//! - [`text`] prints and parses the IR (inverse of each other); [`verify`] checks it; [`interp`] evaluates it in float64.
//! - [`uses`] tells who reads a value; [`close`] tells whether tensors agree, for tests.
//!
//! What is deliberately absent: files, checkpoints, targets, symbolic shapes, side effects (a state is read by
//! the `state` op and written by [`Function::updates`] when the function returns).

pub mod build;
pub mod close;
pub mod compress;
pub mod convert;
pub mod decompose;
pub mod graph;
pub mod interface;
pub mod interp;
pub mod ops;
pub mod rounding;
mod source;
pub mod tensor;
pub mod text;
pub mod types;
pub mod uses;
pub mod verify;
mod violation;
pub mod weights;

pub use build::Builder;
pub use graph::{Function, Module, Node, StateDecl, ValueId};
pub use interface::Interface;
pub use ops::{Cost, Op, OpError};
pub use source::{FileRegion, WeightError, WeightSource};
pub use tensor::Tensor;
pub use types::{DType, MASKED, TensorType};
pub use uses::Use;
