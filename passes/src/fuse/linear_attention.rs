//! Linear attention over all tokens.

use s2dit_ir::ops::{LinearAttention, OpError};
use s2dit_ir::{Function, ValueId};

use super::{Rule, one_axis};
use crate::pattern::Match;

pub(super) const RULE: Rule = Rule {
    name: "linear_attention",
    formulas: &[
        "(q @ (k.T @ v)) / ((qn @ sum[tokens](kn).T) + eps) where eps: number",
        "(q @ (k.T @ v)) / (sum[width](qn * sum[tokens](kn)) + eps) where eps: number",
        // As the layout of the Neural Engine has it where features may all be zero.
        "(q @ (k.T @ v)) / maximum(qn @ sum[tokens](kn).T, least) where least: number",
        "(q @ (k.T @ v)) / maximum(sum[width](qn * sum[tokens](kn)), least) where least: number",
    ],
    near: 4,
    build,
};

fn build(f: &mut Function, m: &Match, scope: &str) -> Result<ValueId, OpError> {
    let mut operands = vec![m.value(f, "q")?, m.value(f, "k")?, m.value(f, "v")?];
    if m.get("q") != m.get("qn") || m.get("k") != m.get("kn") {
        operands.extend([m.value(f, "qn")?, m.value(f, "kn")?]);
    }
    let rank = f.ty(operands[1]).rank();
    if one_axis(m.axes("tokens")?)? + 2 != rank {
        return Err(OpError::new(format!("the normaliser sums axes {:?}, not the tokens", m.axes("tokens")?)));
    }
    if let Ok(width) = m.axes("width")
        && one_axis(width)? + 1 != rank
    {
        return Err(OpError::new(format!("the normaliser's product sums axes {width:?}, not the width")));
    }
    let attention = match m.number("eps") {
        Ok(eps) => LinearAttention { eps, least: 0.0 },
        Err(_) => LinearAttention { eps: 0.0, least: m.number("least")? },
    };
    f.add(attention.into(), &operands, scope)
}
