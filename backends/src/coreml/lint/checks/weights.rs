//! The weight file.

use serde::{Deserialize, Serialize};

use super::Look;
use crate::coreml::lint::program::Program;

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
