//! Core ML mlpackages.

pub mod blob;
pub mod package;
pub mod proto;
