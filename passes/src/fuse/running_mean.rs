//! The sums of linear attention as running means.

use s2dit_ir::ops::{OpError, RunningMean};
use s2dit_ir::{Function, ValueId};

use super::{Rule, one_axis};
use crate::pattern::Match;

pub(super) const RULE: Rule = Rule {
    name: "running_mean",
    formulas: &[
        "state * past + (k.T @ v) * inverse * new where inverse: number",
        "state * past + sum[tokens](k) * inverse * new where inverse: number",
    ],
    near: 5,
    build,
};

fn build(f: &mut Function, m: &Match, scope: &str) -> Result<ValueId, OpError> {
    let k = m.value(f, "k")?;
    let mut operands = vec![k];
    match m.get("v") {
        Some(_) => operands.push(m.value(f, "v")?),
        None if one_axis(m.axes("tokens")?)? + 2 == f.ty(k).rank() => {}
        None => return Err(OpError::new(format!("the sum is over axes {:?}, not the tokens", m.axes("tokens")?))),
    }
    for name in ["state", "past", "new"] {
        operands.push(m.value(f, name)?);
    }
    let tokens = f.shape(k).iter().rev().nth(1).copied().unwrap_or(0);
    let inverse = m.number("inverse")?;
    if (inverse * tokens as f64 - 1.0).abs() > 1e-6 {
        return Err(OpError::new(format!("the sum over {tokens} tokens is scaled by {inverse}, not to a mean")));
    }
    f.add(RunningMean {}.into(), &operands, scope)
}
