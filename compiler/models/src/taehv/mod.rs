//! Tiny decoders for the latents of large autoencoders: TAEHV (Ollin Boer Bohan), published as one file for Hunyuan Video, for Wan 2.1 (`taew2_1`) and for Wan 2.2
//! (`taew2_2`).

mod config;
mod decode;
mod family;

pub use config::TaehvConfig;
pub use family::Taehv;
