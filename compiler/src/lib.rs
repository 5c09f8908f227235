//! s2ditc compiles S2DiT video diffusion transformers to Core ML and ONNX, and proves the result on this machine.
//!
//! The road of a tensor: [`checkpoint`] (mapped, validated) → [`frontend`] (plain tensor ops) → passes → backend → the files on
//! disk; then [`verify`] opens those files and runs them. [`cli`] is the command line over it.

pub mod checkpoint;
pub mod cli;
pub mod compile;
pub mod config;
pub mod frontend;
pub mod init;
pub mod inspect;
mod json;
pub mod lint;
pub mod made_from;
pub mod problems;
pub mod quantize;
pub mod ranges;
pub mod schema;
pub mod stream;
pub mod verify;
