//! Rotary position embedding over (frame, row, column): of pairs of neighbours, or of the two halves.

use s2dit_ir::ValueId;
use s2dit_ir::ops::{RopePart, RopeTable};

use super::builder::{BuildError, Built, Layers};
use crate::size::Grid;

/// Tables of a grid, `[N, d/2]` each; `[N, D/2]` where all heads are rotated as one.
#[derive(Clone, Copy)]
pub(crate) struct Rope {
    pub cos: ValueId,
    pub sin: ValueId,
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

    /// Rotates the pairs (0,1), (2,3), … of `[1, A, N, d]`, or of `[1, N, D]`, by the token's angles.
    pub(crate) fn rotate(&mut self, x: ValueId, rope: Rope) -> Built {
        let shape = self.b.shape(x).to_vec();
        let last = shape.len() - 1;
        let with = |extents: &[usize]| [&shape[..last], extents].concat();
        let (half, column) = (with(&[shape[last] / 2]), with(&[shape[last] / 2, 1]));
        self.within("rope", |m| {
            let pairs = m.b.reshape(x, &with(&[shape[last] / 2, 2]))?;
            let even = m.b.slice(pairs, last + 1, 0, 1)?;
            let odd = m.b.slice(pairs, last + 1, 1, 2)?;
            let (even, odd) = (m.b.reshape(even, &half)?, m.b.reshape(odd, &half)?);

            let (ec, os) = (m.b.mul(even, rope.cos)?, m.b.mul(odd, rope.sin)?);
            let real = m.b.sub(ec, os)?;
            let (es, oc) = (m.b.mul(even, rope.sin)?, m.b.mul(odd, rope.cos)?);
            let imaginary = m.b.add(es, oc)?;

            let (real, imaginary) = (m.b.reshape(real, &column)?, m.b.reshape(imaginary, &column)?);
            let y = m.b.concat(&[real, imaginary], last + 1)?;
            Ok(m.b.reshape(y, &shape)?)
        })
    }

    /// Rotates the pairs (0, d/2), (1, d/2 + 1), … of `[1, A, N, d]` by the token's angles.
    pub(crate) fn rotate_halves(&mut self, x: ValueId, rope: Rope) -> Built {
        let last = self.b.shape(x).len() - 1;
        let width = self.b.shape(x)[last];
        self.within("rope", |m| {
            let first = m.b.slice(x, last, 0, width / 2)?;
            let second = m.b.slice(x, last, width / 2, width)?;
            let (fc, ss) = (m.b.mul(first, rope.cos)?, m.b.mul(second, rope.sin)?);
            let real = m.b.sub(fc, ss)?;
            let (fs, sc) = (m.b.mul(first, rope.sin)?, m.b.mul(second, rope.cos)?);
            let imaginary = m.b.add(fs, sc)?;
            Ok(m.b.concat(&[real, imaginary], last)?)
        })
    }
}
