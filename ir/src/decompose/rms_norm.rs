//! What `rms_norm` stands for.

use super::Decompose;
use crate::build::Built;
use crate::ops::{ReduceKind, RmsNorm, Unary};
use crate::{Builder, ValueId};

impl Decompose for RmsNorm {
    fn decompose(&self, b: &mut Builder, operands: &[ValueId]) -> Built {
        let x = operands[0];
        let square = b.unary(Unary::Square, x)?;
        let mean = b.reduce(ReduceKind::Mean, square, &[self.axis], true)?;
        let mean = b.add_scalar(mean, self.eps)?;
        let inverse = b.unary(Unary::Rsqrt, mean)?;
        let y = b.mul(x, inverse)?;
        let Some(&gain) = operands.get(1) else { return Ok(y) };
        let trailing = b.shape(x).len() - 1 - self.axis;
        if trailing == 0 {
            return b.mul(y, gain);
        }
        let mut shape = vec![1; trailing + 1];
        shape[0] = b.shape(x)[self.axis];
        let gain = b.reshape(gain, &shape)?;
        b.mul(y, gain)
    }
}
