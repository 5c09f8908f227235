//! Comparisons, logic, choices and casts. A boolean that the model computes is an f32 of 0 and 1, so these are arithmetic.

use s2dit_ir::ops::{Binary, Cast, ReduceKind, Unary};
use s2dit_ir::{DType, MASKED, Op, Tensor, ValueId};

use super::Handler;
use super::arithmetic::zip;
use crate::onnx::node::{Made, Node, Stop, broken, not_read};
use crate::onnx::proto_dtype;
use crate::onnx::walk::Walk;
use crate::trace::settled;
use crate::{Tracer, Value};

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" => compare,
        "And" | "Or" | "Xor" => logic,
        "Not" => not,
        "IsNaN" | "IsInf" => broken_numbers,
        "Where" => choose,
        "Cast" | "CastLike" => cast,
        _ => return None,
    })
}

/// Why comparisons of floats are refused where no choice takes them away.
pub(in crate::onnx) const COMPARED: &str = "a comparison of floats that the model computes";

/// `greater > less`, or `≥`.
#[derive(Clone, Debug)]
pub(in crate::onnx) struct Comparison {
    greater: Value,
    less: Value,
}

/// Numbers below this are in a mask to be never chosen.
pub(in crate::onnx) const NEVER: f64 = -1e30;

impl Walk<'_> {
    /// Whether every element is a whole number, whatever the inputs are.
    pub(super) fn is_whole(&self, x: &Value) -> bool {
        match x {
            Value::Known(tensor) => tensor.data.iter().all(|x| x.fract() == 0.0),
            Value::Filled(_, x) => x.fract() == 0.0,
            Value::Graph(v) => self.follows(*v, &|f, v| {
                let whole = |values: &[f64]| values.iter().all(|x| x.fract() == 0.0);
                match f.op(v) {
                    _ if !f.dtype(v).is_float() || self.bools.contains(&v) => Some(true),
                    Op::Cast(_) => None,
                    Op::Reduce(r) if r.kind != ReduceKind::Mean => None,
                    Op::Literal(literal) => Some(whole(&literal.values)),
                    Op::Unary(Unary::Abs | Unary::Neg | Unary::Square | Unary::Relu | Unary::Identity)
                    | Op::Binary(Binary::Add | Binary::Sub | Binary::Mul | Binary::Maximum | Binary::Minimum) => None,
                    Op::Unary(Unary::Floor | Unary::Round) => Some(true),
                    op => layout(op),
                }
            }),
        }
    }

    /// Whether every element is 0 or 1, whatever the inputs are.
    fn is_bool(&self, x: &Value) -> bool {
        match x {
            Value::Known(tensor) => tensor.data.iter().all(|x| *x == 0.0 || *x == 1.0),
            Value::Filled(_, x) => *x == 0.0 || *x == 1.0,
            Value::Graph(v) => {
                self.bools.contains(v)
                    || self.follows(*v, &|f, v| match f.op(v) {
                        _ if self.bools.contains(&v) => Some(true),
                        Op::Literal(literal) => Some(literal.values.iter().all(|x| *x == 0.0 || *x == 1.0)),
                        Op::Binary(Binary::Mul | Binary::Maximum | Binary::Minimum) => None,
                        op => layout(op),
                    })
            }
        }
    }

    /// Whether a property that `own` settles, or leaves to all operands, holds of a value.
    fn follows(&self, v: ValueId, own: &dyn Fn(&s2dit_ir::Function, ValueId) -> Option<bool>) -> bool {
        let (mut ahead, mut seen) = (vec![v], std::collections::HashSet::from([v]));
        while let Some(v) = ahead.pop() {
            // What is asked about is near: masks are made of few ops.
            if seen.len() > 256 {
                return false;
            }
            match own(&self.t.f, v) {
                Some(false) => return false,
                Some(true) => {}
                None => ahead.extend(self.t.f.operands(v).into_iter().filter(|o| seen.insert(*o))),
            }
        }
        true
    }

    /// Marks a value as a boolean of the file.
    fn boolean(&mut self, x: Value) -> Value {
        if let Value::Graph(v) = x {
            self.bools.insert(v);
        }
        x
    }

    /// A value of whole numbers as f32.
    fn as_float(&mut self, x: &Value) -> Result<Value, Stop> {
        self.cast(x, DType::F32)
    }

    /// 1 where a whole number is at least 1, else 0.
    fn step(&mut self, x: &Value) -> Result<Value, Stop> {
        let x = self.as_float(x)?;
        let x = self.with(Binary::Maximum, &x, 0.0)?;
        self.with(Binary::Minimum, &x, 1.0)
    }

    fn not(&mut self, x: &Value) -> Result<Value, Stop> {
        let one = self.t.scalar(DType::F32, 1.0);
        let y = self.binary(Binary::Sub, &one, x)?;
        Ok(self.boolean(y))
    }

    /// A value in another type of the file. Floats are not rounded: what a file computes in fp16 is computed in f32 here.
    pub(super) fn cast(&mut self, x: &Value, to: DType) -> Result<Value, Stop> {
        let is_cut = self.t.ty(x).dtype.is_float();
        let one = |x: f64| match to {
            DType::Bool => f64::from(u8::from(x != 0.0)),
            _ if to.is_float() => x,
            _ if is_cut => to.round(settled(x)),
            _ => to.round(x),
        };
        let v = match x {
            Value::Known(Tensor { data, .. }) => {
                return Ok(Value::Known(Tensor { dtype: to, data: data.mapv(one) }));
            }
            Value::Filled(ty, x) => return Ok(Value::Filled(ty.with_dtype(to), one(*x))),
            Value::Graph(v) => *v,
        };
        let (from, wanted) = (self.t.f.dtype(v), Tracer::graph_dtype(to));
        if to == DType::Bool && !self.is_bool(x) {
            if !self.is_whole(x) {
                not_read!("whether floats that the model computes are 0");
            }
            let size = self.unary(Unary::Abs, x)?;
            let y = self.step(&size)?;
            return Ok(self.boolean(y));
        }
        if from == wanted {
            return Ok(x.clone());
        }
        Ok(self.t.op(Cast { dtype: wanted }, &[x])?)
    }
}

