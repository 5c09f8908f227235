//! LCHA's gate.

use s2dit_ir::ops::{Binary, FusionGate, OpError};
use s2dit_ir::{Function, ValueId};

use super::Rule;
use crate::pattern::Match;

pub(super) const RULE: Rule = Rule {
    name: "fusion_gate",
    formulas: &[
        "sigmoid(gate) * x + (1 - sigmoid(gate)) * y where gate: const",
        "y + sigmoid(gate) * (x - y) where gate: const",
        // Added to a residual term by term.
        "rest + sigmoid(gate) * x + (1 - sigmoid(gate)) * y where gate: const",
    ],
    near: 4,
    build,
};

fn build(f: &mut Function, m: &Match, scope: &str) -> Result<ValueId, OpError> {
    let operands = [m.value(f, "gate")?, m.value(f, "x")?, m.value(f, "y")?];
    let gated = f.add(FusionGate {}.into(), &operands, scope)?;
    match m.get("rest") {
        Some(_) => {
            let rest = m.value(f, "rest")?;
            f.add(Binary::Add.into(), &[rest, gated], scope)
        }
        None => Ok(gated),
    }
}
