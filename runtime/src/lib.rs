//! Runs finished artifacts on this machine, and compares tensors.
//!
//! - [`Artifact`] opens an ONNX file or an mlpackage as it lies on disk and runs it. A package is read back, raised to IR, lowered
//!   to ONNX in memory and run by ONNX Runtime; its weights stay where they are, mapped.
//! - [`Predictor`] runs anybody's package or ONNX file on named arrays, with its functions and states.
//! - [`stream`] makes video chunk by chunk with a kernel folder.
//! - [`decode`] makes video of latents chunk by chunk with the folder of a decoder.
//! - [`pipeline`] is the folder of a compiled pipeline: its contract and its tokenizer.
//! - [`text_mask`] says which text tokens count.
//! - [`tokens`] checks token ids.
//! - [`timesteps`] are those that an artifact was compiled for, if it does not take any.
//! - [`library`] finds ONNX Runtime's shared library, or fetches it on first need.
//! - [`compare`] says how far a tensor is from a reference.
//! - [`Error::kind`] says what a caller can do about a failure.

mod artifact;
pub mod compare;
mod contract_file;
pub mod coreai_engine;
pub mod decode;
mod difference;
mod error;
pub mod experts;
pub mod interface;
pub mod library;
pub mod ort_engine;
pub mod partition;
pub mod pipeline;
mod ports;
pub mod predict;
pub mod ranges;
mod run;
pub mod sampler;
pub mod stream;
mod tensor;
pub mod text_mask;
pub mod timesteps;
pub mod tokens;
#[cfg(feature = "tract")]
pub mod tract_engine;

pub use artifact::Artifact;
pub use decode::{DecodeSession, DecoderFolder};
pub use difference::{Difference, first_difference};
pub use error::{Error, ErrorKind};
pub use ort_engine::{Port, Session, SessionOptions};
pub use partition::{Chain, Partition};
pub use pipeline::Pipeline;
pub use predict::Predictor;
pub use run::{Engine, RunOptions, function_session, run_function};
pub use stream::{KernelFolder, StreamOptions, StreamSession};
pub use tensor::HostTensor;
pub use timesteps::Timesteps;
