//! Elementwise ops and casts.

use anyhow::{Context, Result, bail};
use s2dit_ir::ops::{Binary, Compare, Unary};
use s2dit_ir::{DType, TensorType, ValueId};

use super::{Handler, Raise};
use crate::coreml::proto::Operation;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "abs" | "acos" | "asin" | "atan" | "atanh" | "ceil" | "cos" | "cosh" | "erf" | "exp" | "floor" | "identity"
        | "logical_not" | "relu" | "round" | "sigmoid" | "sign" | "silu" | "sin" | "sinh" | "softplus" | "sqrt"
        | "square" | "tan" | "tanh" => unary,
        "equal" | "not_equal" | "less" | "less_equal" | "greater" | "greater_equal" | "logical_and" | "logical_or"
        | "logical_xor" => compare,
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
        "acos" => Unary::Acos,
        "asin" => Unary::Asin,
        "atan" => Unary::Atan,
        "atanh" => Unary::Atanh,
        "ceil" => Unary::Ceil,
        "cos" => Unary::Cos,
        "cosh" => Unary::Cosh,
        "erf" => Unary::Erf,
        "exp" => Unary::Exp,
        "floor" => Unary::Floor,
        "logical_not" => Unary::LogicalNot,
        "relu" => Unary::Relu,
        "round" => Unary::Round,
        "sigmoid" => Unary::Sigmoid,
        "silu" => Unary::Silu,
        "sign" => Unary::Sign,
        "sin" => Unary::Sin,
        "sinh" => Unary::Sinh,
        "softplus" => Unary::Softplus,
        "sqrt" => Unary::Sqrt,
        "square" => Unary::Square,
        "tan" => Unary::Tan,
        "tanh" => Unary::Tanh,
        _ => Unary::Identity,
    };
    let x = r.operand(op, "x")?;
    let moves = matches!(kind, Unary::Abs | Unary::Identity | Unary::LogicalNot | Unary::Sign | Unary::Square);
    if !moves && !r.b.f.dtype(x).is_float() {
        return Ok(vec![r.in_f64(&[x], |r, x| Ok(r.b.unary(kind, x[0])?))?]);
    }
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
    let operands = [r.operand(op, "x")?, r.operand(op, "y")?];
    if matches!(kind, Binary::Div | Binary::Pow) && !r.b.f.dtype(operands[0]).is_float() {
        return Ok(vec![r.in_f64(&operands, |r, v| Ok(r.b.binary(kind, v[0], v[1])?))?]);
    }
    Ok(vec![r.in_one_dtype(&operands, |r, v| Ok(r.b.binary(kind, v[0], v[1])?))?])
}

fn compare(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let kind = Compare::ALL.iter().find(|(_, name)| *name == op.r#type).context("no such relation")?.0;
    let (x, y) = (r.operand(op, "x")?, r.operand(op, "y")?);
    // Numbers of two types are compared as numbers; a bool is one.
    let (of_x, of_y) = (r.b.f.dtype(x), r.b.f.dtype(y));
    let logical = matches!(kind, Compare::And | Compare::Or | Compare::Xor);
    let wide = match (logical, of_x == of_y && of_x != DType::Bool) {
        (true, _) => DType::Bool,
        (false, true) => of_x,
        (false, false) if of_x.is_float() || of_y.is_float() => DType::F32,
        (false, false) => DType::I32,
    };
    let (x, y) = (r.b.cast(x, wide)?, r.b.cast(y, wide)?);
    Ok(vec![r.b.op(kind, &[x, y])?])
}

/// ⌊x/y⌋ and x − y·⌊x/y⌋: the remainder has the divisor's sign.
fn floored(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let operands = [r.operand(op, "x")?, r.operand(op, "y")?];
    let is_quotient = op.r#type == "floor_div";
    let compute = |r: &mut Raise, v: &[ValueId]| {
        let quotient = r.b.div(v[0], v[1])?;
        let floor = r.b.unary(Unary::Floor, quotient)?;
        if is_quotient {
            return Ok(floor);
        }
        let whole = r.b.mul(v[1], floor)?;
        Ok(r.b.sub(v[0], whole)?)
    };
    let float = r.b.f.dtype(operands[0]).is_float();
    Ok(vec![if float { r.in_one_dtype(&operands, compute)? } else { r.in_f64(&operands, compute)? }])
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
    if !r.b.f.dtype(x).is_float() {
        bail!("{} cannot be run here", r.b.f.ty(x));
    }
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
    let dtype = dtype_named(&r.text(op, "dtype", "")?)?;
    let y = r.b.cast(x, dtype)?;
    Ok(vec![if y == x { r.b.unary(Unary::Identity, x)? } else { y }])
}

/// The dtype that a parameter names.
pub(super) fn dtype_named(name: &str) -> Result<DType> {
    Ok(match name {
        "fp16" => DType::F16,
        "fp32" => DType::F32,
        "int8" => DType::I8,
        "uint8" => DType::U8,
        "int16" => DType::I16,
        "uint16" => DType::U16,
        "int32" => DType::I32,
        "bool" => DType::Bool,
        other => bail!("unknown dtype `{other}`"),
    })
}
