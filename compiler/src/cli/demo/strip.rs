//! Pictures of a video side by side, drawn with the characters of a terminal.

use anyhow::Result;
use s2dit_runtime::HostTensor;

use crate::cli::style;
use crate::cli::terminal::print_script;

/// Pictures of a strip.
const PICTURES: usize = 5;
/// Columns of a picture; two of its rows are one line of text.
const COLS: usize = 24;

/// Pictures at even distances in a video.
#[derive(Default)]
pub(super) struct Strip {
    /// Frames that were seen.
    seen: usize,
    pictures: Vec<Vec<[u8; 3]>>,
}

impl Strip {
    /// Takes from these frames `[1, 3, T, H, W]`, −1 to 1, what belongs into the strip of a video of `total` frames.
    pub fn push(&mut self, frames: &HostTensor, total: usize) {
        let [_, _, count, rows, cols] = frames.shape[..] else { return };
        for frame in 0..count {
            let next = self.pictures.len() * total.saturating_sub(1) / (PICTURES - 1);
            if self.seen == next && self.pictures.len() < PICTURES {
                self.pictures.push(small(&frames.data, [count, rows, cols], frame));
            }
            self.seen += 1;
        }
    }

    /// Prints the strip, on a terminal with colours.
    ///
    /// # Errors
    /// Standard output that cannot be written.
    pub fn print(&self) -> Result<()> {
        if !style::is_coloured() {
            return Ok(());
        }
        for line in 0..COLS / 2 {
            let mut text = String::from("  ");
            for picture in &self.pictures {
                text.push(' ');
                for col in 0..COLS {
                    let [upper, lower] = [0, 1].map(|row| picture[(2 * line + row) * COLS + col]);
                    text += &style::half_blocks(upper, lower);
                }
                text += style::RESET;
            }
            print_script(&text)?;
        }
        Ok(())
    }
}

/// A frame as `COLS × COLS` colours, each the mean of its pixels.
fn small(data: &[f32], [count, rows, cols]: [usize; 3], frame: usize) -> Vec<[u8; 3]> {
    let range = |at: usize, extent: usize| at * extent / COLS..((at + 1) * extent).div_ceil(COLS);
    let mut out = Vec::with_capacity(COLS * COLS);
    for row in 0..COLS {
        for col in 0..COLS {
            out.push([0, 1, 2].map(|channel| {
                let (mut sum, mut pixels) = (0.0, 0.0);
                for y in range(row, rows) {
                    for x in range(col, cols) {
                        sum += data[((channel * count + frame) * rows + y) * cols + x];
                        pixels += 1.0;
                    }
                }
                // The conversion saturates.
                ((sum / pixels + 1.0) * 127.5).round() as u8
            }));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strip_has_the_first_and_the_last_frame() {
        let mut strip = Strip::default();
        let (total, side) = (9, 48);
        for frame in 0..total {
            let value = frame as f32 / 8.0 * 2.0 - 1.0;
            let frames = HostTensor::new([1, 3, 1, side, side], vec![value; 3 * side * side]).expect("a frame");
            strip.push(&frames, total);
        }
        let first_pixels: Vec<u8> = strip.pictures.iter().map(|picture| picture[0][0]).collect();
        assert_eq!(first_pixels, [0, 64, 128, 191, 255]);
    }

    #[test]
    fn a_picture_keeps_its_place_and_its_channels() {
        let side = 48;
        let mut data = vec![-1.0; 3 * side * side];
        // The upper left quarter is red.
        for y in 0..side / 2 {
            data[y * side..y * side + side / 2].fill(1.0);
        }
        let picture = small(&data, [1, side, side], 0);
        assert_eq!(picture[0], [255, 0, 0]);
        assert_eq!(picture[COLS - 1], [0, 0, 0]);
        assert_eq!(picture[COLS * (COLS - 1)], [0, 0, 0]);
    }
}
