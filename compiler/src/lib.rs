//! s2ditc compiles video diffusion transformers to Core ML and ONNX, and proves the result on this machine.
//!
//! The road of a tensor: [`files`] (mapped safetensors) → [`models`] (configuration and graph in plain tensor ops) →
//! [`passes`] → [`backends`] → the files on disk; then [`proof`] opens those files and runs them. [`cli`] is the command line over it.
//!
//! # As a library
//!
//! [`cli::call`] runs a command and returns its report. It takes what the command line takes, and is what the Python module calls:
//!
//! ```
//! use std::sync::Arc;
//! use s2ditc::cli::{Silent, call};
//!
//! let dir = tempfile::tempdir().unwrap();
//! let path = |name| dir.path().join(name).display().to_string();
//! let (model, package) = (path("tiny"), path("tiny.mlpackage"));
//! call(["init", "--preset", "tiny", "-o", &model], Arc::new(Silent))?;
//! let args = ["compile", &model, "--target", "coreml", "--latent", "3x8x8", "-o", &package, "--json"];
//! let report: serde_json::Value = serde_json::from_str(&call(args, Arc::new(Silent))?.printed).unwrap();
//! assert_eq!(report["precision"], "fp16");
//! # Ok::<(), s2ditc::cli::Failure>(())
//! ```
//!
//! [`inspect::inspect`] and [`lint::lint`] return typed reports:
//!
//! ```
//! # use std::sync::Arc;
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = |name| dir.path().join(name).display().to_string();
//! # let (model, package) = (path("tiny"), path("tiny.mlpackage"));
//! # let call = |args: &[&str]| s2ditc::cli::call(args, Arc::new(s2ditc::cli::Silent)).unwrap();
//! # call(&["init", "--preset", "tiny", "-o", &model]);
//! # call(&["compile", &model, "--target", "coreml", "--latent", "3x8x8", "-o", &package]);
//! use s2ditc::backends::coreml::lint::Rules;
//! use s2ditc::lint::{Brief, lint};
//!
//! let rules = Rules::builtin()?;
//! let reports = lint(package.as_ref(), &rules, &[])?;
//! println!("{}", Brief::of(&reports, &rules).line());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`proof::generate::frames`] makes a video from a prompt with the folder of a compiled pipeline, and hands its frames over as they are made:
//!
//! ```no_run
//! use s2ditc::proof::generate::{Request, frames};
//! use s2ditc::runtime::{Pipeline, RunOptions};
//!
//! let pipeline = Pipeline::open("wan.pipeline".as_ref())?;
//! let request = Request { prompt: "a red fox runs through snow".into(), seed: 3, ..Request::default() };
//! let options = RunOptions { threads: 4, ..RunOptions::default() };
//! let report = frames(&pipeline, &request, &options, &mut |part, done, total| println!("{part:?} {done}/{total}"), &mut |video, all| {
//!     println!("{:?} of {all} frames", video.shape);
//!     Ok(())
//! })?;
//! assert_eq!(report.seed, Some(3));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`runtime::Predictor`] runs anybody's package on named arrays, and [`runtime::StreamSession`] makes video chunk by chunk. [`emit::compile`]
//! compiles a [`models::checkpoint::Checkpoint`], and [`proof`] compares artifacts with references.
//!
//! What programs may build on is written down in `tests/commands/library.rs`, with the types of the functions: a change of it is a breaking change.

// All printing is in `cli::terminal`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod cli;
pub mod errors;
pub mod inspect;
pub mod lint;

pub use s2dit_backends as backends;
pub use s2dit_emit as emit;
pub use s2dit_estimate as estimate;
pub use s2dit_files as files;
pub use s2dit_ir as ir;
pub use s2dit_models as models;
pub use s2dit_passes as passes;
pub use s2dit_proof as proof;
pub use s2dit_quantize as quantize;
pub use s2dit_runtime as runtime;
pub use s2dit_video as video;
