//! GELU in both of its forms, which are tensor ops.

use s2dit_ir::ops::{OpError, Unary};
use s2dit_ir::{Function, ValueId};

use super::Rule;
use crate::pattern::Match;

pub(super) const TANH: Rule = Rule {
    name: "gelu_tanh",
    formulas: &[
        "0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x^3)))",
        "0.5 * x * (1 + tanh(0.7978845608028654 * x * (1 + 0.044715 * x^2)))",
    ],
    near: 5,
    build: |f, m, scope| build(f, m, Unary::GeluTanh, scope),
};

pub(super) const ERF: Rule = Rule {
    name: "gelu",
    formulas: &["0.5 * x * (1 + erf(0.7071067811865476 * x))"],
    near: 4,
    build: |f, m, scope| build(f, m, Unary::Gelu, scope),
};

fn build(f: &mut Function, m: &Match, op: Unary, scope: &str) -> Result<ValueId, OpError> {
    let x = m.value(f, "x")?;
    f.add(op.into(), &[x], scope)
}
