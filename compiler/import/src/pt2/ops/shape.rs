//! Views: shapes, orders of axes, ranges; repetition.

use s2dit_ir::OpError;

use super::super::call::{Call, axis_of};
use super::super::mutation::{Step, sliced};
use super::super::walk::{Slot, Walk};
use super::Group;
use crate::{Traced, Value};

pub(super) const OPS: Group = &[
    ("aten.view.default", view),
    ("aten.reshape.default", view),
    ("aten._unsafe_view.default", view),
    ("aten._reshape_alias.default", view),
    ("aten.view_as.default", view_as),
    ("aten.reshape_as.default", view_as),
    ("aten.flatten.using_ints", flatten),
    ("aten.unflatten.int", unflatten),
    ("aten.unsqueeze.default", unsqueeze),
    ("aten.squeeze.*", squeeze),
    ("aten.permute.default", permute),
    ("aten.transpose.int", transpose),
    ("aten.swapaxes.default", transpose),
    ("aten.t.default", matrix_transpose),
    ("aten.numpy_T.default", matrix_transpose),
    ("aten.movedim.*", movedim),
    ("aten.expand.default", expand),
    ("aten.broadcast_to.default", expand),
    ("aten.expand_as.default", expand_as),
    ("aten.repeat.default", repeat),
    ("aten.tile.default", repeat),
    ("aten.repeat_interleave.self_int", repeat_interleave),
    ("aten.slice.Tensor", slice),
    ("aten.select.int", select),
];

type Read = Result<Vec<Slot>, OpError>;

/// Sizes as extents.
pub(super) fn sizes(list: &[i64]) -> Result<Vec<usize>, OpError> {
    let sizes: Option<Vec<usize>> = list.iter().map(|n| usize::try_from(*n).ok()).collect();
    let sizes = sizes.ok_or_else(|| OpError::new(format!("sizes {list:?}")))?;
    crate::trace::check_size(&sizes)?;
    Ok(sizes)
}

/// Sizes of which one may be −1: what remains of `elements`.
fn sizes_of(list: &[i64], elements: usize) -> Result<Vec<usize>, OpError> {
    let rest: i64 = list.iter().filter(|n| **n != -1).try_fold(1i64, |all, n| all.checked_mul(*n)).unwrap_or(0);
    let whole = rest > 0 && elements.is_multiple_of(rest as usize);
    let list: Vec<i64> = list.iter().map(|n| if *n == -1 && whole { elements as i64 / rest } else { *n }).collect();
    sizes(&list)
}

fn view(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let list = c.ints(w, "size")?.or(c.ints(w, "shape")?).unwrap_or_default();
    let shape = sizes_of(&list, w.t.ty(&x).elements())?;
    Ok(c.one(w.t.reshape(&x, &shape)?))
}

fn view_as(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let (x, other) = (c.tensor(w, "self")?, c.tensor(w, "other")?);
    let shape = w.t.shape(&other);
    Ok(c.one(w.t.reshape(&x, &shape)?))
}

fn flatten(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let shape = w.t.shape(&x);
    if shape.is_empty() {
        return Ok(c.one(w.t.reshape(&x, &[1])?));
    }
    let (first, last) = (c.axis(w, "start_dim", 0, shape.len())?, c.axis(w, "end_dim", -1, shape.len())?);
    if first > last {
        return Err(OpError::new(format!("axes {first} to {last}")));
    }
    let merged = [&shape[..first], &[shape[first..=last].iter().product()], &shape[last + 1..]].concat();
    Ok(c.one(w.t.reshape(&x, &merged)?))
}

fn unflatten(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let shape = w.t.shape(&x);
    let axis = c.axis(w, "dim", 0, shape.len())?;
    let parts = sizes_of(&c.ints(w, "sizes")?.unwrap_or_default(), shape[axis])?;
    Ok(c.one(w.t.reshape(&x, &[&shape[..axis], &parts, &shape[axis + 1..]].concat())?))
}

fn unsqueeze(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let mut shape = w.t.shape(&x);
    let axis = c.axis(w, "dim", 0, shape.len() + 1)?;
    shape.insert(axis, 1);
    Ok(c.one(w.t.reshape(&x, &shape)?))
}

