//! A module as an `.aimodel`.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Error, Result, ensure};
use s2dit_ir::compress::Compressed;
use s2dit_ir::weights::Remembering;
use s2dit_ir::{Module, ValueId, WeightSource, weights};

use super::asset::{self, Metadata, PROGRAM};
use super::bytecode::{Layout, Resource, write::layout};
use super::hashing::{self, Hashing};
use super::lower::{self, Data, Lowered, Piece};
use crate::fill::{Place, fill};
use crate::held;
use crate::output::made;

/// The description of an asset that Apple's tools show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// A line about the model.
    pub short_description: String,
    /// Author of the model.
    pub author: String,
    /// The model's licence.
    pub license: String,
}

/// The figures of a finished write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Ops of all graphs, without constants.
    pub ops: usize,
    /// Weights that are resources.
    pub weights: usize,
    /// Bytes of the weights.
    pub weight_bytes: u64,
    /// Constants with NaN or infinite elements: (name, how many).
    pub non_finite: Vec<(String, u64)>,
}

/// Writes a module as an asset into the folder `dir`, which exists and is empty; each function becomes a graph of its name.
///
/// Weights are streamed: the memory needed is the graph's and one tensor's. `metadata` is asked for when they have been written, and goes to the
/// user-defined metadata. `progress` gets bytes written and bytes in all. The bytes follow from the arguments alone.
///
/// # Errors
/// An op or type that Core AI cannot express; a weight that cannot be read or that its dtype cannot hold; a full disk.
pub fn write_asset(
    module: &Module,
    source: &dyn WeightSource,
    options: &Options,
    metadata: impl FnOnce() -> BTreeMap<String, String>,
    dir: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary, crate::Error> {
    write(module, source, options, metadata, dir, progress).map_err(crate::Error::writing)
}

fn write(
    module: &Module,
    source: &dyn WeightSource,
    options: &Options,
    metadata: impl FnOnce() -> BTreeMap<String, String>,
    dir: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary> {
    let mut lowered = lower::lower(module, source)?;
    let laid_out = laid_out(&lowered, made::NAME);
    let path = dir.join(PROGRAM);
    let names = asset::value_names(&lowered.names)?;
    let weight_bytes = lowered.blobs.iter().map(|b| b.bytes).sum();
    let hash = write_program(&mut lowered, &laid_out, module, source, &path, progress)
        .with_context(|| asset::cannot_write(&path))?;
    asset::finish(dir, &hash, &Metadata::new(options, metadata().into_iter().chain(names).collect()))?;
    let Lowered { blobs, ops, non_finite, .. } = lowered;
    Ok(Summary { ops, weights: blobs.len(), weight_bytes, non_finite })
}

/// The file of a lowered module, without its weights.
pub(super) fn laid_out(lowered: &Lowered, producer: &str) -> Layout {
    let resources: Vec<Resource> =
        lowered.blobs.iter().map(|b| Resource { name: b.name.clone(), bytes: b.bytes }).collect();
    layout(&lowered.root, &resources, producer)
}

/// Writes the file of a lowered module, and returns its SHA-256.
fn write_program(
    lowered: &mut Lowered,
    layout: &Layout,
    module: &Module,
    source: &dyn WeightSource,
    path: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<[u8; 32]> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    file.set_len(layout.bytes)?;
    hashing::while_writing(&file, layout.bytes, |out| write_parts(lowered, layout, module, source, out, progress))
}

fn write_parts(
    lowered: &mut Lowered,
    layout: &Layout,
    module: &Module,
    source: &dyn WeightSource,
    out: &Hashing<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let source = &Remembering::new(source);
    for (at, bytes) in &layout.parts {
        out.write(bytes, *at)?;
    }
    let Lowered { blobs, non_finite, .. } = lowered;
    let total = blobs.iter().map(|b| b.bytes).sum();
    let (mut places, mut filled) = (Vec::new(), Vec::new());
    let mut done = 0;
    let mut last: Option<(usize, ValueId, Compressed)> = None;
    for (blob, at) in blobs.iter().zip(&layout.resources) {
        let bytes = match blob.data {
            Data::Value { function, value } => {
                places.push(Place { function: &module.functions[function], value, at: *at });
                filled.push(blob);
                continue;
            }
            Data::Compressed { function, value, piece } => {
                let f = &module.functions[function];
                // The table follows the codes: one computation serves both.
                let weight = match last.take() {
                    Some((g, v, weight)) if (g, v) == (function, value) => weight,
                    _ => {
                        weights::compressed(f, value, source).with_context(|| format!("the weight `{}`", blob.name))?
                    }
                };
                let bytes = match piece {
                    Piece::Codes => weight.packed(),
                    Piece::Table => weight.table_bytes(f.dtype(value)),
                };
                last = Some((function, value, weight));
                bytes
            }
        };
        check_size(&blob.name, blob.bytes, bytes.len() as u64)?;
        out.write(&bytes, *at)?;
        done += blob.bytes;
        progress(done, total);
    }
    let shown = |function: &s2dit_ir::Function, value: ValueId, name: &str| {
        weights::sources(function, value).unwrap_or_else(|| name.to_string())
    };
    let wrote = |at, len| out.wrote(at, len);
    let written = fill(out.file(), &places, source, &wrote, &mut |bytes| progress(done + bytes, total));
    let written = written.map_err(|(index, error)| {
        let place = &places[index];
        let name = shown(place.function, place.value, &filled[index].name);
        Error::new(error).context(format!("the weight `{name}`"))
    })?;
    for ((written, place), blob) in written.iter().zip(&places).zip(&filled) {
        let name = shown(place.function, place.value, &blob.name);
        held::check(&name, place.function.dtype(place.value), written, non_finite)?;
        check_size(&name, blob.bytes, written.bytes)?;
    }
    Ok(())
}

/// The bytes of a module's program, in memory.
#[cfg(test)]
pub(super) fn bytes_of(module: &Module, source: &dyn WeightSource, producer: &str) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join(PROGRAM);
    let mut lowered = lower::lower(module, source)?;
    let laid_out = laid_out(&lowered, producer);
    write_program(&mut lowered, &laid_out, module, source, &path, &mut |_, _| {})?;
    Ok(std::fs::read(path)?)
}

fn check_size(name: &str, expected: u64, found: u64) -> Result<()> {
    ensure!(expected == found, "the weight `{name}`: expected {expected} bytes, found {found}");
    Ok(())
}