/// Ops that only place elements.
fn layout(op: &Op) -> Option<bool> {
    match op {
        Op::Reshape(_) | Op::Transpose(_) | Op::Slice(_) | Op::BroadcastTo(_) | Op::Concat(_) => None,
        _ => Some(false),
    }
}

fn compare(w: &mut Walk, n: &Node) -> Made {
    let (x, y) = (n.input(0)?, n.input(1)?);
    let holds: fn(f64, f64) -> bool = match n.op() {
        "Equal" => |x, y| x == y,
        "Greater" => |x, y| x > y,
        "GreaterOrEqual" => |x, y| x >= y,
        "Less" => |x, y| x < y,
        _ => |x, y| x <= y,
    };
    if let (Value::Known(x), Value::Known(y)) = (x, y) {
        return Ok(vec![Value::Known(zip(w, x, y, DType::Bool, |x, y| f64::from(u8::from(holds(x, y))))?)]);
    }
    if !w.is_whole(x) && !w.is_bool(x) || !w.is_whole(y) && !w.is_bool(y) {
        if n.op() == "Equal" {
            not_read!("{COMPARED}");
        }
        let (x, y) = if n.op().starts_with("Greater") { (x.clone(), y.clone()) } else { (y.clone(), x.clone()) };
        let stand_in = w.binary(Binary::Sub, &x, &y)?;
        if let Value::Graph(v) = stand_in {
            w.comparisons.insert(v, Comparison { greater: x, less: y });
        }
        return Ok(vec![stand_in]);
    }
    let (x, y) = (w.as_float(x)?, w.as_float(y)?);
    let result = match n.op() {
        "Greater" | "LessOrEqual" => {
            let over = w.binary(Binary::Sub, &x, &y)?;
            w.step(&over)?
        }
        "Less" | "GreaterOrEqual" => {
            let under = w.binary(Binary::Sub, &y, &x)?;
            w.step(&under)?
        }
        _ => {
            let distance = w.binary(Binary::Sub, &x, &y)?;
            let distance = w.unary(Unary::Abs, &distance)?;
            w.step(&distance)?
        }
    };
    let result = match n.op() {
        "Greater" | "Less" => w.boolean(result),
        _ => w.not(&result)?,
    };
    Ok(vec![result])
}

