//! Ops that move elements.

use anyhow::{Context, Result, bail};
use s2dit_ir::ops::{DepthToSpace, Unary};
use s2dit_ir::{TensorType, ValueId};

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
        "space_to_batch" => space_to_batch,
        "batch_to_space" => batch_to_space,
        "flatten2d" => flatten,
        "reshape_like" => reshape_like,
        "crop" => crop,
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
pub(super) fn along(r: &mut Raise, xs: &[ValueId], axis: usize) -> Result<ValueId> {
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
    let (shape, tiled) = (r.b.shape(x).to_vec(), r.declared(op)?);
    let repeated: Option<Vec<usize>> = shape.iter().zip(&reps).map(|(d, n)| d.checked_mul(*n)).collect();
    let ty = repeated.map(|shape| TensorType::new(r.b.f.dtype(x), shape));
    if !ty.is_some_and(|ty| tiled.takes(&ty) && elements(&ty.shape).is_ok()) {
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

/// Blocks of the spatial axes, moved to the batch: N becomes blocks·N, the block's position outermost.
fn space_to_batch(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let block = r.sizes(op, "block_shape")?.context("input `block_shape` is missing")?;
    let pad = r.sizes(op, "paddings")?.context("input `paddings` is missing")?;
    let (rank, m) = (r.rank(x), block.len());
    if m + 2 != rank || pad.len() != 2 * m || block.contains(&0) {
        bail!("block shape {block:?} and paddings {pad:?} for {}", r.b.f.ty(x));
    }
    let border = |side: usize| [0, 0].into_iter().chain((0..m).map(|i| pad[2 * i + side])).collect::<Vec<usize>>();
    let x = r.b.pad(x, &border(0), &border(1), 0.0)?;
    let shape = r.b.shape(x).to_vec();
    if (0..m).any(|i| !shape[i + 2].is_multiple_of(block[i])) {
        bail!("block shape {block:?} does not divide {shape:?}");
    }
    let mut split = shape[..2].to_vec();
    (0..m).for_each(|i| split.extend([shape[i + 2] / block[i], block[i]]));
    let perm: Vec<usize> = (0..m).map(|i| 3 + 2 * i).chain([0, 1]).chain((0..m).map(|i| 2 + 2 * i)).collect();
    let mut moved = vec![shape[0] * block.iter().product::<usize>(), shape[1]];
    moved.extend((0..m).map(|i| shape[i + 2] / block[i]));
    let y = r.b.reshape(x, &split)?;
    let y = r.b.transpose(y, &perm)?;
    Ok(vec![r.b.reshape(y, &moved)?])
}

/// The inverse of [`space_to_batch`]; what was padded is cropped.
fn batch_to_space(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let block = r.sizes(op, "block_shape")?.context("input `block_shape` is missing")?;
    let crops = r.sizes(op, "crops")?.context("input `crops` is missing")?;
    let shape = r.b.shape(x).to_vec();
    let m = block.len();
    let blocks: usize = block.iter().product();
    if m + 2 != shape.len() || crops.len() != 2 * m || blocks == 0 || !shape[0].is_multiple_of(blocks) {
        bail!("block shape {block:?} and crops {crops:?} for {}", r.b.f.ty(x));
    }
    let split: Vec<usize> =
        block.iter().copied().chain([shape[0] / blocks]).chain(shape[1..].iter().copied()).collect();
    let perm: Vec<usize> = [m, m + 1].into_iter().chain((0..m).flat_map(|i| [m + 2 + i, i])).collect();
    let mut whole = vec![shape[0] / blocks, shape[1]];
    whole.extend((0..m).map(|i| shape[i + 2] * block[i]));
    let y = r.b.reshape(x, &split)?;
    let y = r.b.transpose(y, &perm)?;
    let mut y = r.b.reshape(y, &whole)?;
    for i in 0..m {
        let end = whole[i + 2].checked_sub(crops[2 * i + 1]).filter(|end| *end > crops[2 * i]);
        let end = end.with_context(|| format!("crops {crops:?} of {whole:?}"))?;
        y = r.b.slice(y, i + 2, crops[2 * i], end)?;
    }
    Ok(vec![y])
}

/// Axes before `axis` as rows, the others as columns.
fn flatten(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let shape = r.b.shape(x).to_vec();
    let rank = shape.len() as i64;
    let axis = r.int(op, "axis", Some(1))?;
    let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok().filter(|a| *a <= shape.len());
    let axis = axis.with_context(|| format!("an axis outside rank {rank}"))?;
    Ok(vec![r.b.reshape(x, &[shape[..axis].iter().product(), shape[axis..].iter().product()])?])
}

/// x in the shape that ranges of other tensors' shapes make.
fn reshape_like(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let like = r.operand_list(op, "ref_tensors")?;
    let (begins, ends, open) =
        (r.number_list(op, "begins")?, r.number_list(op, "ends")?, r.number_list(op, "end_masks")?);
    if [begins.len(), ends.len(), open.len()] != [like.len(); 3] {
        bail!("{} tensors with {} begins, {} ends, {} masks", like.len(), begins.len(), ends.len(), open.len());
    }
    let mut shape = Vec::new();
    for (i, &v) in like.iter().enumerate() {
        let rank = r.rank(v) as f64;
        let at = |p: f64| (if p < 0.0 { p + rank } else { p }).clamp(0.0, rank) as usize;
        let (begin, end) = (at(begins[i]), if open[i] != 0.0 { rank as usize } else { at(ends[i]) });
        shape.extend(r.b.shape(v).get(begin..end).with_context(|| format!("range {begin}..{end} of {rank} axes"))?);
    }
    Ok(vec![r.b.reshape(x, &shape)?])
}

/// Rows and columns cut off at the borders of the last two axes.
fn crop(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let rank = r.rank(x);
    if rank < 2 {
        bail!("{}: expected rank 2 or more", r.b.f.ty(x));
    }
    let mut y = x;
    for (axis, input) in [(rank - 2, "crop_height"), (rank - 1, "crop_width")] {
        let cut = r.sizes(op, input)?.with_context(|| format!("input `{input}` is missing"))?;
        let &[before, after] = &cut[..] else { bail!("input `{input}`: found {cut:?}, expected two numbers") };
        let extent = r.b.shape(y)[axis];
        let end = extent.checked_sub(after).filter(|end| *end > before);
        y = r.b.slice(y, axis, before, end.with_context(|| format!("input `{input}`: {cut:?} of {extent}"))?)?;
    }
    Ok(vec![y])
}
