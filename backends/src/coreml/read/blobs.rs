//! Constants that a program keeps outside itself: each must be in a file of the package, and be there.

use std::path::{Component, Path};

use anyhow::{Context, Result, bail};

use super::Package;
use crate::coreml::proto::{Block, Function, Operation, Value, binding, value};

/// The weight file as programs name it.
pub(in crate::coreml) const WEIGHTS: &str = "@model_path/weights/weight.bin";

/// Checks every reference of a function to a file of weights.
///
/// # Errors
/// A file outside the package; a record that the weight file does not have.
pub(super) fn check(package: &Package, name: &str, function: &Function) -> Result<()> {
    let shown = package.path.display();
    function
        .attributes
        .values()
        .try_for_each(|v| check_value(package, v))
        .with_context(|| format!("`{shown}`: function `{name}`"))?;
    let mut blocks: Vec<&Block> = function.block_specializations.values().collect();
    while let Some(block) = blocks.pop() {
        for op in &block.operations {
            let result = op.outputs.first().map_or("", |o| o.name.as_str());
            check_op(package, op)
                .with_context(|| format!("`{shown}`: function `{name}`: op `{}`, result `{result}`", op.r#type))?;
            blocks.extend(&op.blocks);
        }
    }
    Ok(())
}

fn check_op(package: &Package, op: &Operation) -> Result<()> {
    let bound = op.inputs.values().flat_map(|input| &input.arguments).filter_map(|a| match &a.binding {
        Some(binding::Binding::Value(v)) => Some(v),
        _ => None,
    });
    op.attributes.values().chain(bound).try_for_each(|v| check_value(package, v))
}

fn check_value(package: &Package, v: &Value) -> Result<()> {
    let Some(value::Value::BlobFileValue(blob)) = &v.value else { return Ok(()) };
    let file = &blob.file_name;
    if file == WEIGHTS {
        let Some(weights) = &package.weights else {
            bail!("the model keeps weights in `{file}`, which does not exist");
        };
        return weights.record(blob.offset).map(|_| ());
    }
    let inside = file.strip_prefix("@model_path/").map(Path::new);
    if !inside.is_some_and(|path| path.components().all(|part| matches!(part, Component::Normal(_)))) {
        bail!("found weight file `{file}`, expected a file of the package, such as `{WEIGHTS}`");
    }
    Ok(())
}
