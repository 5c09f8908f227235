//! Reductions and softmax.

use anyhow::{Result, bail};
use s2dit_ir::ValueId;
use s2dit_ir::ops::{ReduceKind, Unary};

use super::{Handler, Raise};
use crate::coreml::proto::Operation;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "reduce_sum" | "reduce_mean" | "reduce_max" | "reduce_min" | "reduce_sum_square" | "reduce_l2_norm" => reduce,
        "reduce_log_sum_exp" => log_sum_exp,
        "softmax" => softmax,
        _ => return None,
    })
}

/// The axes that are reduced. Apple does not say what an empty list means.
fn axes(r: &Raise, op: &Operation, x: ValueId) -> Result<Vec<usize>> {
    let axes = r.axes(op, "axes", r.rank(x))?;
    if axes.is_empty() && r.rank(x) > 0 {
        bail!("input `axes` is empty");
    }
    Ok(axes)
}

fn reduce(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let axes = axes(r, op, x)?;
    let keep = r.flag(op, "keep_dims", false)?;
    if op.r#type == "reduce_mean" && !r.b.f.dtype(x).is_float() {
        bail!("{} cannot be run here: the mean would have to be rounded", r.b.f.ty(x));
    }
    if axes.is_empty() {
        return elementwise_reduce(r, op, x);
    }
    Ok(vec![match op.r#type.as_str() {
        "reduce_sum" => r.b.reduce(ReduceKind::Sum, x, &axes, keep)?,
        "reduce_mean" => r.b.reduce(ReduceKind::Mean, x, &axes, keep)?,
        "reduce_max" => r.b.reduce(ReduceKind::Max, x, &axes, keep)?,
        "reduce_min" => r.b.reduce(ReduceKind::Min, x, &axes, keep)?,
        norm => {
            let square = r.b.unary(Unary::Square, x)?;
            let sum = r.b.reduce(ReduceKind::Sum, square, &axes, keep)?;
            if norm == "reduce_l2_norm" { r.b.unary(Unary::Sqrt, sum)? } else { sum }
        }
    }])
}

/// Over no axes (those of a rank-0 tensor), a sum or an extreme is the element itself.
fn elementwise_reduce(r: &mut Raise, op: &Operation, x: ValueId) -> Result<Vec<ValueId>> {
    Ok(vec![match op.r#type.as_str() {
        "reduce_sum_square" => r.b.unary(Unary::Square, x)?,
        "reduce_l2_norm" => r.b.unary(Unary::Abs, x)?,
        _ => r.b.unary(Unary::Identity, x)?,
    }])
}

/// max + log Σ exp(x − max)
fn log_sum_exp(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let axes = axes(r, op, x)?;
    if axes.is_empty() {
        return Ok(vec![r.b.unary(Unary::Identity, x)?]);
    }
    let keep = r.flag(op, "keep_dims", false)?;
    let max = r.b.reduce(ReduceKind::Max, x, &axes, true)?;
    let shifted = r.b.sub(x, max)?;
    let exp = r.b.unary(Unary::Exp, shifted)?;
    let sum = r.b.reduce(ReduceKind::Sum, exp, &axes, true)?;
    let log = r.b.unary(Unary::Log, sum)?;
    let y = r.b.add(log, max)?;
    if keep {
        return Ok(vec![y]);
    }
    let shape = r.b.shape(x).to_vec();
    let kept: Vec<usize> = (0..shape.len()).filter(|i| !axes.contains(i)).map(|i| shape[i]).collect();
    Ok(vec![r.b.reshape(y, &kept)?])
}

fn softmax(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let axis = r.axis(r.int(op, "axis", Some(-1))?, r.rank(x))?;
    Ok(vec![r.b.softmax(x, axis)?])
}
