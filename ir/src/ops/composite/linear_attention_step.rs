//! `linear_attention_step`: linear attention that reads its sums.

use serde::{Deserialize, Serialize};

use super::super::{Cost, OpDef, OpError, arity, require, same_float};
use super::matrices;
use crate::TensorType;

/// `yᵢ = q̂ᵢ·S / (q̂ᵢ·zᵀ + eps)`: [`super::LinearAttention`] over sums, or means, that a stream carries (see
/// [`super::RunningMean`]). Operands q `[…, N, d]`, S `[…, d, e]`, z `[…, 1, d]`, eps (one element: it is scaled like S and z); a
/// fifth, q', is the normaliser's query where it differs. The result is `[…, N, e]`.
///
/// - C1: equal leading axes. C2: widths agree; q' is like q. C3: eps has one element and rank ≤ 1. C4: one float dtype.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinearAttentionStep {}

impl OpDef for LinearAttentionStep {
    fn name(&self) -> &'static str {
        "linear_attention_step"
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 4..=5)?;
        same_float(operands)?;
        let (q, sum, norm, eps) = (operands[0], operands[1], operands[2], operands[3]);
        let ((lead, n, dq), (s_lead, ds, e), (z_lead, one, dz)) =
            (matrices("q", q)?, matrices("S", sum)?, matrices("z", norm)?);
        require!(lead == s_lead && lead == z_lead, "leading axes of {q}, {sum} and {norm} must be equal");
        require!(dq == ds && dq == dz && one == 1, "S must be […, {dq}, e] and z […, 1, {dq}], found {sum} and {norm}");
        require!(eps.elements() == 1 && eps.rank() <= 1, "eps must be one number, found {eps}");
        if let Some(q_norm) = operands.get(4) {
            require!(*q_norm == q, "q' must be {q}, found {q_norm}");
        }
        Ok(TensorType::new(q.dtype, [lead, &[n, e]].concat()))
    }

    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        let d = operands[0].shape.last().copied().unwrap_or(0);
        let flops = 2 * d * ty.elements() + 2 * operands[0].elements() + ty.elements();
        Cost::with_flops(flops as u64, operands, ty)
    }
}
