//! A value at every timestep of a list, one below the other.

use std::collections::HashMap;

use s2dit_ir::ops::{Concat, Literal, OpError, Reshape};
use s2dit_ir::{Function, Node, Op, ValueId};

use super::Depends;

/// Builds constants from what depends on the timestep only.
pub(super) struct Rows<'a> {
    t: ValueId,
    timesteps: &'a [f64],
    depends: &'a HashMap<ValueId, Depends>,
    /// A value at one timestep.
    at: HashMap<(ValueId, usize), ValueId>,
    /// A value at all of them, `[K, …]` for a value of shape `[1, …]`.
    stacked: HashMap<ValueId, ValueId>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(t: ValueId, timesteps: &'a [f64], depends: &'a HashMap<ValueId, Depends>) -> Self {
        Rows { t, timesteps, depends, at: HashMap::new(), stacked: HashMap::new() }
    }

    /// `[K, elements]`: the value at each timestep, flat.
    pub(super) fn table(&mut self, f: &mut Function, v: ValueId) -> Result<ValueId, OpError> {
        let flat = [self.timesteps.len(), f.ty(v).elements()];
        let scope = f.node(v).scope.clone();
        if f.shape(v).first() == Some(&1) {
            let table = self.stacked(f, v)?;
            return match f.shape(table) == flat {
                true => Ok(table),
                false => f.add(Reshape { shape: flat.into() }.into(), &[table], &scope),
            };
        }
        let row = |f: &mut Function, v| f.add(Reshape { shape: vec![1, flat[1]] }.into(), &[v], &scope);
        let rows = (0..flat[0]).map(|k| self.at(f, v, k).and_then(|v| row(f, v)));
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        f.add(Concat { axis: 0 }.into(), &rows, &scope)
    }

    /// A value of shape `[1, …]` at every timestep, as `[K, …]`. Ops that treat rows alike run once on all of them, so that a large
    /// weight is read once.
    fn stacked(&mut self, f: &mut Function, v: ValueId) -> Result<ValueId, OpError> {
        if let Some(&made) = self.stacked.get(&v) {
            return Ok(made);
        }
        let scope = f.node(v).scope.clone();
        let made = if self.keeps_rows_apart(f, v) {
            let mut operands = f.operands(v);
            for o in &mut operands {
                if self.depends[o] == Depends::Timestep {
                    *o = self.stacked(f, *o)?;
                }
            }
            f.add(f.op(v).clone(), &operands, &scope)?
        } else {
            let rows = (0..self.timesteps.len()).map(|k| self.at(f, v, k)).collect::<Result<Vec<_>, _>>()?;
            f.add(Concat { axis: 0 }.into(), &rows, &scope)?
        };
        self.stacked.insert(v, made);
        Ok(made)
    }

    /// Whether row k of the result depends on row k of the operands alone.
    fn keeps_rows_apart(&self, f: &Function, v: ValueId) -> bool {
        let rank = f.ty(v).rank();
        let varies = |o: &ValueId| self.depends[o] == Depends::Timestep;
        // Operands of a lower rank would be broadcast along the rows.
        let has_rows = |o: &ValueId| f.ty(*o).rank() == rank && f.shape(*o)[0] == 1;
        let operands = f.operands(v);
        let aligned = operands.iter().filter(|o| varies(o)).all(has_rows);
        let others_const = || !operands.iter().skip(1).any(varies);
        aligned
            && match f.op(v) {
                Op::Unary(_) | Op::Cast(_) | Op::Binary(_) => true,
                Op::Concat(Concat { axis }) => *axis > 0 && operands.iter().all(varies),
                Op::Linear(_) => rank >= 2 && others_const(),
                _ => false,
            }
    }

    /// A value at timestep `k`.
    fn at(&mut self, f: &mut Function, v: ValueId, k: usize) -> Result<ValueId, OpError> {
        if self.depends[&v] == Depends::Constant {
            return Ok(v);
        }
        if let Some(&made) = self.at.get(&(v, k)) {
            return Ok(made);
        }
        let made = if v == self.t {
            let ty = f.ty(v).clone();
            f.add_leaf(Literal { values: vec![self.timesteps[k]] }.into(), &ty, "")?
        } else {
            let operands = f.operands(v).into_iter().map(|o| self.at(f, o, k)).collect::<Result<Vec<_>, _>>()?;
            let node = Node { name: None, ..f.node(v).clone() };
            f.push(node, &operands)
        };
        self.at.insert((v, k), made);
        Ok(made)
    }
}
