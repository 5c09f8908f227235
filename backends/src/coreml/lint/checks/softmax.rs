//! Softmax.

use serde::{Deserialize, Serialize};

use super::{Look, Place};
use crate::coreml::lint::constant::ints;
use crate::coreml::lint::program::Op;
use crate::coreml::lint::value::Value;

/// A softmax's result and its axis, counted from the left.
fn softmax<'a>(at: &Place, op: &'a Op) -> Option<(&'a Value<'a>, usize)> {
    let out = op.outputs.first().filter(|_| op.ty == "softmax")?;
    let axis = ints(at.function, op, "axis").and_then(|list| list.first().copied()).unwrap_or(-1);
    let wrapped = if axis < 0 { axis + out.shape.len() as i64 } else { axis };
    Some((out, usize::try_from(wrapped).ok().filter(|a| *a < out.shape.len())?))
}

/// Softmax runs over `axis`, counted from the left.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoftmaxAxis {
    axis: usize,
}

impl Look for SoftmaxAxis {
    fn op(&self, at: &Place, op: &Op) -> Option<String> {
        let (out, axis) = softmax(at, op)?;
        (axis != self.axis).then(|| format!("over axis {axis} of {}", out.ty()))
    }
}

/// A softmax has at most `max` queries: the extent of the last axis that it does not run over.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryChunk {
    max: u64,
}

impl Look for QueryChunk {
    fn op(&self, at: &Place, op: &Op) -> Option<String> {
        let (out, axis) = softmax(at, op)?;
        let queries = (0..out.shape.len()).rev().find(|a| *a != axis).and_then(|a| out.shape[a])?;
        (queries > self.max).then(|| format!("{queries} queries in {}", out.ty()))
    }
}
