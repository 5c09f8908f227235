//! Linear attention that reads sums from outside.

use s2dit_ir::ops::{LinearAttentionStep, OpError};
use s2dit_ir::{Function, ValueId};

use super::Rule;
use crate::pattern::Match;

pub(super) const RULE: Rule =
    Rule { name: "linear_attention_step", formulas: &["(q @ s) / ((qn @ z.T) + eps)"], near: 4, build };

fn build(f: &mut Function, m: &Match, scope: &str) -> Result<ValueId, OpError> {
    let mut operands = vec![m.value(f, "q")?, m.value(f, "s")?, m.value(f, "z")?, m.value(f, "eps")?];
    if m.get("q") != m.get("qn") {
        operands.push(m.value(f, "qn")?);
    }
    f.add(LinearAttentionStep {}.into(), &operands, scope)
}
