//! Fused attention.

use anyhow::{Context, Result, bail};
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
    let mut scores = r.b.mul_scalar(scores, (width as f64).powf(-0.5))?;
    if let Some(mask) = r.operand_if(op, "attn_mask")? {
        if r.b.f.dtype(mask) == DType::Bool {
            bail!("a bool attn_mask cannot be run here");
        }
        scores = r.b.add(scores, mask)?;
    }
    let axis = r.rank(scores) - 1;
    let weights = r.b.softmax(scores, axis)?;
    Ok(vec![r.b.matmul(weights, v)?])
}
