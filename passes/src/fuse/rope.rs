//! Rotary position embedding over interleaved pairs.

use s2dit_ir::ops::{OpError, Reshape, Rope, RopePairs};
use s2dit_ir::{Function, ValueId};

use super::Rule;
use crate::pattern::Match;

pub(super) const RULE: Rule = Rule {
    name: "rope",
    formulas: &["interleave(even(x) * cos - odd(x) * sin, even(x) * sin + odd(x) * cos)"],
    near: 6,
    build,
};

fn build(f: &mut Function, m: &Match, scope: &str) -> Result<ValueId, OpError> {
    let operands = [m.value(f, "x")?, m.value(f, "cos")?, m.value(f, "sin")?];
    let axis = f.ty(operands[0]).rank() - 1;
    let y = f.add(Rope { axis, pairs: RopePairs::Interleaved }.into(), &operands, scope)?;
    // The reshape that joins pairs may split heads as well.
    match m.interior.first().map(|&root| f.shape(root).to_vec()) {
        Some(shape) if f.shape(y) != shape => f.add(Reshape { shape }.into(), &[y], scope),
        _ => Ok(y),
    }
}
