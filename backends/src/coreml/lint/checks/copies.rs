//! Reshapes and transposes that move rows.

use serde::{Deserialize, Serialize};

use super::{Look, Place};
use crate::coreml::lint::program::Op;

/// The last axis keeps its place and its extent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LastAxisCopy {}

impl Look for LastAxisCopy {
    fn op(&self, at: &Place, op: &Op) -> Option<String> {
        let (x, out) = (at.function.input(op, "x")?, op.outputs.first()?);
        let moved = match op.ty {
            "transpose" => {
                let perm = crate::coreml::lint::constant::ints(at.function, op, "perm")?;
                let last = *perm.last()?;
                last != -1 && last != perm.len() as i64 - 1
            }
            "reshape" => x.last() != out.last(),
            _ => false,
        };
        moved.then(|| format!("{} → {}", x.ty(), out.ty()))
    }
}
