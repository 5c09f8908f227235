//! The check of how many elements a matrix product sums.

use serde::{Deserialize, Serialize};

use super::{Look, Place};
use crate::coreml::lint::constant::flag;
use crate::coreml::lint::program::Op;

/// No product sums more than `max` terms.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContractionDepth {
    max: u64,
}

/// Terms of an element's sum.
fn terms(at: &Place, op: &Op) -> Option<u64> {
    let extents = |input: &str| at.function.input(op, input)?.extents();
    match op.ty {
        "linear" => extents("x")?.last().copied(),
        "conv" => Some(extents("weight")?.get(1..)?.iter().fold(1, |n, d| n.saturating_mul(*d))),
        "matmul" => {
            let x = extents("x")?;
            let transposed = flag(at.function, op, "transpose_x").unwrap_or(false);
            x.iter().rev().nth(usize::from(transposed)).copied()
        }
        "einsum" => match op.operands("values")[..] {
            [x, _] => at.function.operand(x)?.last(),
            _ => None,
        },
        _ => None,
    }
}

impl Look for ContractionDepth {
    fn op(&self, at: &Place, op: &Op) -> Option<String> {
        let n = terms(at, op).filter(|n| *n > self.max)?;
        Some(format!("sums {n} terms"))
    }
}
