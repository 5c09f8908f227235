//! The decoders of LTX-Video's autoencoders, `AutoencoderKLLTXVideo` in diffusers, that take no timestep: that of 0.9.0.

mod config;
mod decode;
mod family;
mod levels;
mod tensors;

pub use config::LtxVaeConfig;
pub use family::LtxVae;
