//! Rotary position embedding over (frame, row, column), interleaved pairs.

use s2dit_ir::ValueId;
use s2dit_ir::ops::{RopePart, RopeTable};

use super::builder::{BuildError, Built, Layers};
use crate::size::Grid;

/// Tables of a grid, `[N, d/2]` each.
#[derive(Clone, Copy)]
pub(crate) struct Rope {
    cos: ValueId,
    sin: ValueId,
}

impl Layers<'_> {
    pub(crate) fn rope(&mut self, grid: Grid) -> Result<Rope, BuildError> {
        let table = |part| RopeTable {
            part,
            grid: [grid.frames, grid.rows, grid.cols],
            axis_dims: self.dims.rope_split(),
            theta: self.dims.rope_theta,
        };
        let (cos, sin) = (table(RopePart::Cos), table(RopePart::Sin));
        self.within("rope", |m| Ok(Rope { cos: m.b.op(cos, &[])?, sin: m.b.op(sin, &[])? }))
    }

    /// Rotates the pairs (0,1), (2,3), … of `[1, A, N, d]` by the token's angles.
    pub(crate) fn rotate(&mut self, x: ValueId, rope: Rope) -> Built {
        let shape = self.b.shape(x).to_vec();
        let (heads, tokens, dim) = (shape[1], shape[2], shape[3]);
        let half = [1, heads, tokens, dim / 2];
        let column = [1, heads, tokens, dim / 2, 1];
        self.within("rope", |m| {
            let pairs = m.b.reshape(x, &[1, heads, tokens, dim / 2, 2])?;
            let even = m.b.slice(pairs, 4, 0, 1)?;
            let odd = m.b.slice(pairs, 4, 1, 2)?;
            let (even, odd) = (m.b.reshape(even, &half)?, m.b.reshape(odd, &half)?);

            let (ec, os) = (m.b.mul(even, rope.cos)?, m.b.mul(odd, rope.sin)?);
            let real = m.b.sub(ec, os)?;
            let (es, oc) = (m.b.mul(even, rope.sin)?, m.b.mul(odd, rope.cos)?);
            let imaginary = m.b.add(es, oc)?;

            let (real, imaginary) = (m.b.reshape(real, &column)?, m.b.reshape(imaginary, &column)?);
            let y = m.b.concat(&[real, imaginary], 4)?;
            Ok(m.b.reshape(y, &shape)?)
        })
    }
}
