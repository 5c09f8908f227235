//! Comparisons and choices.
//!
//! The graph has no truth values: where the model computes them they are zeros and ones. Whole numbers are compared exactly by arithmetic:
//! `x = y` is `1 − min(|x − y|, 1)`. A comparison of other numbers that the model computes is only read where a formula makes it another op,
//! such as `where(x > 20, x, log1p(exp(x)))`, which is softplus.

use s2dit_ir::ops::{Binary, ReduceKind, Unary};
use s2dit_ir::{DType, MASKED, Op, OpError, Tensor, ValueId};

use super::super::call::Call;
use super::super::walk::{Slot, Test, Walk};
use super::Group;
use crate::{Traced, Tracer, Value};

pub(super) const OPS: Group = &[
    ("aten.eq.*", compare),
    ("aten.ne.*", compare),
    ("aten.gt.*", compare),
    ("aten.ge.*", compare),
    ("aten.lt.*", compare),
    ("aten.le.*", compare),
    ("aten.logical_not.default", not),
    ("aten.bitwise_not.default", not),
    ("aten.logical_and.default", and),
    ("aten.bitwise_and.*", and),
    ("aten.__and__.*", and),
    ("aten.logical_or.default", or),
    ("aten.bitwise_or.*", or),
    ("aten.__or__.*", or),
    ("aten.where.*", choose),
    ("aten.masked_fill.*", masked_fill),
    ("aten.isinf.default", never),
    ("aten.isnan.default", never),
    ("aten.nan_to_num.default", |w, c| {
        let x = c.tensor(w, "self")?;
        Ok(c.one(x))
    }),
    ("aten.sign.default", sign),
];

type Read = Result<Vec<Slot>, OpError>;

/// The function of a comparison.
fn holds(name: &str) -> Option<fn(f64, f64) -> bool> {
    Some(match name {
        "eq" => |x, y| x == y,
        "ne" => |x, y| x != y,
        "gt" => |x, y| x > y,
        "ge" => |x, y| x >= y,
        "lt" => |x, y| x < y,
        "le" => |x, y| x <= y,
        _ => return None,
    })
}

fn compare(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let (x, y) = (c.tensor(w, "self")?, c.tensor_or_number(w, "other")?);
    let name = c.op.split('.').nth(1).unwrap_or_default();
    if let Some(value) = w.compared_if_exact(name, &x, &y)? {
        return Ok(c.one(value));
    }
    Ok(vec![Slot::Test(Test { name: name.to_owned(), x, y })])
}

