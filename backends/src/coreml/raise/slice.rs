//! Boxes of tensors: cut out, split off, written over.

use anyhow::{Context, Result, bail};
use s2dit_ir::ValueId;
use s2dit_ir::ops::{Slice, Unary};

use super::select::{choose, elements, take};
use super::{Handler, Raise};
use crate::coreml::proto::Operation;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "split" => split,
        "slice_by_index" => slice_by_index,
        "slice_by_size" => slice_by_size,
        "slice_update" => slice_update,
        _ => return None,
    })
}

fn split(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let axis = r.axis(r.int(op, "axis", None)?, r.rank(x))?;
    let extent = r.b.shape(x)[axis];
    let parts = op.outputs.len();
    let sizes = match r.sizes(op, "split_sizes")? {
        Some(sizes) => sizes,
        None => {
            let n = usize::try_from(r.int(op, "num_splits", None)?)?;
            if n == 0 || n != parts || !extent.is_multiple_of(n) {
                bail!("{n} splits of an extent of {extent} into {parts} results");
            }
            vec![extent / n; n]
        }
    };
    if sizes.iter().sum::<usize>() != extent {
        bail!("split sizes {sizes:?} of an extent of {extent}");
    }
    let mut begin = 0;
    let mut results = Vec::with_capacity(sizes.len());
    for size in sizes {
        results.push(r.b.slice(x, axis, begin, begin + size)?);
        begin += size;
    }
    Ok(results)
}

/// The positions `first, first + step, …` of one axis.
struct Positions {
    first: i64,
    step: i64,
    count: usize,
    /// The axis is dropped.
    squeeze: bool,
}

impl Positions {
    fn at(&self, i: usize) -> usize {
        (self.first + i as i64 * self.step) as usize
    }
}

/// `begin`, `end`, `stride` and the masks of an op: numpy's basic indexing.
fn positions(r: &Raise, op: &Operation, shape: &[usize]) -> Result<Vec<Positions>> {
    let n = shape.len();
    let begin = r.ints(op, "begin")?.context("input `begin` is missing")?;
    let end = r.ints(op, "end")?.context("input `end` is missing")?;
    let stride = r.ints(op, "stride")?.unwrap_or_else(|| vec![1; n]);
    let mask = |name: &str| r.ints(op, name).map(|m| m.unwrap_or_else(|| vec![0; n]));
    let (begin_mask, end_mask, squeeze) = (mask("begin_mask")?, mask("end_mask")?, mask("squeeze_mask")?);
    if [&begin, &end, &stride, &begin_mask, &end_mask, &squeeze].iter().any(|l| l.len() != n) {
        bail!("begin, end, stride and masks must have {n} entries each");
    }
    let axis = |i: usize| -> Result<Positions> {
        let (extent, step) = (shape[i] as i64, stride[i]);
        let wrap = |p: i64| if p < 0 { p + extent } else { p };
        if squeeze[i] != 0 {
            let first = if begin_mask[i] != 0 { 0 } else { wrap(begin[i]) };
            if !(0..extent).contains(&first) {
                bail!("axis {i}: index {} of {extent}", begin[i]);
            }
            return Ok(Positions { first, step: 1, count: 1, squeeze: true });
        }
        // Where a range that runs forwards or backwards can start and stop.
        let (low, high) = match step {
            0 => bail!("axis {i}: a stride of 0"),
            1.. => (0, extent),
            _ => (-1, extent - 1),
        };
        let (start, stop) = if step > 0 { (low, high) } else { (high, low) };
        let clamp = |p: i64| wrap(p).max(low).min(high);
        let first = if begin_mask[i] != 0 { start } else { clamp(begin[i]) };
        let last = if end_mask[i] != 0 { stop } else { clamp(end[i]) };
        let distance = if step > 0 { last - first } else { first - last };
        if distance <= 0 {
            bail!("axis {i}: {}..{} by {step} of {extent} is empty", begin[i], end[i]);
        }
        let count = (distance - 1) / step.abs() + 1;
        Ok(Positions { first, step, count: count as usize, squeeze: false })
    };
    (0..n).map(axis).collect()
}

