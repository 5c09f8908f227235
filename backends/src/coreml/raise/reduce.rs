//! Reductions and softmax.

use anyhow::{Result, bail};
use s2dit_ir::ValueId;
use s2dit_ir::ops::{ArgReduce, ReduceKind, Unary};

use super::{Handler, Raise};
use crate::coreml::proto::Operation;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "reduce_sum" | "reduce_mean" | "reduce_max" | "reduce_min" | "reduce_sum_square" | "reduce_l2_norm"
        | "reduce_l1_norm" | "reduce_prod" | "reduce_log_sum" => reduce,
        "reduce_log_sum_exp" => log_sum_exp,
        "reduce_argmax" | "reduce_argmin" => arg_reduce,
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
    if axes.is_empty() {
        return elementwise_reduce(r, op, x);
    }
    let compute = |r: &mut Raise, v: &[ValueId]| reduced(r, &op.r#type, v[0], &axes, keep);
    let widened = matches!(op.r#type.as_str(), "reduce_mean" | "reduce_l2_norm" | "reduce_log_sum");
    if widened && !r.b.f.dtype(x).is_float() {
        return Ok(vec![r.in_f64(&[x], compute)?]);
    }
    Ok(vec![compute(r, &[x])?])
}

fn reduced(r: &mut Raise, op: &str, x: ValueId, axes: &[usize], keep: bool) -> Result<ValueId> {
    Ok(match op {
        "reduce_sum" => r.b.reduce(ReduceKind::Sum, x, axes, keep)?,
        "reduce_mean" => r.b.reduce(ReduceKind::Mean, x, axes, keep)?,
        "reduce_max" => r.b.reduce(ReduceKind::Max, x, axes, keep)?,
        "reduce_min" => r.b.reduce(ReduceKind::Min, x, axes, keep)?,
        "reduce_prod" => r.b.reduce(ReduceKind::Prod, x, axes, keep)?,
        "reduce_l2_norm" => r.b.reduce(ReduceKind::L2Norm, x, axes, keep)?,
        "reduce_l1_norm" => {
            let size = r.b.unary(Unary::Abs, x)?;
            r.b.reduce(ReduceKind::Sum, size, axes, keep)?
        }
        "reduce_log_sum" => {
            let sum = r.b.reduce(ReduceKind::Sum, x, axes, keep)?;
            r.b.unary(Unary::Log, sum)?
        }
        _ => {
            let square = r.b.unary(Unary::Square, x)?;
            r.b.reduce(ReduceKind::Sum, square, axes, keep)?
        }
    })
}

fn arg_reduce(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let axis = r.axis(r.int(op, "axis", Some(-1))?, r.rank(x))?;
    let keep = r.flag(op, "keep_dims", false)?;
    let mut y = r.b.op(ArgReduce { least: op.r#type == "reduce_argmin", axis }, &[x])?;
    if !keep {
        let mut shape = r.b.shape(y).to_vec();
        shape.remove(axis);
        y = r.b.reshape(y, &shape)?;
    }
    let dtype = r.declared(op)?.dtype;
    Ok(vec![r.b.cast(y, dtype)?])
}

/// Over no axes (those of a rank-0 tensor), a sum or an extreme is the element itself.
fn elementwise_reduce(r: &mut Raise, op: &Operation, x: ValueId) -> Result<Vec<ValueId>> {
    Ok(vec![match op.r#type.as_str() {
        "reduce_sum_square" => r.b.unary(Unary::Square, x)?,
        "reduce_l2_norm" | "reduce_l1_norm" => r.b.unary(Unary::Abs, x)?,
        "reduce_log_sum" => r.b.unary(Unary::Log, x)?,
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
