//! Reads an asset from disk, ours or another tool's, trusting nothing in it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use memmap2::Mmap;

use super::asset::{self, HASH, Metadata, PROGRAM, hash};
use super::bytecode::read::{Read, read};
use super::op;
use super::program::{Attribute, Element, Operation, Property, Region, Type, Value};
use crate::Error;
use crate::input::{LFS_POINTER, check_regular, is_lfs_pointer, read_file};

/// Far above a hash.
const LONGEST_HASH: u64 = 1 << 10;

/// An input, output or state of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// Its element type, by the IR's name if it has one: `f32`, `i32`.
    pub dtype: String,
    /// Extents; below 0 where they are open.
    pub shape: Vec<i64>,
}

/// An open asset.
#[derive(Debug)]
pub struct Asset {
    path: PathBuf,
    metadata: Metadata,
    program: Read,
    map: Mmap,
}

impl Asset {
    /// Opens the folder of an asset: program, hash, metadata.
    ///
    /// # Errors
    /// A folder that is no asset; a file that is damaged; a program that has no graph.
    pub fn open(path: &Path) -> Result<Asset, Error> {
        Asset::opened(path).map_err(Error::reading)
    }

    fn opened(path: &Path) -> Result<Asset> {
        let program = path.join(PROGRAM);
        let shown = program.display();
        let file = check_regular(&program).and_then(|()| File::open(&program));
        let file = file.with_context(|| format!("cannot read `{shown}`"))?;
        // SAFETY: the map is read only; a file that another process shortens meanwhile ends this one with SIGBUS, as any map.
        let map = unsafe { Mmap::map(&file) }.with_context(|| format!("cannot map `{shown}`"))?;
        if is_lfs_pointer(&map) {
            bail!("`{shown}` is {LFS_POINTER}");
        }
        let read = read(&map).with_context(|| format!("`{shown}` is no program of Core AI"))?;
        ensure!(graphs(&read.root).next().is_some(), "`{shown}`: found no function, expected one at least");
        let beside = path.join(HASH);
        let said = read_file(&beside, LONGEST_HASH).with_context(|| format!("cannot read `{}`", beside.display()))?;
        let is = hash(&program).with_context(|| format!("cannot read `{shown}`"))?;
        ensure!(
            said[..] == is[..],
            "`{}` is not the SHA-256 of `{shown}`: one of them is damaged, or of another compile; compile the asset again",
            beside.display()
        );
        Ok(Asset { path: path.into(), metadata: Metadata::read(path)?, program: read, map })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// User-defined metadata, as far as it is text.
    #[must_use]
    pub fn metadata(&self) -> BTreeMap<String, String> {
        self.metadata.texts()
    }

    /// The program.
    #[must_use]
    pub fn root(&self) -> &Operation {
        &self.program.root
    }

    /// The bytes of a resource.
    #[must_use]
    pub fn resource(&self, number: usize) -> Option<&[u8]> {
        let (_, range) = self.program.resources.get(number)?;
        self.map.get(range.clone())
    }

    /// Where a resource lies in the program's file.
    pub(super) fn resource_range(&self, number: usize) -> Option<std::ops::Range<usize>> {
        self.program.resources.get(number).map(|(_, range)| range.clone())
    }

    /// Names of the functions, in order.
    pub fn functions(&self) -> impl Iterator<Item = &str> {
        graphs(&self.program.root).filter(|graph| !graph.is_private).map(|graph| graph.name)
    }

    /// The function that is called if none is named: `main`, or else the first.
    #[must_use]
    pub fn main(&self) -> &str {
        let mut functions = self.functions();
        let first = functions.next().unwrap_or_default();
        if self.functions().any(|f| f == "main") { "main" } else { first }
    }

    /// Inputs of a function.
    #[must_use]
    pub fn inputs(&self, function: &str) -> Vec<Feature> {
        self.graph(function).map(|g| features(g.input_names, g.inputs, is_value)).unwrap_or_default()
    }

    /// Outputs of a function.
    #[must_use]
    pub fn outputs(&self, function: &str) -> Vec<Feature> {
        self.graph(function).map(|g| features(g.output_names, g.outputs, is_value)).unwrap_or_default()
    }

    /// States of a function.
    #[must_use]
    pub fn states(&self, function: &str) -> Vec<Feature> {
        self.graph(function).map(|g| g.states()).unwrap_or_default()
    }

    /// Names of the states that a function writes.
    #[must_use]
    pub fn written_states(&self, function: &str) -> Vec<String> {
        let Some(graph) = self.graph(function) else { return Vec::new() };
        let names = graph.input_names();
        let writes = graph.region.operations.iter().filter(|operation| operation.name == op::WRITE_HANDLE);
        writes.filter_map(|write| names.get(*write.operands.first()?).cloned()).collect()
    }

    /// Names of values inside a function that end blocks, with their numbers.
    ///
    /// # Errors
    /// Metadata that does not name values, or names one that the function does not compute.
    pub fn value_names(&self, function: &str) -> Result<BTreeMap<String, Value>, Error> {
        self.named_values(function).map_err(Error::reading)
    }

    fn named_values(&self, function: &str) -> Result<BTreeMap<String, Value>> {
        let (shown, metadata) = (self.path.join(asset::METADATA), self.metadata());
        let names = asset::names_of(&metadata).with_context(|| format!("`{}`", shown.display()))?;
        let names = names.get(function).cloned().unwrap_or_default();
        let values = self.graph(function).map_or(0..0, |g| g.region.arguments.len()..g.region.values());
        for (name, value) in &names {
            ensure!(
                values.contains(value),
                "`{}`: metadata `{}`: function `{function}`, value `{name}`: found number {value}, expected {} to {}",
                shown.display(),
                asset::VALUES,
                values.start,
                values.end
            );
        }
        Ok(names)
    }

    pub(super) fn graph(&self, function: &str) -> Option<Graph<'_>> {
        graphs(&self.program.root).find(|graph| graph.name == function && !graph.is_private)
    }

