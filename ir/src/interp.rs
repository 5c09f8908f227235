//! The reference interpreter: slow, obvious, float64.
//!
//! Two liberties that change no number: the weight of a large `linear` is streamed row by row, and a source with a
//! [`Memo`] is asked once for what many constants have in common.
//!
//! ```
//! use s2dit_ir::interp::{Bindings, run};
//! use s2dit_ir::Tensor;
//! use s2dit_ir::weights::NoWeights;
//!
//! let module = s2dit_ir::text::parse(
//!     "module { func @main(%x: f32[3]) {
//!         %y = softmax(%x) {axis = 0} : f32[3]
//!         return y = %y
//!     } }",
//! )?;
//! let f = &module.functions[0];
//! let x = Tensor::from_values(f.ty(f.params()[0]), vec![0.0, 0.0, 2f64.ln()]).unwrap();
//! let bindings = Bindings { params: [("x".to_string(), x)].into(), ..Bindings::default() };
//! let y = run(f, &NoWeights, &bindings)?;
//! assert!((y[0].data[[2]] - 0.5).abs() < 1e-15);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::{HashMap, HashSet};

use crate::source::{ExpressionId, Memo, NoWeights, WeightError, WeightSource, load_bytes, streamed_linear, streams};
use crate::{Builder, Function, Op, OpError, Tensor, TensorType, ValueId};

/// Values of parameters (by name) and states (by name).
#[derive(Clone, Debug, Default)]
pub struct Bindings {
    /// Parameter values.
    pub params: HashMap<String, Tensor>,
    /// State values at entry.
    pub states: HashMap<String, Tensor>,
}

impl Op {
    /// The result in float64: see [`TensorOp::eval`](crate::ops::TensorOp::eval). The value of a composite is that of its
    /// decomposition, so the two cannot differ.
    ///
    /// # Errors
    /// If the op has no value without its surroundings (`input`, `load`, `state`).
    pub fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        self.eval_tensor_op(operands, ty).unwrap_or_else(|| eval_composite(self, operands))
    }
}

/// The value of a composite: that of its decomposition.
fn eval_composite(op: &Op, operands: &[&Tensor]) -> Result<Tensor, OpError> {
    let mut f = Function::new("composite");
    let mut bindings = Bindings::default();
    let mut params = Vec::new();
    for (i, t) in operands.iter().enumerate() {
        let name = format!("x{i}");
        params.push(f.add_param(&name, t.ty()));
        bindings.params.insert(name, (*t).clone());
    }
    let y = op.decompose(&mut Builder::new(&mut f), &params);
    let y = y.ok_or_else(|| OpError::new(format!("`{}` has no decomposition", op.name())))??;
    let values = evaluate(&f, &[y], &NoWeights, &bindings).map_err(|e| OpError::new(e.to_string()))?;
    values.into_iter().next().ok_or_else(|| OpError::new("a composite without a value"))
}

/// Evaluates some values of a function. Intermediate tensors are dropped after their last use.
///
/// # Errors
/// A parameter, state or weight without a value, or an op that fails.
pub fn evaluate(
    f: &Function,
    wanted: &[ValueId],
    source: &dyn WeightSource,
    bindings: &Bindings,
) -> Result<Vec<Tensor>, WeightError> {
    let mut values: HashMap<ValueId, Tensor> = HashMap::new();
    let memo = source.memo();
    let order = order_of(f, wanted, |v| match memo.and_then(|m| m.get(&memo_key(f, v)?)) {
        Some(known) => {
            values.insert(v, known);
            true
        }
        None => false,
    });
    let mut uses: HashMap<ValueId, usize> = HashMap::new();
    for v in order.iter().flat_map(|&v| f.operands(v)).chain(wanted.iter().copied()) {
        *uses.entry(v).or_default() += 1;
    }
    for v in order {
        if values.contains_key(&v) {
            continue;
        }
        let node = f.node(v);
        let bound = |t: Option<&Tensor>| {
            t.cloned().ok_or_else(|| WeightError::NotConstant {
                scope: node.name.as_deref().unwrap_or(&node.scope).to_string(),
            })
        };
        let operands = f.operands(v);
        let value = match &node.op {
            Op::Input(_) => bound(node.name.as_deref().and_then(|n| bindings.params.get(n)))?,
            Op::State(s) => bound(bindings.states.get(&s.state))?,
            Op::Load(load) => {
                let bytes = load_bytes(source, &load.tensor, &node.ty)?;
                Tensor::from_le_bytes(&node.ty, &bytes)
                    .ok_or_else(|| WeightError::Missing { name: load.tensor.clone() })?
            }
            op if streamed_weight(f, v).is_some() => {
                let inputs: Vec<Option<&Tensor>> = operands.iter().map(|o| values.get(o)).collect();
                let failed = |error| WeightError::Op { op: op.name(), scope: node.scope.to_string(), error };
                streamed_linear(f, v, &inputs, source, failed)?
            }
            op => {
                let inputs: Vec<&Tensor> = operands.iter().filter_map(|o| values.get(o)).collect();
                op.eval(&inputs, &node.ty).map_err(|error| WeightError::Op {
                    op: op.name(),
                    scope: node.scope.to_string(),
                    error,
                })?
            }
        };
        if let (Some(memo), Some(key)) = (memo, memo_key(f, v)) {
            memo.keep(key, &value);
        }
        values.insert(v, value);
        for o in operands {
            if let Some(n) = uses.get_mut(&o) {
                *n -= 1;
                if *n == 0 {
                    values.remove(&o);
                }
            }
        }
    }
    Ok(wanted.iter().map(|v| values[v].clone()).collect())
}

