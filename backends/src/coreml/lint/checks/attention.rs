//! The fused attention op.

use serde::{Deserialize, Serialize};

use super::{Look, Place};
use crate::coreml::lint::program::Op;

const SDPA: &str = "scaled_dot_product_attention";

/// The smallest number of elements among query, key and value.
fn smallest(at: &Place, op: &Op) -> Option<u64> {
    let operands = ["query", "key", "value"].map(|input| at.function.input(op, input)?.elements());
    operands.into_iter().collect::<Option<Vec<_>>>()?.into_iter().min()
}

/// Fused attention has at least `min_elements` in each of query, key and value.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SdpaSize {
    min_elements: u64,
}

impl Look for SdpaSize {
    fn op(&self, at: &Place, op: &Op) -> Option<String> {
        let n = smallest(at, op).filter(|n| op.ty == SDPA && *n < self.min_elements)?;
        Some(format!("{n} elements"))
    }
}

/// A function has at most `max` fused attentions.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SdpaCount {
    max: usize,
}

impl Look for SdpaCount {
    fn op(&self, at: &Place, op: &Op) -> Option<String> {
        if op.ty != SDPA {
            return None;
        }
        let before = at.function.ops[..op.index].iter().filter(|o| o.ty == SDPA).count();
        (before >= self.max).then(|| format!("number {} of the function", before + 1))
    }
}
