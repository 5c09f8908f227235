//! Wan made causal: `CausalWanModel` of Self-Forcing (arXiv 2506.08009), whose base is CausVid (arXiv 2412.07772).
//!
//! The network is Wan's, weights and all. Frames come in chunks, and attention sees the keys and values of chunks before, which are stored
//! after RoPE at absolute frames: a stream of `full` blocks with a window.

mod config;
mod family;

pub use config::CausalWanConfig;
pub use family::CausalWan;
