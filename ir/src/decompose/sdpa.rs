//! What `sdpa` stands for.

use super::Decompose;
use crate::build::Built;
use crate::ops::Sdpa;
use crate::{Builder, ValueId};

impl Decompose for Sdpa {
    fn decompose(&self, b: &mut Builder, operands: &[ValueId]) -> Built {
        let mut scores = b.matmul_t(operands[0], operands[1])?;
        if self.scale != 1.0 {
            scores = b.mul_scalar(scores, self.scale)?;
        }
        if let Some(&mask) = operands.get(3) {
            scores = b.add(scores, mask)?;
        }
        let axis = b.shape(scores).len() - 1;
        let weights = b.softmax(scores, axis)?;
        b.matmul(weights, operands[2])
    }
}
