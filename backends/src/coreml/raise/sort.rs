//! Sorted elements and sums along an axis: `topk`, `argsort`, `cumsum`.

use anyhow::Result;
use s2dit_ir::ValueId;
use s2dit_ir::ops::{CumSum, GatherAlongAxis, SortIndices};

use super::types::Declared;
use super::{Handler, Raise};
use crate::coreml::proto::Operation;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "topk" => topk,
        "argsort" => argsort,
        "cumsum" => cumsum,
        _ => return None,
    })
}

/// The first k elements of an axis in sorted order, and where they are.
fn topk(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let axis = r.axis(r.int(op, "axis", Some(-1))?, r.rank(x))?;
    let extent = r.b.shape(x)[axis];
    let k = r.int(op, "k", Some(1))?;
    let count = if k == -1 { extent } else { usize::try_from(k)? };
    let descending = !r.flag(op, "ascending", false)?;
    let indices = r.b.op(SortIndices { axis, count, descending }, &[x])?;
    let values = r.b.op(GatherAlongAxis { axis }, &[x, indices])?;
    let [_, second] = &op.outputs[..] else { return Ok(vec![values]) };
    let declared = second.r#type.as_ref().map(Declared::of).transpose()?;
    let dtype = declared.map_or(r.b.f.dtype(indices), |declared| declared.dtype);
    Ok(vec![values, r.b.cast(indices, dtype)?])
}

fn argsort(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let axis = r.axis(r.int(op, "axis", Some(-1))?, r.rank(x))?;
    let descending = !r.flag(op, "ascending", false)?;
    let count = r.b.shape(x)[axis];
    let indices = r.b.op(SortIndices { axis, count, descending }, &[x])?;
    let dtype = r.declared(op)?.dtype;
    Ok(vec![r.b.cast(indices, dtype)?])
}

fn cumsum(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let axis = r.axis(r.int(op, "axis", Some(0))?, r.rank(x))?;
    let (exclusive, reverse) = (r.flag(op, "exclusive", false)?, r.flag(op, "reverse", false)?);
    Ok(vec![r.b.op(CumSum { axis, exclusive, reverse }, &[x])?])
}
