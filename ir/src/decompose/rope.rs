//! What `rope` stands for.

use super::Decompose;
use crate::build::Built;
use crate::ops::{Rope, RopePairs};
use crate::{Builder, ValueId};

impl Decompose for Rope {
    fn decompose(&self, b: &mut Builder, operands: &[ValueId]) -> Built {
        let (x, cos, sin) = (operands[0], operands[1], operands[2]);
        let shape = b.shape(x).to_vec();
        let (axis, half) = (self.axis, shape[self.axis] / 2);
        let (first, second) = match self.pairs {
            RopePairs::Halves => (b.slice(x, axis, 0, half)?, b.slice(x, axis, half, 2 * half)?),
            RopePairs::Interleaved => {
                let with = |extents: &[usize]| [&shape[..axis], extents, &shape[axis + 1..]].concat();
                let pairs = b.reshape(x, &with(&[half, 2]))?;
                let (even, odd) = (b.slice(pairs, axis + 1, 0, 1)?, b.slice(pairs, axis + 1, 1, 2)?);
                (b.reshape(even, &with(&[half]))?, b.reshape(odd, &with(&[half]))?)
            }
        };
        let (fc, ss) = (b.mul(first, cos)?, b.mul(second, sin)?);
        let real = b.sub(fc, ss)?;
        let (fs, sc) = (b.mul(first, sin)?, b.mul(second, cos)?);
        let imaginary = b.add(fs, sc)?;
        if self.pairs == RopePairs::Halves {
            return b.concat(&[real, imaginary], axis);
        }
        let column = [&shape[..axis], &[half, 1], &shape[axis + 1..]].concat();
        let (real, imaginary) = (b.reshape(real, &column)?, b.reshape(imaginary, &column)?);
        let y = b.concat(&[real, imaginary], axis + 1)?;
        b.reshape(y, &shape)
    }
}
