//! The decoders of Wan's autoencoders, `AutoencoderKLWan` in diffusers: that of Wan 2.1, with 16 latent channels, and that of Wan 2.2 TI2V, with 48.

mod config;
mod decode;
mod family;
mod tensors;

pub use config::WanVaeConfig;
pub use family::WanVae;
