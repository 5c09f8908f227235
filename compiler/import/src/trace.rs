//! A graph that is being written down while another graph is walked: what is known before the model runs is computed at once.

use std::collections::HashMap;

use s2dit_ir::ops::{BroadcastTo, Literal, Load, Reshape, Transpose, Unary, broadcast_shapes};
use s2dit_ir::{DType, Function, MASKED, Op, OpError, Tensor, TensorType, ValueId};

/// A value of the graph that is walked.
#[derive(Clone, Debug)]
pub enum Value {
    /// A tensor of the graph that is written.
    Graph(ValueId),
    /// A tensor that is known already: a shape, a table of positions, a mask. Its elements are exact: floats are not rounded to fp32.
    Known(Tensor),
    /// A known tensor of one value throughout, which takes no memory however large it is.
    Filled(TensorType, f64),
}

/// A value, or the constraint that does not hold.
pub type Traced = Result<Value, OpError>;

/// Below this number a constant says that something must never be chosen, and becomes [`MASKED`]. −3.4e38, the least number of fp32, is such a constant.
const NEVER: f64 = -1e30;

/// Elements of the largest value that is computed while a graph is walked.
const MOST_KNOWN: usize = 1 << 24;

/// Elements in all that may be computed: a hostile file must not cost hours.
const MOST_WORK: usize = 1 << 29;

/// Elements of the largest constant of one number, which files of any format hold in full.
const MOST_FILLED: usize = 1 << 27;

/// Floating-point operations that cost as much as an element elsewhere.
const FLOPS_AN_ELEMENT: u64 = 8;

/// Whether an op cuts what lies behind the point.
fn cuts(op: &Op) -> bool {
    matches!(op, Op::Unary(Unary::Floor | Unary::Ceil))
}

/// A whole number where fp32, in which models compute, does not tell a number from it: T5's buckets of positions have such edges, and the model's own constants lie
/// beside them by what fp32 rounds.
pub(crate) fn settled(x: f64) -> f64 {
    let whole = x.round();
    if (x - whole).abs() <= SAME * x.abs().max(1.0) { whole } else { x }
}

/// The relative difference of numbers that are one to fp32, some operations later.
const SAME: f64 = 5e-7;

/// The function that is written.
#[derive(Debug)]
pub struct Tracer {
    /// The function.
    pub f: Function,
    scope: String,
    literals: HashMap<(TensorType, Vec<u64>), ValueId>,
    work: usize,
}

impl Tracer {
    /// An empty function `main`.
    #[must_use]
    pub fn new() -> Tracer {
        Tracer { f: Function::new("main"), scope: String::new(), literals: HashMap::new(), work: 0 }
    }

    /// Gives ops that are added from now on this module path.
    pub fn at(&mut self, scope: &str) {
        scope.clone_into(&mut self.scope);
    }

    /// The module path of ops that are added.
    #[must_use]
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// The type of a value. Of a known one it is the type in the file that is read, which may be i64 or bool.
    #[must_use]
    pub fn ty(&self, value: &Value) -> TensorType {
        match value {
            Value::Graph(v) => self.f.ty(*v).clone(),
            Value::Known(tensor) => tensor.ty(),
            Value::Filled(ty, _) => ty.clone(),
        }
    }

    /// The shape of a value.
    #[must_use]
    pub fn shape(&self, value: &Value) -> Vec<usize> {
        match value {
            Value::Graph(v) => self.f.shape(*v).to_vec(),
            Value::Known(tensor) => tensor.data.shape().to_vec(),
            Value::Filled(ty, _) => ty.shape.clone(),
        }
    }

    /// A known value as a tensor; `None` if the model computes it.
    ///
    /// # Errors
    /// A value that is too large to be written out.
    pub fn tensor(&mut self, value: &Value) -> Result<Option<Tensor>, OpError> {
        Ok(match value {
            Value::Graph(_) => None,
            Value::Known(tensor) => Some(tensor.clone()),
            Value::Filled(ty, x) => {
                self.spend(ty)?;
                Some(Tensor::splat(ty, *x))
            }
        })
    }

    /// The element of a value that is known and has the same throughout.
    #[must_use]
    pub fn uniform(value: &Value) -> Option<f64> {
        match value {
            Value::Filled(_, x) => Some(*x),
            Value::Known(tensor) => {
                let first = *tensor.data.first()?;
                tensor.data.iter().all(|x| x.to_bits() == first.to_bits()).then_some(first)
            }
            Value::Graph(_) => None,
        }
    }

    /// The type that a value of some type has in the graph: floats are f32, bools too (0 and 1), integers i32.
    #[must_use]
    pub fn graph_dtype(dtype: DType) -> DType {
        if dtype.is_float() || dtype == DType::Bool { DType::F32 } else { DType::I32 }
    }

