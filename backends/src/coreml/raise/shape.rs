//! Ops that move elements.

use anyhow::{Context, Result, bail};
use s2dit_ir::ops::{Slice, Unary};
use s2dit_ir::{DType, TensorType, ValueId};

use super::{Handler, Raise};
use crate::coreml::proto::Operation;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "reshape" => reshape,
        "transpose" => transpose,
        "expand_dims" => expand_dims,
        "squeeze" => squeeze,
        "concat" => concat,
        "stack" => stack,
        "split" => split,
        "slice_by_index" => slice_by_index,
        "slice_by_size" => slice_by_size,
        "tile" => tile,
        "pad" => pad,
        "gather" => gather,
        "pixel_shuffle" => pixel_shuffle,
        "pixel_unshuffle" => pixel_unshuffle,
        _ => return None,
    })
}

/// −1 is inferred once; 0 copies the operand's extent, counted from the right.
fn reshape(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let wanted = r.ints(op, "shape")?.context("input `shape` is missing")?;
    let from = r.b.shape(x).to_vec();
    let mut shape = Vec::with_capacity(wanted.len());
    for (i, &w) in wanted.iter().enumerate() {
        shape.push(match w {
            0 => {
                let right = wanted.len() - i;
                *from
                    .len()
                    .checked_sub(right)
                    .and_then(|j| from.get(j))
                    .with_context(|| format!("shape {wanted:?}: 0 has no extent to copy"))?
            }
            -1 => 1,
            w => usize::try_from(w).with_context(|| format!("shape {wanted:?}"))?,
        });
    }
    if let Some(i) = wanted.iter().position(|w| *w == -1) {
        let (total, known) = (from.iter().product::<usize>(), shape.iter().product::<usize>());
        if known == 0 || !total.is_multiple_of(known) {
            bail!("shape {wanted:?} does not divide {from:?}");
        }
        shape[i] = total / known;
    }
    Ok(vec![r.b.reshape(x, &shape)?])
}

fn transpose(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let perm = r.ints(op, "perm")?.context("input `perm` is missing")?;
    let perm: Vec<usize> = perm.iter().map(|p| r.axis(*p, r.rank(x))).collect::<Result<_>>()?;
    Ok(vec![r.b.transpose(x, &perm)?])
}

fn expand_dims(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let list = r.ints(op, "axes")?.context("input `axes` is missing")?;
    let rank = r.rank(x) + list.len();
    let axes = r.axes(op, "axes", rank)?;
    let mut old = r.b.shape(x).to_vec().into_iter();
    let shape: Vec<usize> = (0..rank).map(|i| if axes.contains(&i) { 1 } else { old.next().unwrap_or(1) }).collect();
    Ok(vec![r.b.reshape(x, &shape)?])
}

fn squeeze(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let shape = r.b.shape(x).to_vec();
    let axes = if r.has(op, "axes") {
        r.axes(op, "axes", shape.len())?
    } else {
        (0..shape.len()).filter(|&i| shape[i] == 1).collect()
    };
    if let Some(&a) = axes.iter().find(|&&a| shape[a] != 1) {
        bail!("axis {a} of {shape:?} is not 1");
    }
    let kept: Vec<usize> = (0..shape.len()).filter(|i| !axes.contains(i)).map(|i| shape[i]).collect();
    Ok(vec![r.b.reshape(x, &kept)?])
}

fn concat(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let xs = r.operand_list(op, "values")?;
    let first = *xs.first().context("input `values` is empty")?;
    if r.flag(op, "interleave", false)? {
        bail!("interleave cannot be run here");
    }
    let axis = r.axis(r.int(op, "axis", None)?, r.rank(first))?;
    Ok(vec![r.b.concat(&xs, axis)?])
}

