//! SANA-Video made causal: LongSANA (arXiv 2509.24695), which diffusers' naming calls `SanaVideoCausalTransformer3DModel`.
//!
//! The network is SANA-Video's, weights and all. Frames come in chunks: linear attention adds the sums of the chunks before to those of its own,
//! RoPE turns by the frame's place in the stream, and the convolution over three frames sees the last frame of the chunk before, and zeros behind
//! the chunk. So a stream keeps the same few states however long it is.

mod config;
mod family;

pub use config::CausalSanaConfig;
pub use family::CausalSana;
