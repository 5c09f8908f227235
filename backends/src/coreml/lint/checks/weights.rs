//! Weights: their file, and how they stream.

use serde::{Deserialize, Serialize};

use super::{Look, Place};
use crate::coreml::lint::program::{Op, Program};
use crate::coreml::proto::DataType;

/// A package has at most `max` bytes of weights.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightBytes {
    pub(super) max: u64,
}

impl Look for WeightBytes {
    fn package(&self, program: &Program) -> Option<String> {
        let n = program.weight_bytes;
        (n > self.max).then(|| format!("{n} bytes of weights, above {}", self.max))
    }
}

/// No slice of a product's fp16 weights for one of `cores` is a multiple of `bytes`. Weights that are decoded stream otherwise.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DmaNotch {
    cores: u64,
    bytes: u64,
}

impl Look for DmaNotch {
    fn op(&self, at: &Place, op: &Op) -> Option<String> {
        let [operand] = op.operands("weight")[..] else { return None };
        at.function.constant(operand).filter(|_| ["conv", "linear"].contains(&op.ty))?;
        let weight = at.function.operand(operand).filter(|w| w.dtype == DataType::Float16)?;
        let extents = weight.extents()?;
        let [out, rest @ ..] = &extents[..] else { return None };
        let slice = rest.iter().fold(2 * out.div_ceil(self.cores.max(1)), |n, d| n.saturating_mul(*d));
        (slice > 0 && self.bytes > 0 && slice.is_multiple_of(self.bytes))
            .then(|| format!("{}: {slice} bytes for each of {} cores", weight.ty(), self.cores))
    }
}