fn stack(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let xs = r.operand_list(op, "values")?;
    let first = *xs.first().context("input `values` is empty")?;
    let axis = r.axis(r.int(op, "axis", None)?, r.rank(first) + 1)?;
    let mut wide = Vec::with_capacity(xs.len());
    for x in xs {
        let mut shape = r.b.shape(x).to_vec();
        shape.insert(axis.min(shape.len()), 1);
        wide.push(r.b.reshape(x, &shape)?);
    }
    Ok(vec![r.b.concat(&wide, axis)?])
}

fn split(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let axis = r.axis(r.int(op, "axis", None)?, r.rank(x))?;
    let extent = r.b.shape(x)[axis];
    let sizes = match r.sizes(op, "split_sizes")? {
        Some(sizes) => sizes,
        None => {
            let n = usize::try_from(r.int(op, "num_splits", None)?)?;
            if n == 0 || !extent.is_multiple_of(n) {
                bail!("{n} splits of an extent of {extent}");
            }
            vec![extent / n; n]
        }
    };
    let mut begin = 0;
    let mut parts = Vec::with_capacity(sizes.len());
    for size in sizes {
        parts.push(r.b.slice(x, axis, begin, begin + size)?);
        begin += size;
    }
    Ok(parts)
}

fn slice_by_index(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let mut x = r.operand(op, "x")?;
    let shape = r.b.shape(x).to_vec();
    let n = shape.len();
    let begin = r.ints(op, "begin")?.context("input `begin` is missing")?;
    let end = r.ints(op, "end")?.context("input `end` is missing")?;
    let stride = r.ints(op, "stride")?.unwrap_or_else(|| vec![1; n]);
    let mask = |name: &str| r.ints(op, name).map(|m| m.unwrap_or_else(|| vec![0; n]));
    let (begin_mask, end_mask, squeeze) = (mask("begin_mask")?, mask("end_mask")?, mask("squeeze_mask")?);
    if [&begin, &end, &stride, &begin_mask, &end_mask, &squeeze].iter().any(|l| l.len() != n) {
        bail!("begin, end, stride and masks must have {n} entries each");
    }
    let mut slice = Slice { begin: vec![0; n], end: shape.clone(), stride: vec![1; n] };
    let mut reversed = Vec::new();
    for i in 0..n {
        let extent = shape[i] as i64;
        let wrap = |p: i64| if p < 0 { p + extent } else { p };
        let step = stride[i];
        if squeeze[i] != 0 {
            let at = wrap(begin[i]).clamp(0, extent - 1) as usize;
            (slice.begin[i], slice.end[i]) = (at, at + 1);
        } else if step > 0 {
            let b = if begin_mask[i] != 0 { 0 } else { wrap(begin[i]).clamp(0, extent) };
            let e = if end_mask[i] != 0 { extent } else { wrap(end[i]).clamp(0, extent) };
            (slice.begin[i], slice.end[i], slice.stride[i]) = (b as usize, e as usize, step as usize);
        } else if step < 0 {
            let b = if begin_mask[i] != 0 { extent - 1 } else { wrap(begin[i]).clamp(0, extent - 1) };
            let e = if end_mask[i] != 0 { -1 } else { wrap(end[i]).max(-1) };
            let indices: Vec<f64> = (0..).map(|k| b + k * step).take_while(|p| *p > e).map(|p| p as f64).collect();
            reversed.push((i, indices));
        } else {
            bail!("stride 0 on axis {i}");
        }
    }
    x = r.b.op(slice, &[x])?;
    for (axis, indices) in reversed {
        let ty = TensorType::new(DType::I32, [indices.len()]);
        let indices = r.b.literal(&ty, indices)?;
        x = r.b.gather(x, indices, axis)?;
    }
    if squeeze.iter().any(|s| *s != 0) {
        let kept: Vec<usize> = (0..n).filter(|&i| squeeze[i] == 0).map(|i| r.b.shape(x)[i]).collect();
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
        slice.begin.push(usize::try_from(b)?);
        slice.end.push(usize::try_from(e)?);
    }
    Ok(vec![r.b.op(slice, &[x])?])
}

