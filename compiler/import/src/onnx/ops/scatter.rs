//! Elements that are written over, at positions that are known: the result is chosen from what was there and what is new.

use ndarray::Dimension;
use s2dit_ir::{Op, Tensor, TensorType};

use super::Handler;
use super::gather::take;
use crate::Value;
use crate::onnx::node::{Made, Node, Stop, axis, broken, not_read};
use crate::onnx::walk::Walk;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "ScatterElements" | "Scatter" => scatter_elements,
        "ScatterND" => scatter_nd,
        _ => return None,
    })
}

/// The elements of `x`, those at `places` (flat) replaced by the elements of `updates`, in their order.
fn replace(w: &mut Walk, x: &Value, updates: &Value, places: &[usize]) -> Result<Value, Stop> {
    let ty = w.t.ty(x);
    let (all, new) = (ty.elements(), places.len());
    w.t.spend(&TensorType::new(ty.dtype, [all]))?;
    let mut chosen: Vec<usize> = (0..all).collect();
    for (i, place) in places.iter().enumerate() {
        chosen[*place] = all + i;
    }
    let updates = w.t.reshape(updates, &[new])?;
    if chosen == (all..all + new).collect::<Vec<_>>() {
        return Ok(w.t.reshape(&updates, &ty.shape)?);
    }
    let flat = w.t.reshape(x, &[all])?;
    // A box of the slowest axis, which is what a copy into a slice writes, is a join of three parts.
    if let (Some(first), true) = (places.first(), places.windows(2).all(|w| w[1] == w[0] + 1)) {
        let mut parts = Vec::new();
        if *first > 0 {
            parts.push(w.part(&flat, 0, 0, *first)?);
        }
        parts.push(updates);
        if first + new < all {
            parts.push(w.part(&flat, 0, first + new, all)?);
        }
        let y = w.concat(&parts, 0)?;
        return Ok(w.t.reshape(&y, &ty.shape)?);
    }
    let both = w.concat(&[flat, updates], 0)?;
    let y = take(w, &both, 0, &chosen)?;
    Ok(w.t.reshape(&y, &ty.shape)?)
}

/// Rows that were written over in a tensor of the graph, by what.
pub(in crate::onnx) type Written = Vec<(Vec<usize>, Value)>;

/// x with some rows of its first axis replaced. Once all of them are, x does not matter any more: two writes to every second row by turns, as rotary
/// positions are written, are two tensors by turns.
fn write_rows(w: &mut Walk, x: &Value, rows: &[usize], updates: &Value) -> Result<Value, Stop> {
    let shape = w.t.shape(x);
    let mut written = match x {
        Value::Graph(v) => w.written.get(v).cloned().unwrap_or_default(),
        _ => Written::new(),
    };
    let again = written.iter().any(|(before, _)| before.iter().any(|row| rows.contains(row)));
    let mut sorted = rows.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    if again || sorted.len() < rows.len() {
        written.clear();
    } else {
        written.push((rows.to_vec(), updates.clone()));
    }
    let by_turns = |written: &Written| match &written[..] {
        [(a, x), (b, y)] if a.len() == b.len() && a.len() + b.len() == shape[0] => {
            let every = |rows: &[usize], first| rows.iter().enumerate().all(|(i, row)| *row == 2 * i + first);
            match (every(a, 0) && every(b, 1), every(a, 1) && every(b, 0)) {
                (true, _) => Some((x.clone(), y.clone())),
                (_, true) => Some((y.clone(), x.clone())),
                _ => None,
            }
        }
        _ => None,
    };
    if let Some((even, odd)) = by_turns(&written) {
        return interleaved(w, &even, &odd);
    }
    let each: usize = shape[1..].iter().product();
    let places: Vec<usize> = rows.iter().flat_map(|row| row * each..(row + 1) * each).collect();
    let y = replace(w, x, updates, &places)?;
    if let Value::Graph(v) = y {
        w.written.insert(v, written);
    }
    Ok(y)
}

