//! Constants that are added to scores or to products, or stand for "nothing here".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Look, Place};
use crate::coreml::lint::constant::range;
use crate::coreml::lint::program::Op;

/// Constants of these inputs, by op, are finite and not below `lowest`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FiniteMask {
    lowest: f64,
    inputs: BTreeMap<String, Vec<String>>,
}

impl Look for FiniteMask {
    fn op(&self, at: &Place, op: &Op) -> Option<String> {
        for input in self.inputs.get(op.ty)? {
            let constants = op.operands(input).into_iter().filter_map(|o| at.function.constant(o));
            for bounds in constants.filter_map(|c| range(at.program.package, c)) {
                if !bounds.finite {
                    return Some(format!("constant `{input}` has NaN or infinite elements"));
                }
                if bounds.low < self.lowest {
                    return Some(format!("constant `{input}` goes down to {:e}", bounds.low));
                }
            }
        }
        None
    }
}

/// Constants of these inputs, by op, are at most `largest` in magnitude.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConstantBound {
    largest: f64,
    inputs: BTreeMap<String, Vec<String>>,
}

impl Look for ConstantBound {
    fn op(&self, at: &Place, op: &Op) -> Option<String> {
        for input in self.inputs.get(op.ty)? {
            let constants = op.operands(input).into_iter().filter_map(|o| at.function.constant(o));
            for bounds in constants.filter_map(|c| range(at.program.package, c)) {
                let most = bounds.high.max(-bounds.low);
                if most > self.largest {
                    return Some(format!("constant `{input}` reaches {most:e} in magnitude"));
                }
            }
        }
        None
    }
}
