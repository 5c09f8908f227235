//! Weights stored as integers, and activations that pass through int8.

use s2dit_ir::ops::{Binary, Cast, Dequantize, Quantize};
use s2dit_ir::{DType, Op};

use super::Handler;
use crate::Value;
use crate::onnx::node::{Made, Node, Stop, axis, broken, not_read, size};
use crate::onnx::proto_dtype;
use crate::onnx::walk::Walk;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "DequantizeLinear" => dequantize,
        "QuantizeLinear" => quantize,
        _ => return None,
    })
}

impl Walk<'_> {
    /// Stored integers as floats.
    pub(super) fn as_numbers(&mut self, x: &Value) -> Result<Value, Stop> {
        match x {
            Value::Graph(v) if !self.t.f.dtype(*v).is_float() => Ok(self.t.op(Cast { dtype: DType::F32 }, &[x])?),
            Value::Graph(_) => Ok(x.clone()),
            known => self.cast(known, DType::F32),
        }
    }
}

/// `(q − zero)·scale`: of a constant a weight expression, of an activation the IR's op.
fn dequantize(w: &mut Walk, n: &Node) -> Made {
    let (q, scale) = (n.input(0)?.clone(), n.input(1)?.clone());
    if !w.known_or_constant(&q) {
        let one = one_scale(w, n, &scale)?;
        let Value::Graph(v) = &q else { broken!("an operand of another kind") };
        if w.t.f.dtype(*v) != DType::I8 {
            not_read!("integers that the model computes, but for those of QuantizeLinear");
        }
        return Ok(vec![w.t.op(Dequantize { scale: one, dtype: DType::F32 }, &[&q])?]);
    }
    let shape = w.t.shape(&q);
    let block = size(n.int("block_size", 0)?, "a block of")?;
    let at = n.int("axis", 1)?;
    let mut y = w.as_numbers(&q)?;
    let spread = |w: &mut Walk, v: &Value| -> Result<Value, Stop> {
        let v = w.as_numbers(v)?;
        let of = w.t.shape(&v);
        if of.iter().product::<usize>() == 1 {
            return Ok(w.t.reshape(&v, &[])?);
        }
        let at = axis(at, shape.len())?;
        if block == 0 {
            let mut wide = vec![1; shape.len()];
            wide[at] = shape[at];
            return Ok(w.t.reshape(&v, &wide)?);
        }
        if of.len() != shape.len() || of[at].checked_mul(block).is_none_or(|n| n < shape[at]) {
            broken!("scales {of:?} of {shape:?} in blocks of {block}");
        }
        // Each number for a block of neighbours.
        let split = [&of[..=at], &[1], &of[at + 1..]].concat();
        let repeated = [&of[..=at], &[block], &of[at + 1..]].concat();
        let v = w.t.reshape(&v, &split)?;
        let v = w.t.broadcast(&v, &repeated)?;
        let v = w.t.reshape(&v, &[&of[..at], &[of[at] * block], &of[at + 1..]].concat())?;
        w.part(&v, at, 0, shape[at])
    };
    if let Some(zero) = n.optional(2) {
        let zero = zero.clone();
        let nothing = matches!(w.numbers(&zero)?, Some(t) if t.data.iter().all(|x| *x == 0.0));
        if !nothing {
            let zero = spread(w, &zero)?;
            y = w.binary(Binary::Sub, &y, &zero)?;
        }
    }
    let scale = spread(w, &scale)?;
    let y = w.binary(Binary::Mul, &y, &scale)?;
    if w.t.shape(&y) != shape {
        broken!("scales {:?} of {shape:?}", w.t.shape(&scale));
    }
    Ok(vec![y])
}

/// The one scale of an activation that has no zero point.
fn one_scale(w: &mut Walk, n: &Node, scale: &Value) -> Result<f64, Stop> {
    let [one] = w.floats(scale, "the scale")?[..] else { not_read!("activations with several scales") };
    if let Some(zero) = n.optional(2) {
        let zero = zero.clone();
        if w.floats(&zero, "the zero point")?.iter().any(|x| *x != 0.0) {
            not_read!("activations with a zero point");
        }
    }
    Ok(one)
}

fn quantize(w: &mut Walk, n: &Node) -> Made {
    let (x, scale) = (n.input(0)?.clone(), n.input(1)?.clone());
    let one = one_scale(w, n, &scale)?;
    let signed = match (n.optional(2), n.int("output_dtype", 0)?) {
        // A zero point that is stored says the type.
        (Some(Value::Graph(v)), _) => matches!(w.t.f.op(*v), Op::Load(_)) && w.t.f.dtype(*v) == DType::I8,
        (Some(known), _) => w.t.ty(known).dtype == DType::I8,
        (None, code) => proto_dtype(code) == Some(DType::I8),
    };
    if !signed {
        not_read!("activations as another type than int8");
    }
    let x = w.cast(&x, DType::F32)?;
    Ok(vec![w.t.op(Quantize { scale: one }, &[&x])?])
}
