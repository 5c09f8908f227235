//! Functions of elements.

use s2dit_ir::ops::{Binary, Unary};
use s2dit_ir::{DType, OpError};

use super::super::call::Call;
use super::super::walk::{Slot, Walk};
use super::Group;
use crate::trace::settled;
use crate::{Traced, Value};

macro_rules! unary {
    ($($op:ident),* $(,)?) => { [$( |w, c| { let x = c.tensor(w, "self")?; Ok(c.one(w.unary(Unary::$op, &x)?)) } ),*] };
}

const FUNCTIONS: [super::Reader; 13] =
    unary![Abs, Cos, Erf, Exp, Floor, Log, Neg, Relu, Rsqrt, Sigmoid, Silu, Sin, Sqrt];

pub(super) const OPS: Group = &[
    ("aten.abs.default", FUNCTIONS[0]),
    ("aten.cos.default", FUNCTIONS[1]),
    ("aten.erf.default", FUNCTIONS[2]),
    ("aten.exp.default", FUNCTIONS[3]),
    ("aten.floor.default", FUNCTIONS[4]),
    ("aten.log.default", FUNCTIONS[5]),
    ("aten.neg.default", FUNCTIONS[6]),
    ("aten.relu.default", FUNCTIONS[7]),
    ("aten.rsqrt.default", FUNCTIONS[8]),
    ("aten.sigmoid.default", FUNCTIONS[9]),
    ("aten.silu.default", FUNCTIONS[10]),
    ("aten.sin.default", FUNCTIONS[11]),
    ("aten.sqrt.default", FUNCTIONS[12]),
    ("aten.tanh.default", |w, c| function(w, c, Unary::Tanh)),
    ("aten.round.default", |w, c| function(w, c, Unary::Round)),
    ("aten.square.default", |w, c| function(w, c, Unary::Square)),
    ("aten.ceil.default", ceil),
    ("aten.reciprocal.default", reciprocal),
    ("aten.pow.Tensor_Scalar", power),
    ("aten.pow.Tensor_Tensor", power),
    ("aten.pow.Scalar", power),
    ("aten.add.*", |w, c| sum(w, c, Binary::Add)),
    ("aten.sub.*", |w, c| sum(w, c, Binary::Sub)),
    ("aten.rsub.*", reversed),
    ("aten.mul.*", |w, c| binary(w, c, Binary::Mul)),
    ("aten.multiply.*", |w, c| binary(w, c, Binary::Mul)),
    ("aten.div.*", quotient),
    ("aten.divide.*", quotient),
    ("aten.floor_divide.*", floor_quotient),
    ("aten.remainder.*", remainder),
    ("aten.fmod.*", fmod),
    ("aten.maximum.default", |w, c| binary(w, c, Binary::Maximum)),
    ("aten.minimum.default", |w, c| binary(w, c, Binary::Minimum)),
    ("aten.max.other", |w, c| binary(w, c, Binary::Maximum)),
    ("aten.min.other", |w, c| binary(w, c, Binary::Minimum)),
    ("aten.addcmul.default", addcmul),
    ("aten.lerp.*", lerp),
];

