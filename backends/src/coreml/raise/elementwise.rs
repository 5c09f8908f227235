//! Elementwise ops and casts.

use anyhow::{Result, bail};
use s2dit_ir::ops::{Binary, Unary};
use s2dit_ir::{DType, TensorType, ValueId};

use super::{Handler, Raise};
use crate::coreml::proto::Operation;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "abs" | "cos" | "erf" | "exp" | "floor" | "identity" | "relu" | "round" | "sigmoid" | "silu" | "sin"
        | "softplus" | "sqrt" | "square" | "tanh" => unary,
        "add" | "sub" | "mul" | "real_div" | "maximum" | "minimum" | "pow" => binary,
        "floor_div" | "mod" => floored,
        "rsqrt" | "log" | "inverse" => with_epsilon,
        "gelu" => gelu,
        "exp2" => exp2,
        "clip" => clip,
        "cast" => cast,
        _ => return None,
    })
}

fn unary(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let kind = match op.r#type.as_str() {
        "abs" => Unary::Abs,
        "cos" => Unary::Cos,
        "erf" => Unary::Erf,
        "exp" => Unary::Exp,
        "floor" => Unary::Floor,
        "relu" => Unary::Relu,
        "round" => Unary::Round,
        "sigmoid" => Unary::Sigmoid,
        "silu" => Unary::Silu,
        "sin" => Unary::Sin,
        "softplus" => Unary::Softplus,
        "sqrt" => Unary::Sqrt,
        "square" => Unary::Square,
        "tanh" => Unary::Tanh,
        _ => Unary::Identity,
    };
    let x = r.operand(op, "x")?;
    Ok(vec![r.b.unary(kind, x)?])
}

fn binary(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let kind = match op.r#type.as_str() {
        "add" => Binary::Add,
        "sub" => Binary::Sub,
        "mul" => Binary::Mul,
        "real_div" => Binary::Div,
        "maximum" => Binary::Maximum,
        "minimum" => Binary::Minimum,
        _ => Binary::Pow,
    };
    let (x, y) = (r.operand(op, "x")?, r.operand(op, "y")?);
    if matches!(kind, Binary::Div | Binary::Pow) {
        floats_only(r, x)?;
    }
    Ok(vec![r.b.binary(kind, x, y)?])
}

/// Integer quotients and powers would have to be rounded.
fn floats_only(r: &Raise, x: ValueId) -> Result<()> {
    if !r.b.f.dtype(x).is_float() {
        bail!("{} cannot be run here", r.b.f.ty(x));
    }
    Ok(())
}

/// ⌊x/y⌋ and x − y·⌊x/y⌋: the remainder has the divisor's sign.
fn floored(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let (x, y) = (r.operand(op, "x")?, r.operand(op, "y")?);
    floats_only(r, x)?;
    let quotient = r.b.div(x, y)?;
    let floor = r.b.unary(Unary::Floor, quotient)?;
    if op.r#type == "floor_div" {
        return Ok(vec![floor]);
    }
    let whole = r.b.mul(y, floor)?;
    Ok(vec![r.b.sub(x, whole)?])
}

/// MIL adds an epsilon before these functions; one that the dtype rounds to zero is no addition.
fn with_epsilon(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let default = match op.r#type.as_str() {
        "rsqrt" => 1e-12,
        "log" => 1e-45,
        _ => 1e-4,
    };
    let epsilon = r.float(op, "epsilon", default)?;
    let mut x = r.operand(op, "x")?;
    if r.b.f.dtype(x).round(epsilon) != 0.0 {
        x = r.b.add_scalar(x, epsilon)?;
    }
    Ok(vec![match op.r#type.as_str() {
        "rsqrt" => r.b.unary(Unary::Rsqrt, x)?,
        "log" => r.b.unary(Unary::Log, x)?,
        _ => {
            let one = r.b.scalar_like(x, 1.0)?;
            r.b.div(one, x)?
        }
    }])
}

fn gelu(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    Ok(vec![match r.text(op, "mode", "EXACT")?.as_str() {
        "EXACT" => r.b.unary(Unary::Gelu, x)?,
        "TANH_APPROXIMATION" => r.b.unary(Unary::GeluTanh, x)?,
        "SIGMOID_APPROXIMATION" => {
            let y = r.b.mul_scalar(x, 1.702)?;
            let y = r.b.unary(Unary::Sigmoid, y)?;
            r.b.mul(x, y)?
        }
        other => bail!("unknown mode `{other}`"),
    }])
}

fn exp2(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    floats_only(r, x)?;
    let two = r.b.scalar_like(x, 2.0)?;
    Ok(vec![r.b.binary(Binary::Pow, two, x)?])
}

/// A bound may be infinite.
fn clip(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let mut y = x;
    for (input, infinite, kind) in
        [("alpha", f64::NEG_INFINITY, Binary::Maximum), ("beta", f64::INFINITY, Binary::Minimum)]
    {
        let bound = r.float(op, input, infinite)?;
        if bound != infinite {
            let ty = TensorType::new(r.b.f.dtype(x), []);
            let bound = r.literal(&ty, &[bound])?;
            y = r.b.binary(kind, y, bound)?;
        }
    }
    Ok(vec![if y == x { r.b.unary(Unary::Identity, x)? } else { y }])
}

fn cast(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let dtype = match r.text(op, "dtype", "")?.as_str() {
        "fp16" => DType::F16,
        "fp32" => DType::F32,
        "int8" => DType::I8,
        "uint8" => DType::U8,
        "int16" => DType::I16,
        "uint16" => DType::U16,
        "int32" => DType::I32,
        "bool" => DType::Bool,
        other => bail!("unknown dtype `{other}`"),
    };
    let y = r.b.cast(x, dtype)?;
    Ok(vec![if y == x { r.b.unary(Unary::Identity, x)? } else { y }])
}