    /// Adds an op, or computes it if every operand is known.
    ///
    /// # Errors
    /// The op's own constraints.
    pub fn op(&mut self, op: impl Into<Op>, operands: &[&Value]) -> Traced {
        let op = op.into();
        if !operands.is_empty() && !operands.iter().any(|value| matches!(value, Value::Graph(_))) {
            return self.computed(&op, operands);
        }
        let mut operands = operands.iter().map(|value| self.graph(value)).collect::<Result<Vec<_>, _>>()?;
        if let Op::Binary(_) = op {
            self.unrepeat(&mut operands);
        }
        // What a hostile file asks for is only a type here, but types are multiplied up by others.
        let types: Vec<&TensorType> = operands.iter().map(|&v| self.f.ty(v)).collect();
        check_size(&op.infer(&types, None)?.shape)?;
        let scope = std::mem::take(&mut self.scope);
        let added = self.f.add(op, &operands, &scope);
        self.scope = scope;
        Ok(Value::Graph(added?))
    }

    /// Takes the operands of repetitions in their place, where the op of elements repeats them itself.
    fn unrepeat(&self, operands: &mut [ValueId]) {
        let whole =
            |list: &[ValueId]| list.iter().try_fold(Vec::new(), |all, &v| broadcast_shapes(&all, self.f.shape(v)));
        let Ok(shape) = whole(operands) else { return };
        for i in 0..operands.len() {
            while let (Op::BroadcastTo(_), Some(&inner)) =
                (self.f.op(operands[i]), self.f.operands(operands[i]).first())
            {
                let before = std::mem::replace(&mut operands[i], inner);
                if !whole(operands).is_ok_and(|same| same == shape) {
                    operands[i] = before;
                    break;
                }
            }
        }
    }

    /// The value of an op whose operands are all known.
    fn computed(&mut self, op: &Op, operands: &[&Value]) -> Traced {
        let types: Vec<TensorType> = operands.iter().map(|value| self.ty(value)).collect();
        let ty = op.infer(&types.iter().collect::<Vec<_>>(), None)?;
        let uniform: Option<Vec<f64>> = operands.iter().map(|value| Tracer::uniform(value)).collect();
        let settle = |x: f64| if cuts(op) { settled(x) } else { x };
        let uniform: Option<Vec<f64>> = uniform.map(|list| list.into_iter().map(settle).collect());
        let filled = match (op, uniform.as_deref()) {
            (Op::Unary(function), Some([x])) => Some(function.apply(*x)),
            (Op::Binary(function), Some([x, y])) => Some(function.apply(*x, *y)),
            (Op::Cast(cast), Some([x])) => Some(cast.dtype.round(*x)),
            (Op::Reshape(_) | Op::Transpose(_) | Op::BroadcastTo(_) | Op::Slice(_), Some([x])) => Some(*x),
            (Op::Concat(_), Some([first, rest @ ..])) if rest.iter().all(|x| x.to_bits() == first.to_bits()) => {
                Some(*first)
            }
            _ => None,
        };
        if let Some(x) = filled {
            return Ok(Value::Filled(ty, x));
        }
        let flops = op.cost(&types.iter().collect::<Vec<_>>(), &ty).flops / FLOPS_AN_ELEMENT;
        self.work = self.work.saturating_add(usize::try_from(flops).unwrap_or(usize::MAX));
        self.spend(&ty)?;
        let tensors = operands.iter().map(|value| self.tensor(value)).collect::<Result<Vec<_>, _>>()?;
        let tensors: Vec<&Tensor> = tensors.iter().flatten().collect();
        if !cuts(op) {
            return Ok(Value::Known(op.eval(&tensors, &ty)?));
        }
        let mut whole: Vec<Tensor> = tensors.into_iter().cloned().collect();
        whole.iter_mut().for_each(|tensor| tensor.data.mapv_inplace(settled));
        Ok(Value::Known(op.eval(&whole.iter().collect::<Vec<_>>(), &ty)?))
    }

    /// Counts a value that is about to be computed.
    ///
    /// # Errors
    /// A value that is too large to be computed, or too many of them.
    pub fn spend(&mut self, ty: &TensorType) -> Result<(), OpError> {
        let elements = checked_elements(&ty.shape).unwrap_or(usize::MAX);
        self.work = self.work.saturating_add(elements.max(1));
        if elements > MOST_KNOWN || self.work > MOST_WORK {
            return Err(OpError::new(format!("{ty} is computed before the model runs, which is too much")));
        }
        Ok(())
    }

