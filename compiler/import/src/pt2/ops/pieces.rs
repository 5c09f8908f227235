//! Pieces: tensors beside each other, parts of them, borders around them, and what is written into a part.

use s2dit_ir::OpError;
use s2dit_ir::ops::Pad;

use super::super::call::{Call, axis_of};
use super::super::mutation::{Step, joined, sliced};
use super::super::walk::{Slot, Walk};
use super::Group;
use super::shape::{bound, index_of, range, selected, sizes};
use crate::{Traced, Value};

pub(super) const OPS: Group = &[
    ("aten.narrow.default", narrow),
    ("aten.slice_scatter.default", slice_scatter),
    ("aten.select_scatter.default", select_scatter),
    ("aten.cat.default", cat),
    ("aten.concat.default", cat),
    ("aten.stack.default", stack),
    ("aten.split.Tensor", split),
    ("aten.split.sizes", split_with_sizes),
    ("aten.split_with_sizes.default", split_with_sizes),
    ("aten.chunk.default", chunk),
    ("aten.unbind.int", unbind),
    ("aten.pad.default", pad),
    ("aten.constant_pad_nd.default", pad),
    ("aten.roll.default", roll),
    ("aten.flip.default", flip),
];

type Read = Result<Vec<Slot>, OpError>;

fn narrow(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let shape = w.t.shape(&x);
    let axis = c.axis(w, "dim", 0, shape.len())?;
    let begin = bound(c.int(w, "start", Some(0))?, shape[axis]);
    let end = bound(begin as i64 + c.int(w, "length", None)?.max(0), shape[axis]);
    Ok(c.one(sliced(&x, axis, begin, end, 1, &mut w.t)?))
}

fn slice_scatter(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let (x, src) = (c.tensor(w, "self")?, c.tensor(w, "src")?);
    let shape = w.t.shape(&x);
    let (axis, begin, end, stride) = range(w, c, &shape)?;
    let src = {
        let dtype = w.t.ty(&x).dtype;
        w.cast(&src, dtype)?
    };
    Ok(c.one(w.scatter(&x, &Step::Slice { axis, begin, end, stride }, &src)?))
}

fn select_scatter(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let (x, src) = (c.tensor(w, "self")?, c.tensor(w, "src")?);
    let mut shape = w.t.shape(&x);
    let (axis, index) = index_of(w, c, &shape)?;
    shape[axis] = 1;
    let src = {
        let dtype = w.t.ty(&x).dtype;
        w.cast(&src, dtype)?
    };
    let src = w.t.reshape(&src, &shape)?;
    Ok(c.one(w.scatter(&x, &Step::Slice { axis, begin: index, end: index + 1, stride: 1 }, &src)?))
}

/// Tensors of one type.
fn alike(w: &mut Walk<'_>, list: &[Value]) -> Result<Vec<Value>, OpError> {
    let Some(first) = list.first().cloned() else { return Err(OpError::new("no tensors")) };
    let mut common = first;
    for value in list {
        common = w.same_type(&common, value)?.0;
    }
    let in_graph = list.iter().any(|value| matches!(value, Value::Graph(_)));
    let dtype = w.t.ty(&common).dtype;
    let dtype = if in_graph { crate::Tracer::graph_dtype(dtype) } else { dtype };
    list.iter().map(|value| w.cast(value, dtype)).collect()
}

fn cat(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let mut list = c.tensors(w, "tensors")?;
    // torch skips empty tensors of rank 1.
    list.retain(|value| w.t.ty(value).elements() > 0);
    let list = alike(w, &list)?;
    let axis = c.axis(w, "dim", 0, w.t.shape(&list[0]).len())?;
    Ok(c.one(joined(&list, axis, &mut w.t)?))
}

fn stack(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let list = c.tensors(w, "tensors")?;
    let list = alike(w, &list)?;
    let axis = c.axis(w, "dim", 0, w.t.shape(&list[0]).len() + 1)?;
    let mut columns = Vec::new();
    for value in &list {
        let mut shape = w.t.shape(value);
        shape.insert(axis, 1);
        columns.push(w.t.reshape(value, &shape)?);
    }
    Ok(c.one(joined(&columns, axis, &mut w.t)?))
}

/// Parts of an axis of these lengths, one after the other.
fn parts(w: &mut Walk<'_>, x: &Value, axis: usize, lengths: &[usize]) -> Read {
    let mut begin = 0;
    let mut slots = Vec::new();
    for length in lengths {
        slots.push(Slot::Tensor(sliced(x, axis, begin, begin + length, 1, &mut w.t)?));
        begin += length;
    }
    Ok(slots)
}

fn split(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let shape = w.t.shape(&x);
    let axis = c.axis(w, "dim", 0, shape.len())?;
    let size = sizes(&[c.int(w, "split_size", None)?])?[0];
    let lengths: Vec<usize> = (0..shape[axis]).step_by(size).map(|begin| size.min(shape[axis] - begin)).collect();
    parts(w, &x, axis, &lengths)
}