fn squeeze(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let shape = w.t.shape(&x);
    let axes = c.axes(w, "dim", shape.len())?;
    let kept = shape.iter().enumerate().filter(|(i, side)| **side != 1 || !axes.contains(i)).map(|(_, side)| *side);
    let kept: Vec<usize> = kept.collect();
    Ok(c.one(w.t.reshape(&x, &kept)?))
}

/// The order of axes of a call that changes nothing but that.
fn order(w: &mut Walk<'_>, c: &Call<'_>, rank: usize) -> Result<Vec<usize>, OpError> {
    let mut perm: Vec<usize> = (0..rank).collect();
    match c.op.split('.').nth(1) {
        Some("permute") => {
            let list = c.ints(w, "dims")?.unwrap_or_default();
            let axes = list.iter().map(|axis| axis_of(*axis, rank)).collect::<Result<Vec<_>, _>>()?;
            let mut sorted = axes.clone();
            sorted.sort_unstable();
            match sorted == perm {
                true => Ok(axes),
                false => Err(OpError::new(format!("dims {list:?} of a tensor of rank {rank}"))),
            }
        }
        Some("t" | "numpy_T") => {
            perm.reverse();
            Ok(perm)
        }
        _ => {
            let (first, second) = if c.has("dim0") { ("dim0", "dim1") } else { ("axis0", "axis1") };
            let (a, b) = (c.axis(w, first, 0, rank)?, c.axis(w, second, 1, rank)?);
            if rank > 0 {
                perm.swap(a, b);
            }
            Ok(perm)
        }
    }
}

fn permute(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let rank = w.t.shape(&x).len();
    let perm = order(w, c, rank)?;
    Ok(c.one(w.t.transpose(&x, &perm)?))
}

fn transpose(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    permute(w, c)
}

fn matrix_transpose(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    permute(w, c)
}

fn movedim(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let rank = w.t.shape(&x).len();
    let axes = |w: &Walk<'_>, name| -> Result<Vec<usize>, OpError> {
        c.ints(w, name)?.unwrap_or_default().into_iter().map(|axis| axis_of(axis, rank)).collect()
    };
    let (from, to) = (axes(w, "source")?, axes(w, "destination")?);
    let mut rest = (0..rank).filter(|axis| !from.contains(axis));
    let perm: Option<Vec<usize>> = (0..rank)
        .map(|place| to.iter().position(|t| *t == place).map_or_else(|| rest.next(), |i| from.get(i).copied()))
        .collect();
    let perm = perm.ok_or_else(|| OpError::new("axes that are moved twice"))?;
    Ok(c.one(w.t.transpose(&x, &perm)?))
}

fn expand(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let shape = w.t.shape(&x);
    let list = c.ints(w, "size")?.unwrap_or_default();
    let added =
        list.len().checked_sub(shape.len()).ok_or_else(|| OpError::new(format!("size {list:?} of {shape:?}")))?;
    let kept = |(i, n): (usize, &i64)| if *n == -1 && i >= added { shape[i - added] as i64 } else { *n };
    let wanted = sizes(&list.iter().enumerate().map(kept).collect::<Vec<_>>())?;
    Ok(c.one(w.t.broadcast(&x, &wanted)?))
}

fn expand_as(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let (x, other) = (c.tensor(w, "self")?, c.tensor(w, "other")?);
    let shape = w.t.shape(&other);
    Ok(c.one(w.t.broadcast(&x, &shape)?))
}

impl Walk<'_> {
    /// Each index of an axis so many times: `times` before each other if `inside`, else the whole axis over and over.
    pub(in super::super) fn repeated(&mut self, x: &Value, axis: usize, times: usize, inside: bool) -> Traced {
        if times == 1 {
            return Ok(x.clone());
        }
        let shape = self.t.shape(x);
        // Rank 4 at most, which every target has.
        let (before, after): (usize, usize) = (shape[..axis].iter().product(), shape[axis + 1..].iter().product());
        let (narrow, wide) = match inside {
            true => ([before * shape[axis], 1, after], [before * shape[axis], times, after]),
            false => ([before, 1, shape[axis] * after], [before, times, shape[axis] * after]),
        };
        let y = self.t.reshape(x, &narrow)?;
        let y = self.t.broadcast(&y, &wide)?;
        let mut out = shape;
        out[axis] = out[axis].checked_mul(times).ok_or_else(|| OpError::new("too many repetitions"))?;
        self.t.reshape(&y, &out)
    }
}

