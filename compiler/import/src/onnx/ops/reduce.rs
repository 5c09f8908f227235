//! Reductions, and what else is computed along one axis.

use ndarray::Axis;
use s2dit_ir::ops::{Binary, Reduce, ReduceKind, Unary};
use s2dit_ir::{DType, Tensor, TensorType};

use super::Handler;
use super::gather::triangle;
use crate::Value;
use crate::onnx::node::{Made, Node, Stop, axes, axis, broken, not_read};
use crate::onnx::walk::Walk;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "ReduceSum" => |w, n| plain(w, n, ReduceKind::Sum),
        "ReduceMean" => |w, n| plain(w, n, ReduceKind::Mean),
        "ReduceMax" => |w, n| plain(w, n, ReduceKind::Max),
        "ReduceMin" => |w, n| plain(w, n, ReduceKind::Min),
        "ReduceProd" => product,
        "ReduceL1" | "ReduceL2" | "ReduceSumSquare" | "ReduceLogSum" | "ReduceLogSumExp" => composed,
        "ArgMax" | "ArgMin" => arg,
        "CumSum" => cum_sum,
        "TopK" => top_k,
        _ => return None,
    })
}

impl Walk<'_> {
    /// A reduction; of no axes the value itself.
    pub(super) fn reduce(&mut self, kind: ReduceKind, x: &Value, axes: &[usize], keep: bool) -> Result<Value, Stop> {
        if axes.is_empty() {
            return Ok(x.clone());
        }
        if let Value::Known(Tensor { dtype, data }) = x
            && data.is_empty()
        {
            let identity = match kind {
                ReduceKind::Sum => 0.0,
                _ => not_read!("a reduction of no elements"),
            };
            let mut shape = data.shape().to_vec();
            axes.iter().for_each(|a| shape[*a] = 1);
            let filled = Value::Known(Tensor::splat(&TensorType::new(*dtype, shape.clone()), identity));
            let kept: Vec<usize> = (0..shape.len()).filter(|i| keep || !axes.contains(i)).map(|i| shape[i]).collect();
            return Ok(self.t.reshape(&filled, &kept)?);
        }
        Ok(self.t.op(Reduce { kind, axes: axes.to_vec(), keep_dims: keep }, &[x])?)
    }
}

/// Axes of an attribute or an input; all of them if there are none, unless the node says that none are meant.
fn axes_of(w: &mut Walk, n: &Node) -> Result<Vec<usize>, Stop> {
    let rank = w.t.shape(n.input(0)?).len();
    let list = match n.optional(1) {
        Some(list) => w.integers(&list.clone(), "the axes")?,
        None => n.ints("axes")?.unwrap_or_default(),
    };
    if list.is_empty() && n.int("noop_with_empty_axes", 0)? == 0 {
        return Ok((0..rank).collect());
    }
    axes(&list, rank)
}

fn keeps(n: &Node) -> Result<bool, Stop> {
    Ok(n.int("keepdims", 1)? != 0)
}

fn plain(w: &mut Walk, n: &Node, kind: ReduceKind) -> Made {
    let axes = axes_of(w, n)?;
    let x = n.input(0)?;
    if kind == ReduceKind::Mean && !w.t.ty(x).dtype.is_float() && !axes.is_empty() {
        not_read!("a mean of integers");
    }
    Ok(vec![w.reduce(kind, x, &axes, keeps(n)?)?])
}

fn product(w: &mut Walk, n: &Node) -> Made {
    let axes = axes_of(w, n)?;
    let Some(x) = w.numbers(n.input(0)?)? else { not_read!("a product of elements that the model computes") };
    let mut data = x.data;
    for axis in axes.iter().rev() {
        data = data.map_axis(Axis(*axis), |lane| lane.product());
        if keeps(n)? {
            data = data.insert_axis(Axis(*axis));
        }
    }
    Ok(vec![Value::Known(Tensor { dtype: x.dtype, data })])
}

