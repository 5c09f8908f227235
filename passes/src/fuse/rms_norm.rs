//! RMS norm.

use s2dit_ir::ops::{OpError, RmsNorm};
use s2dit_ir::{Function, ValueId};

use super::{Rule, along, one_axis};
use crate::pattern::Match;

pub(super) const RULE: Rule = Rule {
    name: "rms_norm",
    formulas: &[
        "x * rsqrt(mean[axis](x^2) + eps) * gain where eps: number, gain: const",
        "x * rsqrt(mean[axis](x^2) + eps + more) * gain where eps: number, more: number, gain: const",
        "x * rsqrt(mean[axis](x^2) + eps) where eps: number",
        "x * rsqrt(mean[axis](x^2) + eps + more) where eps: number, more: number",
    ],
    near: 3,
    build,
};

fn build(f: &mut Function, m: &Match, scope: &str) -> Result<ValueId, OpError> {
    let axis = one_axis(m.axes("axis")?)?;
    let x = m.value(f, "x")?;
    let mut operands = vec![x];
    if m.get("gain").is_some() {
        let gain = m.value(f, "gain")?;
        operands.push(along(f, gain, x, &[axis], scope)?);
    }
    // MIL's rsqrt has an ε of its own, which comes on top.
    let eps = m.number("eps")? + m.number("more").unwrap_or(0.0);
    f.add(RmsNorm { axis, eps }.into(), &operands, scope)
}