fn logic(w: &mut Walk, n: &Node) -> Made {
    let (x, y) = (n.input(0)?, n.input(1)?);
    if let (Value::Known(x), Value::Known(y)) = (x, y) {
        let holds: fn(bool, bool) -> bool = match n.op() {
            "And" => |x, y| x && y,
            "Or" => |x, y| x || y,
            _ => |x, y| x != y,
        };
        let holds = |x: f64, y: f64| f64::from(u8::from(holds(x != 0.0, y != 0.0)));
        return Ok(vec![Value::Known(zip(w, x, y, DType::Bool, holds)?)]);
    }
    let result = match n.op() {
        "And" => w.binary(Binary::Mul, x, y)?,
        "Or" => w.binary(Binary::Maximum, x, y)?,
        _ => {
            let distance = w.binary(Binary::Sub, x, y)?;
            w.unary(Unary::Abs, &distance)?
        }
    };
    Ok(vec![w.boolean(result)])
}

fn not(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?;
    if let Value::Known(Tensor { dtype, data }) = x {
        let data = data.mapv(|x| f64::from(u8::from(x == 0.0)));
        return Ok(vec![Value::Known(Tensor { dtype: *dtype, data })]);
    }
    Ok(vec![w.not(x)?])
}

/// NaN and infinities. What a graph computes in f32 from finite numbers has none: masks are finite here, and what exporters ask for is whether fp16 ran over.
fn broken_numbers(w: &mut Walk, n: &Node) -> Made {
    let input = n.input(0)?.clone();
    let Some(x) = w.numbers(&input)? else {
        if matches!(&input, Value::Graph(v) if matches!(w.t.f.op(*v), Op::Input(_))) {
            not_read!("NaN or infinities in an input");
        }
        let ty = w.t.ty(&input);
        return Ok(vec![Value::Filled(ty.with_dtype(DType::Bool), 0.0)]);
    };
    let sign = |name: &str| Ok::<bool, Stop>(n.int(name, 1)? != 0);
    let (negative, positive) = (sign("detect_negative")?, sign("detect_positive")?);
    let is = |x: f64| match n.op() {
        "IsNaN" => x.is_nan(),
        _ => x.is_infinite() && if x > 0.0 { positive } else { negative },
    };
    Ok(vec![Value::Known(Tensor { dtype: DType::Bool, data: x.data.mapv(|x| f64::from(u8::from(is(x)))) })])
}

/// A choice by a comparison: the greater or the lesser of two, or a softplus that PyTorch does not compute where it is its operand.
fn chosen_by(w: &mut Walk, comparison: &Comparison, x: &Value, y: &Value) -> Made {
    let Comparison { greater, less } = comparison;
    let same = |a: &Value, b: &Value| match (a, b) {
        (Value::Graph(a), Value::Graph(b)) => a == b,
        (Value::Graph(_), _) | (_, Value::Graph(_)) => false,
        (a, b) => Tracer::uniform(a).is_some() && Tracer::uniform(a) == Tracer::uniform(b),
    };
    if same(x, greater) && same(y, less) {
        return Ok(vec![w.binary(Binary::Maximum, x, y)?]);
    }
    if same(x, less) && same(y, greater) {
        return Ok(vec![w.binary(Binary::Minimum, x, y)?]);
    }
    // At 15 a softplus and its operand differ by 3e-7.
    let softplus = |v: &Value, of: &Value| {
        matches!((v, of), (Value::Graph(v), Value::Graph(of))
        if matches!(w.t.f.op(*v), Op::Unary(Unary::Softplus)) && w.t.f.operands(*v)[0] == *of)
    };
    if same(x, greater) && softplus(y, greater) && Tracer::uniform(less).is_some_and(|least| least >= 15.0) {
        return Ok(vec![y.clone()]);
    }
    not_read!("{COMPARED}");
}

