//! `feature_map`: the learned positive kernel of LCHA.

use serde::{Deserialize, Serialize};

use super::super::{Cost, OpDef, OpError, arity, broadcast_shapes, require, same_float};
use super::{fits, matrices};
use crate::TensorType;

/// `φ(x) = softplus(x·Wᵀ + b)`, head by head (S2DiT, arXiv 2601.12719). Operands x `[…, N, d]`, W `[…, r, d]`, b, which broadcasts to
/// the result `[…, N, r]`. Leading axes broadcast.
///
/// - C1: ranks ≥ 2, widths of x and W agree. C2: b broadcasts to the result. C3: one float dtype.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureMap {}

impl OpDef for FeatureMap {
    fn name(&self) -> &'static str {
        "feature_map"
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 3..=3)?;
        same_float(operands)?;
        let (x, w) = (operands[0], operands[1]);
        let ((x_lead, n, d), (w_lead, r, width)) = (matrices("x", x)?, matrices("W", w)?);
        require!(d == width, "x and W must have one width, found {x} and {w}");
        let mut shape = broadcast_shapes(x_lead, w_lead)?;
        shape.extend([n, r]);
        fits("b", operands[2], &shape)?;
        Ok(TensorType::new(x.dtype, shape))
    }

    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        let d = operands[0].shape.last().copied().unwrap_or(0);
        Cost::with_flops(((2 * d + 9) * ty.elements()) as u64, operands, ty)
    }
}
