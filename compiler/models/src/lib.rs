//! Model families: what a checkpoint of each must hold, and its graph in plain tensor ops.
//!
//! A family is a folder here and a line in [`FAMILIES`]. It emits plain tensor ops, the way PyTorch would trace the model, with the
//! checkpoint's module paths as provenance. It makes no numerical choices: the graph is f32 whatever the checkpoint stores.

pub mod checkpoint;
pub mod clip_text;
pub mod config;
mod fields;
pub mod graph;
pub mod init;
mod layers;
pub mod ltx;
pub mod ltx_vae;
pub mod model;
pub mod open_sora;
pub mod pipelines;
pub mod s2dit;
pub mod sana;
mod schema_weights;
pub mod size;
pub mod t5;
pub mod taehv;
pub mod tensor;
mod transformers;
pub mod wan;
pub mod wan_vae;

pub use layers::{BuildError, QkNorm};
pub use model::{Family, Model};
pub use schema_weights::SchemaWeights;

/// Every family.
pub const FAMILIES: &[&dyn Family] = &[
    &s2dit::S2dit,
    &wan::Wan,
    &wan::CausalWan,
    &ltx::Ltx,
    &sana::Sana,
    &sana::CausalSana,
    &open_sora::OpenSora,
    &clip_text::ClipText,
    &t5::T5::Original,
    &t5::T5::Multilingual,
    &wan_vae::WanVae,
    &ltx_vae::LtxVae,
    &taehv::Taehv,
];