    /// A graph that ops call.
    pub(super) fn called(&self, name: &str) -> Option<Graph<'_>> {
        graphs(&self.program.root).find(|graph| graph.name == name)
    }

    /// Whether anything in the asset is fp16, weights and interface included.
    #[must_use]
    pub fn has_fp16(&self) -> bool {
        let half = |ty: &Type| {
            matches!(ty, Type::Tensor { element: Element::F16, .. } | Type::Handle { element: Element::F16, .. })
        };
        graphs(&self.program.root)
            .any(|g| g.inputs.iter().any(half) || g.region.operations.iter().any(|op| op.results.iter().any(half)))
    }

    /// Whether an op has an fp16 result: then not only weights are.
    #[must_use]
    pub fn computes_in_fp16(&self) -> bool {
        let half = |ty: &Type| matches!(ty, Type::Tensor { element: Element::F16, .. });
        let ops = graphs(&self.program.root).flat_map(|graph| &graph.region.operations);
        ops.filter(|op| op.name != op::CONSTANT).any(|op| op.results.iter().any(half))
    }

    /// Each op with the number of its uses, constants left out.
    #[must_use]
    pub fn ops(&self) -> BTreeMap<String, usize> {
        let mut ops = BTreeMap::new();
        let all = graphs(&self.program.root).flat_map(|graph| &graph.region.operations);
        for op in all.filter(|op| ![op::CONSTANT, op::OUTPUT].contains(&&*op.name)) {
            *ops.entry(op.name.to_string()).or_default() += 1;
        }
        ops
    }

    /// Bytes of the resources by element type.
    #[must_use]
    pub fn weights_by_dtype(&self) -> BTreeMap<String, u64> {
        let mut types = BTreeMap::new();
        for op in graphs(&self.program.root).flat_map(|graph| &graph.region.operations) {
            if let ([Property::Required(Attribute::Resource(number))], [Type::Tensor { element, .. }]) =
                (&op.properties[..], &op.results[..])
            {
                types.insert(*number, dtype_name(*element));
            }
        }
        let mut bytes = BTreeMap::new();
        for (number, (_, range)) in self.program.resources.iter().enumerate() {
            *bytes.entry((*types.get(&number).unwrap_or(&"?")).to_string()).or_default() += range.len() as u64;
        }
        bytes
    }

    /// Format, versions, producer.
    #[must_use]
    pub fn format(&self) -> String {
        let version = match &self.program.root.properties[..] {
            [_, Property::Optional(Some(Attribute::Integer { value, .. })), ..] => format!("aicode {value}"),
            _ => "aicode".into(),
        };
        format!("version {}, {version}, written by {}", self.metadata.asset_version, self.metadata.producer)
    }

    /// Name and size of each resource.
    pub fn resources(&self) -> impl Iterator<Item = (&str, usize)> {
        self.program.resources.iter().map(|(name, range)| (name.as_str(), range.len()))
    }
}

