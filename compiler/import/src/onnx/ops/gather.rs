//! Elements chosen by positions.

use ndarray::{Axis, IxDyn};
use s2dit_ir::ops::{Binary, Gather};
use s2dit_ir::{DType, Tensor, TensorType};

use super::Handler;
use crate::Value;
use crate::onnx::node::{Made, Node, Stop, axis, broken, not_read};
use crate::onnx::walk::Walk;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "Gather" => gather,
        "GatherElements" => gather_elements,
        "GatherND" => gather_nd,
        "NonZero" => non_zero,
        _ => return None,
    })
}

/// Positions of an axis, each there.
pub(super) fn take(w: &mut Walk, x: &Value, axis: usize, positions: &[usize]) -> Result<Value, Stop> {
    let mut shape = w.t.shape(x);
    if let Value::Known(x) = x {
        shape[axis] = positions.len();
        w.t.spend(&TensorType::new(x.dtype, shape))?;
        let data = x.data.select(Axis(axis), positions).as_standard_layout().into_owned();
        return Ok(Value::Known(Tensor { dtype: x.dtype, data }));
    }
    // A run of positions is a slice.
    if let (Some(first), true) = (positions.first(), positions.windows(2).all(|w| w[1] == w[0] + 1)) {
        return w.part(x, axis, *first, first + positions.len());
    }
    let positions = w.list(DType::I32, positions.iter().map(|p| *p as f64).collect())?;
    Ok(w.t.op(Gather { axis }, &[x, &positions])?)
}

/// Slices of `x` along an axis, in the flat order of computed indices: the axis has as many extents as there are indices.
pub(super) fn rows(w: &mut Walk, x: &Value, indices: &Value, axis: usize) -> Result<Value, Stop> {
    let count = w.t.shape(indices).iter().product();
    let flat = w.t.reshape(indices, &[count])?;
    if w.t.ty(&flat).dtype.is_float() {
        broken!("indices of type {}", w.t.ty(&flat));
    }
    Ok(w.t.op(Gather { axis }, &[x, &flat])?)
}

/// Known indices that may count from the end.
fn wrapped(indices: &Tensor, extent: usize) -> Result<Vec<usize>, Stop> {
    let one = |x: &f64| {
        let i = if *x < 0.0 { *x + extent as f64 } else { *x };
        if i < 0.0 || i >= extent as f64 || i.fract() != 0.0 {
            broken!("index {x} of {extent}");
        }
        Ok(i as usize)
    };
    indices.data.iter().map(one).collect()
}

fn gather(w: &mut Walk, n: &Node) -> Made {
    let (x, indices) = (n.input(0)?.clone(), n.input(1)?.clone());
    let shape = w.t.shape(&x);
    let axis = axis(n.int("axis", 0)?, shape.len())?;
    let chosen = w.t.shape(&indices);
    let result = [&shape[..axis], &chosen[..], &shape[axis + 1..]].concat();
    let y = match &indices {
        Value::Known(known) if known.data.is_empty() => {
            let empty = Tensor { dtype: w.t.ty(&x).dtype, data: ndarray::ArrayD::zeros(result) };
            return Ok(vec![Value::Known(empty)]);
        }
        Value::Known(known) => {
            let positions = wrapped(known, shape[axis])?;
            take(w, &x, axis, &positions)?
        }
        // Ids that a tokenizer gives do not count from the end.
        indices => rows(w, &x, indices, axis)?,
    };
    Ok(vec![w.t.reshape(&y, &result)?])
}

/// Known positions in each lane: of a table by number, of what a model computes where all lanes have the same.
fn gather_elements(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?.clone();
    let Value::Known(indices) = n.input(1)?.clone() else { not_read!("positions that the model computes") };
    let shape = w.t.shape(&x);
    let axis = axis(n.int("axis", 0)?, shape.len())?;
    let positions = wrapped(&indices, shape[axis])?;
    let of = indices.data.shape().to_vec();
    if of.len() != shape.len() || (0..of.len()).any(|i| i != axis && of[i] > shape[i]) {
        broken!("positions {of:?} in {shape:?}");
    }
    if let Value::Known(x) = &x {
        w.t.spend(&TensorType::new(x.dtype, of.clone()))?;
        let mut data = ndarray::ArrayD::zeros(of.clone());
        for (at, (mut place, y)) in data.indexed_iter_mut().enumerate() {
            place = {
                let mut place = place;
                place[axis] = positions[at];
                place
            };
            *y = x.data[&place];
        }
        return Ok(vec![Value::Known(Tensor { dtype: x.dtype, data })]);
    }
    // Flat positions of all elements.
    let mut strides = vec![1; shape.len()];
    for i in (0..shape.len().saturating_sub(1)).rev() {
        strides[i] = strides[i + 1] * shape[i + 1];
    }
    let flat = indices.data.indexed_iter().enumerate().map(|(at, (place, _))| {
        (0..shape.len()).map(|i| strides[i] * if i == axis { positions[at] } else { place[i] }).sum()
    });
    let flat: Vec<usize> = flat.collect();
    let all = w.t.reshape(&x, &[shape.iter().product()])?;
    let y = take(w, &all, 0, &flat)?;
    Ok(vec![w.t.reshape(&y, &of)?])
}

