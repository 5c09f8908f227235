//! Sums, means and extremes over axes.

use s2dit_ir::ops::{Binary, Matmul, Reduce, ReduceKind, Unary};
use s2dit_ir::{DType, OpError};

use super::super::call::Call;
use super::super::walk::{Slot, Walk};
use super::Group;
use crate::{Traced, Value};

pub(super) const OPS: Group = &[
    ("aten.sum.*", |w, c| reduction(w, c, ReduceKind::Sum)),
    ("aten.mean.*", |w, c| reduction(w, c, ReduceKind::Mean)),
    ("aten.amax.default", |w, c| reduction(w, c, ReduceKind::Max)),
    ("aten.amin.default", |w, c| reduction(w, c, ReduceKind::Min)),
    ("aten.max.default", |w, c| reduction(w, c, ReduceKind::Max)),
    ("aten.min.default", |w, c| reduction(w, c, ReduceKind::Min)),
    ("aten.max.dim", |w, c| reduction(w, c, ReduceKind::Max)),
    ("aten.min.dim", |w, c| reduction(w, c, ReduceKind::Min)),
    ("aten.any.*", |w, c| reduction(w, c, ReduceKind::Max)),
    ("aten.all.*", |w, c| reduction(w, c, ReduceKind::Min)),
    ("aten.var.*", variance),
    ("aten.std.*", variance),
    ("aten.cumsum.default", cumulative),
    ("aten.argmax.default", argmax),
    ("aten.logsumexp.default", log_sum_exp),
];

type Read = Result<Vec<Slot>, OpError>;

impl Walk<'_> {
    /// A reduction; without axes the value itself.
    pub(in super::super) fn reduced(&mut self, kind: ReduceKind, x: &Value, axes: &[usize], keep_dims: bool) -> Traced {
        if axes.is_empty() {
            return Ok(x.clone());
        }
        // Of one value throughout, however large.
        if let (Value::Filled(ty, number), true) = (x, kind != ReduceKind::Sum) {
            let op = Reduce { kind, axes: axes.to_vec(), keep_dims };
            let reduced = s2dit_ir::Op::from(op).infer(&[ty], None)?;
            return Ok(Value::Filled(reduced, *number));
        }
        self.t.op(Reduce { kind, axes: axes.to_vec(), keep_dims }, &[x])
    }
}

fn reduction(w: &mut Walk<'_>, c: &Call<'_>, kind: ReduceKind) -> Read {
    let mut x = c.tensor(w, "self")?;
    let name = c.op.split('.').nth(1).unwrap_or_default();
    let logical = matches!(name, "any" | "all");
    if logical {
        x = w.truth(&x)?;
    }
    let dtype = w.t.ty(&x).dtype;
    let counts = dtype == DType::Bool && kind == ReduceKind::Sum;
    let to = match kind {
        ReduceKind::Mean => DType::F32,
        _ if counts => DType::I64,
        _ => dtype,
    };
    // Sums of truth values count.
    x = w.cast(&x, to)?;
    let rank = w.t.shape(&x).len();
    let (axes, keep) = (c.axes(w, "dim", rank)?, c.flag(w, "keepdim", false)?);
    let y = w.reduced(kind, &x, &axes, keep)?;
    // `max.dim` has indices as a second result, which nothing may use.
    Ok(vec![Slot::Tensor(y)])
}

