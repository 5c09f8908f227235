//! SSA stages: into the low resolution and back.

use s2dit_ir::ValueId;
use s2dit_ir::ops::Conv;

use super::{Imported, Importer};
use crate::s2dit::config::Grid;

impl Importer<'_> {
    /// Strided convolution frame by frame: `[1, N, D]` → `[1, N/s², D]`.
    pub(super) fn stage_down(&mut self, x: ValueId, stage: usize, grid: Grid) -> Imported {
        let (width, stride) = (self.config.hidden_size(), self.config.ssa_stride);
        let low = grid.strided(stride);
        self.within(&format!("stages.{stage}.down"), |m| {
            let (w, b) = (m.param("weight")?, m.param("bias")?);
            let x = m.b.reshape(x, &[grid.frames, grid.rows, grid.cols, width])?;
            let x = m.b.transpose(x, &[0, 3, 1, 2])?;
            let y = m.b.conv(Conv::with_strides(&[stride, stride]), x, w, Some(b))?;
            let y = m.b.transpose(y, &[0, 2, 3, 1])?;
            Ok(m.b.reshape(y, &[1, low.tokens(), width])?)
        })
    }

    /// `x_hi + PixelShuffle(up(x_lo))`, channels of `up` in (row, column, D) order: `[1, N/s², D]` → `[1, N, D]`.
    pub(super) fn stage_up(&mut self, x: ValueId, entered: ValueId, stage: usize, grid: Grid) -> Imported {
        let (width, stride) = (self.config.hidden_size(), self.config.ssa_stride);
        let low = grid.strided(stride);
        self.within(&format!("stages.{stage}"), |m| {
            let y = m.linear("up", x)?;
            let y = m.b.reshape(y, &[low.frames * low.rows, low.cols, stride, stride * width])?;
            let y = m.b.transpose(y, &[0, 2, 1, 3])?;
            let y = m.b.reshape(y, &[1, grid.tokens(), width])?;
            Ok(m.b.add(entered, y)?)
        })
    }
}
