//! A copy of an asset that returns values from within, for comparing block by block with a runtime that gives outputs only.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::asset::{self, HASH, METADATA, PROGRAM};
use super::bytecode::Resource;
use super::bytecode::write::layout;
use super::op;
use super::program::{Attribute, Operation, Property, Type};
use super::read::Asset;
use crate::Error;
use crate::fill::write_at;
use crate::output::made;

impl Asset {
    /// Writes the asset into the folder `dir`, which exists and is empty, with values of a function among its outputs: those that
    /// [`Asset::value_names`] names so.
    ///
    /// # Errors
    /// A value that has no name; a folder that cannot be written.
    pub fn write_with_outputs(&self, function: &str, values: &[String], dir: &Path) -> Result<(), Error> {
        self.write_probed(function, values, dir).map_err(Error::writing)
    }

    fn write_probed(&self, function: &str, values: &[String], dir: &Path) -> Result<()> {
        let names = self.value_names(function)?;
        let mut root = self.root().clone();
        let mut graphs = root.regions.iter_mut().flat_map(|region| &mut region.operations);
        let graph = graphs.find(|graph| is_named(graph, function));
        let graph = graph.with_context(|| format!("no function `{function}`"))?;
        let returned = self.outputs(function);
        for name in values {
            // What is returned already needs no second name.
            if returned.iter().any(|output| output.name == *name) {
                continue;
            }
            let value = names.get(name).with_context(|| {
                format!("`{}`: function `{function}` computes no value `{name}`", self.path().display())
            })?;
            add_output(graph, name, *value)?;
        }
        self.write_with_program(&root, dir)
    }

    /// Writes the asset into the folder `dir`, which exists and is empty, with another program of the same weights.
    pub(super) fn write_with_program(&self, root: &Operation, dir: &Path) -> Result<()> {
        let resources: Vec<Resource> =
            self.resources().map(|(name, bytes)| Resource { name: name.into(), bytes: bytes as u64 }).collect();
        let laid_out = layout(root, &resources, made::NAME);
        let path = dir.join(PROGRAM);
        let write = || {
            let file = File::create(&path)?;
            for (at, bytes) in &laid_out.parts {
                write_at(&file, bytes, *at)?;
            }
            for (number, at) in laid_out.resources.iter().enumerate() {
                write_at(&file, self.resource(number).unwrap_or_default(), *at)?;
            }
            let hash = asset::hash(&path)?;
            std::fs::write(dir.join(HASH), hash)?;
            std::fs::copy(self.path().join(METADATA), dir.join(METADATA))
        };
        write().with_context(|| asset::cannot_write(&path))?;
        Ok(())
    }
}

fn is_named(graph: &Operation, function: &str) -> bool {
    graph.name == op::GRAPH
        && matches!(graph.properties.get(5), Some(Property::Required(Attribute::String(name))) if **name == *function)
}

/// Puts a value before the outputs of a graph.
fn add_output(graph: &mut Operation, name: &str, value: usize) -> Result<()> {
    let region = graph.regions.first_mut().context("a graph without ops")?;
    let mut types = region.arguments.iter().map(|argument| &argument.ty);
    let mut results = region.operations.iter().flat_map(|operation| &operation.results);
    let ty = types.by_ref().chain(results.by_ref()).nth(value).cloned();
    let ty = ty.with_context(|| format!("no value {value}"))?;
    ensure!(matches!(ty, Type::Tensor { .. }), "value {value} is no tensor");
    let output = region.operations.last_mut().filter(|operation| operation.name == op::OUTPUT);
    output.context("a graph without outputs")?.operands.insert(0, value);
    let [
        _,
        _,
        _,
        Property::Required(Attribute::Type(Type::Function { results, .. })),
        ..,
        Property::Required(Attribute::Array(names)),
    ] = &mut graph.properties[..]
    else {
        anyhow::bail!("a graph of another form");
    };
    results.insert(0, ty);
    let name = Attribute::Opaque { name: "aicode.name".into(), values: vec![Attribute::string(name)] };
    names.insert(0, Attribute::Array(vec![name]));
    Ok(())
}