impl Walk<'_> {
    /// A value in another element type, as [`Walk::same_type`] has them: floats f32, integers i64 or, in the graph, i32.
    pub(in super::super) fn cast(&mut self, value: &Value, to: DType) -> Traced {
        let from = self.t.ty(value).dtype;
        let convert = |x: f64| match (from.is_float(), to) {
            (_, DType::Bool) => f64::from(u8::from(x != 0.0)),
            // Rounded towards zero.
            (true, to) if !to.is_float() => settled(x).trunc(),
            _ => x,
        };
        match value {
            Value::Filled(ty, x) => Ok(Value::Filled(ty.with_dtype(to), convert(*x))),
            Value::Known(tensor) => {
                let mut tensor = tensor.clone();
                tensor.dtype = to;
                tensor.data.mapv_inplace(convert);
                Ok(Value::Known(tensor))
            }
            Value::Graph(_) => {
                let to = crate::Tracer::graph_dtype(to);
                if from == to {
                    return Ok(value.clone());
                }
                self.t.op(s2dit_ir::ops::Cast { dtype: to }, &[value])
            }
        }
    }

    /// Two values in the type that torch computes with: f32 if one is a float, else integers.
    pub(in super::super) fn same_type(&mut self, x: &Value, y: &Value) -> Result<(Value, Value), OpError> {
        let (a, b) = (self.t.ty(x).dtype, self.t.ty(y).dtype);
        let in_graph = matches!(x, Value::Graph(_)) || matches!(y, Value::Graph(_));
        let to = match () {
            () if a.is_float() || b.is_float() => DType::F32,
            () if in_graph => DType::I32,
            () => DType::I64,
        };
        Ok((self.cast(x, to)?, self.cast(y, to)?))
    }

    /// A function of elements; integers become floats where the function asks for them.
    pub(in super::super) fn unary(&mut self, function: Unary, x: &Value) -> Traced {
        let any = matches!(function, Unary::Identity | Unary::Abs | Unary::Neg | Unary::Square);
        let x = if any { x.clone() } else { self.cast(x, DType::F32)? };
        self.t.op(function, &[&x])
    }

    /// A function of two values' elements, in the type that torch computes with.
    pub(in super::super) fn binary(&mut self, function: Binary, x: &Value, y: &Value) -> Traced {
        let (x, y) = self.same_type(x, y)?;
        // Nothing is added, nothing multiplied: exports of `x * 1.0` and of guards against zero.
        let neutral = match function {
            Binary::Add | Binary::Sub => Some(0.0),
            Binary::Mul | Binary::Div => Some(1.0),
            _ => None,
        };
        let (a, b) = (self.t.ty(&x), self.t.ty(&y));
        let fits = |of: &[usize], by: &[usize]| s2dit_ir::ops::broadcast_shapes(of, by).is_ok_and(|shape| shape == of);
        if neutral.is_some() && crate::Tracer::uniform(&y) == neutral && fits(&a.shape, &b.shape) {
            return Ok(x);
        }
        if function == Binary::Add
            && let Some(layer) = self.with_bias(&x, &y)?
        {
            return Ok(layer);
        }
        let commutes = matches!(function, Binary::Add | Binary::Mul);
        if commutes && crate::Tracer::uniform(&x) == neutral && fits(&b.shape, &a.shape) {
            return Ok(y);
        }
        self.t.op(function, &[&x, &y])
    }

    /// A value and a number.
    pub(in super::super) fn with_number(&mut self, function: Binary, x: &Value, number: f64) -> Traced {
        let to = self.t.ty(x).dtype;
        let is_float = to.is_float() || number.fract() != 0.0;
        let y = self.t.scalar(if is_float { DType::F32 } else { DType::I64 }, number);
        self.binary(function, x, &y)
    }
}

type Read = Result<Vec<Slot>, OpError>;

pub(super) fn function(w: &mut Walk<'_>, c: &Call<'_>, function: Unary) -> Read {
    let x = c.tensor(w, "self")?;
    Ok(c.one(w.unary(function, &x)?))
}

fn binary(w: &mut Walk<'_>, c: &Call<'_>, function: Binary) -> Read {
    let (x, y) = (c.tensor_or_number(w, "self")?, c.tensor_or_number(w, "other")?);
    Ok(c.one(w.binary(function, &x, &y)?))
}

/// `self ± alpha·other`
fn sum(w: &mut Walk<'_>, c: &Call<'_>, function: Binary) -> Read {
    let (x, mut y) = (c.tensor_or_number(w, "self")?, c.tensor_or_number(w, "other")?);
    let alpha = c.number(w, "alpha", Some(1.0))?;
    if alpha != 1.0 {
        y = w.with_number(Binary::Mul, &y, alpha)?;
    }
    Ok(c.one(w.binary(function, &x, &y)?))
}

/// `other − alpha·self`
fn reversed(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let (mut x, y) = (c.tensor_or_number(w, "self")?, c.tensor_or_number(w, "other")?);
    let alpha = c.number(w, "alpha", Some(1.0))?;
    if alpha != 1.0 {
        x = w.with_number(Binary::Mul, &x, alpha)?;
    }
    Ok(c.one(w.binary(Binary::Sub, &y, &x)?))
}

