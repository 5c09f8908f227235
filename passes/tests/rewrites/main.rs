//! Tests of the passes: one rule each as text, whole blocks, splits, pipelines, and random weights.

mod common;
mod fuse_identity;
mod long_clips;
mod patterns;
mod pipelines;
mod streams;
mod text;
mod timesteps;
