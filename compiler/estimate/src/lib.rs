//! Time, memory and size of a step on a device, from shapes alone.
//!
//! A [`subject::Subject`] is what a target gets: the functions of a step after every pass, lowered without the bytes of any weight or read back
//! from a package. [`work`] says what each op does, [`device`] what an engine can, [`time`] how long the one takes the other, and [`estimate`]
//! adds it up. Every result is a [`Range`]: an estimate never looks like a measurement.

pub mod device;
mod estimate;
pub mod fit;
pub mod html;
pub mod lowering;
pub mod memory;
mod page;
mod pipeline;
mod range;
pub mod search;
pub mod storage;
pub mod subject;
pub mod time;
pub mod work;

pub use device::Device;
pub use estimate::{About, Estimate, FunctionEstimate, Memory, OpKind, PartEstimate, SlowOp, estimate};
pub use pipeline::{ComponentEstimate, PipelineEstimate, PipelineMemory, pipeline};
pub use range::Range;
pub use storage::Weights;
pub use subject::{Callable, Subject};
