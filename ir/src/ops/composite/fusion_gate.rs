//! `fusion_gate`: the learned mixture of LCHA's two branches.

use serde::{Deserialize, Serialize};

use super::super::{Cost, OpDef, OpError, Unary, arity, require, same_float};
use super::{Composite, eval, fits};
use crate::build::Built;
use crate::{Builder, Tensor, TensorType, ValueId};

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

    fn eval(&self, operands: &[&Tensor], _: &TensorType) -> Result<Tensor, OpError> {
        eval(self, operands)
    }

    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops((3 * ty.elements() + 7 * operands[0].elements()) as u64, operands, ty)
    }
}

impl Composite for FusionGate {
    fn decompose(&self, b: &mut Builder, operands: &[ValueId]) -> Built {
        let alpha = b.unary(Unary::Sigmoid, operands[0])?;
        let one = b.scalar_like(alpha, 1.0)?;
        let rest = b.sub(one, alpha)?;
        let x = b.mul(alpha, operands[1])?;
        let y = b.mul(rest, operands[2])?;
        b.add(x, y)
    }
}
