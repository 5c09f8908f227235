//! Arithmetic of two or more operands.

use ndarray::IxDyn;
use s2dit_ir::ops::{Binary, Unary, broadcast_shapes};
use s2dit_ir::{DType, Tensor, TensorType};

use super::Handler;
use crate::onnx::node::{Made, Node, Stop, broken, not_read};
use crate::onnx::walk::Walk;
use crate::{Tracer, Value};

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "Add" => |w, n| two(w, n, Binary::Add),
        "Sub" => |w, n| two(w, n, Binary::Sub),
        "Mul" => |w, n| two(w, n, Binary::Mul),
        "Div" => div,
        "Mod" => modulo,
        "Pow" => pow,
        "Max" => |w, n| many(w, n, Binary::Maximum),
        "Min" => |w, n| many(w, n, Binary::Minimum),
        "Sum" => |w, n| many(w, n, Binary::Add),
        "Mean" => mean,
        "BitShift" | "BitwiseAnd" | "BitwiseOr" | "BitwiseXor" => bitwise,
        _ => return None,
    })
}

/// A function of two known tensors, element by element.
pub(super) fn zip(
    w: &mut Walk,
    x: &Tensor,
    y: &Tensor,
    dtype: DType,
    f: impl Fn(f64, f64) -> f64,
) -> Result<Tensor, Stop> {
    let shape = broadcast_shapes(x.data.shape(), y.data.shape())?;
    w.t.spend(&TensorType::new(dtype, shape.clone()))?;
    let shape = IxDyn(&shape);
    let (Some(x), Some(y)) = (x.data.broadcast(shape.clone()), y.data.broadcast(shape)) else {
        not_read!("operands that do not broadcast");
    };
    let data = ndarray::Zip::from(&x).and(&y).map_collect(|x, y| f(*x, *y));
    Ok(Tensor { dtype, data: data.as_standard_layout().into_owned() })
}

/// A function of two operands; a product with 1 and a sum with 0 are nothing.
fn two(w: &mut Walk, n: &Node, kind: Binary) -> Made {
    let (x, y) = (n.input(0)?, n.input(1)?);
    let neutral = match kind {
        Binary::Mul | Binary::Div => 1.0,
        _ => 0.0,
    };
    let shape = broadcast_shapes(&w.t.shape(x), &w.t.shape(y))?;
    let mut sides = vec![(x, y)];
    if matches!(kind, Binary::Mul | Binary::Add) {
        sides.push((y, x));
    }
    for (kept, other) in sides {
        let is_graph = matches!(kept, Value::Graph(_));
        if is_graph && Tracer::uniform(other) == Some(neutral) && w.t.shape(kept) == shape {
            return Ok(vec![kept.clone()]);
        }
    }
    Ok(vec![w.binary(kind, n.input(0)?, n.input(1)?)?])
}

/// Of integers the quotient is cut off.
fn div(w: &mut Walk, n: &Node) -> Made {
    let (x, y) = (n.input(0)?, n.input(1)?);
    if w.t.ty(x).dtype.is_float() {
        return two(w, n, Binary::Div);
    }
    let (Value::Known(x), Value::Known(y)) = (x, y) else {
        not_read!("a quotient of integers that the model computes");
    };
    if y.data.iter().any(|y| *y == 0.0) {
        broken!("a division by 0");
    }
    Ok(vec![Value::Known(zip(w, x, y, x.dtype, |x, y| (x / y).trunc())?)])
}

/// The remainder with the sign of the divisor, or with `fmod` that of the dividend.
fn modulo(w: &mut Walk, n: &Node) -> Made {
    let (x, y) = (n.input(0)?, n.input(1)?);
    let fmod = n.int("fmod", 0)? != 0;
    if let (Value::Known(x), Value::Known(y)) = (x, y) {
        if !x.dtype.is_float() && y.data.iter().any(|y| *y == 0.0) {
            broken!("a remainder of a division by 0");
        }
        let rest = |x: f64, y: f64| if fmod { x % y } else { x - y * (x / y).floor() };
        return Ok(vec![Value::Known(zip(w, x, y, x.dtype, rest)?)]);
    }
    not_read!("a remainder that the model computes");
}

