//! Layer norm, which is a tensor op.

use s2dit_ir::ops::{LayerNorm, OpError};
use s2dit_ir::{Function, ValueId};

use super::{Rule, along};
use crate::pattern::Match;

pub(super) const RULE: Rule = Rule {
    name: "layer_norm",
    formulas: &[
        "(x - mean[axes](x)) * rsqrt(mean[axes]((x - mean[axes](x))^2) + eps) * gain + bias where eps: number, gain: const, bias: const",
        "(x - mean[axes](x)) * rsqrt(mean[axes]((x - mean[axes](x))^2) + eps) where eps: number",
    ],
    near: 5,
    build,
};

fn build(f: &mut Function, m: &Match, scope: &str) -> Result<ValueId, OpError> {
    let axes = m.axes("axes")?.to_vec();
    let x = m.value(f, "x")?;
    let mut operands = vec![x];
    if m.get("gain").is_some() {
        for name in ["gain", "bias"] {
            let v = m.value(f, name)?;
            operands.push(along(f, v, x, &axes, scope)?);
        }
    }
    f.add(LayerNorm { axes, eps: m.number("eps")? }.into(), &operands, scope)
}
