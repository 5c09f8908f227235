//! Boxes of tensors: cut out, padded, cut along a diagonal.

use s2dit_ir::ops::{Binary, Pad, Slice};
use s2dit_ir::{DType, Tensor};

use super::Handler;
use super::gather::take;
use super::layout::empty;
use crate::Value;
use crate::onnx::node::{Made, Node, Stop, axis, broken, not_read, size};
use crate::onnx::walk::Walk;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "Pad" => pad,
        "Slice" => slice,
        "Trilu" => trilu,
        _ => return None,
    })
}

/// The positions `first, first + step, …` of an axis.
struct Positions {
    first: i64,
    step: i64,
    count: usize,
}

/// numpy's basic indexing of an axis.
fn positions(extent: usize, start: i64, end: i64, step: i64) -> Result<Positions, Stop> {
    let extent = extent as i64;
    let (low, high) = match step {
        0 => broken!("a step of 0"),
        1.. => (0, extent),
        _ => (-1, extent - 1),
    };
    let wrap = |p: i64| if p < 0 { p.saturating_add(extent) } else { p };
    // A start behind the end of a backward range is its last element.
    let first = wrap(start).clamp(if step > 0 { 0 } else { -1 }, high);
    let last = wrap(end).clamp(low, high);
    let distance = if step > 0 { last - first } else { first - last };
    let count = if distance <= 0 { 0 } else { (distance - 1) / step.unsigned_abs().min(1 << 40) as i64 + 1 };
    Ok(Positions { first, step, count: count as usize })
}

fn slice(w: &mut Walk, n: &Node) -> Made {
    let mut x = n.input(0)?.clone();
    let shape = w.t.shape(&x);
    let list = |w: &mut Walk, index: usize, name: &'static str| -> Result<Option<Vec<i64>>, Stop> {
        match n.optional(index) {
            Some(list) => w.integers(&list.clone(), name).map(Some),
            None => n.ints(name),
        }
    };
    let (Some(starts), Some(ends)) = (list(w, 1, "starts")?, list(w, 2, "ends")?) else {
        broken!("starts or ends are missing");
    };
    let axes = list(w, 3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = list(w, 4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
    if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        broken!("{} starts, {} ends, {} axes, {} steps", starts.len(), ends.len(), axes.len(), steps.len());
    }
    let mut cut = Slice { begin: vec![0; shape.len()], end: shape.clone(), stride: vec![1; shape.len()] };
    let mut back = Vec::new();
    let mut seen = Vec::new();
    for i in 0..starts.len() {
        let at = axis(axes[i], shape.len())?;
        if seen.contains(&at) {
            broken!("axis {at} twice");
        }
        seen.push(at);
        let p = positions(shape[at], starts[i], ends[i], steps[i])?;
        if p.count == 0 {
            return Ok(vec![empty(w, &x, at)]);
        }
        if p.step < 0 {
            back.push((at, p));
            continue;
        }
        let step = usize::try_from(p.step).unwrap_or(usize::MAX).min(shape[at].max(1));
        (cut.begin[at], cut.stride[at]) = (p.first as usize, step);
        cut.end[at] = p.first as usize + (p.count - 1) * step + 1;
    }
    let whole = cut.begin.iter().all(|b| *b == 0) && cut.end == shape && cut.stride.iter().all(|s| *s == 1);
    if !whole {
        x = w.t.op(cut, &[&x])?;
    }
    for (axis, p) in back {
        x = take(w, &x, axis, &(0..p.count as i64).map(|i| (p.first + i * p.step) as usize).collect::<Vec<_>>())?;
    }
    Ok(vec![x])
}

