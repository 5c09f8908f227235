//! Features that are known to fail together.

use serde::{Deserialize, Serialize};

use super::{Found, Look, Place};
use crate::coreml::lint::program::Program;
use crate::coreml::lint::subject::Subject;

/// A function with states is the only one of its package.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Multifunction {}

impl Look for Multifunction {
    fn function(&self, at: &Place) -> Vec<Found> {
        let n = at.program.functions.len();
        if n < 2 || at.function.states.is_empty() {
            return Vec::new();
        }
        vec![(Subject::Function, at.function.name.into(), format!("has states, in a package of {n} functions"))]
    }
}

/// A package has at most `max` functions.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionCount {
    max: usize,
}

impl Look for FunctionCount {
    fn package(&self, program: &Program) -> Option<String> {
        let n = program.functions.len();
        (n > self.max).then(|| format!("{n} functions"))
    }
}

/// A function with states has no lookup tables of at most `bits` bits.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatePalettized {
    bits: u32,
}

impl Look for StatePalettized {
    fn function(&self, at: &Place) -> Vec<Found> {
        let f = at.function;
        if f.states.is_empty() {
            return Vec::new();
        }
        let narrow = |op: &crate::coreml::proto::Operation| {
            let indices = op.inputs.get("indices").and_then(|a| a.arguments.first());
            let value = indices.and_then(super::super::program::bound_one).and_then(|o| f.operand(o));
            op.r#type == "constexpr_lut_to_dense" && value.and_then(|v| v.dtype.bits()).is_some_and(|b| b <= self.bits)
        };
        let tables = f.ops.iter().flat_map(|op| op.inputs()).filter_map(|(_, o)| f.constexpr(o)).filter(|c| narrow(c));
        match tables.count() {
            0 => Vec::new(),
            n => vec![(Subject::Function, f.name.into(), format!("has states and {n} palettized weights"))],
        }
    }
}