fn repeat(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let list = c.ints(w, "repeats")?.or(c.ints(w, "dims")?).unwrap_or_default();
    let times = sizes(&list)?;
    let mut shape = w.t.shape(&x);
    while shape.len() < times.len() {
        shape.insert(0, 1);
    }
    let mut y = w.t.reshape(&x, &shape)?;
    let first = shape.len() - times.len();
    for (i, times) in times.into_iter().enumerate() {
        y = w.repeated(&y, first + i, times, false)?;
    }
    Ok(c.one(y))
}

fn repeat_interleave(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let times = sizes(&[c.int(w, "repeats", None)?])?[0];
    let shape = w.t.shape(&x);
    let (x, axis) = match c.has("dim") {
        true => (x, c.axis(w, "dim", 0, shape.len())?),
        false => (w.t.reshape(&x, &[shape.iter().product()])?, 0),
    };
    Ok(c.one(w.repeated(&x, axis, times, true)?))
}

/// An index from the front, between the ends of an axis.
pub(super) fn bound(index: i64, extent: usize) -> usize {
    let index = if index < 0 { index.saturating_add(extent as i64) } else { index };
    index.clamp(0, extent as i64) as usize
}

/// The step from `shape` to the view that a call makes; `None` for what is no view that can be written through.
pub(in super::super) fn step(w: &mut Walk<'_>, c: &Call<'_>, shape: &[usize], made: &[usize]) -> Option<Vec<Step>> {
    let name = c.op.split('.').nth(1)?;
    match name {
        "slice" => {
            let (axis, begin, end, stride) = range(w, c, shape).ok()?;
            Some(vec![Step::Slice { axis, begin, end, stride }])
        }
        "select" => {
            let (axis, index) = index_of(w, c, shape).ok()?;
            Some(vec![Step::Slice { axis, begin: index, end: index + 1, stride: 1 }, Step::Shape(made.to_vec())])
        }
        "permute" | "transpose" | "t" | "swapaxes" => Some(vec![Step::Order(order(w, c, shape.len()).ok()?)]),
        "view" | "unsqueeze" | "squeeze" | "alias" | "detach" | "detach_" | "flatten" | "unflatten" | "lift_fresh" => {
            Some(vec![Step::Shape(made.to_vec())])
        }
        _ => None,
    }
}

/// Axis, first index, index after the last, and step of a slice.
pub(super) fn range(w: &mut Walk<'_>, c: &Call<'_>, shape: &[usize]) -> Result<(usize, usize, usize, usize), OpError> {
    let axis = c.axis(w, "dim", 0, shape.len())?;
    let extent = *shape.get(axis).ok_or_else(|| OpError::new("a slice of a number"))?;
    let begin = bound(c.int(w, "start", Some(0))?, extent);
    let end = bound(c.int(w, "end", Some(i64::MAX))?, extent);
    let stride = usize::try_from(c.int(w, "step", Some(1))?).ok().filter(|n| *n > 0);
    Ok((axis, begin, end, stride.ok_or_else(|| OpError::new("a step below 1"))?))
}

fn slice(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let shape = w.t.shape(&x);
    let (axis, begin, end, stride) = range(w, c, &shape)?;
    Ok(c.one(sliced(&x, axis, begin, end, stride, &mut w.t)?))
}

/// One index of an axis, which goes away.
pub(super) fn selected(w: &mut Walk<'_>, x: &Value, axis: usize, index: usize) -> Traced {
    let mut shape = w.t.shape(x);
    let y = sliced(x, axis, index, index + 1, 1, &mut w.t)?;
    shape.remove(axis);
    w.t.reshape(&y, &shape)
}

pub(super) fn index_of(w: &mut Walk<'_>, c: &Call<'_>, shape: &[usize]) -> Result<(usize, usize), OpError> {
    let axis = c.axis(w, "dim", 0, shape.len())?;
    let extent = *shape.get(axis).ok_or_else(|| OpError::new("an index of a number"))?;
    let index = c.int(w, "index", None)?;
    let counted = if index < 0 { index.saturating_add(extent as i64) } else { index };
    let inside = usize::try_from(counted).ok().filter(|index| *index < extent);
    Ok((axis, inside.ok_or_else(|| OpError::new(format!("index {index} of {extent}")))?))
}

fn select(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let shape = w.t.shape(&x);
    let (axis, index) = index_of(w, c, &shape)?;
    Ok(c.one(selected(w, &x, axis, index)?))
}
