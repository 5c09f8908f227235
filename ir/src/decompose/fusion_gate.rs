//! What `fusion_gate` stands for.

use super::Decompose;
use crate::build::Built;
use crate::ops::{FusionGate, Unary};
use crate::{Builder, ValueId};

impl Decompose for FusionGate {
    fn decompose(&self, b: &mut Builder, operands: &[ValueId]) -> Built {
        let alpha = b.unary(Unary::Sigmoid, operands[0])?;
        let one = b.scalar_like(alpha, 1.0)?;
        let rest = b.sub(one, alpha)?;
        let x = b.mul(alpha, operands[1])?;
        let y = b.mul(rest, operands[2])?;
        b.add(x, y)
    }
}
