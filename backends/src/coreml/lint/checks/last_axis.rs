//! The last axis, whose rows the Neural Engine aligns to 64 bytes.

use serde::{Deserialize, Serialize};

use super::{Found, Look, Place, at_interface};
use crate::coreml::lint::program::Op;
use crate::coreml::lint::subject::Subject;
use crate::coreml::lint::value::Value;

/// The last axis of fp16 values is a multiple of `multiple`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LastAxis {
    on: On,
    multiple: u64,
}

/// The values of an op that a check looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum On {
    /// Results of ops.
    Ops,
    /// Inputs and outputs of functions.
    Interface,
    /// States.
    States,
}

impl LastAxis {
    fn found(&self, value: &Value) -> Option<String> {
        let bits = u64::from(value.dtype.bits().unwrap_or(0));
        let last = value.last().filter(|d| *d > 0 && !d.is_multiple_of(self.multiple) && bits == 16)?;
        if value.elements() == Some(1) {
            return None;
        }
        let stored = last.checked_next_multiple_of(self.multiple)?;
        Some(format!("{}: rows of {last} take the room of {stored}", value.ty()))
    }
}

impl Look for LastAxis {
    fn op(&self, _: &Place, op: &Op) -> Option<String> {
        if self.on != On::Ops {
            return None;
        }
        op.outputs.iter().find_map(|v| self.found(v))
    }

    fn function(&self, at: &Place) -> Vec<Found> {
        at_interface(at.function, |subject, v| {
            let looked_at = match self.on {
                On::Ops => false,
                On::Interface => subject != Subject::State,
                On::States => subject == Subject::State,
            };
            looked_at.then(|| self.found(v)).flatten()
        })
    }
}