impl Walk<'_> {
    /// A comparison as zeros and ones.
    ///
    /// # Errors
    /// Numbers that the model computes and that may not be whole.
    pub(in super::super) fn compared(&mut self, name: &str, x: &Value, y: &Value) -> Traced {
        self.compared_if_exact(name, x, y)?.ok_or_else(|| {
            OpError::new("it compares numbers that the model computes: torch.clamp, torch.maximum or F.relu do so in a way that compiles")
        })
    }

    fn compared_if_exact(&mut self, name: &str, x: &Value, y: &Value) -> Result<Option<Value>, OpError> {
        let function = holds(name).ok_or_else(|| OpError::new(format!("comparison {name}")))?;
        let shape = s2dit_ir::ops::broadcast_shapes(&self.t.shape(x), &self.t.shape(y))?;
        let ty = s2dit_ir::TensorType::new(DType::Bool, shape.clone());
        // What the model computes is finite, or it is broken anyway.
        if let (Value::Graph(_), Some(bound)) = (x, Tracer::uniform(y))
            && bound.is_infinite()
        {
            return Ok(Some(Value::Filled(ty, f64::from(u8::from(function(0.0, bound))))));
        }
        if let (Some(a), Some(b)) = (Tracer::uniform(x), Tracer::uniform(y)) {
            return Ok(Some(Value::Filled(ty, f64::from(u8::from(function(a, b))))));
        }
        if !matches!(x, Value::Graph(_)) && !matches!(y, Value::Graph(_)) {
            let (a, b) = (self.t.broadcast(x, &shape)?, self.t.broadcast(y, &shape)?);
            if let (Some(a), Some(b)) = (self.t.tensor(&a)?, self.t.tensor(&b)?) {
                self.t.spend(&ty)?;
                let values = a.data.iter().zip(b.data.iter()).map(|(a, b)| f64::from(u8::from(function(*a, *b))));
                let values = values.collect();
                return Ok(Tensor::from_values(&ty, values).map(Value::Known));
            }
        }
        if !self.is_whole(x) || !self.is_whole(y) {
            return Ok(None);
        }
        let (x, y) = (self.cast(x, DType::F32)?, self.cast(y, DType::F32)?);
        let (x, y) = if matches!(name, "lt" | "le") { (y, x) } else { (x, y) };
        let difference = self.binary(Binary::Sub, &x, &y)?;
        let value = match name {
            "eq" | "ne" => {
                let distance = self.unary(Unary::Abs, &difference)?;
                let ne = self.with_number(Binary::Minimum, &distance, 1.0)?;
                if name == "ne" { ne } else { self.one_less(&ne)? }
            }
            // x > y: min(max(x − y, 0), 1); x ≥ y: the same of x − y + 1.
            "gt" | "lt" => self.clipped(&difference)?,
            _ => {
                let more = self.with_number(Binary::Add, &difference, 1.0)?;
                self.clipped(&more)?
            }
        };
        self.mark(&value);
        Ok(Some(value))
    }

    /// `1 − x`
    fn one_less(&mut self, x: &Value) -> Traced {
        let one = self.t.scalar(DType::F32, 1.0);
        let y = self.binary(Binary::Sub, &one, x)?;
        self.mark(&y);
        Ok(y)
    }

    fn clipped(&mut self, x: &Value) -> Traced {
        let x = self.unary(Unary::Relu, x)?;
        self.with_number(Binary::Minimum, &x, 1.0)
    }

    /// Whether a value holds whole numbers only: ids, masks, and what views and products make of them.
    fn is_whole(&self, value: &Value) -> bool {
        match value {
            Value::Filled(_, x) => x.fract() == 0.0,
            Value::Known(tensor) => tensor.data.iter().all(|x| x.fract() == 0.0),
            Value::Graph(v) => self.graph_is_whole(*v, 0),
        }
    }

    fn graph_is_whole(&self, v: ValueId, depth: usize) -> bool {
        const DEEPEST: usize = 24;
        let f = &self.t.f;
        if !f.dtype(v).is_float() || self.whole.contains(&v) {
            return true;
        }
        if depth > DEEPEST {
            return false;
        }
        let all = || f.operands(v).into_iter().all(|operand| self.graph_is_whole(operand, depth + 1));
        match f.op(v) {
            Op::Literal(literal) => literal.values.iter().all(|x| x.fract() == 0.0),
            Op::Unary(Unary::Round | Unary::Floor) => true,
            Op::Unary(Unary::Abs | Unary::Neg | Unary::Relu | Unary::Square | Unary::Identity) => all(),
            Op::Binary(Binary::Add | Binary::Sub | Binary::Mul | Binary::Maximum | Binary::Minimum) => all(),
            Op::Reshape(_) | Op::Transpose(_) | Op::BroadcastTo(_) | Op::Slice(_) | Op::Concat(_) | Op::Cast(_) => {
                all()
            }
            Op::Reduce(reduce) => reduce.kind != ReduceKind::Mean && all(),
            _ => false,
        }
    }

    /// Notes that a value holds zeros and ones.
    fn mark(&mut self, value: &Value) {
        if let Value::Graph(v) = value {
            self.whole.insert(*v);
        }
    }

    /// Whether elements are not 0, as zeros and ones.
    pub(in super::super) fn truth(&mut self, x: &Value) -> Traced {
        if self.t.ty(x).dtype == DType::Bool {
            return Ok(x.clone());
        }
        match x {
            Value::Graph(v) if self.whole.contains(v) => Ok(x.clone()),
            Value::Graph(_) => {
                let zero = self.t.scalar(DType::I64, 0.0);
                self.compared("ne", x, &zero)
            }
            _ => self.cast(x, DType::Bool),
        }
    }

    /// `x` where a mask is 1, `y` where it is 0.
    pub(in super::super) fn select(&mut self, mask: &Value, x: &Value, y: &Value) -> Traced {
        let (x, y) = self.same_type(x, y)?;
        let shapes = [self.t.shape(mask), self.t.shape(&x), self.t.shape(&y)];
        let shape =
            s2dit_ir::ops::broadcast_shapes(&s2dit_ir::ops::broadcast_shapes(&shapes[0], &shapes[1])?, &shapes[2])?;
        if let Some(chosen) = Tracer::uniform(mask) {
            return self.t.broadcast(if chosen != 0.0 { &x } else { &y }, &shape);
        }
        if ![mask, &x, &y].iter().any(|value| matches!(value, Value::Graph(_))) {
            let mut tensors = Vec::new();
            for value in [mask, &x, &y] {
                let value = self.t.broadcast(value, &shape)?;
                tensors.extend(self.t.tensor(&value)?);
            }
            if let [mask, a, b] = &tensors[..] {
                let ty = s2dit_ir::TensorType::new(self.t.ty(&x).dtype, shape);
                self.t.spend(&ty)?;
                let chosen = mask.data.iter().zip(a.data.iter().zip(b.data.iter()));
                let values = chosen.map(|(mask, (a, b))| if *mask != 0.0 { *a } else { *b }).collect();
                return Tensor::from_values(&ty, values)
                    .map(Value::Known)
                    .ok_or_else(|| OpError::new("a choice that does not fit"));
            }
        }
        // Whole where all are.
        let whole = self.is_whole(&x) && self.is_whole(&y);
        let mask = self.cast(mask, DType::F32)?;
        let (x, y) = (self.cast(&finite(&x), DType::F32)?, self.cast(&finite(&y), DType::F32)?);
        let other = self.one_less(&mask)?;
        let (chosen, rest) = (self.binary(Binary::Mul, &mask, &x)?, self.binary(Binary::Mul, &other, &y)?);
        let zero = |value: &Value| Tracer::uniform(value) == Some(0.0);
        let sum = match (zero(&x), zero(&y)) {
            (true, _) => rest,
            (_, true) => chosen,
            _ => self.binary(Binary::Add, &chosen, &rest)?,
        };
        if whole {
            self.mark(&sum);
        }
        self.t.broadcast(&sum, &shape)
    }

    /// The operand of softplus, over a number or not.
    fn softplus_operand(&self, y: &Value) -> Option<Value> {
        let is_softplus = |op: &Op| matches!(op, Op::Unary(Unary::Softplus));
        self.operand_of(y, is_softplus).or_else(|| {
            self.operand_of(&self.operand_of(y, |op| matches!(op, Op::Binary(Binary::Div | Binary::Mul)))?, is_softplus)
        })
    }

    /// `where(x > 0, above, below)` of two functions of x that meet at 0: `above(max(x, 0)) + below(min(x, 0)) − below(0)`. That is how leaky
    /// ReLU, ELU and their like are decomposed.
    fn joined_at_zero(&mut self, x: &Value, above: &Value, below: &Value) -> Option<Traced> {
        let Value::Graph(v) = *x else { return None };
        let (at_zero, other) = (self.at_zero(above, v, 0)?, self.at_zero(below, v, 0)?);
        if !at_zero.is_finite() || (at_zero - other).abs() > 1e-9 {
            return None;
        }
        Some((|| {
            let positive = self.unary(Unary::Relu, x)?;
            let negative = self.with_number(Binary::Minimum, x, 0.0)?;
            let (above, below) = (self.of_another(above, v, &positive)?, self.of_another(below, v, &negative)?);
            let sum = self.binary(Binary::Add, &above, &below)?;
            self.with_number(Binary::Sub, &sum, at_zero)
        })())
    }

    /// What a function of the elements of x is where x is 0; `None` for anything else.
    fn at_zero(&self, value: &Value, x: ValueId, depth: usize) -> Option<f64> {
        let Value::Graph(v) = *value else { return Tracer::uniform(value) };
        if self.alike(v, x, 0) {
            return Some(0.0);
        }
        let operand = |i: usize| self.at_zero(&Value::Graph(*self.t.f.operands(v).get(i)?), x, depth + 1);
        match self.t.f.op(v) {
            _ if depth > 8 => None,
            Op::Literal(literal) if literal.values.len() == 1 => literal.values.first().copied(),
            Op::Unary(function) => Some(function.apply(operand(0)?)),
            Op::Binary(function) => Some(function.apply(operand(0)?, operand(1)?)),
            _ => None,
        }
    }

    /// A function of the elements of x with another value in the place of x.
    fn of_another(&mut self, value: &Value, x: ValueId, other: &Value) -> Traced {
        let Value::Graph(v) = *value else { return Ok(value.clone()) };
        if self.alike(v, x, 0) {
            return Ok(other.clone());
        }
        let operands = self.t.f.operands(v);
        if operands.is_empty() {
            return Ok(value.clone());
        }
        let op = self.t.f.op(v).clone();
        let operands =
            operands.into_iter().map(|o| self.of_another(&Value::Graph(o), x, other)).collect::<Result<Vec<_>, _>>()?;
        self.t.op(op, &operands.iter().collect::<Vec<_>>())
    }

    /// Whether two values are computed alike.
    fn alike(&self, a: ValueId, b: ValueId, depth: usize) -> bool {
        const DEEPEST: usize = 8;
        let f = &self.t.f;
        let same_op = || {
            let (x, y) = (f.operands(a), f.operands(b));
            let leaf = matches!(f.op(a), Op::Input(_) | Op::State(_));
            !leaf
                && f.op(a) == f.op(b)
                && f.ty(a) == f.ty(b)
                && x.len() == y.len()
                && x.into_iter().zip(y).all(|(x, y)| self.alike(x, y, depth + 1))
        };
        a == b || depth < DEEPEST && same_op()
    }

    /// A choice by a comparison that is an op of its own.
    fn choice(&mut self, test: &Test, x: &Value, y: &Value) -> Traced {
        let alike = |w: &Walk<'_>, a: &Value, b: &Value| match (a, b) {
            (Value::Graph(a), Value::Graph(b)) => w.alike(*a, *b, 0),
            _ => Tracer::uniform(a).is_some() && Tracer::uniform(a) == Tracer::uniform(b),
        };
        let is = |a: &Value, b: &Value| alike(self, a, b);
        let greater = matches!(test.name.as_str(), "gt" | "ge");
        let less = matches!(test.name.as_str(), "lt" | "le");
        let (straight, crossed) = (is(x, &test.x) && is(y, &test.y), is(x, &test.y) && is(y, &test.x));
        if (greater || less) && (straight || crossed) {
            let larger = greater == straight;
            return self.binary(if larger { Binary::Maximum } else { Binary::Minimum }, x, y);
        }
        let Some(bound) = Tracer::uniform(&test.y).filter(|_| greater) else {
            return self.by_mask(test, x, y);
        };
        // Above a threshold softplus is its operand.
        if bound >= 15.0 && self.softplus_operand(y).is_some_and(|inner| is(&inner, &test.x)) {
            return Ok(y.clone());
        }
        match (bound == 0.0).then(|| self.joined_at_zero(&test.x, x, y)) {
            Some(Some(joined)) => joined,
            _ => self.by_mask(test, x, y),
        }
    }

    fn by_mask(&mut self, test: &Test, x: &Value, y: &Value) -> Traced {
        let mask = self.compared(&test.name, &test.x, &test.y)?;
        self.select(&mask, x, y)
    }
}

