//! Fused attention.

use anyhow::{Context, Result};
use s2dit_ir::ops::Unary;
use s2dit_ir::{DType, ValueId};

use super::{Handler, Raise};
use crate::coreml::proto::Operation;

pub(super) fn handler(op: &str) -> Option<Handler> {
    (op == "scaled_dot_product_attention").then_some(attention as Handler)
}

/// softmax(q·kᵀ/√E + mask)·v with E the last extent of q.
fn attention(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let (q, k, v) = (r.operand(op, "query")?, r.operand(op, "key")?, r.operand(op, "value")?);
    let width = *r.b.shape(q).last().context("a query of rank 0")?;
    let scores = r.b.matmul_t(q, k)?;
    // As an expression, the factor is not rounded to the dtype of q.
    let width = r.b.scalar_like(q, width as f64)?;
    let scale = r.b.unary(Unary::Rsqrt, width)?;
    let mut scores = r.b.mul(scores, scale)?;
    if let Some(mut mask) = r.operand_if(op, "attn_mask")? {
        if r.b.f.dtype(mask) == DType::Bool {
            // True keeps: log 1 = 0, log 0 = −∞.
            let kept = r.b.cast(mask, r.b.f.dtype(scores))?;
            mask = r.b.unary(Unary::Log, kept)?;
        }
        scores = r.b.add(scores, mask)?;
    }
    let axis = r.rank(scores) - 1;
    let weights = r.b.softmax(scores, axis)?;
    Ok(vec![r.b.matmul(weights, v)?])
}