/// A graph, taken apart.
pub(super) struct Graph<'a> {
    pub(super) name: &'a str,
    /// Whether only ops call it.
    is_private: bool,
    /// The formula that it says it is.
    pub(super) formula: Option<&'a str>,
    input_names: &'a [Attribute],
    output_names: &'a [Attribute],
    inputs: &'a [Type],
    outputs: &'a [Type],
    pub(super) region: &'a Region,
}

impl Graph<'_> {
    /// Names of the arguments, states included.
    pub(super) fn input_names(&self) -> Vec<String> {
        features(self.input_names, self.inputs, |_| true).into_iter().map(|feature| feature.name).collect()
    }

    /// Names of the results; tokens have numbers.
    pub(super) fn output_names(&self) -> Vec<String> {
        features(self.output_names, self.outputs, |_| true).into_iter().map(|feature| feature.name).collect()
    }

    fn states(&self) -> Vec<Feature> {
        features(self.input_names, self.inputs, |ty| matches!(ty, Type::Handle { .. }))
    }
}

/// Whether an argument or a result is neither a state nor a token.
fn is_value(ty: &Type) -> bool {
    !matches!(ty, Type::Handle { .. } | Type::Token)
}

/// The graphs of a program.
pub(super) fn graphs(root: &Operation) -> impl Iterator<Item = Graph<'_>> {
    root.regions.iter().flat_map(|region| &region.operations).filter_map(graph)
}

fn graph(op: &Operation) -> Option<Graph<'_>> {
    if op.name != op::GRAPH {
        return None;
    }
    let [
        Property::Required(Attribute::Array(input_names)),
        Property::Optional(declaration),
        _,
        Property::Required(Attribute::Type(Type::Function { inputs, results })),
        _,
        Property::Required(Attribute::String(name)),
        Property::Required(is_private),
        _,
        Property::Required(Attribute::Array(output_names)),
    ] = &op.properties[..]
    else {
        return None;
    };
    let is_private = *is_private == Attribute::flag(true);
    let formula = match declaration {
        Some(Attribute::Opaque { name, .. }) => Some(&**name),
        _ => None,
    };
    let region = op.regions.first()?;
    Some(Graph { name, is_private, formula, input_names, output_names, inputs, outputs: results, region })
}

/// The arguments or results of some types.
fn features(names: &[Attribute], types: &[Type], wanted: impl Fn(&Type) -> bool) -> Vec<Feature> {
    let feature = |(i, ty): (usize, &Type)| {
        let name = names.get(i).and_then(named).unwrap_or_else(|| format!("{i}"));
        match ty {
            Type::Tensor { shape, element } | Type::Handle { shape, element } => {
                let shape = shape.iter().map(|d| (*d).max(-1)).collect();
                Feature { name, dtype: dtype_name(*element).into(), shape }
            }
            _ => Feature { name, dtype: "?".into(), shape: Vec::new() },
        }
    };
    types.iter().enumerate().filter(|(_, ty)| wanted(ty)).map(feature).collect()
}

/// The name among the attributes of an argument or result.
fn named(attributes: &Attribute) -> Option<String> {
    let Attribute::Array(attributes) = attributes else { return None };
    attributes.iter().find_map(|attribute| match attribute {
        Attribute::Opaque { name, values } if &**name == "aicode.name" => match &values[..] {
            [Attribute::String(text)] => Some(text.to_string()),
            _ => None,
        },
        _ => None,
    })
}

/// The IR's name of an element type, or Core AI's if the IR has no such type.
fn dtype_name(element: Element) -> &'static str {
    match element {
        Element::Bool => "bool",
        Element::Si64 => "i64",
        Element::Si32 => "i32",
        Element::Si16 => "i16",
        Element::Si8 => "i8",
        Element::Ui32 => "u32",
        Element::Ui16 => "u16",
        Element::Ui8 => "u8",
        other => other.name(),
    }
}