/// The value of a constant in float64.
///
/// # Errors
/// See [`WeightError`].
pub fn evaluate_constant(f: &Function, v: ValueId, source: &dyn WeightSource) -> Result<Tensor, WeightError> {
    evaluate(f, &[v], source, &Bindings::default()).map(|mut t| t.remove(0))
}

/// Evaluates a function's results, in order.
///
/// # Errors
/// See [`evaluate`].
pub fn run(f: &Function, source: &dyn WeightSource, bindings: &Bindings) -> Result<Vec<Tensor>, WeightError> {
    let wanted: Vec<ValueId> = f.results.iter().map(|(_, v)| *v).collect();
    evaluate(f, &wanted, source, bindings)
}

/// What a call of a function does: what it returns and what it writes, by name and in the function's order.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// Results.
    pub results: Vec<(String, Tensor)>,
    /// New values of states.
    pub updates: Vec<(String, Tensor)>,
}

/// Evaluates a function's results and state updates.
///
/// # Errors
/// See [`evaluate`].
pub fn effects(f: &Function, source: &dyn WeightSource, bindings: &Bindings) -> Result<Effects, WeightError> {
    let wanted: Vec<ValueId> = f.results.iter().chain(&f.updates).map(|(_, v)| *v).collect();
    let mut values = evaluate(f, &wanted, source, bindings)?.into_iter();
    let mut named = |all: &[(String, ValueId)]| all.iter().map(|(name, _)| name.clone()).zip(&mut values).collect();
    let results = named(&f.results);
    Ok(Effects { results, updates: named(&f.updates) })
}

/// The weight of a `linear` that is better streamed than held.
fn streamed_weight(f: &Function, v: ValueId) -> Option<ValueId> {
    let Op::Linear(_) = f.op(v) else { return None };
    let weight = *f.operands(v).get(1)?;
    streams(f, weight).then_some(weight)
}

/// The key under which a constant's value is remembered, if it is worth remembering: a product that takes far more reading than it has elements.
fn memo_key(f: &Function, v: ValueId) -> Option<ExpressionId> {
    let Op::Linear(_) = f.op(v) else { return None };
    let worth_it = Memo::holds(f.ty(v)) && f.is_const(v);
    worth_it.then(|| ExpressionId::of(f, v))
}

/// `wanted` and all they depend on, operands first; nothing below those that are `known`.
fn order_of(f: &Function, wanted: &[ValueId], mut known: impl FnMut(ValueId) -> bool) -> Vec<ValueId> {
    let mut order = Vec::new();
    let mut seen: HashSet<ValueId> = HashSet::new();
    // A value is pushed again behind its operands, to be emitted when they are done.
    let mut stack: Vec<(ValueId, bool)> = wanted.iter().rev().map(|&v| (v, false)).collect();
    while let Some((v, operands_done)) = stack.pop() {
        if operands_done {
            order.push(v);
        } else if seen.insert(v) {
            stack.push((v, true));
            if !known(v) {
                let streamed = streamed_weight(f, v);
                stack.extend(f.operands(v).into_iter().rev().filter(|o| Some(*o) != streamed).map(|o| (o, false)));
            }
        }
    }
    order
}
