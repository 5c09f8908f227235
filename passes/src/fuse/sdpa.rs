//! Scaled dot-product attention.

use s2dit_ir::ops::{OpError, Sdpa};
use s2dit_ir::{Function, ValueId};

use super::{Rule, one_axis};
use crate::pattern::Match;

pub(super) const RULE: Rule = Rule {
    name: "sdpa",
    formulas: &[
        "softmax[keys](scale * (q @ k.T) + mask) @ v where scale: number",
        "softmax[keys](scale * (q @ k.T)) @ v where scale: number",
        "softmax[keys](((scale * q) @ (scale_k * k).T) + mask) @ v where scale: number, scale_k: number",
        "softmax[keys]((scale * q) @ (scale_k * k).T) @ v where scale: number, scale_k: number",
        // As PyTorch decomposes it: the keys are scaled behind their transpose.
        "softmax[keys](((scale * q) @ (scale_k * k.T)) + mask) @ v where scale: number, scale_k: number",
        "softmax[keys]((scale * q) @ (scale_k * k.T)) @ v where scale: number, scale_k: number",
        "softmax[keys](((scale * q) @ k.T) + mask) @ v where scale: number",
        "softmax[keys]((scale * q) @ k.T) @ v where scale: number",
        "softmax[keys]((q @ k.T) + mask) @ v",
        "softmax[keys](q @ k.T) @ v",
    ],
    near: 3,
    build,
};

fn build(f: &mut Function, m: &Match, scope: &str) -> Result<ValueId, OpError> {
    let mut operands = vec![m.value(f, "q")?, m.value(f, "k")?, m.value(f, "v")?];
    if m.get("mask").is_some() {
        operands.push(m.value(f, "mask")?);
    }
    let (keys, rank) = (one_axis(m.axes("keys")?)?, f.ty(operands[0]).rank().max(f.ty(operands[1]).rank()));
    if keys + 1 != rank {
        return Err(OpError::new(format!("the softmax is over axis {keys} of {rank}, not over the keys")));
    }
    let scale = m.number("scale").unwrap_or(1.0) * m.number("scale_k").unwrap_or(1.0);
    f.add(Sdpa { scale }.into(), &operands, scope)
}
