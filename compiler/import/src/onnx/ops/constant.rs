//! Constants, and what only the shapes of operands decide.

use s2dit_ir::{DType, Tensor, TensorType};

use super::Handler;
use crate::Value;
use crate::onnx::node::{Made, Node, Stop, axis, broken, not_read, size};
use crate::onnx::proto_dtype;
use crate::onnx::walk::Walk;
use crate::trace::checked_elements;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "Constant" => constant,
        "ConstantOfShape" => constant_of_shape,
        "EyeLike" => eye_like,
        "Identity" => identity,
        "OneHot" => one_hot,
        "Range" => range,
        "Shape" => shape,
        "Size" => elements,
        _ => return None,
    })
}

impl Walk<'_> {
    /// A known tensor of this type.
    pub(super) fn known(&mut self, dtype: DType, shape: &[usize], values: Vec<f64>) -> Result<Value, Stop> {
        match self.t.known(dtype, shape, values) {
            Some(value) => Ok(value),
            None => not_read!("a constant whose elements are not those of its shape {shape:?}"),
        }
    }

    /// A known list.
    pub(super) fn list(&mut self, dtype: DType, values: Vec<f64>) -> Result<Value, Stop> {
        let n = values.len();
        self.known(dtype, &[n], values)
    }
}

fn constant(w: &mut Walk, n: &Node) -> Made {
    if let Some(tensor) = n.tensor("value")? {
        let name = n.proto.output.first().map_or("", String::as_str);
        return w.constant(tensor, name).map(|value| vec![value]);
    }
    let value = if n.has("value_int") {
        w.t.scalar(DType::I64, n.int("value_int", 0)? as f64)
    } else if n.has("value_float") {
        w.t.scalar(DType::F32, n.float("value_float", 0.0)?)
    } else if let Some(ints) = n.ints("value_ints")? {
        w.list(DType::I64, ints.iter().map(|x| *x as f64).collect())?
    } else if let Some(floats) = n.floats("value_floats")? {
        w.list(DType::F32, floats)?
    } else {
        not_read!("a constant that is no dense tensor of numbers");
    };
    Ok(vec![value])
}

/// Extents that a list says.
pub(super) fn extents(list: &[i64]) -> Result<Vec<usize>, Stop> {
    list.iter().map(|n| size(*n, "an extent of")).collect()
}

fn constant_of_shape(w: &mut Walk, n: &Node) -> Made {
    let shape = extents(&w.integers(n.input(0)?, "the shape")?)?;
    let fill = match n.tensor("value")? {
        None => Tensor::splat(&TensorType::new(DType::F32, [1]), 0.0),
        Some(tensor) => match w.small(tensor)? {
            Some(fill) => fill,
            None => broken!("a value of more than one element"),
        },
    };
    let Some(value) = fill.data.first().copied().filter(|_| fill.data.len() == 1) else {
        broken!("a value of {} elements, expected 1", fill.data.len());
    };
    let ty = TensorType::new(fill.dtype, shape);
    if checked_elements(&ty.shape).is_none() {
        broken!("{ty} is too large");
    }
    Ok(vec![Value::Filled(ty, value)])
}

fn eye_like(w: &mut Walk, n: &Node) -> Made {
    let shape = w.t.shape(n.input(0)?);
    let [rows, columns] = shape[..] else { broken!("an operand of rank {}, expected 2", shape.len()) };
    let dtype = match n.has("dtype") {
        false => w.t.ty(n.input(0)?).dtype,
        true => match proto_dtype(n.int("dtype", 1)?) {
            Some(dtype) => dtype,
            None => not_read!("elements of type {}", n.int("dtype", 1)?),
        },
    };
    let k = n.int("k", 0)?;
    w.t.spend(&TensorType::new(dtype, shape.clone()))?;
    let one = |i: usize| f64::from(u8::from((i % columns.max(1)) as i64 - (i / columns.max(1)) as i64 == k));
    Ok(vec![w.known(dtype, &shape, (0..rows * columns).map(one).collect())?])
}

fn identity(_: &mut Walk, n: &Node) -> Made {
    Ok(vec![n.input(0)?.clone()])
}

/// Of known indices a table; of computed ones the rows of a unit matrix.
fn one_hot(w: &mut Walk, n: &Node) -> Made {
    let indices = n.input(0)?.clone();
    let depth = w.integers(n.input(1)?, "the depth")?;
    let values = w.floats(n.input(2)?, "the values")?;
    let (&[depth], &[off, on]) = (&depth[..], &values[..]) else { broken!("a depth and two values are expected") };
    let depth = size(depth, "a depth of")?;
    let dtype = w.t.ty(n.input(2)?).dtype;
    let shape = w.t.shape(&indices);
    let at = axis(n.int("axis", -1)?, shape.len() + 1)?;
    w.t.spend(&TensorType::new(dtype, [depth, depth]))?;
    let unit = (0..depth * depth).map(|i| if i / depth == i % depth { on } else { off }).collect();
    let rows = match &indices {
        Value::Known(tensor) => {
            let wide = TensorType::new(dtype, [tensor.data.len(), depth]);
            w.t.spend(&wide)?;
            let wrapped = |x: f64| if x < 0.0 { x + depth as f64 } else { x };
            let data = tensor.data.iter().flat_map(|x| {
                let x = wrapped(*x);
                (0..depth).map(move |i| if x == i as f64 { on } else { off })
            });
            let data = data.collect();
            w.known(dtype, &wide.shape, data)?
        }
        _ => {
            let unit = w.known(dtype, &[depth, depth], unit)?;
            super::gather::rows(w, &unit, &indices, 0)?
        }
    };
    let last = [&shape[..], &[depth]].concat();
    let y = w.t.reshape(&rows, &last)?;
    // The new axis goes to its place.
    let mut perm: Vec<usize> = (0..shape.len()).collect();
    perm.insert(at, shape.len());
    Ok(vec![w.t.transpose(&y, &perm)?])
}

fn range(w: &mut Walk, n: &Node) -> Made {
    let dtype = w.t.ty(n.input(0)?).dtype;
    let one = |w: &mut Walk, i: usize| -> Result<f64, Stop> {
        match w.floats(n.input(i)?, "the range")?[..] {
            [x] if x.is_finite() => Ok(x),
            _ => broken!("input {i} is no number"),
        }
    };
    let (start, limit, delta) = (one(w, 0)?, one(w, 1)?, one(w, 2)?);
    if delta == 0.0 {
        broken!("a step of 0");
    }
    let count = ((limit - start) / delta).ceil().max(0.0);
    if count > f64::from(1 << 24) {
        not_read!("a range of {count} numbers");
    }
    let values = (0..count as usize).map(|i| start + i as f64 * delta).collect();
    Ok(vec![w.list(dtype, values)?])
}

fn shape(w: &mut Walk, n: &Node) -> Made {
    let shape = w.t.shape(n.input(0)?);
    let rank = shape.len() as i64;
    let clamp = |x: i64| (if x < 0 { x + rank } else { x }).clamp(0, rank) as usize;
    let (start, end) = (clamp(n.int("start", 0)?), clamp(n.int("end", rank)?));
    let part = shape.get(start..end).unwrap_or_default();
    Ok(vec![w.list(DType::I64, part.iter().map(|n| *n as f64).collect())?])
}

fn elements(w: &mut Walk, n: &Node) -> Made {
    let count: usize = w.t.shape(n.input(0)?).iter().product();
    Ok(vec![w.t.scalar(DType::I64, count as f64)])
}
