//! Extents.

use serde::{Deserialize, Serialize};

use super::{Found, Look, Place, at_interface};
use crate::coreml::lint::program::Op;
use crate::coreml::lint::value::Value;

/// No extent is above its axis' limit. Axes count from the right, as N, C, D, H, W for rank 5 and N, C, H, W below.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extent {
    batch: u64,
    channels: u64,
    depth: u64,
    height: u64,
    width: u64,
}

impl Extent {
    fn found(&self, value: &Value) -> Option<String> {
        let axes: &[(&str, u64)] = match value.shape.len() {
            0..=4 => &[("W", self.width), ("H", self.height), ("C", self.channels), ("N", self.batch)],
            _ => &[("W", self.width), ("H", self.height), ("D", self.depth), ("C", self.channels), ("N", self.batch)],
        };
        let over = value.shape.iter().rev().zip(axes).find(|(d, (_, limit))| d.is_some_and(|d| d > *limit));
        over.map(|(_, (axis, limit))| format!("{}: axis {axis} is above {limit}", value.ty()))
    }
}

impl Look for Extent {
    fn op(&self, _: &Place, op: &Op) -> Option<String> {
        op.outputs.iter().find_map(|v| self.found(v))
    }

    fn function(&self, at: &Place) -> Vec<Found> {
        at_interface(at.function, |_, v| self.found(v))
    }
}
