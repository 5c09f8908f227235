//! Gathers and scatters: positions that are values.

use anyhow::{Result, bail};
use s2dit_ir::ops::{GatherAlongAxis, GatherNd, ScatterAlongAxis, ScatterMode, ScatterNd, Unary};
use s2dit_ir::{DType, ValueId};

use super::select::elements;
use super::{Handler, Raise};
use crate::coreml::proto::Operation;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "gather" => gather,
        "gather_along_axis" => gather_along_axis,
        "gather_nd" => gather_nd,
        "scatter" => scatter,
        "scatter_along_axis" => scatter_along_axis,
        "scatter_nd" => scatter_nd,
        _ => return None,
    })
}

fn indices(r: &mut Raise, op: &Operation) -> Result<ValueId> {
    let indices = r.operand(op, "indices")?;
    if r.b.f.dtype(indices).is_float() {
        bail!("indices of type {}", r.b.f.ty(indices));
    }
    Ok(r.b.cast(indices, DType::I32)?)
}

/// Indices of any rank: `x[:axis] + indices[batch_dims:] + x[axis+1:]`, with `batch_dims` leading axes in common.
fn gather(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let batch = usize::try_from(r.int(op, "batch_dims", Some(0))?)?;
    let axis = r.axis(r.int(op, "axis", Some(0))?, r.rank(x))?;
    let indices = indices(r, op)?;
    let tail = r.b.shape(indices).to_vec();
    let from = r.b.shape(x).to_vec();
    if batch > axis || batch > tail.len() {
        bail!("batch_dims {batch} for axis {axis} of {from:?} and indices {tail:?}");
    }
    let shape: Vec<usize> = from[..axis].iter().chain(&tail[batch..]).chain(&from[axis + 1..]).copied().collect();
    elements(&shape)?;
    if batch == 0 {
        let flat = r.b.reshape(indices, &[elements(&tail)?])?;
        let y = r.b.gather(x, flat, axis)?;
        return Ok(vec![r.b.reshape(y, &shape)?]);
    }
    // The axis comes behind those in common, and the axes between them go behind the indices.
    let rank = from.len();
    let perm: Vec<usize> = (0..batch).chain([axis]).chain(batch..axis).chain(axis + 1..rank).collect();
    let x = r.b.transpose(x, &perm)?;
    let one: Vec<usize> = tail.iter().copied().chain([1]).collect();
    let indices = r.b.reshape(indices, &one)?;
    let y = r.b.op(GatherNd { batch }, &[x, indices])?;
    let (named, between) = (tail.len() - batch, axis - batch);
    let back: Vec<usize> = (0..batch)
        .chain((0..between).map(|i| batch + named + i))
        .chain((0..named).map(|i| batch + i))
        .chain(batch + named + between..shape.len())
        .collect();
    Ok(vec![r.b.transpose(y, &back)?])
}

fn gather_along_axis(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let axis = r.axis(r.int(op, "axis", Some(0))?, r.rank(x))?;
    let indices = indices(r, op)?;
    Ok(vec![r.b.op(GatherAlongAxis { axis }, &[x, indices])?])
}

fn gather_nd(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let batch = usize::try_from(r.int(op, "batch_dims", Some(0))?)?;
    let indices = indices(r, op)?;
    Ok(vec![r.b.op(GatherNd { batch }, &[x, indices])?])
}

/// How updates combine, and updates for which that is so: what is subtracted is added with the other sign.
fn mode(r: &mut Raise, op: &Operation, updates: ValueId) -> Result<(ScatterMode, ValueId)> {
    let default = if r.opset == "CoreML5" || r.opset == "CoreML6" { "add" } else { "update" };
    Ok(match r.text(op, "mode", default)?.as_str() {
        "update" => (ScatterMode::Update, updates),
        "add" => (ScatterMode::Add, updates),
        "sub" => (ScatterMode::Add, r.b.unary(Unary::Neg, updates)?),
        "mul" => (ScatterMode::Mul, updates),
        "div" if r.b.f.dtype(updates).is_float() => {
            let one = r.b.scalar_like(updates, 1.0)?;
            (ScatterMode::Mul, r.b.div(one, updates)?)
        }
        "div" => bail!("mode `div` of {} cannot be run here: quotients would have to be rounded", r.b.f.ty(updates)),
        "max" => (ScatterMode::Max, updates),
        "min" => (ScatterMode::Min, updates),
        other => bail!("unknown mode `{other}`"),
    })
}

/// Slices of `updates` along an axis, combined with those of `data` at `indices`.
fn scatter(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let (data, updates) = (r.operand(op, "data")?, r.operand(op, "updates")?);
    let axis = r.axis(r.int(op, "axis", Some(0))?, r.rank(data))?;
    let indices = indices(r, op)?;
    let (mode, updates) = mode(r, op, updates)?;
    let count = r.b.f.ty(indices).elements();
    let mut shape = r.b.shape(data).to_vec();
    shape[axis] = count;
    let updates = r.b.reshape(updates, &shape)?;
    let line: Vec<usize> = (0..shape.len()).map(|i| if i == axis { count } else { 1 }).collect();
    let indices = r.b.reshape(indices, &line)?;
    let indices = r.b.broadcast_to(indices, &shape)?;
    Ok(vec![r.b.op(ScatterAlongAxis { axis, mode }, &[data, indices, updates])?])
}

fn scatter_along_axis(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let (data, updates) = (r.operand(op, "data")?, r.operand(op, "updates")?);
    let axis = r.axis(r.int(op, "axis", Some(0))?, r.rank(data))?;
    let indices = indices(r, op)?;
    let (mode, updates) = mode(r, op, updates)?;
    Ok(vec![r.b.op(ScatterAlongAxis { axis, mode }, &[data, indices, updates])?])
}

fn scatter_nd(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let (data, updates) = (r.operand(op, "data")?, r.operand(op, "updates")?);
    let indices = indices(r, op)?;
    let (mode, updates) = mode(r, op, updates)?;
    Ok(vec![r.b.op(ScatterNd { mode }, &[data, indices, updates])?])
}
