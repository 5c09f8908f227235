//! `modulate`.

use serde::{Deserialize, Serialize};

use super::super::{Cost, OpDef, OpError, arity, same_float};
use super::{Composite, eval, fits};
use crate::build::Built;
use crate::{Builder, Tensor, TensorType, ValueId};

/// `x·(1 + scale) + shift`: adaptive normalisation's second half (DiT, arXiv 2212.09748). Operands x, scale, shift.
///
/// - C1: scale and shift broadcast to x. C2: one float dtype.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Modulate {}

impl OpDef for Modulate {
    fn name(&self) -> &'static str {
        "modulate"
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 3..=3)?;
        same_float(operands)?;
        fits("scale", operands[1], &operands[0].shape)?;
        fits("shift", operands[2], &operands[0].shape)?;
        Ok(operands[0].clone())
    }

    fn eval(&self, operands: &[&Tensor], _: &TensorType) -> Result<Tensor, OpError> {
        eval(self, operands)
    }

    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops((2 * ty.elements() + operands[1].elements()) as u64, operands, ty)
    }
}

impl Composite for Modulate {
    fn decompose(&self, b: &mut Builder, operands: &[ValueId]) -> Built {
        let scale = b.add_scalar(operands[1], 1.0)?;
        let scaled = b.mul(operands[0], scale)?;
        b.add(scaled, operands[2])
    }
}
