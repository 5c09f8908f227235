//! LCHA's positive kernel.

use s2dit_ir::ops::{FeatureMap, OpError};
use s2dit_ir::{Function, ValueId};

use super::Rule;
use crate::pattern::Match;

pub(super) const RULE: Rule =
    Rule { name: "feature_map", formulas: &["softplus((x @ w.T) + b) where w: const, b: const"], near: 2, build };

fn build(f: &mut Function, m: &Match, scope: &str) -> Result<ValueId, OpError> {
    let operands = [m.value(f, "x")?, m.value(f, "w")?, m.value(f, "b")?];
    f.add(FeatureMap {}.into(), &operands, scope)
}
