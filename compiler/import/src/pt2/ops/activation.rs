//! Activation functions, and the functions that they are decomposed into.

use s2dit_ir::OpError;
use s2dit_ir::ops::{Binary, Unary};

use super::super::call::Call;
use super::super::walk::{Slot, Walk};
use super::Group;
use super::elementwise::function;
use crate::{Traced, Value};

pub(super) const OPS: Group = &[
    ("aten.log1p.default", log1p),
    ("aten.expm1.default", expm1),
    ("aten.gelu.default", gelu),
    ("aten.softplus.default", softplus),
    ("aten.clamp.*", clamp),
    ("aten.clip.*", clamp),
    ("aten.clamp_min.*", clamp),
    ("aten.clamp_max.*", clamp),
    ("aten.hardtanh.default", hardtanh),
    ("aten.leaky_relu.default", leaky_relu),
    ("aten.elu.default", elu),
    ("aten.hardsigmoid.default", hardsigmoid),
    ("aten.hardswish.default", hardswish),
    ("aten.mish.default", mish),
    ("aten.glu.default", glu),
];

type Read = Result<Vec<Slot>, OpError>;

fn log1p(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    // ln(1 + e^x), which would overflow.
    if let Some(inner) = w.operand_of(&x, |op| matches!(op, s2dit_ir::Op::Unary(Unary::Exp))) {
        return Ok(c.one(w.unary(Unary::Softplus, &inner)?));
    }
    let x = w.with_number(Binary::Add, &x, 1.0)?;
    Ok(c.one(w.unary(Unary::Log, &x)?))
}

fn expm1(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let x = w.unary(Unary::Exp, &x)?;
    Ok(c.one(w.with_number(Binary::Sub, &x, 1.0)?))
}

fn gelu(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    match c.text("approximate", "none")?.as_str() {
        "none" => function(w, c, Unary::Gelu),
        "tanh" => function(w, c, Unary::GeluTanh),
        other => Err(OpError::new(format!("approximate {other:?}"))),
    }
}

/// `ln(1 + e^(beta·x)) / beta`. Above the threshold torch takes x itself, which is the same to 1e-9 at its default of 20.
fn softplus(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let (beta, threshold) = (c.number(w, "beta", Some(1.0))?, c.number(w, "threshold", Some(20.0))?);
    if threshold < 15.0 || beta <= 0.0 {
        return Err(OpError::new(format!("beta {beta}, threshold {threshold}")));
    }
    let x = w.with_number(Binary::Mul, &x, beta)?;
    let y = w.unary(Unary::Softplus, &x)?;
    Ok(c.one(w.with_number(Binary::Div, &y, beta)?))
}

fn clamp(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let mut x = c.tensor(w, "self")?;
    for (name, function, never) in
        [("min", Binary::Maximum, f64::NEG_INFINITY), ("max", Binary::Minimum, f64::INFINITY)]
    {
        if c.has(name) {
            let bound = c.tensor_or_number(w, name)?;
            if crate::Tracer::uniform(&bound) != Some(never) {
                x = w.binary(function, &x, &bound)?;
            }
        }
    }
    Ok(c.one(x))
}

fn between(w: &mut Walk<'_>, x: &Value, low: f64, high: f64) -> Traced {
    let x = w.with_number(Binary::Maximum, x, low)?;
    w.with_number(Binary::Minimum, &x, high)
}

fn hardtanh(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let (low, high) = (c.number(w, "min_val", Some(-1.0))?, c.number(w, "max_val", Some(1.0))?);
    Ok(c.one(between(w, &x, low, high)?))
}

/// `max(x, 0) + slope·min(x, 0)`
fn leaky_relu(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let slope = c.number(w, "negative_slope", Some(0.01))?;
    let above = w.unary(Unary::Relu, &x)?;
    let below = w.with_number(Binary::Minimum, &x, 0.0)?;
    let below = w.with_number(Binary::Mul, &below, slope)?;
    Ok(c.one(w.binary(Binary::Add, &above, &below)?))
}

/// `scale·(max(x, 0) + alpha·(e^(input_scale·min(x, 0)) − 1))`
fn elu(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let number = |w: &Walk<'_>, name| c.number(w, name, Some(1.0));
    let (alpha, scale, input) = (number(w, "alpha")?, number(w, "scale")?, number(w, "input_scale")?);
    let above = w.unary(Unary::Relu, &x)?;
    let below = w.with_number(Binary::Minimum, &x, 0.0)?;
    let below = w.with_number(Binary::Mul, &below, input)?;
    let below = w.unary(Unary::Exp, &below)?;
    let below = w.with_number(Binary::Sub, &below, 1.0)?;
    let below = w.with_number(Binary::Mul, &below, alpha)?;
    let y = w.binary(Binary::Add, &above, &below)?;
    Ok(c.one(w.with_number(Binary::Mul, &y, scale)?))
}

/// `min(max(x + 3, 0), 6) / 6`
fn hard_gate(w: &mut Walk<'_>, x: &Value) -> Traced {
    let y = w.with_number(Binary::Add, x, 3.0)?;
    let y = between(w, &y, 0.0, 6.0)?;
    w.with_number(Binary::Div, &y, 6.0)
}

fn hardsigmoid(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    Ok(c.one(hard_gate(w, &x)?))
}

fn hardswish(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let gate = hard_gate(w, &x)?;
    Ok(c.one(w.binary(Binary::Mul, &x, &gate)?))
}

/// `x·tanh(softplus(x))`
fn mish(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let y = w.unary(Unary::Softplus, &x)?;
    let y = w.unary(Unary::Tanh, &y)?;
    Ok(c.one(w.binary(Binary::Mul, &x, &y)?))
}

/// The first half of an axis times the sigmoid of the second.
fn glu(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let shape = w.t.shape(&x);
    let axis = c.axis(w, "dim", -1, shape.len())?;
    let half = shape[axis] / 2;
    let a = super::super::mutation::sliced(&x, axis, 0, half, 1, &mut w.t)?;
    let b = super::super::mutation::sliced(&x, axis, half, 2 * half, 1, &mut w.t)?;
    let gate = w.unary(Unary::Sigmoid, &b)?;
    Ok(c.one(w.binary(Binary::Mul, &a, &gate)?))
}
