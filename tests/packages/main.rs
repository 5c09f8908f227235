//! Whole-program tests of finished artifacts: run, proved, streamed, cut, linted, and judged by coremltools and onnx.

#[path = "../common/mod.rs"]
mod common;

mod conformance;
mod coreai;
mod lint;
mod partition;
mod proofs;
mod run;
mod stream;
mod swift_vectors;
mod videos;
