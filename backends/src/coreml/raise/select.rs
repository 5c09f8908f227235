//! Elements chosen by positions that are known, or by a condition.

use anyhow::{Context, Result, bail};
use s2dit_ir::ops::{GatherAlongAxis, Select, Unary};
use s2dit_ir::{DType, Tensor, TensorType, ValueId};

use super::{Handler, Raise};
use crate::coreml::proto::Operation;

/// Position lists that are written out are at most this long.
const LONGEST: usize = 1 << 24;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "reverse" => reverse,
        "reverse_sequence" => reverse_sequence,
        "select" => select,
        _ => return None,
    })
}

/// Positions of an axis, by index in the result.
pub(super) fn take(
    r: &mut Raise,
    x: ValueId,
    axis: usize,
    count: usize,
    position: impl Fn(usize) -> usize,
) -> Result<ValueId> {
    if count > LONGEST {
        bail!("{count} positions of axis {axis}; {LONGEST} can be listed");
    }
    let ty = TensorType::new(DType::I32, [count]);
    let indices = r.b.literal(&ty, (0..count).map(|i| position(i) as f64).collect())?;
    Ok(r.b.gather(x, indices, axis)?)
}

/// For each element of the result, the element of `a` or of `b` (numbered behind those of `a`).
pub(super) fn choose(
    r: &mut Raise,
    a: ValueId,
    b: ValueId,
    shape: &[usize],
    position: impl Fn(usize) -> usize,
) -> Result<ValueId> {
    let count = elements(shape)?;
    let flat = |r: &mut Raise, v: ValueId| -> Result<ValueId> {
        let n = r.b.f.ty(v).elements();
        Ok(r.b.reshape(v, &[n])?)
    };
    let (a, b) = (flat(r, a)?, flat(r, b)?);
    let both = r.b.concat(&[a, b], 0)?;
    let chosen = take(r, both, 0, count, position)?;
    Ok(r.b.reshape(chosen, shape)?)
}

/// Number of elements of a shape that the program gives.
pub(super) fn elements(shape: &[usize]) -> Result<usize> {
    let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    count.with_context(|| format!("shape {shape:?} is too large"))
}

fn reverse(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let axes = r.axes(op, "axes", r.rank(x))?;
    let mut y = x;
    for axis in axes {
        let n = r.b.shape(y)[axis];
        y = take(r, y, axis, n, |i| n - 1 - i)?;
    }
    Ok(vec![if y == x { r.b.unary(Unary::Identity, x)? } else { y }])
}

/// The first `lengths[b]` elements of an axis in reverse order, for each position b of another axis.
fn reverse_sequence(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let rank = r.rank(x);
    let along = r.axis(r.int(op, "seq_axis", None)?, rank)?;
    let batch = r.axis(r.int(op, "batch_axis", Some(0))?, rank)?;
    let lengths = r.operand(op, "lengths")?;
    let known = r.sizes(op, "lengths")?.context("input `lengths` is missing")?;
    let shape = r.b.shape(x).to_vec();
    if known.len() != shape[batch] || known.iter().any(|n| *n > shape[along]) {
        bail!("lengths {known:?} for {} sequences of {}", shape[batch], shape[along]);
    }
    let ty = TensorType::new(DType::I32, shape);
    elements(&ty.shape)?;
    let at = ndarray::ArrayD::from_shape_fn(ndarray::IxDyn(&ty.shape), |at| {
        let (i, length) = (at[along], known[at[batch]]);
        if i < length { (length - 1 - i) as f64 } else { i as f64 }
    });
    let indices = r.computed_here(Tensor { dtype: DType::I32, data: at }, &[lengths])?;
    Ok(vec![r.b.op(GatherAlongAxis { axis: along }, &[x, indices])?])
}

/// `cond ? a : b`
fn select(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let (cond, a, b) = (r.operand(op, "cond")?, r.operand(op, "a")?, r.operand(op, "b")?);
    let cond = r.b.cast(cond, DType::Bool)?;
    let y = r.b.op(Select {}, &[cond, a, b])?;
    Ok(vec![y])
}