/// Two tensors by turns along their first axis. Where both were transposed to have it there, they are joined as they were before.
fn interleaved(w: &mut Walk, even: &Value, odd: &Value) -> Result<Value, Stop> {
    let before = |w: &Walk, x: &Value| match x {
        Value::Graph(v) => match w.t.f.op(*v) {
            Op::Transpose(t) => Some((t.perm.clone(), Value::Graph(w.t.f.operands(*v)[0]))),
            _ => None,
        },
        _ => None,
    };
    let (perm, even, odd) = match (before(w, even), before(w, odd)) {
        (Some((p, x)), Some((q, y))) if p == q => (p, x, y),
        _ => ((0..w.t.shape(even).len()).collect(), even.clone(), odd.clone()),
    };
    let (axis, shape) = (perm[0], w.t.shape(&even));
    let around = |middle: &[usize]| [&shape[..axis], middle, &shape[axis + 1..]].concat();
    let column = around(&[shape[axis], 1]);
    let (even, odd) = (w.t.reshape(&even, &column)?, w.t.reshape(&odd, &column)?);
    let both = w.concat(&[even, odd], axis + 1)?;
    let y = w.t.reshape(&both, &around(&[2 * shape[axis]]))?;
    Ok(w.t.transpose(&y, &perm)?)
}

fn no_reduction(n: &Node) -> Result<(), Stop> {
    match n.text("reduction", "none")? {
        "none" => Ok(()),
        other => not_read!("reduction `{other}`"),
    }
}

/// An index that may count from the end.
fn position(x: f64, extent: usize) -> Result<usize, Stop> {
    let i = if x < 0.0 { x + extent as f64 } else { x };
    if i < 0.0 || i >= extent as f64 || i.fract() != 0.0 {
        broken!("index {x} of {extent}");
    }
    Ok(i as usize)
}

fn known_indices(n: &Node) -> Result<Tensor, Stop> {
    match n.input(1)? {
        Value::Known(indices) => Ok(indices.clone()),
        _ => not_read!("positions that the model computes"),
    }
}

fn scatter_nd(w: &mut Walk, n: &Node) -> Made {
    no_reduction(n)?;
    let (x, indices, updates) = (n.input(0)?.clone(), known_indices(n)?, n.input(2)?.clone());
    let (shape, of) = (w.t.shape(&x), indices.data.shape().to_vec());
    let Some((&depth, lead)) = of.split_last() else { broken!("positions of rank 0") };
    if depth > shape.len() {
        broken!("positions of {depth} axes in {shape:?}");
    }
    let rest = &shape[depth..];
    if w.t.shape(&updates) != [lead, rest].concat() {
        broken!("updates {:?} at positions {of:?} in {shape:?}", w.t.shape(&updates));
    }
    if indices.data.is_empty() || w.t.ty(&updates).elements() == 0 {
        return Ok(vec![x]);
    }
    let each: usize = rest.iter().product();
    w.t.spend(&w.t.ty(&updates))?;
    let flat: Vec<f64> = indices.data.iter().copied().collect();
    if depth == 1 {
        let rows = flat.iter().map(|x| position(*x, shape[0])).collect::<Result<Vec<_>, _>>()?;
        let updates = w.t.reshape(&updates, &[&[rows.len()], rest].concat())?;
        return Ok(vec![write_rows(w, &x, &rows, &updates)?]);
    }
    let mut places = Vec::new();
    for tuple in flat.chunks(depth) {
        let mut at = 0;
        for (x, extent) in tuple.iter().zip(&shape) {
            at = at * extent + position(*x, *extent)?;
        }
        places.extend(at * each..(at + 1) * each);
    }
    Ok(vec![replace(w, &x, &updates, &places)?])
}

fn scatter_elements(w: &mut Walk, n: &Node) -> Made {
    no_reduction(n)?;
    let (x, indices, updates) = (n.input(0)?.clone(), known_indices(n)?, n.input(2)?.clone());
    let (shape, of) = (w.t.shape(&x), indices.data.shape().to_vec());
    let axis = axis(n.int("axis", 0)?, shape.len())?;
    if of.len() != shape.len() || w.t.shape(&updates) != of || (0..of.len()).any(|i| i != axis && of[i] > shape[i]) {
        broken!("positions {of:?} and updates {:?} in {shape:?}", w.t.shape(&updates));
    }
    let mut places = Vec::new();
    for (place, index) in indices.data.indexed_iter() {
        let mut at = 0;
        for (i, extent) in shape.iter().enumerate() {
            at = at * extent + if i == axis { position(*index, *extent)? } else { place.slice()[i] };
        }
        places.push(at);
    }
    if places.is_empty() {
        return Ok(vec![x]);
    }
    Ok(vec![replace(w, &x, &updates, &places)?])
}
