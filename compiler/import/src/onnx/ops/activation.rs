//! Functions of one operand.

use s2dit_ir::ops::{Binary, Unary};
use s2dit_ir::{DType, Op, Tensor};

use super::Handler;
use crate::Value;
use crate::onnx::node::{Made, Node, Stop, not_read};
use crate::onnx::walk::Walk;

pub(super) fn handler(op: &str) -> Option<Handler> {
    if unary_of(op).is_some() {
        return Some(unary);
    }
    Some(match op {
        "Ceil" => ceil,
        "Celu" => celu,
        "Clip" => clip,
        "Cosh" | "Sinh" => hyperbolic,
        "Dropout" => dropout,
        "Elu" | "Selu" => elu,
        "Gelu" => gelu,
        "HardSigmoid" => hard_sigmoid,
        "HardSwish" => hard_swish,
        "LeakyRelu" => leaky_relu,
        "Mish" => mish,
        "PRelu" => p_relu,
        "Reciprocal" => reciprocal,
        "Shrink" => return None,
        "Sign" => sign,
        "Softsign" => softsign,
        "Swish" => swish,
        "Tan" => tan,
        _ => return None,
    })
}

fn unary_of(op: &str) -> Option<Unary> {
    Some(match op {
        "Abs" => Unary::Abs,
        "Cos" => Unary::Cos,
        "Erf" => Unary::Erf,
        "Exp" => Unary::Exp,
        "Floor" => Unary::Floor,
        "Log" => Unary::Log,
        "Neg" => Unary::Neg,
        "Relu" => Unary::Relu,
        "Round" => Unary::Round,
        "Sigmoid" => Unary::Sigmoid,
        "Sin" => Unary::Sin,
        "Softplus" => Unary::Softplus,
        "Sqrt" => Unary::Sqrt,
        "Tanh" => Unary::Tanh,
        _ => return None,
    })
}

fn unary(w: &mut Walk, n: &Node) -> Made {
    let Some(kind) = unary_of(n.op()) else { not_read!("no such function") };
    Ok(vec![w.t.op(kind, &[n.input(0)?])?])
}

impl Walk<'_> {
    pub(super) fn unary(&mut self, kind: Unary, x: &Value) -> Result<Value, Stop> {
        Ok(self.t.op(kind, &[x])?)
    }

    pub(super) fn binary(&mut self, kind: Binary, x: &Value, y: &Value) -> Result<Value, Stop> {
        Ok(self.t.op(kind, &[x, y])?)
    }

    /// A function of a value and a number.
    pub(super) fn with(&mut self, kind: Binary, x: &Value, number: f64) -> Result<Value, Stop> {
        let number = self.t.scalar(self.t.ty(x).dtype, number);
        self.binary(kind, x, &number)
    }

    /// x·sigmoid(alpha·x)
    pub(super) fn swish(&mut self, x: &Value, alpha: f64) -> Result<Value, Stop> {
        let inner = if alpha == 1.0 { x.clone() } else { self.with(Binary::Mul, x, alpha)? };
        let gate = self.unary(Unary::Sigmoid, &inner)?;
        self.binary(Binary::Mul, x, &gate)
    }
}

/// −⌊−x⌋
fn ceil(w: &mut Walk, n: &Node) -> Made {
    let x = w.unary(Unary::Neg, n.input(0)?)?;
    let x = w.unary(Unary::Floor, &x)?;
    Ok(vec![w.unary(Unary::Neg, &x)?])
}

/// max(x, 0) + min(alpha·(e^(x/alpha) − 1), 0)
fn celu(w: &mut Walk, n: &Node) -> Made {
    let (x, alpha) = (n.input(0)?, n.float("alpha", 1.0)?);
    let y = w.with(Binary::Div, x, alpha)?;
    let y = w.unary(Unary::Exp, &y)?;
    let y = w.with(Binary::Sub, &y, 1.0)?;
    let y = w.with(Binary::Mul, &y, alpha)?;
    let y = w.with(Binary::Minimum, &y, 0.0)?;
    let positive = w.unary(Unary::Relu, x)?;
    Ok(vec![w.binary(Binary::Add, &positive, &y)?])
}

/// Bounds are attributes below opset 11, inputs since; an infinite one is none.
fn clip(w: &mut Walk, n: &Node) -> Made {
    let mut y = n.input(0)?.clone();
    let bounds = [("min", 1, f64::NEG_INFINITY, Binary::Maximum), ("max", 2, f64::INFINITY, Binary::Minimum)];
    for (name, index, none, kind) in bounds {
        let bound = match (n.optional(index), n.version >= 11) {
            (Some(bound), true) => bound.clone(),
            (None, true) => continue,
            _ if !n.has(name) => continue,
            _ => w.t.scalar(w.t.ty(&y).dtype, n.float(name, none)?),
        };
        let widest =
            |x: f64| x == none || x.abs() >= f64::from(f32::MAX) && x.is_sign_negative() == none.is_sign_negative();
        if let Value::Known(Tensor { data, .. }) = &bound
            && data.iter().all(|x| widest(*x))
        {
            continue;
        }
        y = w.binary(kind, &y, &bound)?;
    }
    Ok(vec![y])
}

/// (e^x ± e^−x)/2
fn hyperbolic(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?;
    let minus = w.unary(Unary::Neg, x)?;
    let (up, down) = (w.unary(Unary::Exp, x)?, w.unary(Unary::Exp, &minus)?);
    let kind = if n.op() == "Cosh" { Binary::Add } else { Binary::Sub };
    let both = w.binary(kind, &up, &down)?;
    Ok(vec![w.with(Binary::Mul, &both, 0.5)?])
}

