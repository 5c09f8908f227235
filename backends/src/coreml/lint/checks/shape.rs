//! Static shapes.

use serde::{Deserialize, Serialize};

use super::{Found, Look, Place};
use crate::coreml::lint::program::Op;
use crate::coreml::lint::subject::Subject;

/// Every shape is static, and no input may come in several.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticShape {}

impl Look for StaticShape {
    fn op(&self, _: &Place, op: &Op) -> Option<String> {
        let value = op.outputs.iter().find(|v| v.extents().is_none())?;
        Some(format!("`{}` is {}", value.name, value.ty()))
    }

    fn function(&self, at: &Place) -> Vec<Found> {
        let found = |name: &&str| (Subject::Input, name.to_string(), "several shapes are allowed".into());
        at.function.flexible.iter().map(found).collect()
    }
}
