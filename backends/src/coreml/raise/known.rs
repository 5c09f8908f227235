//! Values that must be known before more can be raised: shapes, conditions, positions.

use std::collections::HashSet;

use anyhow::{Context, Result, bail};
use s2dit_ir::ops::Op;
use s2dit_ir::{Function, Tensor, TensorType, ValueId, WeightSource};

use super::Raise;
use super::types::Declared;

/// More arithmetic than this is the caller's to do.
const CHEAP: u64 = 20_000_000;

/// What a [`Caller`] says went wrong.
pub type CallerError = Box<dyn std::error::Error + Send + Sync>;

/// Who a program is raised for: has the values of inputs and states, and an engine.
pub trait Caller {
    /// The shape of an input; `None` if the caller does not give it.
    fn shape(&self, input: &str) -> Option<Vec<usize>>;

    /// The value of an input or a state; `None` if there is none of this name.
    fn value(&self, name: &str) -> Option<Tensor>;

    /// The results of a function whose parameters are inputs, states and `given`.
    ///
    /// # Errors
    /// What the caller's engine cannot run.
    fn evaluate(&self, f: &Function, given: &[(String, Tensor)]) -> Result<Vec<Tensor>, CallerError>;
}

impl Raise<'_, '_> {
    /// The type of an input: as declared, with extents that are open taken from the caller.
    pub(super) fn input_type(&self, name: &str, declared: &Declared) -> Result<TensorType> {
        let Some(shape) = self.caller.and_then(|caller| caller.shape(name)) else { return declared.fixed() };
        // Multi-arrays have no rank 0: a scalar comes as an array of one.
        let scalar = declared.shape.as_ref().is_some_and(Vec::is_empty) && shape == [1];
        let ty = TensorType::new(declared.dtype, if scalar { Vec::new() } else { shape });
        if !declared.takes(&ty) {
            bail!("found {ty}, expected {declared}");
        }
        Ok(ty)
    }

    /// The value of `v`, computed from constants and from what the caller gives.
    pub(super) fn known(&self, v: ValueId) -> Result<Tensor> {
        if let Some(known) = self.known.borrow().get(&v) {
            return Ok(known.clone());
        }
        let f = &*self.b.f;
        let order = self.unknown_order(v);
        let depends = |v: &&ValueId| matches!(f.op(**v), Op::Input(_) | Op::State(_));
        if let Some(&input) = order.iter().find(depends) {
            let name = f.node(input).name.clone().unwrap_or_default();
            let caller = self.caller.with_context(|| {
                format!("a shape or a branch depends on `{name}`, so it is known only when the package runs")
            })?;
            self.for_one_call.set(true);
            let cost: u64 = order.iter().map(|&v| f.cost(v).flops).sum();
            if cost > CHEAP {
                return self.computed(caller, v);
            }
        }
        for v in order {
            let node = f.node(v);
            let value = match &node.op {
                Op::Input(_) => self.called(node.name.as_deref().unwrap_or_default(), &node.ty)?,
                Op::State(state) => self.called(&state.state, &node.ty)?,
                Op::Load(load) => {
                    let bytes = self.package.bytes(&load.tensor)?;
                    Tensor::from_le_bytes(&node.ty, &bytes).context("a record of another size")?
                }
                op => {
                    let known = self.known.borrow();
                    let operands = f.operands(v);
                    let operands: Option<Vec<&Tensor>> = operands.iter().map(|o| known.get(o)).collect();
                    op.eval(&operands.context("an operand without a value")?, &node.ty)?
                }
            };
            self.known.borrow_mut().insert(v, value);
        }
        self.known.borrow().get(&v).cloned().context("a value that was not computed")
    }

    fn called(&self, name: &str, ty: &TensorType) -> Result<Tensor> {
        let value = self.caller.and_then(|caller| caller.value(name));
        let value = value.with_context(|| format!("`{name}` has no value yet"))?;
        let elements = value.data.iter().map(|x| ty.dtype.round(*x)).collect();
        Tensor::from_values(ty, elements).with_context(|| format!("`{name}` is {}, expected {ty}", value.ty()))
    }

    /// `v` and all that it needs and that is not known, operands first.
    fn unknown_order(&self, v: ValueId) -> Vec<ValueId> {
        let known = self.known.borrow();
        let mut order = Vec::new();
        let mut seen = HashSet::new();
        let mut stack = vec![(v, false)];
        while let Some((v, operands_done)) = stack.pop() {
            if operands_done {
                order.push(v);
            } else if !known.contains_key(&v) && seen.insert(v) {
                stack.push((v, true));
                stack.extend(self.b.f.operands(v).into_iter().map(|o| (o, false)));
            }
        }
        order
    }

    /// The value of `v` from the caller's engine.
    fn computed(&self, caller: &dyn Caller, v: ValueId) -> Result<Tensor> {
        let mut f = self.b.f.clone();
        f.results = vec![("value".into(), v)];
        f.updates = Vec::new();
        f.remove_dead();
        f.remove_unused_params(&[]);
        let given = f.params().iter().filter_map(|&p| f.node(p).name.as_deref());
        let given: Vec<_> = given.filter_map(|name| Some((name.to_string(), self.given.get(name)?.clone()))).collect();
        let values = caller.evaluate(&f, &given).map_err(|error| anyhow::anyhow!("{error}"))?;
        let value = values.into_iter().next().context("no value")?;
        self.known.borrow_mut().insert(v, value.clone());
        Ok(value)
    }

    /// A tensor that was computed here: a constant if what it was computed from is, and otherwise a parameter of the graph.
    pub(super) fn computed_here(&mut self, value: Tensor, from: &[ValueId]) -> Result<ValueId> {
        if from.iter().all(|&v| self.b.f.is_const(v)) {
            let values: Vec<f64> = value.data.iter().copied().collect();
            return self.literal(&value.ty(), &values);
        }
        let name = format!("given%{}", self.given.len());
        let v = self.b.f.add_param(&name, value.ty());
        self.known.borrow_mut().insert(v, value.clone());
        self.given.insert(name, value);
        Ok(v)
    }

    /// `v` as a value that needs nothing before it: its value, which is computed now.
    pub(super) fn cut(&mut self, v: ValueId) -> Result<ValueId> {
        if matches!(self.b.f.op(v), Op::Input(_) | Op::State(_) | Op::Literal(_) | Op::Load(_)) {
            return Ok(v);
        }
        let value = self.known(v)?;
        self.computed_here(value, &[v])
    }
}
