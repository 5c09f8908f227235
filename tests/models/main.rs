//! Whole-program tests of every model family against its public code, and what all families share.

#[path = "../common/mod.rs"]
mod common;

mod batch;
mod decoders;
mod generate;
mod goldens;
mod ltx;
mod open_sora;
mod pipelines;
mod sana;
mod seam;
mod text_encoders;
mod timesteps;
mod wan;
mod wan_i2v;
mod wan_pipeline;
mod wide;