fn quotient(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let (x, y) = (c.tensor_or_number(w, "self")?, c.tensor_or_number(w, "other")?);
    match c.text("rounding_mode", "")?.as_str() {
        "" => {
            let (x, y) = (w.cast(&x, DType::F32)?, w.cast(&y, DType::F32)?);
            Ok(c.one(w.binary(Binary::Div, &x, &y)?))
        }
        "floor" => Ok(c.one(floored(w, &x, &y)?)),
        other => Err(OpError::new(format!("rounding_mode {other:?}"))),
    }
}

fn floor_quotient(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let (x, y) = (c.tensor_or_number(w, "self")?, c.tensor_or_number(w, "other")?);
    Ok(c.one(floored(w, &x, &y)?))
}

/// `⌊x / y⌋`, in the type of both.
fn floored(w: &mut Walk<'_>, x: &Value, y: &Value) -> Traced {
    let (x, y) = w.same_type(x, y)?;
    let to = w.t.ty(&x).dtype;
    let (a, b) = (w.cast(&x, DType::F32)?, w.cast(&y, DType::F32)?);
    let ratio = w.t.op(Binary::Div, &[&a, &b])?;
    let floor = w.unary(Unary::Floor, &ratio)?;
    w.cast(&floor, to)
}

/// `x − y·⌊x / y⌋`
fn remainder(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let (x, y) = (c.tensor_or_number(w, "self")?, c.tensor_or_number(w, "other")?);
    let whole = floored(w, &x, &y)?;
    let whole = w.binary(Binary::Mul, &whole, &y)?;
    Ok(c.one(w.binary(Binary::Sub, &x, &whole)?))
}

/// `x − y·(x / y rounded towards zero)`, of what is known: the remainder of C.
fn fmod(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let (x, y) = (c.tensor_or_number(w, "self")?, c.tensor_or_number(w, "other")?);
    let (x, y) = w.same_type(&x, &y)?;
    let (Some(a), Some(y)) = (w.t.tensor(&x)?, crate::Tracer::uniform(&y)) else {
        return Err(OpError::new("the remainder of what the model computes: use torch.remainder"));
    };
    let data = a.data.mapv(|x| x % y);
    Ok(c.one(Value::Known(s2dit_ir::Tensor { dtype: a.dtype, data })))
}

fn ceil(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let x = w.unary(Unary::Neg, &x)?;
    let x = w.unary(Unary::Floor, &x)?;
    Ok(c.one(w.unary(Unary::Neg, &x)?))
}

fn reciprocal(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let one = w.t.scalar(DType::F32, 1.0);
    Ok(c.one(w.binary(Binary::Div, &one, &x)?))
}

fn power(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let (x, y) = (c.tensor_or_number(w, "self")?, c.tensor_or_number(w, "exponent")?);
    let value = match crate::Tracer::uniform(&y).filter(|_| w.t.shape(&y).is_empty()) {
        Some(1.0) => x,
        Some(2.0) => w.unary(Unary::Square, &x)?,
        Some(0.5) => w.unary(Unary::Sqrt, &x)?,
        Some(-0.5) => w.unary(Unary::Rsqrt, &x)?,
        Some(-1.0) => {
            let one = w.t.scalar(DType::F32, 1.0);
            w.binary(Binary::Div, &one, &x)?
        }
        // The power of a negative number by a whole one: engines take the logarithm of the base.
        Some(3.0) => {
            let square = w.unary(Unary::Square, &x)?;
            w.binary(Binary::Mul, &square, &x)?
        }
        _ => w.binary(Binary::Pow, &x, &y)?,
    };
    Ok(c.one(value))
}

/// `self + value·tensor1·tensor2`
fn addcmul(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let (x, a, b) = (c.tensor(w, "self")?, c.tensor(w, "tensor1")?, c.tensor(w, "tensor2")?);
    let product = w.binary(Binary::Mul, &a, &b)?;
    let value = c.number(w, "value", Some(1.0))?;
    let product = w.with_number(Binary::Mul, &product, value)?;
    Ok(c.one(w.binary(Binary::Add, &x, &product)?))
}

/// `self + weight·(end − self)`
fn lerp(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let (x, end) = (c.tensor(w, "self")?, c.tensor(w, "end")?);
    let weight = c.tensor_or_number(w, "weight")?;
    let way = w.binary(Binary::Sub, &end, &x)?;
    let part = w.binary(Binary::Mul, &weight, &way)?;
    Ok(c.one(w.binary(Binary::Add, &x, &part)?))
}
