//! Ranks.

use serde::{Deserialize, Serialize};

use super::{Found, Look, Place, at_interface};
use crate::coreml::lint::program::Op;
use crate::coreml::lint::value::Value;

/// No result and no value of the interface has a rank above `max`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rank {
    max: usize,
}

impl Rank {
    fn found(&self, value: &Value) -> Option<String> {
        let rank = value.shape.len();
        (rank > self.max).then(|| format!("{} has rank {rank}", value.ty()))
    }
}

impl Look for Rank {
    fn op(&self, _: &Place, op: &Op) -> Option<String> {
        op.outputs.iter().find_map(|v| self.found(v))
    }

    fn function(&self, at: &Place) -> Vec<Found> {
        at_interface(at.function, |_, v| self.found(v))
    }
}
