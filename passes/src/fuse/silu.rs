//! SiLU, which is a tensor op.

use s2dit_ir::ops::{OpError, Unary};
use s2dit_ir::{Function, ValueId};

use super::Rule;
use crate::pattern::Match;

pub(super) const RULE: Rule = Rule { name: "silu", formulas: &["x * sigmoid(x)"], near: 2, build };

fn build(f: &mut Function, m: &Match, scope: &str) -> Result<ValueId, OpError> {
    let x = m.value(f, "x")?;
    f.add(Unary::Silu.into(), &[x], scope)
}
