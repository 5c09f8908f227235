//! Matrix products. One with a constant matrix is a fully connected layer.

use s2dit_ir::ops::{Binary, Linear, Matmul, Transpose};
use s2dit_ir::{DType, Op};

use super::Handler;
use super::gather::scaled;
use crate::Value;
use crate::onnx::node::{Made, Node, Stop, broken};
use crate::onnx::walk::Walk;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "MatMul" => matmul,
        "Gemm" => gemm,
        _ => return None,
    })
}

impl Walk<'_> {
    /// numpy's `matmul` of floats; of a constant matrix on the right a layer.
    pub(super) fn matmul(&mut self, x: &Value, y: &Value) -> Result<Value, Stop> {
        let (a, b) = (self.t.shape(x), self.t.shape(y));
        if a.is_empty() || b.is_empty() {
            broken!("a product of {a:?} and {b:?}");
        }
        if b.len() == 2 && !self.known_or_constant(x) && self.known_or_constant(y) {
            let weight = self.turned(y)?;
            return Ok(self.t.op(Linear {}, &[x, &weight])?);
        }
        // A vector is a matrix of one row, or of one column.
        let left = if a.len() == 1 { self.t.reshape(x, &[1, a[0]])? } else { x.clone() };
        let right = if b.len() == 1 { self.t.reshape(y, &[b[0], 1])? } else { y.clone() };
        let product = self.t.op(Matmul { transpose_x: false, transpose_y: false }, &[&left, &right])?;
        let mut shape = self.t.shape(&product);
        if b.len() == 1 {
            shape.pop();
        }
        if a.len() == 1 {
            shape.remove(shape.len() - if b.len() == 1 { 1 } else { 2 });
        }
        Ok(self.t.reshape(&product, &shape)?)
    }

    /// `x·Wᵀ + b` of a layer.
    pub(super) fn linear(&mut self, x: &Value, weight: &Value, bias: Option<&Value>) -> Result<Value, Stop> {
        let operands: Vec<&Value> = [x, weight].into_iter().chain(bias).collect();
        Ok(self.t.op(Linear {}, &operands)?)
    }

    /// Whether a value depends on no input.
    pub(super) fn known_or_constant(&mut self, x: &Value) -> bool {
        match x {
            Value::Graph(v) => self.is_constant(*v),
            _ => true,
        }
    }

    /// A value with its last two axes swapped; of one that was swapped before what it was.
    pub(super) fn turned(&mut self, x: &Value) -> Result<Value, Stop> {
        let rank = self.t.shape(x).len();
        let mut perm: Vec<usize> = (0..rank).collect();
        perm.swap(rank - 2, rank - 1);
        if let Value::Graph(v) = x
            && let Op::Transpose(Transpose { perm: before }) = self.t.f.op(*v)
            && *before == perm
        {
            return Ok(Value::Graph(self.t.f.operands(*v)[0]));
        }
        Ok(self.t.transpose(x, &perm)?)
    }
}

fn matmul(w: &mut Walk, n: &Node) -> Made {
    let (x, y) = (n.input(0)?.clone(), n.input(1)?.clone());
    integers_as_floats(w, &x, &y, |w, x, y| w.matmul(x, y))
}

/// Products of integers are exact in float64, which known ones are computed in.
fn integers_as_floats(
    w: &mut Walk,
    x: &Value,
    y: &Value,
    product: impl FnOnce(&mut Walk, &Value, &Value) -> Result<Value, Stop>,
) -> Made {
    let dtype = w.t.ty(x).dtype;
    if dtype.is_float() {
        return Ok(vec![product(w, x, y)?]);
    }
    let (x, y) = (w.cast(x, DType::F32)?, w.cast(y, DType::F32)?);
    let z = product(w, &x, &y)?;
    Ok(vec![w.cast(&z, dtype)?])
}

/// `alpha·A·B + beta·C`
fn gemm(w: &mut Walk, n: &Node) -> Made {
    let (a, b) = (n.input(0)?.clone(), n.input(1)?.clone());
    let (alpha, beta) = (n.float("alpha", 1.0)?, n.float("beta", 1.0)?);
    let (turn_a, turn_b) = (n.int("transA", 0)? != 0, n.int("transB", 0)? != 0);
    if w.t.shape(&a).len() != 2 || w.t.shape(&b).len() != 2 {
        broken!("a product of {:?} and {:?}, expected matrices", w.t.shape(&a), w.t.shape(&b));
    }
    let a = if turn_a { w.turned(&a)? } else { a };
    let c = match n.optional(2) {
        Some(c) if beta != 0.0 => Some(scaled(w, &c.clone(), beta)?),
        _ => None,
    };
    let y = if w.known_or_constant(&b) && !w.known_or_constant(&a) {
        let weight = if turn_b { b } else { w.turned(&b)? };
        let outputs = w.t.shape(&weight)[0];
        if let (Some(c), 1.0) = (&c, alpha)
            && w.known_or_constant(c)
            && w.t.ty(c).elements() == outputs
            && w.t.shape(c).last() == Some(&outputs)
        {
            let bias = w.t.reshape(c, &[outputs])?;
            return Ok(vec![w.linear(&a, &weight, Some(&bias))?]);
        }
        w.linear(&a, &weight, None)?
    } else {
        let b = if turn_b { w.turned(&b)? } else { b };
        w.matmul(&a, &b)?
    };
    let y = scaled(w, &y, alpha)?;
    Ok(vec![match c {
        Some(c) => w.binary(Binary::Add, &y, &c)?,
        None => y,
    }])
}