fn pow(w: &mut Walk, n: &Node) -> Made {
    let (x, y) = (n.input(0)?, n.input(1)?);
    let dtype = w.t.ty(x).dtype;
    let exponent = match y {
        Value::Known(y) if y.data.len() == 1 && y.data.ndim() <= w.t.shape(x).len() => y.data.first().copied(),
        _ => None,
    };
    let simple = match exponent {
        Some(2.0) => Some(Unary::Square),
        Some(0.5) if dtype.is_float() => Some(Unary::Sqrt),
        Some(-0.5) if dtype.is_float() => Some(Unary::Rsqrt),
        Some(1.0) => return Ok(vec![x.clone()]),
        _ => None,
    };
    if let Some(simple) = simple {
        return Ok(vec![w.unary(simple, x)?]);
    }
    if let (Value::Known(x), Value::Known(y)) = (x, y) {
        let cut = !dtype.is_float();
        let power = |x: f64, y: f64| if cut { x.powf(y).trunc() } else { x.powf(y) };
        return Ok(vec![Value::Known(zip(w, x, y, dtype, power)?)]);
    }
    // The exponent may have a type of its own: a float is rounded where the base is an integer, which the IR does not do.
    if !dtype.is_float() && w.t.ty(y).dtype.is_float() {
        not_read!("an integer to the power of a float");
    }
    let y = w.cast(y, dtype)?;
    Ok(vec![w.binary(Binary::Pow, x, &y)?])
}

fn many(w: &mut Walk, n: &Node, kind: Binary) -> Made {
    let mut y = n.input(0)?.clone();
    for i in 1..n.inputs.len() {
        y = w.binary(kind, &y, n.input(i)?)?;
    }
    Ok(vec![y])
}

fn mean(w: &mut Walk, n: &Node) -> Made {
    let sum = many(w, n, Binary::Add)?;
    Ok(vec![w.with(Binary::Div, &sum[0], n.inputs.len() as f64)?])
}

/// Bits of known integers: masks, and weights of 1 to 6 bits as this compiler writes them.
fn bitwise(w: &mut Walk, n: &Node) -> Made {
    let (Some(x), Some(y)) = (w.numbers(n.input(0)?)?, w.numbers(n.input(1)?)?) else {
        not_read!("bits of integers that are no small constants");
    };
    if x.dtype.is_float() || x.dtype == DType::Bool {
        broken!("bits of {}", x.ty());
    }
    let left = n.text("direction", "LEFT")? == "LEFT";
    let bits = |x: f64| x as i64;
    let dtype = x.dtype;
    let result = |bits: i64| {
        dtype.round(match dtype {
            DType::U8 => f64::from(bits as u8),
            DType::U16 => f64::from(bits as u16),
            DType::U32 => f64::from(bits as u32),
            DType::I8 => f64::from(bits as i8),
            DType::I16 => f64::from(bits as i16),
            DType::I32 => f64::from(bits as i32),
            _ => bits as f64,
        })
    };
    let y = match n.op() {
        "BitwiseAnd" => zip(w, &x, &y, dtype, |x, y| result(bits(x) & bits(y)))?,
        "BitwiseOr" => zip(w, &x, &y, dtype, |x, y| result(bits(x) | bits(y)))?,
        "BitwiseXor" => zip(w, &x, &y, dtype, |x, y| result(bits(x) ^ bits(y)))?,
        _ => {
            let shift = |x: f64, y: f64| match u32::try_from(bits(y)) {
                Ok(by) if left => bits(x).checked_shl(by).unwrap_or(0),
                Ok(by) => bits(x).checked_shr(by).unwrap_or(0),
                Err(_) => 0,
            };
            zip(w, &x, &y, dtype, |x, y| result(shift(x, y)))?
        }
    };
    Ok(vec![Value::Known(y)])
}
