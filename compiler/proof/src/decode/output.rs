//! The video of a decoder as an output: a file that shows it, or its numbers.

use std::path::Path;

use anyhow::Result;
use s2dit_backends::output::Destination;
use s2dit_runtime::HostTensor;
use s2dit_video::{NAMES, Spec, VideoWriter, is_video};

use super::VideoFile;

/// A video that is written as frames are made; it appears when it is whole.
pub enum VideoOutput {
    /// A video or a folder of pictures, as the name says.
    Shown(VideoWriter),
    /// The numbers, as safetensors.
    Numbers(VideoFile),
}

impl VideoOutput {
    /// Whether a name says an output of videos.
    ///
    /// # Errors
    /// What the name should be.
    pub fn check(path: &Path) -> Result<(), String> {
        if is_numbers(path) || is_video(path) {
            return Ok(());
        }
        Err(format!("expected {NAMES}, or one that ends in .safetensors for numbers"))
    }

    /// Begins a video of the shape `[1, 3, T, H, W]`.
    ///
    /// # Errors
    /// A name or a size that no format has; a place that cannot be written.
    pub fn create(to: Destination<'_>, shape: [usize; 5], fps: f64) -> Result<VideoOutput> {
        if is_numbers(to.path) {
            return Ok(VideoOutput::Numbers(VideoFile::create(to, shape)?));
        }
        let [.., rows, cols] = shape;
        Ok(VideoOutput::Shown(VideoWriter::create(to, Spec { rows, cols, fps })?))
    }

    /// Adds frames `[1, 3, T, H, W]`.
    ///
    /// # Errors
    /// Frames of another size, or too many; the disk is full.
    pub fn push(&mut self, frames: &HostTensor) -> Result<()> {
        match self {
            VideoOutput::Shown(writer) => writer.push_video(frames),
            VideoOutput::Numbers(file) => file.push(frames),
        }
    }

    /// Puts the video in its place.
    ///
    /// # Errors
    /// Frames that are missing; the disk is full.
    pub fn finish(self) -> Result<()> {
        match self {
            VideoOutput::Shown(writer) => writer.finish(),
            VideoOutput::Numbers(file) => file.finish(),
        }
    }
}

fn is_numbers(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "safetensors")
}
