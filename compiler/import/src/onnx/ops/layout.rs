//! Shapes and orders of axes: no element is computed.

use s2dit_ir::ops::{Concat, Slice};
use s2dit_ir::{Tensor, TensorType};

use super::Handler;
use super::constant::extents;
use crate::Value;
use crate::onnx::node::{Made, Node, Stop, axes, axis, broken, not_read, size};
use crate::onnx::walk::Walk;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "Concat" => concat,
        "DepthToSpace" => depth_to_space,
        "Expand" => expand,
        "Flatten" => flatten,
        "Reshape" => reshape,
        "SpaceToDepth" => space_to_depth,
        "Split" => split,
        "Squeeze" => squeeze,
        "Tile" => tile,
        "Transpose" => transpose,
        "Unsqueeze" => unsqueeze,
        _ => return None,
    })
}

impl Walk<'_> {
    /// Tensors one after the other; those without elements are left out.
    pub(super) fn concat(&mut self, parts: &[Value], axis: usize) -> Result<Value, Stop> {
        let there: Vec<&Value> = parts.iter().filter(|part| self.t.shape(part)[axis] > 0).collect();
        match there[..] {
            [] => Ok(parts[0].clone()),
            [only] => Ok(only.clone()),
            _ => Ok(self.t.op(Concat { axis }, &there)?),
        }
    }

    /// The range of one axis.
    pub(super) fn part(&mut self, x: &Value, axis: usize, begin: usize, end: usize) -> Result<Value, Stop> {
        let shape = self.t.shape(x);
        if begin == 0 && end == shape[axis] {
            return Ok(x.clone());
        }
        Ok(self.t.op(Slice::axis(&shape, axis, begin, end), &[x])?)
    }
}

fn concat(w: &mut Walk, n: &Node) -> Made {
    let parts: Vec<Value> = (0..n.inputs.len()).map(|i| n.input(i).cloned()).collect::<Result<_, _>>()?;
    let Some(first) = parts.first() else { broken!("no inputs") };
    let rank = w.t.shape(first).len();
    if parts.iter().any(|part| w.t.shape(part).len() != rank) {
        broken!("inputs of several ranks");
    }
    let axis = axis(n.int("axis", 0)?, rank)?;
    Ok(vec![w.concat(&parts, axis)?])
}

fn depth_to_space(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?;
    let [batch, channels, rows, columns] = w.t.shape(x)[..] else { broken!("an operand of another rank than 4") };
    let s = size(n.int("blocksize", 0)?, "a block of")?;
    let inner = match s.checked_mul(s) {
        Some(square @ 1..) if channels % square == 0 => channels / square,
        _ => broken!("{channels} channels of a block of {s}"),
    };
    let (shape, perm) = match n.text("mode", "DCR")? {
        "DCR" => ([batch, s, s, inner, rows, columns], [0, 3, 4, 1, 5, 2]),
        "CRD" => ([batch, inner, s, s, rows, columns], [0, 1, 4, 2, 5, 3]),
        other => broken!("mode `{other}`"),
    };
    if shape[1] == s && s > 1 || s == 1 {
        let y = w.t.op(s2dit_ir::ops::DepthToSpace { block: s }, &[x])?;
        if perm[1] == 3 {
            return Ok(vec![y]);
        }
    }
    let y = w.t.reshape(x, &shape)?;
    let y = w.t.transpose(&y, &perm)?;
    Ok(vec![w.t.reshape(&y, &[batch, inner, rows * s, columns * s])?])
}

fn space_to_depth(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?;
    let [batch, channels, rows, columns] = w.t.shape(x)[..] else { broken!("an operand of another rank than 4") };
    let s = size(n.int("blocksize", 0)?, "a block of")?;
    if s == 0 || rows % s != 0 || columns % s != 0 {
        broken!("a block of {s} in {rows}×{columns}");
    }
    let y = w.t.reshape(x, &[batch, channels, rows / s, s, columns / s, s])?;
    let y = w.t.transpose(&y, &[0, 3, 5, 1, 2, 4])?;
    Ok(vec![w.t.reshape(&y, &[batch, channels * s * s, rows / s, columns / s])?])
}

/// By numpy's rules, in which an operand may be wider than what is asked for.
fn expand(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?;
    let shape = extents(&w.integers(n.input(1)?, "the shape")?)?;
    let shape = s2dit_ir::ops::broadcast_shapes(&w.t.shape(x), &shape)?;
    if let Value::Known(x) = x
        && shape.contains(&0)
    {
        return Ok(vec![Value::Known(Tensor { dtype: x.dtype, data: ndarray::ArrayD::zeros(shape) })]);
    }
    Ok(vec![w.t.broadcast(x, &shape)?])
}

fn flatten(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?;
    let shape = w.t.shape(x);
    let at = n.int("axis", 1)?;
    let at = if at == shape.len() as i64 { shape.len() } else { axis(at, shape.len())? };
    let product = |part: &[usize]| part.iter().product::<usize>();
    Ok(vec![w.t.reshape(x, &[product(&shape[..at]), product(&shape[at..])])?])
}

