//! `linear_attention`: attention over all tokens at once, linear in their number.

use serde::{Deserialize, Serialize};

use super::super::{Cost, OpDef, OpError, arity, require, same_float};
use super::matrices;
use crate::TensorType;

/// `yᵢ = q̂ᵢ·(Σⱼ k̂ⱼ vⱼᵀ) / max(q̂ᵢ·Σⱼ k̂ⱼ + eps, least)` (Katharopoulos et al., arXiv 2006.16236) over the last two axes. Operands: the features q
/// `[…, N, d]` and k `[…, M, d]`, v `[…, M, e]`; the result is `[…, N, e]`. Two more operands, q' and k', are the features of
/// the normaliser where they differ (SANA-Video rotates those of the numerator only).
///
/// - C1: one rank ≥ 2 and equal leading axes. C2: widths of q and k agree, lengths of k and v agree; q' is like q and k' like k.
///   C3: one float dtype.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinearAttention {
    /// Added to the normaliser.
    pub eps: f64,
    /// The least normaliser; 0, the default, for none. Of features that are all zero it makes zero, where `eps` is too small for fp16.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub least: f64,
}

fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

impl OpDef for LinearAttention {
    fn name(&self) -> &'static str {
        "linear_attention"
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 3..=5)?;
        require!(operands.len() != 4, "takes q' and k' together");
        same_float(operands)?;
        let (q, k, v) = (operands[0], operands[1], operands[2]);
        let ((q_lead, n, dq), (k_lead, m, dk), (v_lead, keys, e)) =
            (matrices("q", q)?, matrices("k", k)?, matrices("v", v)?);
        require!(q_lead == k_lead && k_lead == v_lead, "leading axes of {q}, {k} and {v} must be equal");
        require!(dq == dk, "q and k must have one width, found {q} and {k}");
        require!(m == keys, "k and v must have one length, found {k} and {v}");
        if let [_, _, _, q_norm, k_norm] = operands {
            require!(*q_norm == q, "q' must be {q}, found {q_norm}");
            require!(*k_norm == k, "k' must be {k}, found {k_norm}");
        }
        Ok(TensorType::new(q.dtype, [q_lead, &[n, e]].concat()))
    }

    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        let d = operands[0].shape.last().copied().unwrap_or(0);
        let products = 2 * d * (operands[2].elements() + ty.elements());
        let normaliser = operands[1].elements() + 2 * operands[0].elements() + ty.elements();
        Cost::with_flops((products + normaliser) as u64, operands, ty)
    }
}