/// `condition ? x : y`. A computed condition is a factor: `condition·x + (1 − condition)·y`. Where y says "never", as masks of attention do, it
/// is what is added to x.
fn choose(w: &mut Walk, n: &Node) -> Made {
    let (condition, x, y) = (n.input(0)?.clone(), n.input(1)?.clone(), n.input(2)?.clone());
    let shape = [w.t.shape(&x), w.t.shape(&y)]
        .iter()
        .try_fold(w.t.shape(&condition), |a, b| s2dit_ir::ops::broadcast_shapes(&a, b))?;
    if let Value::Graph(v) = &condition
        && let Some(comparison) = w.comparisons.get(v).cloned()
    {
        return chosen_by(w, &comparison, &x, &y);
    }
    if let Some(on) = Tracer::uniform(&condition) {
        let chosen = if on == 0.0 { y } else { x };
        return Ok(vec![w.t.broadcast(&chosen, &shape)?]);
    }
    if let Value::Known(c) = &condition
        && let (Some(x), Some(y)) = (w.t.tensor(&x)?, w.t.tensor(&y)?)
    {
        let (dtype, wide) = (x.dtype, s2dit_ir::TensorType::new(x.dtype, shape.clone()));
        w.t.spend(&wide)?;
        let at = ndarray::IxDyn(&shape);
        let all = (c.data.broadcast(at.clone()), x.data.broadcast(at.clone()), y.data.broadcast(at));
        let (Some(c), Some(x), Some(y)) = all else { not_read!("operands that do not broadcast") };
        let data = ndarray::Zip::from(&c).and(&x).and(&y).map_collect(|c, x, y| if *c != 0.0 { *x } else { *y });
        let data = data.as_standard_layout().into_owned();
        return Ok(vec![Value::Known(Tensor { dtype, data })]);
    }
    let never = |v: &Value| match v {
        Value::Known(t) => !t.data.is_empty() && t.data.iter().all(|x| *x < NEVER),
        Value::Filled(_, x) => *x < NEVER,
        Value::Graph(_) => false,
    };
    let whole = !w.t.ty(&x).dtype.is_float();
    let factor = match &condition {
        Value::Graph(_) => condition.clone(),
        known => w.cast(known, DType::F32)?,
    };
    let (x, y) = (w.as_float(&x)?, w.as_float(&y)?);
    let rest = w.not(&factor)?;
    let result = match (never(&x), never(&y)) {
        (false, true) => {
            let mask = w.with(Binary::Mul, &rest, MASKED)?;
            w.binary(Binary::Add, &x, &mask)?
        }
        (true, false) => {
            let mask = w.with(Binary::Mul, &factor, MASKED)?;
            w.binary(Binary::Add, &y, &mask)?
        }
        _ => {
            let (x, y) = (w.binary(Binary::Mul, &factor, &x)?, w.binary(Binary::Mul, &rest, &y)?);
            w.binary(Binary::Add, &x, &y)?
        }
    };
    let result = w.t.broadcast(&result, &shape)?;
    Ok(vec![if whole { w.cast(&result, DType::I32)? } else { result }])
}

fn cast(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?;
    let to = match n.op() {
        "CastLike" => w.t.ty(n.input(1)?).dtype,
        _ => match proto_dtype(n.int("to", 0)?) {
            Some(dtype) => dtype,
            None if !n.has("to") => broken!("attribute `to` is missing"),
            None => not_read!("a cast to type {}", n.int("to", 0)?),
        },
    };
    // A type that the graph does not tell apart.
    if n.op() == "CastLike" && matches!(n.input(1)?, Value::Graph(v) if w.bools.contains(v)) {
        return Ok(vec![w.cast(x, DType::Bool)?]);
    }
    Ok(vec![w.cast(x, to)?])
}