fn reshape(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?;
    let wanted = match n.optional(1) {
        Some(shape) => w.integers(&shape.clone(), "the shape")?,
        None => n.ints("shape")?.ok_or_else(|| Stop::Broken("input 1 is missing".into()))?,
    };
    let shape = w.t.shape(x);
    let zero = n.int("allowzero", 0)? != 0;
    let mut sides = Vec::with_capacity(wanted.len());
    let mut open = None;
    for (i, n) in wanted.iter().enumerate() {
        sides.push(match n {
            -1 if open.is_none() => {
                open = Some(i);
                1
            }
            0 if !zero => match shape.get(i) {
                Some(side) => *side,
                None => broken!("{wanted:?} copies axis {i} of {shape:?}"),
            },
            n => size(*n, "an extent of")?,
        });
    }
    let product = |sides: &[usize]| sides.iter().try_fold(1usize, |n, s| n.checked_mul(*s));
    let (Some(all), Some(rest)) = (product(&shape), product(&sides)) else { broken!("{wanted:?} is too large") };
    if let Some(open) = open {
        if rest == 0 || all % rest != 0 {
            broken!("{shape:?} reshaped to {wanted:?}");
        }
        sides[open] = all / rest;
    } else if all != rest {
        broken!("{shape:?} reshaped to {wanted:?}");
    }
    Ok(vec![reshaped(w, x, &sides)?])
}

/// A value under another shape, which may have no elements.
fn reshaped(w: &mut Walk, x: &Value, shape: &[usize]) -> Result<Value, Stop> {
    if let Value::Known(x) = x
        && x.data.is_empty()
    {
        return Ok(Value::Known(Tensor { dtype: x.dtype, data: ndarray::ArrayD::zeros(shape) }));
    }
    Ok(w.t.reshape(x, shape)?)
}

fn split(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?.clone();
    let shape = w.t.shape(&x);
    let axis = axis(n.int("axis", 0)?, shape.len())?;
    let (extent, parts) = (shape[axis], n.outputs());
    let given = match n.optional(1) {
        Some(sizes) => Some(w.integers(&sizes.clone(), "the sizes")?),
        None => n.ints("split")?,
    };
    let sizes = match given {
        Some(sizes) => extents(&sizes)?,
        None if parts == 0 => broken!("no outputs"),
        None => {
            // The last one may be smaller.
            let each = extent.div_ceil(parts);
            (0..parts).map(|i| each.min(extent.saturating_sub(i * each))).collect()
        }
    };
    if sizes.len() != parts || sizes.iter().try_fold(0usize, |n, s| n.checked_add(*s)) != Some(extent) {
        broken!("sizes {sizes:?} of {extent} for {parts} outputs");
    }
    let mut begin = 0;
    let mut made = Vec::with_capacity(parts);
    for size in sizes {
        made.push(match size {
            0 => empty(w, &x, axis),
            _ => w.part(&x, axis, begin, begin + size)?,
        });
        begin += size;
    }
    Ok(made)
}

/// A tensor like `x` whose extent along `axis` is 0.
pub(super) fn empty(w: &Walk, x: &Value, axis: usize) -> Value {
    let TensorType { dtype, mut shape } = w.t.ty(x);
    shape[axis] = 0;
    Value::Known(Tensor { dtype, data: ndarray::ArrayD::zeros(shape) })
}

/// Axes of an attribute (below opset 13) or an input.
fn axes_of(w: &mut Walk, n: &Node) -> Result<Option<Vec<i64>>, Stop> {
    match n.optional(1) {
        Some(list) => w.integers(&list.clone(), "the axes").map(Some),
        None => n.ints("axes"),
    }
}

fn squeeze(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?.clone();
    let shape = w.t.shape(&x);
    let gone = match axes_of(w, n)? {
        Some(list) => axes(&list, shape.len())?,
        None => (0..shape.len()).filter(|i| shape[*i] == 1).collect(),
    };
    if let Some(wide) = gone.iter().find(|a| shape[**a] != 1) {
        broken!("axis {wide} of {shape:?} is squeezed");
    }
    let shape: Vec<usize> = (0..shape.len()).filter(|i| !gone.contains(i)).map(|i| shape[i]).collect();
    Ok(vec![reshaped(w, &x, &shape)?])
}

fn unsqueeze(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?.clone();
    let Some(list) = axes_of(w, n)? else { broken!("input 1 is missing") };
    let mut shape = w.t.shape(&x);
    if list.len() > 64 {
        broken!("{} axes", list.len());
    }
    for at in axes(&list, shape.len() + list.len())? {
        shape.insert(at, 1);
    }
    Ok(vec![reshaped(w, &x, &shape)?])
}

/// Repeats as broadcasts of an axis in front of each.
fn tile(w: &mut Walk, n: &Node) -> Made {
    let mut x = n.input(0)?.clone();
    let repeats = extents(&w.integers(n.input(1)?, "the repeats")?)?;
    let shape = w.t.shape(&x);
    if repeats.len() != shape.len() {
        broken!("{} repeats of rank {}", repeats.len(), shape.len());
    }
    for (axis, times) in repeats.iter().enumerate().filter(|(_, times)| **times != 1) {
        if *times == 0 {
            return Ok(vec![empty(w, &x, axis)]);
        }
        let shape = w.t.shape(&x);
        let around = |middle: &[usize]| [&shape[..axis], middle, &shape[axis + 1..]].concat();
        let Some(tiled) = shape[axis].checked_mul(*times) else { not_read!("{times} repeats of {shape:?}") };
        let y = w.t.reshape(&x, &around(&[1, shape[axis]]))?;
        let y = w.t.broadcast(&y, &around(&[*times, shape[axis]]))?;
        x = w.t.reshape(&y, &around(&[tiled]))?;
    }
    Ok(vec![x])
}

fn transpose(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?;
    let rank = w.t.shape(x).len();
    let perm = match n.ints("perm")? {
        Some(perm) => perm.iter().map(|a| axis(*a, rank)).collect::<Result<Vec<_>, _>>()?,
        None => (0..rank).rev().collect(),
    };
    Ok(vec![w.t.transpose(x, &perm)?])
}
