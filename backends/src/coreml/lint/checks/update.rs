//! Slices that are read or written.

use serde::{Deserialize, Serialize};

use super::{Look, Place};
use crate::coreml::lint::constant::is_constant;
use crate::coreml::lint::program::Op;

/// Offsets of these ops are constant.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeOffset {
    ops: Vec<String>,
}

impl Look for RuntimeOffset {
    fn op(&self, at: &Place, op: &Op) -> Option<String> {
        if !self.ops.iter().any(|ty| ty == op.ty) {
            return None;
        }
        let computed = |input: &&&str| op.operands(input).into_iter().any(|o| !is_constant(at.function, o));
        let input = ["begin", "end", "size", "stride"].iter().find(computed)?;
        Some(format!("`{input}` is computed at run time"))
    }
}

/// A `slice_update` changes at most `max` rows of any axis that it does not change whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateLength {
    max: u64,
}

impl Look for UpdateLength {
    fn op(&self, at: &Place, op: &Op) -> Option<String> {
        if op.ty != "slice_update" {
            return None;
        }
        let (x, update) = (at.function.input(op, "x")?.extents()?, at.function.input(op, "update")?.extents()?);
        let (whole, part) = x.iter().zip(&update).find(|(x, u)| u < x && **u > self.max)?;
        Some(format!("{part} of {whole} rows at once"))
    }
}