fn slice_by_index(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let mut x = r.operand(op, "x")?;
    let shape = r.b.shape(x).to_vec();
    let positions = positions(r, op, &shape)?;
    let mut slice = Slice { begin: vec![0; shape.len()], end: shape.clone(), stride: vec![1; shape.len()] };
    for (i, p) in positions.iter().enumerate().filter(|(_, p)| p.step > 0) {
        (slice.begin[i], slice.end[i], slice.stride[i]) = (p.at(0), p.at(p.count - 1) + 1, p.step as usize);
    }
    x = r.b.op(slice, &[x])?;
    for (axis, p) in positions.iter().enumerate().filter(|(_, p)| p.step < 0) {
        x = take(r, x, axis, p.count, |i| p.at(i))?;
    }
    if positions.iter().any(|p| p.squeeze) {
        let kept: Vec<usize> = positions.iter().filter(|p| !p.squeeze).map(|p| p.count).collect();
        x = r.b.reshape(x, &kept)?;
    }
    Ok(vec![x])
}

/// A size of −1 is all that is left.
fn slice_by_size(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let shape = r.b.shape(x).to_vec();
    let begin = r.ints(op, "begin")?.context("input `begin` is missing")?;
    let size = r.ints(op, "size")?.context("input `size` is missing")?;
    if begin.len() != shape.len() || size.len() != shape.len() {
        bail!("begin and size must have {} entries each", shape.len());
    }
    let mut slice = Slice { begin: Vec::new(), end: Vec::new(), stride: vec![1; shape.len()] };
    for i in 0..shape.len() {
        let b = if begin[i] < 0 { begin[i] + shape[i] as i64 } else { begin[i] };
        let e = if size[i] == -1 { shape[i] as i64 } else { b + size[i] };
        let inside = |p: i64| usize::try_from(p).with_context(|| format!("axis {i}: {b}..{e}"));
        slice.begin.push(inside(b)?);
        slice.end.push(inside(e)?);
    }
    Ok(vec![r.b.op(slice, &[x])?])
}

/// x with a box replaced.
fn slice_update(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let (x, update) = (r.operand(op, "x")?, r.operand(op, "update")?);
    let shape = r.b.shape(x).to_vec();
    let positions = positions(r, op, &shape)?;
    let kept: Vec<usize> = positions.iter().filter(|p| !p.squeeze).map(|p| p.count).collect();
    if r.b.shape(update) != kept {
        bail!("the update is {}, expected the shape {kept:?}", r.b.f.ty(update));
    }
    let whole: Vec<usize> = positions.iter().map(|p| p.count).collect();
    let update = r.b.reshape(update, &whole)?;
    if positions.iter().all(|p| p.step == 1) {
        let y = put(r, x, update, &positions, 0)?;
        return Ok(vec![if y == update { r.b.unary(Unary::Identity, y)? } else { y }]);
    }
    let n = elements(&shape)?;
    // The number of an element of x in the update, if it is in the box.
    let inside = |mut element: usize| {
        let (mut number, mut weight) = (0, 1);
        for (p, extent) in positions.iter().zip(&shape).rev() {
            let offset = (element % extent) as i64 - p.first;
            element /= extent;
            let i = offset / p.step;
            if offset % p.step != 0 || i < 0 || i >= p.count as i64 {
                return None;
            }
            number += i as usize * weight;
            weight *= p.count;
        }
        Some(number)
    };
    Ok(vec![choose(r, x, update, &shape, |e| inside(e).map_or(e, |i| n + i))?])
}

/// Replaces a box of consecutive elements: what lies before it, itself, what lies behind, axis by axis.
fn put(r: &mut Raise, x: ValueId, update: ValueId, positions: &[Positions], axis: usize) -> Result<ValueId> {
    let Some(p) = positions.get(axis) else { return Ok(update) };
    let (begin, end, extent) = (p.at(0), p.at(p.count), r.b.shape(x)[axis]);
    if begin == 0 && end == extent {
        return put(r, x, update, positions, axis + 1);
    }
    let middle = r.b.slice(x, axis, begin, end)?;
    let middle = put(r, middle, update, positions, axis + 1)?;
    let mut parts = Vec::with_capacity(3);
    if begin > 0 {
        parts.push(r.b.slice(x, axis, 0, begin)?);
    }
    parts.push(middle);
    if end < extent {
        parts.push(r.b.slice(x, axis, end, extent)?);
    }
    Ok(r.b.concat(&parts, axis)?)
}