/// −∞ as a number: a product with zero must be zero.
fn finite(value: &Value) -> Value {
    let limit = |x: f64| if x < -1e30 { MASKED } else { x };
    match value {
        Value::Filled(ty, x) => Value::Filled(ty.clone(), limit(*x)),
        Value::Known(tensor) => {
            let mut tensor = tensor.clone();
            tensor.data.mapv_inplace(limit);
            Value::Known(tensor)
        }
        Value::Graph(_) => value.clone(),
    }
}

fn not(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let is_bool = c.dtype.is_none_or(|dtype| dtype == DType::Bool);
    if !is_bool {
        return Err(OpError::new("bits of whole numbers"));
    }
    let x = w.truth(&x)?;
    if let Value::Graph(_) = x {
        return Ok(c.one(w.one_less(&x)?));
    }
    let zero = w.t.scalar(DType::Bool, 0.0);
    Ok(c.one(w.compared("eq", &x, &zero)?))
}

/// Both as truth values.
fn both(w: &mut Walk<'_>, c: &Call<'_>) -> Result<(Value, Value), OpError> {
    if c.dtype.is_some_and(|dtype| dtype != DType::Bool) {
        return Err(OpError::new("bits of whole numbers"));
    }
    let (x, y) = (c.tensor(w, "self")?, c.tensor_or_number(w, "other")?);
    Ok((w.truth(&x)?, w.truth(&y)?))
}