/// Sums of functions, and functions of sums.
fn composed(w: &mut Walk, n: &Node) -> Made {
    let (axes, keep) = (axes_of(w, n)?, keeps(n)?);
    let x = n.input(0)?.clone();
    Ok(vec![match n.op() {
        "ReduceL1" => {
            let y = w.unary(Unary::Abs, &x)?;
            w.reduce(ReduceKind::Sum, &y, &axes, keep)?
        }
        "ReduceSumSquare" => {
            let y = w.unary(Unary::Square, &x)?;
            w.reduce(ReduceKind::Sum, &y, &axes, keep)?
        }
        "ReduceL2" => {
            let y = w.unary(Unary::Square, &x)?;
            let y = w.reduce(ReduceKind::Sum, &y, &axes, keep)?;
            w.unary(Unary::Sqrt, &y)?
        }
        "ReduceLogSum" => {
            let y = w.reduce(ReduceKind::Sum, &x, &axes, keep)?;
            w.unary(Unary::Log, &y)?
        }
        _ => {
            // ln Σ e^x = max + ln Σ e^(x − max)
            let most = w.reduce(ReduceKind::Max, &x, &axes, true)?;
            let y = w.binary(Binary::Sub, &x, &most)?;
            let y = w.unary(Unary::Exp, &y)?;
            let y = w.reduce(ReduceKind::Sum, &y, &axes, true)?;
            let y = w.unary(Unary::Log, &y)?;
            let y = w.binary(Binary::Add, &most, &y)?;
            let shape: Vec<usize> = w.t.shape(&y);
            let kept: Vec<usize> = (0..shape.len()).filter(|i| keep || !axes.contains(i)).map(|i| shape[i]).collect();
            w.t.reshape(&y, &kept)?
        }
    }])
}

/// The first of the greatest whole numbers along an axis: where they are at the greatest, and none before them is.
fn first_greatest(w: &mut Walk, x: &Value, axis: usize, keep: bool) -> Made {
    let extent = w.t.shape(x)[axis];
    let x = w.cast(x, DType::F32)?;
    let most = w.reduce(ReduceKind::Max, &x, &[axis], true)?;
    let under = w.binary(Binary::Sub, &most, &x)?;
    let under = w.with(Binary::Minimum, &under, 1.0)?;
    // Positions of the greatest, the extent elsewhere: the least of these is the answer.
    let mut wide = vec![1; w.t.shape(&x).len()];
    wide[axis] = extent;
    let places = w.known(DType::F32, &wide, (0..extent).map(|i| i as f64).collect())?;
    let beyond = w.with(Binary::Mul, &under, extent as f64)?;
    let places = w.binary(Binary::Add, &places, &beyond)?;
    let first = w.reduce(ReduceKind::Min, &places, &[axis], keep)?;
    Ok(vec![w.cast(&first, DType::I64)?])
}

/// The position of the greatest or least element: of what a model computes, the first of the greatest whole numbers.
fn arg(w: &mut Walk, n: &Node) -> Made {
    let input = n.input(0)?.clone();
    let Some(x) = w.numbers(&input)? else {
        if n.op() != "ArgMax" || n.int("select_last_index", 0)? != 0 || !w.is_whole(&input) {
            not_read!("a position that the model computes, but for the first of the greatest whole numbers");
        }
        let axis = axis(n.int("axis", 0)?, w.t.shape(&input).len())?;
        return first_greatest(w, &input, axis, keeps(n)?);
    };
    let axis = axis(n.int("axis", 0)?, x.data.ndim())?;
    let (last, most) = (n.int("select_last_index", 0)? != 0, n.op() == "ArgMax");
    let better = |new: f64, old: f64| if most { new > old } else { new < old };
    let mut data = x.data.map_axis(Axis(axis), |lane| {
        let mut at = 0;
        for (i, x) in lane.iter().enumerate() {
            if better(*x, lane[at]) || last && *x == lane[at] {
                at = i;
            }
        }
        at as f64
    });
    if keeps(n)? {
        data = data.insert_axis(Axis(axis));
    }
    Ok(vec![Value::Known(Tensor { dtype: DType::I64, data })])
}

