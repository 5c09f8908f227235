//! Who reads a value: ops, results and state updates alike.
//!
//! [`Function::users`] lists ops only. A rewrite that changes what a value holds, or drops it, must also ask whether the value
//! leaves the function: as a result, or as what a state is updated with.

use crate::{Function, ValueId};

/// A place that reads a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use<'a> {
    /// An operand of an op, dead ops included.
    Operand {
        /// The value of that op.
        user: ValueId,
        /// Position of the operand.
        position: usize,
    },
    /// The result of this name.
    Result(&'a str),
    /// The new value of the state of this name.
    Update(&'a str),
}

impl Function {
    /// Every place that reads a value: operands in the order of [`Function::users`], results, then updates.
    pub fn uses(&self, v: ValueId) -> Vec<Use<'_>> {
        let operands = self.users(v).into_iter().map(|(user, position)| Use::Operand { user, position });
        let results = self.results.iter().filter(|(_, r)| *r == v).map(|(name, _)| Use::Result(name));
        let updates = self.updates.iter().filter(|(_, u)| *u == v).map(|(state, _)| Use::Update(state));
        operands.chain(results).chain(updates).collect()
    }

    /// `true` if the value leaves the function: as a result or as the new value of a state.
    pub fn leaves(&self, v: ValueId) -> bool {
        self.results.iter().chain(&self.updates).any(|(_, value)| *value == v)
    }

    /// The only place that reads the value, if that is one operand of one op: (user, operand position).
    pub fn only_use(&self, v: ValueId) -> Option<(ValueId, usize)> {
        match self.uses(v)[..] {
            [Use::Operand { user, position }] => Some((user, position)),
            _ => None,
        }
    }

    /// `true` if nothing but `user` reads the value, at however many of its operands.
    pub fn is_used_only_by(&self, v: ValueId, user: ValueId) -> bool {
        self.uses(v).iter().all(|u| matches!(u, Use::Operand { user: u, .. } if *u == user))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Binary, Unary};
    use crate::{DType, TensorType};

    fn function() -> (Function, [ValueId; 3]) {
        let mut f = Function::new("main");
        let x = f.add_param("x", TensorType::new(DType::F32, [2]));
        let a = f.add(Unary::Exp.into(), &[x], "").unwrap();
        let b = f.add(Binary::Mul.into(), &[a, a], "").unwrap();
        (f, [x, a, b])
    }

    #[test]
    fn operands_results_and_updates_are_uses() {
        let (mut f, [x, a, b]) = function();
        let operand = |user, position| Use::Operand { user, position };
        assert_eq!(f.uses(a), [operand(b, 0), operand(b, 1)]);
        assert_eq!((f.only_use(x), f.only_use(a), f.only_use(b)), (Some((a, 0)), None, None));
        assert!(f.is_used_only_by(a, b) && f.is_used_only_by(x, a) && !f.is_used_only_by(x, b));
        f.results.push(("y".into(), x));
        assert_eq!(f.uses(x), [operand(a, 0), Use::Result("y")]);
        f.updates.push(("s".into(), a));
        assert_eq!(f.uses(a), [operand(b, 0), operand(b, 1), Use::Update("s")]);
        assert_eq!((f.only_use(x), f.leaves(x), f.leaves(a), f.leaves(b)), (None, true, true, false));
        assert!(!f.is_used_only_by(x, a) && !f.is_used_only_by(a, b));
    }
}
