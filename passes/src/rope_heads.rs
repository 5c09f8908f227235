//! Rotations come after the transpose that makes heads, and their tables have a row for each token.
//!
//! ```text
//! %r = rope(%x, %cos, %sin) {axis = 3, …}          %h = transpose(%x) {perm = [0, 2, 1, 3]}
//!      %x: f32[1, 6, 2, 4], %cos: f32[1, 6, 1, 2]  →  %c = reshape(%cos) {shape = [6, 2]}, and %s alike
//! %y = transpose(%r) {perm = [0, 2, 1, 3]}         %y = rope(%h, %c, %s) {axis = 3, …}
//! ```
//! Graphs that were brought rotate before or after the transpose, as their authors liked; the layout of the Neural Engine knows the one way, which
//! is that of this compiler's own models.

use s2dit_ir::ops::{OpError, Reshape, Rope, Transpose};
use s2dit_ir::{Function, Module, Op, ValueId};

use crate::Property;
use crate::pass::{PassKind, Run};

/// The pass.
pub static PASS: PassKind = PassKind {
    name: "rope-heads",
    doc: "no rotation before the transpose that makes heads, and no table of a rotation with axes of one element before tokens",
    needs: &[Property::Fused, Property::TokensFirst],
    run: Run::Plain(run),
    ..PassKind::PLAIN
};

/// Runs on every function; returns the number of transposes and tables moved.
///
/// # Errors
/// None in practice: the new ops have the old ones' types.
pub fn run(module: &mut Module) -> Result<usize, OpError> {
    let mut changes = 0;
    for f in &mut module.functions {
        for v in f.order() {
            changes += usize::from(rotate_after(f, v)?) + usize::from(without_ones(f, v)?);
        }
        f.remove_dead();
    }
    Ok(changes)
}

/// A rotation whose transpose `v` is: afterwards `v`'s users read the rotation of the transposed operand.
fn rotate_after(f: &mut Function, v: ValueId) -> Result<bool, OpError> {
    let Op::Transpose(Transpose { perm }) = f.op(v).clone() else { return Ok(false) };
    let rotated = f.operands(v)[0];
    let Op::Rope(rope) = f.op(rotated).clone() else { return Ok(false) };
    let Some(axis) = perm.iter().position(|axis| *axis == rope.axis) else { return Ok(false) };
    let [x, cos, sin] = f.operands(rotated)[..] else { return Ok(false) };
    let Some(rows) = rows_after(f.shape(cos), &perm) else { return Ok(false) };
    if !f.is_used_only_by(rotated, v) || axis + 1 != perm.len() {
        return Ok(false);
    }
    let (scope, table_scope) = (f.node(rotated).scope.to_string(), f.node(cos).scope.to_string());
    let heads = f.add(Transpose { perm }.into(), &[x], &scope)?;
    let mut operands = [heads, cos, sin];
    for table in &mut operands[1..] {
        *table = reshaped(f, *table, &rows, &table_scope)?;
    }
    let y = f.add(Rope { axis, pairs: rope.pairs }.into(), &operands, &scope)?;
    f.replace_uses(v, y);
    Ok(true)
}

/// The shape `[N, d/2]` of a table after the transpose `perm` of what it rotates, if tokens and pairs are then the last two axes and no other has more than an element.
fn rows_after(table: &[usize], perm: &[usize]) -> Option<Vec<usize>> {
    let rank = perm.len();
    let ones = rank.checked_sub(table.len())?;
    let extent = |axis: usize| axis.checked_sub(ones).map_or(1, |axis| table[axis]);
    let after: Vec<usize> = perm.iter().map(|axis| extent(*axis)).collect();
    let (before, rows) = after.split_at_checked(rank.checked_sub(2)?)?;
    // Elements keep their order only where the two axes that are left keep theirs.
    let in_order = perm[rank - 2] < perm[rank - 1] || rows.contains(&1);
    (in_order && before.iter().all(|n| *n == 1)).then(|| rows.to_vec())
}

/// A rotation of heads whose tables have axes of one element before tokens and pairs.
fn without_ones(f: &mut Function, v: ValueId) -> Result<bool, OpError> {
    let Op::Rope(rope) = f.op(v) else { return Ok(false) };
    let [x, cos, sin] = f.operands(v)[..] else { return Ok(false) };
    let shape = f.shape(cos).to_vec();
    let Some((before, rows)) = shape.split_at_checked(shape.len().saturating_sub(2)) else { return Ok(false) };
    if rope.axis + 1 != f.ty(x).rank() || before.is_empty() || before.iter().any(|n| *n != 1) {
        return Ok(false);
    }
    let scope = f.node(cos).scope.to_string();
    for (position, table) in [(1, cos), (2, sin)] {
        let new = reshaped(f, table, rows, &scope)?;
        f.set_operand(v, position, new);
    }
    Ok(true)
}

fn reshaped(f: &mut Function, x: ValueId, shape: &[usize], scope: &str) -> Result<ValueId, OpError> {
    match f.shape(x) == shape {
        true => Ok(x),
        false => f.add(Reshape { shape: shape.to_vec() }.into(), &[x], scope),
    }
}
