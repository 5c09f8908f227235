//! Rotary position embedding: of pairs of neighbours, or of the two halves.

use s2dit_ir::ops::{Literal, OpError, Reshape, Rope, RopePairs};
use s2dit_ir::{Function, Op, TensorType, ValueId};

use super::Rule;
use crate::pattern::Match;

pub(super) const RULE: Rule = Rule {
    name: "rope",
    formulas: &[
        "interleave(even(x) * cos - odd(x) * sin, even(x) * sin + odd(x) * cos)",
        "beside(first(x) * cos - second(x) * sin, first(x) * sin + second(x) * cos)",
        // With tables as wide as x, in which each angle stands twice.
        "x * cos2 + interleave(neg(odd(x)), even(x)) * sin2 where cos2: const, sin2: const",
        "x * cos2 + beside(neg(second(x)), first(x)) * sin2 where cos2: const, sin2: const",
    ],
    near: 6,
    build,
};

fn build(f: &mut Function, m: &Match, scope: &str) -> Result<ValueId, OpError> {
    if m.get("cos2").is_some() {
        return from_wide_tables(f, m, scope);
    }
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

/// The rotation whose tables have each angle twice: of neighbours, or of the two halves.
fn from_wide_tables(f: &mut Function, m: &Match, scope: &str) -> Result<ValueId, OpError> {
    let x = m.value(f, "x")?;
    let halves = m.interior.iter().any(|&v| matches!(f.op(v), Op::Concat(c) if f.shape(v)[c.axis] != 2));
    let pairs = if halves { RopePairs::Halves } else { RopePairs::Interleaved };
    let (cos, sin) = (m.value(f, "cos2")?, m.value(f, "sin2")?);
    let (cos, sin) = (once(f, cos, pairs)?, once(f, sin, pairs)?);
    f.add(Rope { axis: f.ty(x).rank() - 1, pairs }.into(), &[x, cos, sin], scope)
}

/// A table with each angle once.
fn once(f: &mut Function, table: ValueId, pairs: RopePairs) -> Result<ValueId, OpError> {
    let (ty, scope) = (f.ty(table).clone(), f.node(table).scope.to_string());
    let Op::Literal(Literal { values }) = f.op(table) else {
        return Err(OpError::new("the tables of the rotation are as wide as x and not known"));
    };
    let width = ty.shape.last().copied().unwrap_or(0);
    let half = width / 2;
    let at = |row: usize, i: usize| values[if values.len() == 1 { 0 } else { row * width + i }];
    let twice = |i: usize| if pairs == RopePairs::Halves { (i, i + half) } else { (2 * i, 2 * i + 1) };
    if width == 0 || width % 2 == 1 {
        return Err(OpError::new(format!("a table {ty} of a rotation has no pairs")));
    }
    let rows = ty.elements() / width;
    let mut angles = Vec::with_capacity(rows * half);
    for row in 0..rows {
        for i in 0..half {
            let (a, b) = twice(i);
            if at(row, a) != at(row, b) {
                return Err(OpError::new(format!(
                    "a table of the rotation has {} and {} for one pair",
                    at(row, a),
                    at(row, b)
                )));
            }
            angles.push(at(row, a));
        }
    }
    let mut shape = ty.shape.clone();
    if let Some(last) = shape.last_mut() {
        *last = half;
    }
    f.add_leaf(Literal { values: angles }.into(), &TensorType::new(ty.dtype, shape), &scope)
}