/// Of what a model computes a product with a triangle of ones.
fn cum_sum(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?.clone();
    let shape = w.t.shape(&x);
    let list = w.integers(&n.input(1)?.clone(), "the axis")?;
    let [at] = list[..] else { broken!("an axis is expected") };
    let axis = axis(at, shape.len())?;
    let (exclusive, reverse) = (n.int("exclusive", 0)? != 0, n.int("reverse", 0)? != 0);
    // Whether the element `from` counts in the sum at `to`.
    let counts = move |from: usize, to: usize| match (reverse, exclusive) {
        (false, false) => from <= to,
        (false, true) => from < to,
        (true, false) => from >= to,
        (true, true) => from > to,
    };
    if let Value::Known(Tensor { dtype, mut data }) = x {
        for mut lane in data.lanes_mut(Axis(axis)) {
            let whole = lane.to_owned();
            let mut sum = 0.0;
            for i in 0..whole.len() {
                let i = if reverse { whole.len() - 1 - i } else { i };
                lane[i] = if exclusive { sum } else { sum + whole[i] };
                sum += whole[i];
            }
        }
        return Ok(vec![Value::Known(Tensor { dtype, data })]);
    }
    let dtype = w.t.ty(&x).dtype;
    let mut perm: Vec<usize> = (0..shape.len()).filter(|i| *i != axis).collect();
    perm.push(axis);
    let back: Vec<usize> = (0..shape.len()).map(|i| perm.iter().position(|p| *p == i).unwrap_or(i)).collect();
    let y = w.cast(&x, DType::F32)?;
    let y = w.t.transpose(&y, &perm)?;
    let ones = triangle(w, shape[axis], counts)?;
    let y = w.matmul(&y, &ones)?;
    let y = w.t.transpose(&y, &back)?;
    Ok(vec![w.cast(&y, dtype)?])
}

/// The greatest or least known elements, in order.
fn top_k(w: &mut Walk, n: &Node) -> Made {
    let Some(x) = w.numbers(n.input(0)?)? else { not_read!("an order that the model computes") };
    let k = match n.optional(1) {
        Some(k) => w.integers(&k.clone(), "the number")?.first().copied().unwrap_or(0),
        None => n.int("k", 0)?,
    };
    let axis = axis(n.int("axis", -1)?, x.data.ndim())?;
    let largest = n.int("largest", 1)? != 0;
    let Some(k) = usize::try_from(k).ok().filter(|k| *k <= x.data.shape()[axis]) else {
        broken!("{k} elements of {}", x.data.shape()[axis]);
    };
    let mut shape = x.data.shape().to_vec();
    shape[axis] = k;
    let (mut values, mut places) = (ndarray::ArrayD::zeros(shape.clone()), ndarray::ArrayD::zeros(shape));
    let lanes = x.data.lanes(Axis(axis)).into_iter();
    let results = values.lanes_mut(Axis(axis)).into_iter().zip(places.lanes_mut(Axis(axis)));
    for (lane, (mut values, mut places)) in lanes.zip(results) {
        let mut order: Vec<usize> = (0..lane.len()).collect();
        order.sort_by(|a, b| {
            let by_size = lane[*a].total_cmp(&lane[*b]);
            (if largest { by_size.reverse() } else { by_size }).then(a.cmp(b))
        });
        for (i, at) in order.iter().take(k).enumerate() {
            (values[i], places[i]) = (lane[*at], *at as f64);
        }
    }
    let values = Value::Known(Tensor { dtype: x.dtype, data: values });
    Ok(vec![values, Value::Known(Tensor { dtype: DType::I64, data: places })])
}
