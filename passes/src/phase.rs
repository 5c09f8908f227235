//! Sinusoids of large phases, to the last bits of fp32.
//!
//! The embedding of a timestep is `cos(t·ω)` with `t·ω` up to 1000, where fp32 holds the phase to 3e-5 only: more than the rest
//! of the network loses. The phase is split into a part that fp32 holds exactly and a small rest:
//!
//! ```text
//! t = t₁ + t₂, t₁ = floor(t)           ω = ω₁ + ω₂, ω₁ of 12 significant bits
//! a = t₁·ω₁  exact for t₁ < 2¹²        r = t₁·ω₂ + t₂·ω  small
//! cos(t·ω) → cos a·cos r − sin a·sin r    sin(t·ω) → sin a·cos r + cos a·sin r
//! ```
//! Fires on `sin` and `cos` of `mul(t, literal)` in f32, but not where the product is exact: it would split its own result.

use std::collections::HashMap;

use s2dit_ir::ops::{Binary, Literal, OpError, Unary};
use s2dit_ir::{DType, Function, Module, Op, TensorType, ValueId};

use crate::Property;
use crate::pass::{PassKind, Run};

/// The pass.
pub static PASS: PassKind = PassKind {
    name: "phase",
    doc: "sinusoids of large phases are computed to the last bits of fp32",
    needs: &[Property::Fp32],
    run: Run::Plain(run),
    ..PassKind::PLAIN
};

/// Runs on every function; returns the number of sinusoids rewritten.
///
/// # Errors
/// None in practice: the rewrite keeps types.
pub fn run(module: &mut Module) -> Result<usize, OpError> {
    let mut changes = 0;
    for f in &mut module.functions {
        let mut split: HashMap<ValueId, Split> = HashMap::new();
        for v in f.order() {
            let Op::Unary(kind @ (Unary::Sin | Unary::Cos)) = *f.op(v) else { continue };
            let phase = f.operands(v)[0];
            let Some((t, omega)) = product_with_literal(f, phase) else { continue };
            if is_exact(f, t, &omega.1) {
                continue;
            }
            let scope = f.node(v).scope.clone();
            let s = match split.get(&phase) {
                Some(s) => *s,
                None => *split.entry(phase).or_insert(Split::of(f, t, &omega, &scope)?),
            };
            let new = s.combine(f, kind, &scope)?;
            f.replace_uses(v, new);
            changes += 1;
        }
        f.remove_dead();
    }
    Ok(changes)
}

/// (t, ω) if the value is `t·ω` with a literal ω, in f32.
fn product_with_literal(f: &Function, phase: ValueId) -> Option<(ValueId, (TensorType, Vec<f64>))> {
    let Op::Binary(Binary::Mul) = f.op(phase) else { return None };
    if f.dtype(phase) != DType::F32 || f.is_const(phase) {
        return None;
    }
    let operands = f.operands(phase);
    [(0, 1), (1, 0)].into_iter().find_map(|(t, w)| match f.op(operands[w]) {
        Op::Literal(l) => Some((operands[t], (f.ty(operands[w]).clone(), l.values.clone()))),
        _ => None,
    })
}

/// Whether `t·ω` is a product of `t₁` and `ω₁`.
fn is_exact(f: &Function, t: ValueId, omega: &[f64]) -> bool {
    matches!(f.op(t), Op::Unary(Unary::Floor)) && omega.iter().all(|w| *w == twelve_bits(*w))
}

/// cos and sin of the exact part and of the rest.
#[derive(Clone, Copy)]
struct Split {
    cos_a: ValueId,
    sin_a: ValueId,
    cos_r: ValueId,
    sin_r: ValueId,
}

impl Split {
    fn of(f: &mut Function, t: ValueId, (ty, omega): &(TensorType, Vec<f64>), scope: &str) -> Result<Split, OpError> {
        let literal = |f: &mut Function, g: fn(f64) -> f64| {
            f.add_leaf(Literal { values: omega.iter().map(|w| g(*w)).collect() }.into(), ty, scope)
        };
        let (whole, high, low) = (literal(f, |w| w)?, literal(f, twelve_bits)?, literal(f, |w| w - twelve_bits(w))?);
        let mut op = |op: Op, operands: &[ValueId]| f.add(op, operands, scope);
        let t1 = op(Unary::Floor.into(), &[t])?;
        let t2 = op(Binary::Sub.into(), &[t, t1])?;
        let a = op(Binary::Mul.into(), &[t1, high])?;
        let r1 = op(Binary::Mul.into(), &[t1, low])?;
        let r2 = op(Binary::Mul.into(), &[t2, whole])?;
        let r = op(Binary::Add.into(), &[r1, r2])?;
        Ok(Split {
            cos_a: op(Unary::Cos.into(), &[a])?,
            sin_a: op(Unary::Sin.into(), &[a])?,
            cos_r: op(Unary::Cos.into(), &[r])?,
            sin_r: op(Unary::Sin.into(), &[r])?,
        })
    }

    fn combine(self, f: &mut Function, kind: Unary, scope: &str) -> Result<ValueId, OpError> {
        let (x, y, join) = match kind {
            Unary::Cos => ((self.cos_a, self.cos_r), (self.sin_a, self.sin_r), Binary::Sub),
            _ => ((self.sin_a, self.cos_r), (self.cos_a, self.sin_r), Binary::Add),
        };
        let x = f.add(Binary::Mul.into(), &[x.0, x.1], scope)?;
        let y = f.add(Binary::Mul.into(), &[y.0, y.1], scope)?;
        f.add(join.into(), &[x, y], scope)
    }
}

/// The nearest number with 12 significant bits.
fn twelve_bits(x: f64) -> f64 {
    const DROPPED: u64 = 52 - 11;
    f64::from_bits((x.to_bits() + (1 << (DROPPED - 1))) >> DROPPED << DROPPED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_timesteps_and_high_parts_are_exact_in_f32() {
        for i in 0..128 {
            let w = twelve_bits(10000f64.powf(-f64::from(i) / 128.0));
            for t in [1.0, 3.0, 731.0, 999.0, 1000.0] {
                assert_eq!(f64::from((t * w) as f32), t * w);
            }
        }
    }
}
