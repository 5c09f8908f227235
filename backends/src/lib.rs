//! Targets: lower the IR to the target's ops, write the files, read them back.
//!
//! - [`onnx`]: ONNX opset 21, weights inline or as external data.
//! - [`coreml`]: Core ML mlpackages (ML Program, iOS 18), written and read without any Apple tool.
//! - [`coreai`]: Core AI assets (iOS 27), written without any Apple tool.
//! - [`input`]: files from elsewhere, read with care. [`foreign`]: what they are, if they are none of ours.
//! - [`output`]: files and folders that appear whole or not at all.
//! - [`stamp`]: whether a file is still what it was when it was opened.
//!
//! A backend obeys the types of the graph it is given; it makes no numerical choices of its own.

pub mod coreai;
pub mod coreml;
mod error;
mod fill;
pub mod foreign;
mod held;
pub mod input;
pub mod onnx;
pub mod output;
pub mod stamp;
mod wire;

pub use error::{Error, ErrorKind, UnsupportedOps};
