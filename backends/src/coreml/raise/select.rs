//! Elements chosen by positions that are known: gathers, reversals, selections.

use anyhow::{Context, Result, bail};
use s2dit_ir::ops::Unary;
use s2dit_ir::{DType, TensorType, ValueId};

use super::{Handler, Raise};
use crate::coreml::proto::Operation;

/// Position lists that are written out are at most this long.
const LONGEST: usize = 1 << 24;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "gather" => gather,
        "reverse" => reverse,
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

/// Indices of any rank: `x[:axis] + indices + x[axis+1:]`.
fn gather(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    if r.int(op, "batch_dims", Some(0))? != 0 {
        bail!("batch_dims cannot be run here");
    }
    let axis = r.axis(r.int(op, "axis", Some(0))?, r.rank(x))?;
    let indices = r.operand(op, "indices")?;
    if r.b.f.dtype(indices).is_float() {
        bail!("indices of type {}", r.b.f.ty(indices));
    }
    let tail = r.b.shape(indices).to_vec();
    let flat = r.b.reshape(indices, &[elements(&tail)?])?;
    let flat = r.b.cast(flat, DType::I32)?;
    let y = r.b.gather(x, flat, axis)?;
    let from = r.b.shape(x).to_vec();
    let shape: Vec<usize> = from[..axis].iter().chain(&tail).chain(&from[axis + 1..]).copied().collect();
    elements(&shape)?;
    Ok(vec![r.b.reshape(y, &shape)?])
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

/// `cond ? a : b`, for a condition that is constant.
fn select(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let (mut a, mut b) = (r.operand(op, "a")?, r.operand(op, "b")?);
    let cond = r.floats(op, "cond")?.context("input `cond` is missing")?;
    let declared = r.declared(op)?.shape;
    for v in [&mut a, &mut b] {
        if r.b.shape(*v) != declared {
            *v = r.b.broadcast_to(*v, &declared)?;
        }
    }
    let n = elements(&declared)?;
    if let [on] = cond[..] {
        let chosen = if on == 0.0 { b } else { a };
        return Ok(vec![r.b.unary(Unary::Identity, chosen)?]);
    }
    if cond.len() != n {
        bail!("a condition of {} elements for {declared:?}", cond.len());
    }
    let on = |i: usize| cond.get(i).is_some_and(|c| *c != 0.0);
    Ok(vec![choose(r, a, b, &declared, |i| if on(i) { i } else { n + i })?])
}