fn split_with_sizes(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let shape = w.t.shape(&x);
    let axis = c.axis(w, "dim", 0, shape.len())?;
    let list = c.ints(w, "split_sizes")?.or(c.ints(w, "split_size")?).unwrap_or_default();
    // Lengths of one axis, which are no shape together.
    let lengths: Option<Vec<usize>> = list.iter().map(|n| usize::try_from(*n).ok().filter(|n| *n > 0)).collect();
    let whole = lengths.as_ref().and_then(|lengths| lengths.iter().try_fold(0usize, |all, n| all.checked_add(*n)));
    match lengths {
        Some(lengths) if whole == Some(shape[axis]) => parts(w, &x, axis, &lengths),
        _ => Err(OpError::new(format!("parts {list:?} of {}", shape[axis]))),
    }
}

fn chunk(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let shape = w.t.shape(&x);
    let axis = c.axis(w, "dim", 0, shape.len())?;
    let chunks = sizes(&[c.int(w, "chunks", None)?])?[0];
    let size = shape[axis].div_ceil(chunks);
    let lengths: Vec<usize> = (0..shape[axis]).step_by(size).map(|begin| size.min(shape[axis] - begin)).collect();
    parts(w, &x, axis, &lengths)
}

fn unbind(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let shape = w.t.shape(&x);
    let axis = c.axis(w, "dim", 0, shape.len())?;
    (0..shape[axis]).map(|index| Ok(Slot::Tensor(selected(w, &x, axis, index)?))).collect()
}

fn pad(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let shape = w.t.shape(&x);
    let list = c.ints(w, "pad")?.unwrap_or_default();
    let mode = c.text("mode", "constant")?;
    if list.len() % 2 != 0 || list.len() / 2 > shape.len() {
        return Err(OpError::new(format!("pad {list:?} of {shape:?}")));
    }
    let mut y = x;
    if mode == "replicate" {
        return Ok(c.one(replicated(w, &y, &list)?));
    }
    if mode != "constant" {
        return Err(OpError::new(format!("mode {mode:?}")));
    }
    let value = c.number(w, "value", Some(0.0))?;
    let (mut before, mut after) = (vec![0; shape.len()], vec![0; shape.len()]);
    // From the last axis on; below 0 it cuts.
    for (i, pair) in list.chunks(2).enumerate() {
        let axis = shape.len() - 1 - i;
        let cut = |n: i64| if n < 0 { usize::try_from(n.unsigned_abs()).unwrap_or(usize::MAX) } else { 0 };
        let (first, last) = (cut(pair[0]), shape[axis].saturating_sub(cut(pair[1])));
        y = sliced(&y, axis, first, last, 1, &mut w.t)?;
        (before[axis], after[axis]) = (pair[0].max(0) as usize, pair[1].max(0) as usize);
    }
    if before.iter().chain(&after).any(|n| *n > 0) {
        let grown: Option<Vec<usize>> =
            (0..shape.len()).map(|i| shape[i].checked_add(before[i])?.checked_add(after[i])).collect();
        crate::trace::check_size(&grown.ok_or_else(|| OpError::new(format!("pad {list:?}")))?)?;
        if w.t.ty(&y).dtype == s2dit_ir::DType::Bool {
            y = w.cast(&y, s2dit_ir::DType::F32)?;
        }
        y = w.t.op(Pad { before, after, value }, &[&y])?;
    }
    Ok(c.one(y))
}

/// The first and last index of an axis again, outside of it.
fn replicated(w: &mut Walk<'_>, x: &Value, list: &[i64]) -> Traced {
    let mut y = x.clone();
    let rank = w.t.shape(x).len();
    for (i, pair) in list.chunks(2).enumerate() {
        let axis = rank - 1 - i;
        let extent = w.t.shape(&y)[axis];
        let mut list = Vec::new();
        for (count, index) in [(pair[0], 0), (pair[1], extent - 1)] {
            let count = usize::try_from(count).map_err(|_| OpError::new("a cut of replicated padding"))?;
            let edge = if count > 0 {
                let edge = sliced(&y, axis, index, index + 1, 1, &mut w.t)?;
                Some(w.repeated(&edge, axis, count, false)?)
            } else {
                None
            };
            list.push(edge);
        }
        let [before, after] = [list.remove(0), list.remove(0)];
        let parts: Vec<Value> = before.into_iter().chain([y.clone()]).chain(after).collect();
        y = joined(&parts, axis, &mut w.t)?;
    }
    Ok(y)
}

fn roll(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let mut x = c.tensor(w, "self")?;
    let shape = w.t.shape(&x);
    let (shifts, axes) = (c.ints(w, "shifts")?.unwrap_or_default(), c.ints(w, "dims")?.unwrap_or_default());
    if axes.len() != shifts.len() {
        return Err(OpError::new("a roll without axes"));
    }
    for (shift, axis) in shifts.into_iter().zip(axes) {
        let axis = axis_of(axis, shape.len())?;
        let first = (shape[axis] as i64 - shift).rem_euclid(shape[axis] as i64) as usize;
        if first > 0 {
            let tail = sliced(&x, axis, first, shape[axis], 1, &mut w.t)?;
            let head = sliced(&x, axis, 0, first, 1, &mut w.t)?;
            x = joined(&[tail, head], axis, &mut w.t)?;
        }
    }
    Ok(c.one(x))
}

fn flip(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let mut x = c.tensor(w, "self")?;
    let shape = w.t.shape(&x);
    for axis in c.axes(w, "dims", shape.len())? {
        let last = shape[axis] as i64 - 1;
        x = w.gathered(&x, axis, (0..=last).rev().collect::<Vec<_>>().as_slice())?;
    }
    Ok(c.one(x))
}
