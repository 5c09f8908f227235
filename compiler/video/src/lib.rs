//! Videos as files, written frame by frame: the ending of the name says which kind.
//!
//! Every writer makes the same bytes of the same frames, on any machine, and its output appears when it is whole.

mod folder;
mod gif;
#[cfg(feature = "mp4")]
mod mp4;
mod rgb;
mod webp;

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use s2dit_backends::output::Destination;
use s2dit_runtime::HostTensor;

pub use rgb::Rgb;

/// The size and rate of a video.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// Rows of pixels.
    pub rows: usize,
    /// Columns of pixels.
    pub cols: usize,
    /// Frames a second.
    pub fps: f64,
}

/// A format on its way to the disk.
trait Format {
    /// Adds a frame of the size of the video.
    fn push(&mut self, frame: &Rgb) -> Result<()>;

    /// Puts the output in its place.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// A format of videos.
struct Kind {
    /// The ending of its names; none for a folder.
    ending: Option<&'static str>,
    create: fn(Destination<'_>, Spec) -> Result<Box<dyn Format>>,
}

/// Every format.
const KINDS: [Kind; 4] = [
    Kind { ending: Some("mp4"), create: create_mp4 },
    Kind { ending: Some("webp"), create: |to, spec| Ok(Box::new(webp::Webp::create(to, spec)?)) },
    Kind { ending: Some("gif"), create: |to, spec| Ok(Box::new(gif::Gif::create(to, spec)?)) },
    Kind { ending: None, create: |to, spec| Ok(Box::new(folder::Folder::create(to, spec)?)) },
];

#[cfg(feature = "mp4")]
fn create_mp4(to: Destination<'_>, spec: Spec) -> Result<Box<dyn Format>> {
    Ok(Box::new(mp4::Mp4::create(to, spec)?))
}

#[cfg(not(feature = "mp4"))]
fn create_mp4(to: Destination<'_>, _: Spec) -> Result<Box<dyn Format>> {
    bail!(
        "`{}`: this s2ditc was built without the feature `mp4`: build it with the feature, or name a .webp, a .gif or a folder",
        to.path.display()
    )
}

/// Names that say a video, for messages.
pub const NAMES: &str = "a name that ends in .mp4, .webp or .gif, or one without an ending for a folder of PNGs";

/// The format that a name says; `None` if it says another one.
fn kind(path: &Path) -> Option<&'static Kind> {
    let ending = path.extension();
    KINDS.iter().find(|kind| match (kind.ending, ending) {
        (None, None) => true,
        (Some(known), Some(found)) => found.eq_ignore_ascii_case(known),
        _ => false,
    })
}

/// Whether a name says a format that is written here.
#[must_use]
pub fn is_video(path: &Path) -> bool {
    kind(path).is_some()
}

/// A video that is written frame by frame.
pub struct VideoWriter {
    format: Box<dyn Format>,
    spec: Spec,
    frames: usize,
}

impl VideoWriter {
    /// Begins a video.
    ///
    /// # Errors
    /// A name that says no format; a size or a rate that the format does not have; a place that cannot be written.
    pub fn create(to: Destination<'_>, spec: Spec) -> Result<VideoWriter> {
        let shown = to.path.display();
        let kind = kind(to.path).with_context(|| format!("`{shown}`: expected {NAMES}"))?;
        if spec.rows == 0 || spec.cols == 0 || !(0.01..=1000.0).contains(&spec.fps) {
            bail!(
                "`{shown}`: found a video of {}x{} at {} frames a second, expected pixels, and 0.01 to 1000 frames a second",
                spec.cols,
                spec.rows,
                spec.fps
            );
        }
        Ok(VideoWriter { format: (kind.create)(to, spec)?, spec, frames: 0 })
    }

    /// Adds a frame.
    ///
    /// # Errors
    /// A frame of another size; the disk is full.
    pub fn push(&mut self, frame: &Rgb) -> Result<()> {
        let Spec { rows, cols, .. } = self.spec;
        ensure!(
            [frame.rows, frame.cols] == [rows, cols],
            "a frame of {}x{} in a video of {cols}x{rows}",
            frame.cols,
            frame.rows
        );
        self.frames += 1;
        self.format.push(frame)
    }

    /// Adds frames `[1, 3, T, H, W]` in −1 to 1.
    ///
    /// # Errors
    /// As [`VideoWriter::push`].
    pub fn push_video(&mut self, video: &HostTensor) -> Result<()> {
        Rgb::of_video(video)?.try_for_each(|frame| self.push(&frame))
    }

    /// Puts the video in its place.
    ///
    /// # Errors
    /// A video without frames; the disk is full.
    pub fn finish(self) -> Result<()> {
        ensure!(self.frames > 0, "a video without frames");
        self.format.finish()
    }
}

/// The time of a frame in whole units, of which a second has `units`: frame `index` of a video begins at the nearest.
fn begins(index: usize, fps: f64, units: f64) -> u64 {
    (index as f64 * units / fps).round() as u64
}

#[cfg(test)]
mod tests;
