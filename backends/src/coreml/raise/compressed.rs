//! Compressed weights: `load`s that the package decodes when they are asked for.

use anyhow::{Context, Result};
use s2dit_ir::ValueId;

use super::{Handler, Raise};
use crate::coreml::proto::Operation;
use crate::coreml::read::{compressed_name, is_compressed};

pub(super) fn handler(op: &str) -> Option<Handler> {
    is_compressed(op).then_some(compressed)
}

fn compressed(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let output = op.outputs.first().context("a compressed weight without a name")?;
    let function = r.b.f.name.clone();
    let ty = r.package.compressed(&function, &output.name)?.ty;
    Ok(vec![r.b.load(&compressed_name(&function, &output.name), &ty)?])
}
