//! The fusion gate goes into the weights of the two projections that it mixes.
//!
//! ```text
//! %x = linear(%a, %W1, %b1)          %p = linear(%c, σ₂⊙W2, σ₁⊙b1 + σ₂⊙b2)
//! %y = linear(%c, %W2, %b2)       →  %q = linear(%a, σ₁⊙W1)
//! %z = fusion_gate(%g, %x, %y)       %z = add(%q, %p)                       σ₁ = sigmoid(g), σ₂ = 1 − σ₁
//! ```
//! Two scalings and an addition of the whole token stream less a block.

use s2dit_ir::ops::OpError;
use s2dit_ir::{Builder, Function, Module, Op, ValueId};

use crate::Property;
use crate::pass::{PassKind, Run};

/// The pass.
pub static PASS: PassKind = PassKind {
    name: "fold-gate",
    doc: "no fusion gate over two projections",
    needs: &[Property::Fused, Property::Uncompressed],
    run: Run::Plain(run),
    ..PassKind::PLAIN
};

/// Runs on every function; returns the number of gates folded.
///
/// # Errors
/// None in practice: the new ops have the old ones' types.
pub fn run(module: &mut Module) -> Result<usize, OpError> {
    let mut changes = 0;
    for f in &mut module.functions {
        for v in f.order() {
            changes += usize::from(fold(f, v)?);
        }
        f.remove_dead();
    }
    Ok(changes)
}

/// A projection with constant weights that only `user` reads: input, weight, bias.
fn projection(f: &Function, v: ValueId, user: ValueId) -> Option<[ValueId; 3]> {
    let Op::Linear(_) = f.op(v) else { return None };
    let [x, weight, bias] = f.operands(v)[..] else { return None };
    (f.is_used_only_by(v, user) && f.is_const(weight) && f.is_const(bias)).then_some([x, weight, bias])
}

fn fold(f: &mut Function, v: ValueId) -> Result<bool, OpError> {
    let Op::FusionGate(_) = f.op(v) else { return Ok(false) };
    let [gate, x, y] = f.operands(v)[..] else { return Ok(false) };
    let width = f.shape(v).last().copied().unwrap_or_default();
    if !f.is_const(gate) || f.ty(gate).elements() != width || f.shape(gate).last() != Some(&width) {
        return Ok(false);
    }
    let (Some(one), Some(two)) = (projection(f, x, v), projection(f, y, v)) else { return Ok(false) };
    let (scope, one_scope, two_scope) = (f.node(v).scope.clone(), f.node(x).scope.clone(), f.node(y).scope.clone());

    let mut b = Builder::new(f);
    b.enter(&scope);
    let gate = b.reshape(gate, &[width])?;
    let alpha = b.unary(s2dit_ir::ops::Unary::Sigmoid, gate)?;
    let unit = b.scalar_like(alpha, 1.0)?;
    let rest = b.sub(unit, alpha)?;
    let (rows_one, rows_two) = (b.reshape(alpha, &[width, 1])?, b.reshape(rest, &[width, 1])?);
    b.leave();

    b.enter(&two_scope);
    let weight = b.mul(two[1], rows_two)?;
    let (bias_one, bias_two) = (b.mul(one[2], alpha)?, b.mul(two[2], rest)?);
    let bias = b.add(bias_one, bias_two)?;
    let second = b.linear(two[0], weight, Some(bias))?;
    b.leave();

    b.enter(&one_scope);
    let weight = b.mul(one[1], rows_one)?;
    let first = b.linear(one[0], weight, None)?;
    b.leave();

    b.enter(&scope);
    let sum = b.add(first, second)?;
    f.replace_uses(v, sum);
    Ok(true)
}