/// The identity, where the model is not trained; the mask that nothing drops is all true.
fn dropout(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?.clone();
    if let Some(training) = n.optional(2) {
        let training = training.clone();
        if w.floats(&training, "whether it is trained")?.iter().any(|x| *x != 0.0) {
            not_read!("a model that is being trained");
        }
    }
    let mask = w.t.known(
        DType::Bool,
        &w.t.shape(&x),
        vec![1.0; w.t.ty(&x).elements().min(if n.wants(1) { 1 << 24 } else { 0 })],
    );
    Ok([Some(x), mask].into_iter().flatten().collect())
}

/// x above 0, alpha·(e^x − 1) below; both times gamma for `Selu`.
fn elu(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?;
    let selu = n.op() == "Selu";
    let alpha = n.float("alpha", if selu { 1.673_263_192_176_818_8 } else { 1.0 })?;
    let gamma = if selu { n.float("gamma", 1.050_701_022_148_132_3)? } else { 1.0 };
    let negative = w.with(Binary::Minimum, x, 0.0)?;
    let y = w.unary(Unary::Exp, &negative)?;
    let y = w.with(Binary::Sub, &y, 1.0)?;
    let y = w.with(Binary::Mul, &y, alpha)?;
    let positive = w.unary(Unary::Relu, x)?;
    let y = w.binary(Binary::Add, &positive, &y)?;
    Ok(vec![if gamma == 1.0 { y } else { w.with(Binary::Mul, &y, gamma)? }])
}

fn gelu(w: &mut Walk, n: &Node) -> Made {
    let kind = match n.text("approximate", "none")? {
        "none" => Unary::Gelu,
        "tanh" => Unary::GeluTanh,
        other => not_read!("approximate `{other}`"),
    };
    Ok(vec![w.unary(kind, n.input(0)?)?])
}

/// max(0, min(1, alpha·x + beta))
fn hard_sigmoid(w: &mut Walk, n: &Node) -> Made {
    let (alpha, beta) = (n.float("alpha", 0.2)?, n.float("beta", 0.5)?);
    Ok(vec![hard(w, n.input(0)?, alpha, beta)?])
}

fn hard(w: &mut Walk, x: &Value, alpha: f64, beta: f64) -> Result<Value, Stop> {
    let y = w.with(Binary::Mul, x, alpha)?;
    let y = w.with(Binary::Add, &y, beta)?;
    let y = w.with(Binary::Minimum, &y, 1.0)?;
    w.with(Binary::Maximum, &y, 0.0)
}

fn hard_swish(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?;
    let gate = hard(w, x, 1.0 / 6.0, 0.5)?;
    Ok(vec![w.binary(Binary::Mul, x, &gate)?])
}

fn leaky_relu(w: &mut Walk, n: &Node) -> Made {
    let slope = w.t.scalar(w.t.ty(n.input(0)?).dtype, n.float("alpha", 0.01)?);
    Ok(vec![sloped(w, n.input(0)?, &slope)?])
}

fn p_relu(w: &mut Walk, n: &Node) -> Made {
    Ok(vec![sloped(w, n.input(0)?, n.input(1)?)?])
}

/// max(x, 0) + slope·min(x, 0)
fn sloped(w: &mut Walk, x: &Value, slope: &Value) -> Result<Value, Stop> {
    let negative = w.with(Binary::Minimum, x, 0.0)?;
    let negative = w.binary(Binary::Mul, &negative, slope)?;
    let positive = w.with(Binary::Maximum, x, 0.0)?;
    w.binary(Binary::Add, &positive, &negative)
}

fn mish(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?;
    let y = w.unary(Unary::Softplus, x)?;
    let y = w.unary(Unary::Tanh, &y)?;
    Ok(vec![w.binary(Binary::Mul, x, &y)?])
}

/// 1/x; of a square root its own op.
fn reciprocal(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?;
    if let Value::Graph(v) = x
        && let Op::Unary(Unary::Sqrt) = w.t.f.op(*v)
    {
        let inner = Value::Graph(w.t.f.operands(*v)[0]);
        return Ok(vec![w.unary(Unary::Rsqrt, &inner)?]);
    }
    let one = w.t.scalar(w.t.ty(x).dtype, 1.0);
    Ok(vec![w.binary(Binary::Div, &one, x)?])
}

/// Of whole numbers: −1, 0 or 1.
fn sign(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?.clone();
    if let Value::Known(Tensor { dtype, data }) = x {
        let data = data.mapv(|x| if x == 0.0 { 0.0 } else { x.signum() });
        return Ok(vec![Value::Known(Tensor { dtype, data })]);
    }
    if !w.is_whole(&x) {
        not_read!("the sign of floats that the model computes");
    }
    let y = w.with(Binary::Maximum, &x, -1.0)?;
    Ok(vec![w.with(Binary::Minimum, &y, 1.0)?])
}

fn softsign(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?;
    let y = w.unary(Unary::Abs, x)?;
    let y = w.with(Binary::Add, &y, 1.0)?;
    Ok(vec![w.binary(Binary::Div, x, &y)?])
}

fn swish(w: &mut Walk, n: &Node) -> Made {
    let alpha = n.float("alpha", 1.0)?;
    Ok(vec![w.swish(n.input(0)?, alpha)?])
}

fn tan(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?;
    let (sin, cos) = (w.unary(Unary::Sin, x)?, w.unary(Unary::Cos, x)?);
    Ok(vec![w.binary(Binary::Div, &sin, &cos)?])
}
