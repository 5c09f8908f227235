//! Op types.

use serde::{Deserialize, Serialize};

use super::{Look, Place};
use crate::coreml::lint::program::Op;

/// A program has none of these ops.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpType {
    ops: Vec<String>,
}

impl Look for OpType {
    fn op(&self, _: &Place, op: &Op) -> Option<String> {
        self.ops.iter().any(|ty| ty == op.ty).then(|| format!("{}", Shown(op)))
    }
}

/// Only these ops.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownOps {
    ops: Vec<String>,
}

impl Look for KnownOps {
    fn op(&self, _: &Place, op: &Op) -> Option<String> {
        (!self.ops.iter().any(|ty| ty == op.ty)).then(|| format!("{}", Shown(op)))
    }
}

/// `gather → fp16[1, 64]`
struct Shown<'a>(&'a Op<'a>);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.ty)?;
        match self.0.outputs.first() {
            Some(v) => write!(f, " → {}", v.ty()),
            None => Ok(()),
        }
    }
}
