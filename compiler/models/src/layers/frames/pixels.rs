//! Channels that become pixels and frames.

use s2dit_ir::ValueId;
use s2dit_ir::ops::DepthToSpace;

use super::super::builder::Built;
use super::Frames;

/// Pixels that a pixel becomes in each direction where a decoder doubles a plane.
const TWICE: usize = 2;

impl Frames<'_> {
    /// `[T, b²·C, h, w]` to `[T, C, b·h, b·w]`, channels ordered as (row of the block, column, channel).
    pub(crate) fn pixels(&mut self, x: ValueId, block: usize) -> Built {
        match block {
            1 => Ok(x),
            _ => Ok(self.b.op(DepthToSpace { block }, &[x])?),
        }
    }

    /// `[T, n·C, h, w]` to `[n·T, C, h, w]`: the channels of a frame are those of n frames, one behind the other.
    pub(crate) fn unstacked(&mut self, x: ValueId, n: usize) -> Built {
        let [frames, channels, rows, cols] = self.b.shape(x)[..] else {
            return Err(s2dit_ir::OpError::new("frames of another rank").into());
        };
        match n {
            1 => Ok(x),
            _ => Ok(self.b.reshape(x, &[n * frames, channels / n, rows, cols])?),
        }
    }

    /// The frames from `begin` on.
    pub(crate) fn frames_after(&mut self, x: ValueId, begin: usize) -> Built {
        let frames = self.b.shape(x)[0];
        match begin {
            0 => Ok(x),
            _ => Ok(self.b.slice(x, 0, begin, frames)?),
        }
    }

    /// Each frame as `times` frames of twice the rows and columns, with a `share`-th of the channels: channel c of the pixel at (row i, column j) of the
    /// a-th frame is channel `share·c + ⌊(4a + 2i + j)·share / (4·times)⌋`. A share of 1 repeats pixels, one of 4·times moves channels to pixels.
    pub(crate) fn spread(&mut self, x: ValueId, times: usize, share: usize) -> Built {
        let channels = self.b.shape(x)[1];
        let mut parts = Vec::with_capacity(share);
        for k in 0..share {
            let part = match share {
                1 => x,
                _ => {
                    let mut slice = s2dit_ir::ops::Slice::axis(self.b.shape(x), 1, k, channels);
                    slice.stride[1] = share;
                    self.b.op(slice, &[x])?
                }
            };
            parts.push(part);
        }
        let squares = TWICE * TWICE;
        let part = |position: usize| parts[position * share / (squares * times)];
        let mut frames = Vec::with_capacity(times);
        for a in 0..times {
            let square: Vec<ValueId> = (0..squares).map(|at| part(squares * a + at)).collect();
            let y = match square.iter().all(|part| *part == square[0]) {
                true => self.b.upsample(square[0], TWICE)?,
                false => {
                    let joined = self.b.concat(&square, 1)?;
                    self.pixels(joined, TWICE)?
                }
            };
            frames.push(y);
        }
        if let [frame] = frames[..] {
            return Ok(frame);
        }
        let joined = self.b.concat(&frames, 1)?;
        self.unstacked(joined, times)
    }

    /// `[T, C, h, w]` to `[T, n·C, h, w]`: channels one after the other, each n times.
    pub(crate) fn repeated(&mut self, x: ValueId, n: usize) -> Built {
        let [frames, channels, rows, cols] = self.b.shape(x)[..] else {
            return Err(s2dit_ir::OpError::new("frames of another rank").into());
        };
        if n == 1 {
            return Ok(x);
        }
        let y = self.b.reshape(x, &[frames, channels, 1, rows, cols])?;
        let y = self.b.broadcast_to(y, &[frames, channels, n, rows, cols])?;
        Ok(self.b.reshape(y, &[frames, n * channels, rows, cols])?)
    }
}
