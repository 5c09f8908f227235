//! Ops that move elements.

use anyhow::{Context, Result, bail};
use s2dit_ir::ValueId;
use s2dit_ir::ops::{DepthToSpace, Unary, Upsample};

use super::select::{elements, take};
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
        "tile" => tile,
        "pad" => pad,
        "pixel_shuffle" => pixel_shuffle,
        "pixel_unshuffle" => pixel_unshuffle,
        "depth_to_space" => depth_to_space,
        "space_to_depth" => space_to_depth,
        "upsample_nearest_neighbor" => upsample_nearest_neighbor,
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
        if wanted.iter().filter(|w| **w == -1).count() > 1 {
            bail!("shape {wanted:?}: -1 twice");
        }
        let (total, known) = (elements(&from)?, elements(&shape)?);
        if known == 0 || !total.is_multiple_of(known) {
            bail!("shape {wanted:?} does not divide {from:?}");
        }
        shape[i] = total / known;
    }
    elements(&shape)?;
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
    let axis = r.axis(r.int(op, "axis", None)?, r.rank(first))?;
    if r.flag(op, "interleave", false)? {
        // The first element of each operand, then the second of each, ….
        let stacked = along(r, &xs, axis + 1)?;
        let mut shape = r.b.shape(first).to_vec();
        shape[axis] *= xs.len();
        return Ok(vec![r.b.reshape(stacked, &shape)?]);
    }
    Ok(vec![r.b.concat(&xs, axis)?])
}

fn stack(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let xs = r.operand_list(op, "values")?;
    let first = *xs.first().context("input `values` is empty")?;
    let axis = r.axis(r.int(op, "axis", None)?, r.rank(first) + 1)?;
    Ok(vec![along(r, &xs, axis)?])
}

/// Operands side by side on a new axis.
fn along(r: &mut Raise, xs: &[ValueId], axis: usize) -> Result<ValueId> {
    let mut wide = Vec::with_capacity(xs.len());
    for &x in xs {
        let mut shape = r.b.shape(x).to_vec();
        shape.insert(axis.min(shape.len()), 1);
        wide.push(r.b.reshape(x, &shape)?);
    }
    Ok(r.b.concat(&wide, axis)?)
}

fn tile(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let mut x = r.operand(op, "x")?;
    let reps = r.sizes(op, "reps")?.context("input `reps` is missing")?;
    if reps.len() != r.rank(x) || reps.contains(&0) {
        bail!("reps {reps:?} for rank {}", r.rank(x));
    }
    let tiled = r.declared(op)?;
    let fits = |i: usize| Some(&(r.b.shape(x)[i] * reps[i])) == tiled.shape.get(i);
    if !(0..reps.len()).all(fits) {
        bail!("{} tiled {reps:?} is declared as {tiled}", r.b.f.ty(x));
    }
    let start = x;
    for (axis, &n) in reps.iter().enumerate() {
        if n > 1 && r.b.shape(x)[axis] == 1 {
            let mut shape = r.b.shape(x).to_vec();
            shape[axis] = n;
            x = r.b.broadcast_to(x, &shape)?;
        } else if n > 1 {
            // A new axis in front of this one is repeated, and the two become one.
            let mut shape = r.b.shape(x).to_vec();
            shape.insert(axis, 1);
            x = r.b.reshape(x, &shape)?;
            shape[axis] = n;
            x = r.b.broadcast_to(x, &shape)?;
            let extent = shape.remove(axis);
            shape[axis] *= extent;
            x = r.b.reshape(x, &shape)?;
        }
    }
    Ok(vec![if x == start { r.b.unary(Unary::Identity, x)? } else { x }])
}

/// Pairs of (before, after) for the last axes.
fn pad(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let mode = r.text(op, "mode", "constant")?;
    let pad = r.sizes(op, "pad")?.context("input `pad` is missing")?;
    let n = r.rank(x);
    if !pad.len().is_multiple_of(2) || pad.len() > 2 * n {
        bail!("pad has {} entries for rank {n}", pad.len());
    }
    let (mut before, mut after) = (vec![0; n], vec![0; n]);
    for (i, pair) in pad.chunks(2).enumerate() {
        let axis = n - pad.len() / 2 + i;
        (before[axis], after[axis]) = (pair[0], pair[1]);
    }
    if mode == "constant" {
        let value = r.float(op, "constant_val", 0.0)?;
        return Ok(vec![r.b.pad(x, &before, &after, value)?]);
    }
    let mut y = x;
    for axis in (0..n).filter(|&i| before[i] + after[i] > 0) {
        let (extent, b) = (r.b.shape(x)[axis], before[axis]);
        let count = b + extent + after[axis];
        y = match mode.as_str() {
            // Mirrored at the outer elements, which are not repeated.
            "reflect" if b.max(after[axis]) < extent => {
                take(r, y, axis, count, |i| (extent - 1) - (extent - 1).abs_diff(i.abs_diff(b)))?
            }
            "replicate" if extent > 0 => take(r, y, axis, count, |i| i.saturating_sub(b).min(extent - 1))?,
            _ => bail!("pad mode `{mode}` of {b} and {} around {extent}", after[axis]),
        };
    }
    Ok(vec![if y == x { r.b.unary(Unary::Identity, x)? } else { y }])
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

/// As [`pixel_shuffle`], with channel = (row·b + column)·c' + c, as TensorFlow.
fn depth_to_space(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let b = usize::try_from(r.int(op, "block_size", None)?)?;
    let &[_, c, _, _] = r.b.shape(x) else { bail!("expected rank 4") };
    if b == 0 || !c.is_multiple_of(b * b) {
        bail!("block size {b} for {c} channels");
    }
    Ok(vec![r.b.op(DepthToSpace { block: b }, &[x])?])
}

fn space_to_depth(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let b = usize::try_from(r.int(op, "block_size", None)?)?;
    let &[n, c, h, w] = r.b.shape(x) else { bail!("expected rank 4") };
    if b == 0 || !h.is_multiple_of(b) || !w.is_multiple_of(b) {
        bail!("block size {b} for {h}×{w}");
    }
    let y = r.b.reshape(x, &[n, c, h / b, b, w / b, b])?;
    let y = r.b.transpose(y, &[0, 3, 5, 1, 2, 4])?;
    Ok(vec![r.b.reshape(y, &[n, c * b * b, h / b, w / b])?])
}

/// Whole factors only; two that differ are made of copies along each axis.
fn upsample_nearest_neighbor(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let factor = |r: &Raise, side: &str| -> Result<usize> {
        let factor = usize::try_from(r.int(op, side, Some(1))?)?;
        if factor == 0 {
            bail!("input `{side}`: found 0, expected a positive factor")
        }
        Ok(factor)
    };
    let (rows, cols) = (factor(r, "scale_factor_height")?, factor(r, "scale_factor_width")?);
    let shape = r.b.shape(x).to_vec();
    let &[.., h, w] = &shape[..] else { bail!("expected rank 3 or more") };
    if shape.len() < 3 {
        bail!("expected rank 3 or more");
    }
    let planes: usize = shape[..shape.len() - 2].iter().product();
    if shape.len() == 4 && rows == cols {
        return Ok(vec![r.b.op(Upsample { factor: rows }, &[x])?]);
    }
    let y = r.b.reshape(x, &[planes * h, 1, w, 1])?;
    let y = r.b.broadcast_to(y, &[planes * h, rows, w, cols])?;
    let mut to = shape.clone();
    let rank = to.len();
    (to[rank - 2], to[rank - 1]) = (h * rows, w * cols);
    Ok(vec![r.b.reshape(y, &to)?])
}