/// Positions of the leading axes: numbers, or computed ones, which do not count from the end.
fn gather_nd(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?.clone();
    if n.int("batch_dims", 0)? != 0 {
        not_read!("batch_dims");
    }
    let Value::Known(indices) = n.input(1)?.clone() else { return gather_nd_computed(w, &x, n.input(1)?) };
    let (shape, of) = (w.t.shape(&x), indices.data.shape().to_vec());
    let Some((&depth, lead)) = of.split_last() else { broken!("positions of rank 0") };
    if depth == 0 || depth > shape.len() || indices.data.is_empty() {
        broken!("positions of {depth} axes in {shape:?}");
    }
    let mut flat = Vec::new();
    for tuple in indices.data.iter().copied().collect::<Vec<_>>().chunks(depth) {
        let mut at = 0;
        for (x, extent) in tuple.iter().zip(&shape) {
            let one = Tensor { dtype: DType::I64, data: ndarray::ArrayD::from_elem(IxDyn(&[]), *x) };
            at = at * extent + wrapped(&one, *extent)?[0];
        }
        flat.push(at);
    }
    let rest = &shape[depth..];
    let lanes = [&[shape[..depth].iter().product()], rest].concat();
    let lanes = w.t.reshape(&x, &lanes)?;
    let y = take(w, &lanes, 0, &flat)?;
    Ok(vec![w.t.reshape(&y, &[lead, rest].concat())?])
}

fn gather_nd_computed(w: &mut Walk, x: &Value, indices: &Value) -> Made {
    let (shape, of) = (w.t.shape(x), w.t.shape(indices));
    let Some((&depth, lead)) = of.split_last() else { broken!("positions of rank 0") };
    if depth == 0 || depth > shape.len() || w.t.ty(indices).dtype.is_float() {
        broken!("positions {of:?} of {:?} in {shape:?}", w.t.ty(indices).dtype);
    }
    let mut flat: Option<Value> = None;
    for i in 0..depth {
        let stride: usize = shape[i + 1..depth].iter().product();
        let part = w.part(indices, of.len() - 1, i, i + 1)?;
        let part = scaled(w, &part, stride as f64)?;
        flat = Some(match flat {
            None => part,
            Some(sum) => w.binary(Binary::Add, &sum, &part)?,
        });
    }
    let Some(flat) = flat else { broken!("positions of no axes") };
    let lanes = w.t.reshape(x, &[&[shape[..depth].iter().product()], &shape[depth..]].concat())?;
    let y = rows(w, &lanes, &flat, 0)?;
    Ok(vec![w.t.reshape(&y, &[lead, &shape[depth..]].concat())?])
}

/// Positions of known elements that are not 0.
fn non_zero(w: &mut Walk, n: &Node) -> Made {
    let Value::Known(x) = n.input(0)?.clone() else { not_read!("positions that the model computes") };
    let found: Vec<Vec<usize>> = x
        .data
        .indexed_iter()
        .filter(|(_, x)| **x != 0.0)
        .map(|(place, _)| ndarray::Dimension::slice(&place).to_vec())
        .collect();
    let rank = x.data.ndim().max(1);
    let values = (0..rank).flat_map(|i| found.iter().map(move |place| place.get(i).copied().unwrap_or(0) as f64));
    let values = values.collect();
    Ok(vec![w.known(DType::I64, &[rank, found.len()], values)?])
}

/// Sums along an axis of what a model computes, as a product with a triangle of ones.
pub(super) fn triangle(w: &mut Walk, extent: usize, keeps: impl Fn(usize, usize) -> bool) -> Result<Value, Stop> {
    w.t.spend(&TensorType::new(DType::F32, [extent, extent]))?;
    let ones = (0..extent * extent).map(|i| f64::from(u8::from(keeps(i / extent, i % extent)))).collect();
    w.known(DType::F32, &[extent, extent], ones)
}

/// Scales a value; of 1 the value itself.
pub(super) fn scaled(w: &mut Walk, x: &Value, factor: f64) -> Result<Value, Stop> {
    if factor == 1.0 { Ok(x.clone()) } else { w.with(Binary::Mul, x, factor) }
}
