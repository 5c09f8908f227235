//! Compressed weights: `load`s that the package decodes when they are asked for.

use anyhow::{Context, Result};

use super::Raise;
use crate::coreml::proto::Operation;
use crate::coreml::read::compressed_name;

impl Raise<'_, '_> {
    /// What other compressed weights are made of, and no op computes with, is only claimed.
    pub(super) fn compressed_op(&mut self, op: &Operation) -> Result<()> {
        let function = self.b.f.name.clone();
        for output in &op.outputs {
            let compressed = self.package.compressed(&function, &output.name)?;
            let Ok(ty) = compressed.ty() else {
                self.claim(&output.name)?;
                continue;
            };
            let v = self.b.load(&compressed_name(&function, &output.name), &ty).context("a load")?;
            self.define(&output.name, v, output.r#type.as_ref())?;
        }
        Ok(())
    }
}
