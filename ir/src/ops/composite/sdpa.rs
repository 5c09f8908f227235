//! `sdpa`: scaled dot-product attention.

use serde::{Deserialize, Serialize};

use super::super::{Cost, OpDef, OpError, arity, broadcast_shapes, require, same_float};
use super::{fits, matrices};
use crate::TensorType;

/// `softmax(scale·q·kᵀ + mask)·v` over the last two axes (Vaswani et al., arXiv 1706.03762), the softmax along the keys. Operands
/// q `[…, N, d]`, k `[…, M, d]`, v `[…, M, e]` and, optionally, mask, which broadcasts to `[…, N, M]`; the result is `[…, N, e]`.
/// Leading axes broadcast.
///
/// - C1: ranks ≥ 2, d of q and k agree, M of k and v agree. C2: the mask broadcasts to the scores. C3: one float dtype.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sdpa {
    /// Factor of the scores, usually 1/√d.
    pub scale: f64,
}

impl Sdpa {
    /// Shape of the scores, `[…, N, M]`.
    fn scores(operands: &[&TensorType]) -> Result<Vec<usize>, OpError> {
        let ((q_lead, n, dq), (k_lead, m, dk)) = (matrices("q", operands[0])?, matrices("k", operands[1])?);
        require!(dq == dk, "q and k must have one width, found {} and {}", operands[0], operands[1]);
        let mut shape = broadcast_shapes(q_lead, k_lead)?;
        shape.extend([n, m]);
        Ok(shape)
    }
}

impl OpDef for Sdpa {
    fn name(&self) -> &'static str {
        "sdpa"
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 3..=4)?;
        same_float(operands)?;
        let scores = Self::scores(operands)?;
        let (v_lead, keys, width) = matrices("v", operands[2])?;
        let [lead @ .., n, m] = &scores[..] else { return Err(OpError::new("scores need rank 2")) };
        require!(*m == keys, "k and v must have one length, found {} and {}", operands[1], operands[2]);
        if let Some(mask) = operands.get(3) {
            fits("mask", mask, &scores)?;
        }
        let mut shape = broadcast_shapes(lead, v_lead)?;
        shape.extend([*n, width]);
        Ok(TensorType::new(operands[0].dtype, shape))
    }

    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        let scores = Self::scores(operands).map_or(0, |s| s.iter().product::<usize>());
        let (d, m) = (operands[0].shape.last().copied().unwrap_or(0), operands[2].shape.iter().rev().nth(1));
        let products = 2 * d * scores + 2 * m.copied().unwrap_or(0) * ty.elements();
        Cost::with_flops((products + 10 * scores) as u64, operands, ty)
    }
}