fn and(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let (x, y) = both(w, c)?;
    let z = w.binary(Binary::Mul, &x, &y)?;
    w.mark(&z);
    Ok(c.one(w.as_truth(z)?))
}

fn or(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let (x, y) = both(w, c)?;
    let z = w.binary(Binary::Maximum, &x, &y)?;
    w.mark(&z);
    Ok(c.one(w.as_truth(z)?))
}

impl Walk<'_> {
    fn as_truth(&mut self, value: Value) -> Traced {
        match value {
            Value::Graph(_) => Ok(value),
            known => self.cast(&known, DType::Bool),
        }
    }
}

fn choose(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let (x, y) = (c.tensor_or_number(w, "self")?, c.tensor_or_number(w, "other")?);
    if let Some(test) = c.name("condition").and_then(|name| w.test(name)) {
        return Ok(c.one(w.choice(&test, &x, &y)?));
    }
    let mask = c.tensor(w, "condition")?;
    Ok(c.one(w.select(&mask, &x, &y)?))
}

fn masked_fill(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let (x, value) = (c.tensor(w, "self")?, c.tensor_or_number(w, "value")?);
    if let Some(test) = c.name("mask").and_then(|name| w.test(name)) {
        return Ok(c.one(w.choice(&test, &value, &x)?));
    }
    let mask = c.tensor(w, "mask")?;
    let to = w.t.ty(&x).dtype;
    let y = w.select(&mask, &value, &x)?;
    Ok(c.one(w.cast(&y, to)?))
}

/// What the model computes is finite, or it is broken anyway.
fn never(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let ty = w.t.ty(&x).with_dtype(DType::Bool);
    let is_infinite = c.op.starts_with("aten.isinf");
    let found = match &x {
        Value::Graph(_) => None,
        Value::Filled(_, x) => Some(vec![*x]),
        Value::Known(tensor) => Some(tensor.data.iter().copied().collect()),
    };
    let odd = |x: &f64| if is_infinite { x.is_infinite() } else { x.is_nan() };
    match found {
        Some(values) if values.iter().any(odd) => Err(OpError::new("a constant with infinite elements or NaN")),
        _ => Ok(c.one(Value::Filled(ty, 0.0))),
    }
}

/// Of whole numbers: `min(max(x, −1), 1)`.
fn sign(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    if !w.is_whole(&x) {
        return Err(OpError::new("the sign of numbers that the model computes"));
    }
    let x = w.with_number(Binary::Maximum, &x, -1.0)?;
    Ok(c.one(w.with_number(Binary::Minimum, &x, 1.0)?))
}
