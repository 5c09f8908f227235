//! Whole-program tests of processes: an interrupted compile, and the child process that runs models.

#[path = "../common/mod.rs"]
mod common;

mod faults;
mod interrupted;
mod onnx_runtime;