/// `Σ (x − mean)² / (n − correction)`
fn variance(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let shape = w.t.shape(&x);
    let (axes, keep) = (c.axes(w, "dim", shape.len())?, c.flag(w, "keepdim", false)?);
    let unbiased = f64::from(u8::from(c.flag(w, "unbiased", true)?));
    let correction = c.number(w, "correction", Some(unbiased))?;
    let n: usize = axes.iter().map(|axis| shape.get(*axis).copied().unwrap_or(1)).product();
    let mean = w.reduced(ReduceKind::Mean, &x, &axes, true)?;
    let centred = w.binary(Binary::Sub, &x, &mean)?;
    let square = w.unary(Unary::Square, &centred)?;
    let mean = w.reduced(ReduceKind::Mean, &square, &axes, keep)?;
    let factor = n as f64 / (n as f64 - correction);
    if !factor.is_finite() {
        return Err(OpError::new(format!("a variance of {n} elements less {correction}")));
    }
    let y = w.with_number(Binary::Mul, &mean, factor)?;
    let is_deviation = c.op.starts_with("aten.std");
    Ok(c.one(if is_deviation { w.unary(Unary::Sqrt, &y)? } else { y }))
}

/// A product with a triangle of ones.
fn cumulative(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let to = c.dtype.unwrap_or(DType::F32);
    let shape = w.t.shape(&x);
    let axis = c.axis(w, "dim", 0, shape.len())?;
    let n = *shape.get(axis).ok_or_else(|| OpError::new("a sum of a number"))?;
    let x = w.cast(&x, DType::F32)?;
    let mut perm: Vec<usize> = (0..shape.len()).collect();
    perm.swap(axis, shape.len() - 1);
    let rows = w.t.transpose(&x, &perm)?;
    let moved = w.t.shape(&rows);
    let flat = w.t.reshape(&rows, &[moved[..moved.len() - 1].iter().product(), n])?;
    let ones = super::make::known(w, DType::F32, &[n, n], (0..n * n).map(|i| f64::from(u8::from(i / n <= i % n))))?;
    let sums = w.t.op(Matmul { transpose_x: false, transpose_y: false }, &[&flat, &ones])?;
    let sums = w.t.reshape(&sums, &moved)?;
    let y = w.t.transpose(&sums, &perm)?;
    Ok(c.one(w.cast(&y, to)?))
}

/// The index of the first of the greatest elements: of values of which it is known that they are whole numbers, so that they can be compared.
fn argmax(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let shape = w.t.shape(&x);
    let (x, axis, keep) = match c.has("dim") {
        true => (x, c.axis(w, "dim", 0, shape.len())?, c.flag(w, "keepdim", false)?),
        false => (w.t.reshape(&x, &[shape.iter().product()])?, 0, false),
    };
    let shape = w.t.shape(&x);
    let n = *shape.get(axis).ok_or_else(|| OpError::new("an index of a number"))?;
    let most = w.reduced(ReduceKind::Max, &x, &[axis], true)?;
    let is_most = w.compared("eq", &x, &most)?;
    // Σ over j of the products of what comes before: rather the least index, n where an element is not the greatest.
    let mut column = vec![1; shape.len()];
    column[axis] = n;
    let index = super::make::known(w, DType::F32, &column, (0..n).map(|i| i as f64))?;
    let index = w.t.broadcast(&index, &shape)?;
    let behind = w.t.scalar(DType::F32, n as f64);
    let index = w.select(&is_most, &index, &behind)?;
    let first = w.reduced(ReduceKind::Min, &index, &[axis], keep)?;
    Ok(c.one(w.cast(&first, DType::I64)?))
}

/// `max + ln Σ e^(x − max)`
fn log_sum_exp(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let rank = w.t.shape(&x).len();
    let (axes, keep) = (c.axes(w, "dim", rank)?, c.flag(w, "keepdim", false)?);
    let most = w.reduced(ReduceKind::Max, &x, &axes, true)?;
    let shifted = w.binary(Binary::Sub, &x, &most)?;
    let e = w.unary(Unary::Exp, &shifted)?;
    let sum = w.reduced(ReduceKind::Sum, &e, &axes, true)?;
    let log = w.unary(Unary::Log, &sum)?;
    let y = w.binary(Binary::Add, &log, &most)?;
    if keep {
        return Ok(c.one(y));
    }
    let shape: Vec<usize> =
        w.t.shape(&y).into_iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, side)| side).collect();
    Ok(c.one(w.t.reshape(&y, &shape)?))
}
