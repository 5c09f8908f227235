//! `fusion_gate`: the learned mixture of LCHA's two branches.

use serde::{Deserialize, Serialize};

use super::super::{Cost, OpDef, OpError, arity, require, same_float};
use super::fits;
use crate::TensorType;

/// `α ⊙ x + (1 − α) ⊙ y` with `α = sigmoid(gate)` (S2DiT's FusionGate, arXiv 2601.12719). Operands gate, x, y.
///
/// - C1: x and y have one type. C2: gate broadcasts to it. C3: one float dtype.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FusionGate {}

impl OpDef for FusionGate {
    fn name(&self) -> &'static str {
        "fusion_gate"
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 3..=3)?;
        same_float(operands)?;
        let (gate, x, y) = (operands[0], operands[1], operands[2]);
        require!(x == y, "the branches must have one type, found {x} and {y}");
        fits("gate", gate, &x.shape)?;
        Ok(x.clone())
    }

    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops((3 * ty.elements() + 7 * operands[0].elements()) as u64, operands, ty)
    }
}
