//! A compiled pipeline: a folder that makes a video from a prompt, with `pipeline.json`, which says how.
//!
//! The folder has a text encoder, a transformer and a decoder as artifacts, the tokenizer's files, and a model card for people.

mod clean;
pub mod contract;
mod folder;
mod tokenizer;

pub use clean::Cleaning;
pub use contract::{
    Asset, AssetFile, Assets, Checkpoint, Contract, EncoderMask, FILE, FORMAT, Latent, Levels, Mode, Part, Sampling,
    Scheduler, SchedulerKind, Source, Text, TokenizerAsset, VERSION, Video,
};
pub use folder::Pipeline;
pub use tokenizer::{Cut, TOKENIZER_FILE, Tokenizer, Tokens};
