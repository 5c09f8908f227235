//! `modulate`.

use serde::{Deserialize, Serialize};

use super::super::{Cost, OpDef, OpError, arity, same_float};
use super::fits;
use crate::TensorType;

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

    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops((2 * ty.elements() + operands[1].elements()) as u64, operands, ty)
    }
}
