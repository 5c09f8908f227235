//! LCHA's positive kernel.

use s2dit_ir::ops::{FeatureMap, OpError, Reshape};
use s2dit_ir::{Function, Op, ValueId};

use super::Rule;
use crate::pattern::{Match, permutation};

pub(super) const RULE: Rule = Rule {
    name: "feature_map",
    formulas: &[
        "softplus((x @ w.T) + b) where w: const, b: const",
        // As coremltools writes an einsum: the weights on the left, the result in place afterwards.
        "softplus(~(w @ x.T) + b) where w: const, b: const",
    ],
    near: 2,
    build,
};

fn build(f: &mut Function, m: &Match, scope: &str) -> Result<ValueId, OpError> {
    let (mut x, mut w, b) = (m.value(f, "x")?, m.value(f, "w")?, m.value(f, "b")?);
    let product = m.interior.iter().copied().find(|&v| matches!(f.op(v), Op::Matmul(_)));
    let sum = m.interior.iter().copied().find(|&v| matches!(f.op(v), Op::Binary(_)));
    let (Some(product), Some(sum)) = (product, sum) else { return Err(OpError::new("no product, no sum")) };
    if !f.operands(sum).contains(&product) {
        let placed = f.operands(sum).into_iter().find(|&o| m.interior.contains(&o)).unwrap_or(sum);
        let axes = f.shape(product).iter().filter(|&&s| s != 1).count();
        let mut swap: Vec<usize> = (0..axes).collect();
        if axes >= 2 {
            swap.swap(axes - 2, axes - 1);
        }
        if permutation(f, product, placed) != Some(swap) {
            return Err(OpError::new("the product is not transposed back"));
        }
        let rank = f.ty(placed).rank();
        (x, w) = (ranked(f, x, rank, scope)?, ranked(f, w, rank, scope)?);
    }
    // A matrix and a bias for each head, whether or not they have an axis for the batch.
    let rank = f.ty(x).rank();
    let (w, b) = (ranked(f, w, rank, scope)?, ranked(f, b, rank, scope)?);
    f.add(FeatureMap {}.into(), &[x, w, b], scope)
}

/// The value with leading axes of extent 1 up to this rank.
fn ranked(f: &mut Function, v: ValueId, rank: usize, scope: &str) -> Result<ValueId, OpError> {
    let missing = rank.saturating_sub(f.ty(v).rank());
    if missing == 0 {
        return Ok(v);
    }
    let shape = [&vec![1; missing][..], f.shape(v)].concat();
    f.add(Reshape { shape }.into(), &[v], scope)
}
