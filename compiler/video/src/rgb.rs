//! Frames as pixels of 8 bits.

use anyhow::{Result, bail};
use s2dit_runtime::HostTensor;

/// A frame: red, green and blue of each pixel, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb {
    /// Rows of pixels.
    pub rows: usize,
    /// Columns of pixels.
    pub cols: usize,
    /// Three bytes a pixel.
    pub pixels: Vec<u8>,
}

impl Rgb {
    /// The frames of a video `[1, 3, T, H, W]` in −1 to 1, each value at the nearest of 256 levels.
    ///
    /// # Errors
    /// A tensor of another shape.
    pub fn of_video(video: &HostTensor) -> Result<impl Iterator<Item = Rgb> + '_> {
        let [1, 3, frames, rows, cols] = video.shape[..] else {
            bail!("a video of shape {:?}, expected [1, 3, T, H, W]", video.shape);
        };
        let plane = rows * cols;
        let frame = move |t: usize| {
            let at = |i: usize| video.data[(i % 3 * frames + t) * plane + i / 3];
            Rgb { rows, cols, pixels: (0..3 * plane).map(|i| level(at(i))).collect() }
        };
        Ok((0..frames).map(frame))
    }
}

/// −1 to 1 as 0 to 255.
fn level(x: f32) -> u8 {
    // What is not a number becomes 0.
    ((x / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round() as u8
}
