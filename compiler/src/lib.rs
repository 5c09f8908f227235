//! s2ditc compiles S2DiT video diffusion transformers to Core ML and ONNX, and proves the result on this machine.
//!
//! The road of a tensor: `s2dit_files` (mapped safetensors) → `s2dit_models` (configuration and graph in plain tensor ops) →
//! `s2dit_passes` → `s2dit_backends` → the files on disk; then `s2dit_proof` opens those files and runs them. [`cli`] is the
//! command line over it.

// All printing is in `cli::terminal`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod cli;
pub mod inspect;
pub mod lint;