    /// A value as a value of the graph; of a known one a literal, in the type that [`Tracer::graph_dtype`] says.
    ///
    /// # Errors
    /// A known value that is NaN.
    pub fn graph(&mut self, value: &Value) -> Result<ValueId, OpError> {
        let (ty, mut values): (TensorType, Vec<f64>) = match value {
            Value::Graph(v) => return Ok(*v),
            Value::Known(tensor) => (tensor.ty(), tensor.data.iter().copied().collect()),
            Value::Filled(ty, x) => (ty.clone(), vec![*x]),
        };
        let ty = ty.with_dtype(Tracer::graph_dtype(ty.dtype));
        if checked_elements(&ty.shape).is_none_or(|elements| elements > MOST_FILLED) {
            return Err(OpError::new(format!("{ty} is computed before the model runs, which is too much")));
        }
        for x in &mut values {
            if x.is_nan() || *x == f64::INFINITY {
                return Err(OpError::new(format!("a constant {ty} has the element {x}")));
            }
            if ty.dtype == DType::F32 && *x < NEVER {
                *x = MASKED;
            }
        }
        check_size(&ty.shape)?;
        if values.iter().all(|x| x.to_bits() == values[0].to_bits()) {
            values.truncate(1);
        }
        let key = (ty.clone(), values.iter().map(|x| x.to_bits()).collect());
        if let Some(known) = self.literals.get(&key) {
            return Ok(*known);
        }
        // Many modules share a literal: it is of none of them.
        let v = self.f.add_leaf(Literal { values }.into(), &ty, "")?;
        self.literals.insert(key, v);
        Ok(v)
    }

    /// A stored tensor, floats in f32.
    ///
    /// # Errors
    /// A type without values.
    pub fn load(&mut self, tensor: &str, ty: &TensorType) -> Traced {
        check_size(&ty.shape)?;
        let path = tensor.rsplit_once('.').map_or("", |(path, _)| path);
        let v = self.f.add_leaf(Load { tensor: tensor.into() }.into(), ty, path)?;
        let to = Tracer::graph_dtype(ty.dtype);
        if to == ty.dtype {
            return Ok(Value::Graph(v));
        }
        Ok(Value::Graph(self.f.add(s2dit_ir::ops::Cast { dtype: to }.into(), &[v], path)?))
    }

    /// A known tensor.
    #[must_use]
    pub fn known(&self, dtype: DType, shape: &[usize], values: Vec<f64>) -> Option<Value> {
        Tensor::from_values(&TensorType::new(dtype, shape), values).map(Value::Known)
    }

    /// A known scalar.
    #[must_use]
    pub fn scalar(&self, dtype: DType, value: f64) -> Value {
        Value::Filled(TensorType::new(dtype, []), value)
    }

    /// A value under another shape of as many elements; the value itself if it has the shape.
    ///
    /// # Errors
    /// Another number of elements.
    pub fn reshape(&mut self, value: &Value, shape: &[usize]) -> Traced {
        if self.shape(value) == shape {
            return Ok(value.clone());
        }
        check_size(shape)?;
        self.op(Reshape { shape: shape.to_vec() }, &[value])
    }

    /// A value with its axes in another order; the value itself if the order is the same.
    ///
    /// # Errors
    /// What is no order of its axes.
    pub fn transpose(&mut self, value: &Value, perm: &[usize]) -> Traced {
        if perm.iter().enumerate().all(|(i, p)| i == *p) && perm.len() == self.shape(value).len() {
            return Ok(value.clone());
        }
        self.op(Transpose { perm: perm.to_vec() }, &[value])
    }

    /// A value repeated to a shape by numpy's rules; the value itself if it has the shape.
    ///
    /// # Errors
    /// A shape that it does not broadcast to.
    pub fn broadcast(&mut self, value: &Value, shape: &[usize]) -> Traced {
        if self.shape(value) == shape {
            return Ok(value.clone());
        }
        check_size(shape)?;
        let own = self.shape(value);
        // Axes of extent 1 alone are no repetition.
        if broadcast_shapes(&own, shape).is_ok_and(|all| all == shape)
            && own.iter().product::<usize>() == shape.iter().product::<usize>()
        {
            return self.reshape(value, shape);
        }
        self.op(BroadcastTo { shape: shape.to_vec() }, &[value])
    }

    /// The elements of a known value of integers, such as a shape.
    ///
    /// # Errors
    /// A value that the model computes.
    pub fn integers(&self, value: &Value, what: &str) -> Result<Vec<i64>, OpError> {
        match value {
            Value::Known(tensor) if tensor.data.iter().all(|x| is_integer(*x)) => {
                Ok(tensor.data.iter().map(|x| *x as i64).collect())
            }
            Value::Filled(ty, x) if is_integer(*x) && ty.elements() <= 1 << 16 => Ok(vec![*x as i64; ty.elements()]),
            _ => Err(OpError::new(format!("{what} must be known before the model runs"))),
        }
    }
}

fn is_integer(x: f64) -> bool {
    x.fract() == 0.0 && x.abs() < 9e15
}

impl Default for Tracer {
    fn default() -> Self {
        Tracer::new()
    }
}

/// The number of elements of a shape, unless no machine has as many.
#[must_use]
pub fn checked_elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |all, side| all.checked_mul(*side)).filter(|n| *n <= 1 << 40)
}

/// Refuses shapes that no machine can hold, and empty ones.
///
/// # Errors
/// Such a shape.
pub fn check_size(shape: &[usize]) -> Result<(), OpError> {
    match checked_elements(shape) {
        Some(1..) => Ok(()),
        Some(_) => Err(OpError::new(format!("{shape:?} has no elements"))),
        None => Err(OpError::new(format!("{shape:?} has too many elements"))),
    }
}
