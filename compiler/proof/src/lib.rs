//! The proof: runs finished artifacts as they lie on disk and compares them with a reference.
//!
//! [`verify`] compares a step, [`stream::verify`] a stream, [`ranges`] looks at how close fp16 values come to the largest
//! fp16 number. [`decode`] makes videos of latents. [`generate`] makes a video from a prompt.
//! [`stream`] has what a stream takes and gives: noise, prompts, latents, previews.

pub mod decode;
pub mod generate;
mod made_from;
pub mod pipeline;
pub mod ranges;
pub mod stream;
pub mod verify;