fn tile(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let mut x = r.operand(op, "x")?;
    let reps = r.sizes(op, "reps")?.context("input `reps` is missing")?;
    if reps.len() != r.rank(x) || reps.contains(&0) {
        bail!("reps {reps:?} for rank {}", r.rank(x));
    }
    let start = x;
    for (axis, &n) in reps.iter().enumerate() {
        if n > 1 && r.b.shape(x)[axis] == 1 {
            let mut shape = r.b.shape(x).to_vec();
            shape[axis] = n;
            x = r.b.broadcast_to(x, &shape)?;
        } else if n > 1 {
            x = r.b.concat(&vec![x; n], axis)?;
        }
    }
    Ok(vec![if x == start { r.b.unary(Unary::Identity, x)? } else { x }])
}

/// Pairs of (before, after) for the last axes.
fn pad(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let mode = r.text(op, "mode", "constant")?;
    if mode != "constant" {
        bail!("pad mode `{mode}` cannot be run here");
    }
    let pad = r.sizes(op, "pad")?.context("input `pad` is missing")?;
    let value = r.float(op, "constant_val", 0.0)?;
    let n = r.rank(x);
    if !pad.len().is_multiple_of(2) || pad.len() > 2 * n {
        bail!("pad has {} entries for rank {n}", pad.len());
    }
    let (mut before, mut after) = (vec![0; n], vec![0; n]);
    for (i, pair) in pad.chunks(2).enumerate() {
        let axis = n - pad.len() / 2 + i;
        (before[axis], after[axis]) = (pair[0], pair[1]);
    }
    Ok(vec![r.b.pad(x, &before, &after, value)?])
}

/// Indices of any rank, constant: `x[:axis] + indices + x[axis+1:]`.
fn gather(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    if r.int(op, "batch_dims", Some(0))? != 0 {
        bail!("batch_dims cannot be run here");
    }
    let axis = r.axis(r.int(op, "axis", Some(0))?, r.rank(x))?;
    let indices = r.operand(op, "indices")?;
    let tail = r.b.shape(indices).to_vec();
    let flat = r.b.reshape(indices, &[tail.iter().product()])?;
    let flat = r.b.cast(flat, DType::I32)?;
    let y = r.b.gather(x, flat, axis)?;
    let from = r.b.shape(x).to_vec();
    let shape: Vec<usize> = from[..axis].iter().chain(&tail).chain(&from[axis + 1..]).copied().collect();
    Ok(vec![r.b.reshape(y, &shape)?])
}

/// `[N, c·f², H, W]` → `[N, c, H·f, W·f]`, channel = (c·f + row)·f + column, as PyTorch.
fn pixel_shuffle(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let f = usize::try_from(r.int(op, "upscale_factor", None)?)?;
    let &[n, c, h, w] = r.b.shape(x) else { bail!("expected rank 4") };
    if f == 0 || !c.is_multiple_of(f * f) {
        bail!("factor {f} for {c} channels");
    }
    let y = r.b.reshape(x, &[n, c / (f * f), f, f, h, w])?;
    let y = r.b.transpose(y, &[0, 1, 4, 2, 5, 3])?;
    Ok(vec![r.b.reshape(y, &[n, c / (f * f), h * f, w * f])?])
}

fn pixel_unshuffle(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let f = usize::try_from(r.int(op, "downscale_factor", None)?)?;
    let &[n, c, h, w] = r.b.shape(x) else { bail!("expected rank 4") };
    if f == 0 || !h.is_multiple_of(f) || !w.is_multiple_of(f) {
        bail!("factor {f} for {h}×{w}");
    }
    let y = r.b.reshape(x, &[n, c, h / f, f, w / f, f])?;
    let y = r.b.transpose(y, &[0, 1, 3, 5, 2, 4])?;
    Ok(vec![r.b.reshape(y, &[n, c * f * f, h / f, w / f])?])
}
