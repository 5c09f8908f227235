//! Modulation after a norm.

use s2dit_ir::ops::{Modulate, OpError};
use s2dit_ir::{Function, ValueId};

use super::Rule;
use crate::pattern::Match;

pub(super) const RULE: Rule = Rule { name: "modulate", formulas: &["x * (1 + scale) + shift"], near: 4, build };

fn build(f: &mut Function, m: &Match, scope: &str) -> Result<ValueId, OpError> {
    let operands = [m.value(f, "x")?, m.value(f, "scale")?, m.value(f, "shift")?];
    f.add(Modulate {}.into(), &operands, scope)
}
