//! What `modulate` stands for.

use super::Decompose;
use crate::build::Built;
use crate::ops::Modulate;
use crate::{Builder, ValueId};

impl Decompose for Modulate {
    fn decompose(&self, b: &mut Builder, operands: &[ValueId]) -> Built {
        let scale = b.add_scalar(operands[1], 1.0)?;
        let scaled = b.mul(operands[0], scale)?;
        b.add(scaled, operands[2])
    }
}
