//! SSA stages: into the low resolution and back.

use s2dit_ir::ValueId;
use s2dit_ir::ops::{Conv, Slice};

use super::config::S2ditConfig;
use crate::layers::{Built, Layers};
use crate::size::Grid;

impl S2ditConfig {
    /// Strided convolution frame by frame: `[B, N, D]` → `[B, M, D]`, M tokens of the low grid. Where the stride does not divide the
    /// grid, zeros lie below and to the right.
    pub(super) fn stage_down(&self, m: &mut Layers<'_>, x: ValueId, stage: usize, grid: Grid) -> Built {
        let (width, stride) = (m.dims.width(), self.ssa_stride);
        let low = grid.strided(stride);
        m.within(&format!("stages.{stage}.down"), |m| {
            let (w, b) = (m.param("weight")?, m.param("bias")?);
            m.each_clip(x, |m, x| {
                let x = m.b.reshape(x, &[grid.frames, grid.rows, grid.cols, width])?;
                let x = m.b.transpose(x, &[0, 3, 1, 2])?;
                let missing = [grid.rows, grid.cols].map(|size| size.next_multiple_of(stride) - size);
                let conv = Conv { pad_after: missing.to_vec(), ..Conv::with_strides(&[stride, stride]) };
                let y = m.b.conv(conv, x, w, Some(b))?;
                let y = m.b.transpose(y, &[0, 2, 3, 1])?;
                Ok(m.b.reshape(y, &[1, low.tokens(), width])?)
            })
        })
    }

    /// `x_hi + PixelShuffle(up(x_lo))`, channels of `up` in (row, column, D) order and cut to the grid: `[B, M, D]` → `[B, N, D]`.
    /// `entered` is x_hi; a stage that ends the network has none.
    pub(super) fn stage_up(
        &self,
        m: &mut Layers<'_>,
        x: ValueId,
        entered: Option<ValueId>,
        stage: usize,
        grid: Grid,
    ) -> Built {
        let (width, stride) = (m.dims.width(), self.ssa_stride);
        let low = grid.strided(stride);
        m.within(&format!("stages.{stage}"), |m| {
            let y = m.linear("up", x)?;
            let y = m.each_clip(y, |m, y| {
                let y = m.b.reshape(y, &[low.frames * low.rows, low.cols, stride, stride * width])?;
                let mut y = m.b.transpose(y, &[0, 2, 1, 3])?;
                if (low.rows * stride, low.cols * stride) != (grid.rows, grid.cols) {
                    y = m.b.reshape(y, &[grid.frames, low.rows * stride, low.cols * stride, width])?;
                    let end = vec![grid.frames, grid.rows, grid.cols, width];
                    y = m.b.op(Slice { begin: vec![0; 4], end, stride: vec![1; 4] }, &[y])?;
                }
                Ok(m.b.reshape(y, &[1, grid.tokens(), width])?)
            })?;
            match entered {
                Some(entered) => Ok(m.b.add(entered, y)?),
                None => Ok(y),
            }
        })
    }
}
