//! `running_mean`: the sums of linear attention, carried over a stream as means.

use serde::{Deserialize, Serialize};

use super::super::{Cost, OpDef, OpError, arity, require, same_float};
use super::matrices;
use crate::TensorType;

/// `past·state + new·(Σⱼ kⱼ vⱼᵀ)/N` over the N tokens of k `[…, N, d]` and v `[…, N, e]`; without v, `past·state + new·(Σⱼ kⱼ)/N`. With past =
/// n/(n+1) and new = 1/(n+1) this is the mean over n+1 chunks of means over tokens, which never leaves the range of one token.
/// Operands k, v (optional), state (`[…, d, e]`, or `[…, 1, d]` without v), past, new (one element each).
///
/// - C1: equal leading axes and lengths. C2: state has the result's shape. C3: past and new have one element and rank ≤ 1.
///   C4: one float dtype.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunningMean {}

impl OpDef for RunningMean {
    fn name(&self) -> &'static str {
        "running_mean"
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 4..=5)?;
        same_float(operands)?;
        let [k, values @ .., state, past, new] = operands else { return Err(OpError::new("takes k and a state")) };
        let (lead, n, d) = matrices("k", k)?;
        let shape = match values {
            [v] => {
                let (v_lead, tokens, e) = matrices("v", v)?;
                require!(lead == v_lead && n == tokens, "k and v must have one length, found {k} and {v}");
                [lead, &[d, e]].concat()
            }
            _ => [lead, &[1, d]].concat(),
        };
        require!(n > 0, "a mean needs a token, found {k}");
        require!(state.shape == shape, "state must be {shape:?}, found {state}");
        for (what, t) in [("past", past), ("new", new)] {
            require!(t.elements() == 1 && t.rank() <= 1, "{what} must be one number, found {t}");
        }
        Ok((*state).clone())
    }

    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        let tokens = operands[0].shape.iter().rev().nth(1).copied().unwrap_or(0);
        let sum = if operands.len() == 5 { 2 * tokens * ty.elements() } else { operands[0].elements() };
        Cost::with_flops((sum + 4 * ty.elements()) as u64, operands, ty)
    }
}