fn pad(w: &mut Walk, n: &Node) -> Made {
    let mut x = n.input(0)?.clone();
    let shape = w.t.shape(&x);
    let pads = match n.optional(1) {
        Some(pads) => w.integers(&pads.clone(), "the pads")?,
        None => n.ints("pads")?.ok_or_else(|| Stop::Broken("pads are missing".into()))?,
    };
    let value = match n.optional(2) {
        Some(value) => w.floats(&value.clone(), "the value")?.first().copied().unwrap_or(0.0),
        None => n.float("value", 0.0)?,
    };
    let axes = match n.optional(3) {
        Some(axes) => w.integers(&axes.clone(), "the axes")?,
        None => (0..shape.len() as i64).collect(),
    };
    if pads.len() != 2 * axes.len() {
        broken!("{} pads of {} axes", pads.len(), axes.len());
    }
    let (mut before, mut after) = (vec![0i64; shape.len()], vec![0i64; shape.len()]);
    for (i, a) in axes.iter().enumerate() {
        let a = axis(*a, shape.len())?;
        (before[a], after[a]) = (pads[i], pads[axes.len() + i]);
    }
    // Negative pads cut.
    let mut cut = Slice { begin: vec![0; shape.len()], end: shape.clone(), stride: vec![1; shape.len()] };
    for a in 0..shape.len() {
        let (low, high) = (before[a].min(0).unsigned_abs() as usize, after[a].min(0).unsigned_abs() as usize);
        if low.saturating_add(high) >= shape[a] && low + high > 0 {
            broken!("axis {a} of {shape:?} is cut away");
        }
        (cut.begin[a], cut.end[a]) = (low, shape[a] - high);
    }
    if cut.begin.iter().any(|b| *b > 0) || cut.end != shape {
        x = w.t.op(cut, &[&x])?;
    }
    let sides =
        |list: &[i64]| -> Result<Vec<usize>, Stop> { list.iter().map(|n| size((*n).max(0), "a pad of")).collect() };
    let (before, after) = (sides(&before)?, sides(&after)?);
    if before.iter().chain(&after).any(|n| *n > 1 << 31) {
        not_read!("pads of {before:?} and {after:?}");
    }
    if before.iter().chain(&after).all(|n| *n == 0) {
        return Ok(vec![x]);
    }
    let mode = n.text("mode", "constant")?;
    if mode == "constant" {
        if !value.is_finite() {
            not_read!("a border of {value}");
        }
        return Ok(vec![w.t.op(Pad { before, after, value }, &[&x])?]);
    }
    for a in 0..shape.len() {
        let extent = w.t.shape(&x)[a] as i64;
        let source = |i: i64| -> Result<usize, Stop> {
            Ok(match mode {
                "edge" => i.clamp(0, extent - 1) as usize,
                "wrap" => i.rem_euclid(extent) as usize,
                "reflect" if extent == 1 => 0,
                "reflect" => {
                    let period = 2 * (extent - 1);
                    let i = i.rem_euclid(period);
                    i.min(period - i) as usize
                }
                other => broken!("mode `{other}`"),
            })
        };
        if before[a] + after[a] > 0 {
            let positions =
                (-(before[a] as i64)..extent + after[a] as i64).map(source).collect::<Result<Vec<_>, _>>()?;
            x = take(w, &x, a, &positions)?;
        }
    }
    Ok(vec![x])
}

/// The triangle above or below a diagonal; what a model computes is a product with a mask.
fn trilu(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?.clone();
    let shape = w.t.shape(&x);
    let [.., rows, columns] = shape[..] else { broken!("an operand of rank {}", shape.len()) };
    let k = match n.optional(1) {
        Some(k) => w.integers(&k.clone(), "the diagonal")?.first().copied().unwrap_or(0),
        None => 0,
    };
    let upper = n.int("upper", 1)? != 0;
    let keeps = |row: usize, column: usize| {
        let over = (column as i64).saturating_sub(row as i64);
        if upper { over >= k } else { over <= k }
    };
    if let Value::Known(Tensor { dtype, mut data }) = x {
        for (i, x) in data.iter_mut().enumerate() {
            if !keeps(i / columns % rows, i % columns) {
                *x = 0.0;
            }
        }
        return Ok(vec![Value::Known(Tensor { dtype, data })]);
    }
    let dtype = w.t.ty(&x).dtype;
    w.t.spend(&s2dit_ir::TensorType::new(DType::F32, [rows, columns]))?;
    let mask = (0..rows * columns).map(|i| f64::from(u8::from(keeps(i / columns, i % columns)))).collect();
    let mask = w.known(dtype, &[rows, columns], mask)?;
    Ok(vec![w.binary(Binary::Mul, &x, &mask)?])
}
