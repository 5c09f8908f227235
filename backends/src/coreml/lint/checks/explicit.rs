//! Inputs with defaults.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Look, Place};
use crate::coreml::lint::program::Op;

/// Inputs that must be written although MIL has a default for them, by op.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explicit {
    inputs: BTreeMap<String, Vec<String>>,
}

impl Look for Explicit {
    fn op(&self, _: &Place, op: &Op) -> Option<String> {
        let missing: Vec<&str> =
            self.inputs.get(op.ty)?.iter().map(String::as_str).filter(|input| !op.has(input)).collect();
        (!missing.is_empty()).then(|| format!("{} left out", missing.join(", ")))
    }
}
