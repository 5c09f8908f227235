//! Slices that are read or written.

use serde::{Deserialize, Serialize};

use super::{Look, Place};
use crate::coreml::lint::constant::{flags, ints, is_constant};
use crate::coreml::lint::program::Op;
use crate::coreml::proto::DataType;

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

/// No slice of floats begins behind the first element of the last axis, where an engine clamps magnitudes above `largest`; what is bounded by
/// what made it is left alone.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SliceOffset {
    largest: f64,
}

/// Ops whose results never come near any clamp.
const BOUNDED: [&str; 6] = ["softmax", "sigmoid", "tanh", "layer_norm", "l2_norm", "relu6"];

impl Look for SliceOffset {
    fn op(&self, at: &Place, op: &Op) -> Option<String> {
        let x = at.function.input(op, "x").filter(|x| x.dtype == DataType::Float16)?;
        let [operand] = op.operands("x")[..] else { return None };
        if at.function.producer(operand).is_some_and(|made| BOUNDED.contains(&made.ty)) {
            return None;
        }
        let rank = x.shape.len();
        let offset = match op.ty {
            "slice_by_index" => {
                let begin = *ints(at.function, op, "begin")?.last()?;
                let whole = flags(at.function, op, "begin_mask").is_some_and(|mask| mask.last() == Some(&true));
                if whole { 0 } else { begin }
            }
            "slice_by_size" => *ints(at.function, op, "begin")?.last()?,
            "split" => {
                let axis = ints(at.function, op, "axis").and_then(|list| list.first().copied())?;
                i64::from(axis == -1 || axis == rank as i64 - 1)
            }
            _ => 0,
        };
        (offset != 0)
            .then(|| format!("an offset on the last axis of {}, whose values above {} it clamps", x.ty(), self.largest))
    }
}
