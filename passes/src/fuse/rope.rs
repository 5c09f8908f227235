//! Rotary position embedding: of pairs of neighbours, or of the two halves.

use s2dit_ir::ops::{OpError, Reshape, Rope, RopePairs};
use s2dit_ir::{Function, Op, ValueId};

use super::Rule;
use crate::pattern::Match;

pub(super) const RULE: Rule = Rule {
    name: "rope",
    formulas: &[
        "interleave(even(x) * cos - odd(x) * sin, even(x) * sin + odd(x) * cos)",
        "beside(first(x) * cos - second(x) * sin, first(x) * sin + second(x) * cos)",
    ],
    near: 6,
    build,
};

fn build(f: &mut Function, m: &Match, scope: &str) -> Result<ValueId, OpError> {
    let operands = [m.value(f, "x")?, m.value(f, "cos")?, m.value(f, "sin")?];
    let axis = f.ty(operands[0]).rank() - 1;
    let halves = m.interior.first().is_some_and(|&root| matches!(f.op(root), Op::Concat(_)));
    let pairs = if halves { RopePairs::Halves } else { RopePairs::Interleaved };
    let y = f.add(Rope { axis, pairs }.into(), &operands, scope)?;
    // The reshape that joins pairs may split heads as well.
    match m.interior.first().map(|&root| f.shape(root).to_vec()) {
        Some(shape) if f.shape(y) != shape => f.add(Reshape { shape }.into(), &[y], scope),
        _ => Ok(y),
    }
}
