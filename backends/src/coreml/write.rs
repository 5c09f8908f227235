//! A module as an mlpackage.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Error, Result, ensure};
use prost::Message;
use s2dit_ir::compress::Compressed;
use s2dit_ir::weights::Remembering;
use s2dit_ir::{Module, ValueId, WeightSource, weights};

use super::blob::Record;
use super::lower::{self, Data, Lowered, Piece};
use super::package;
use super::proto::{Metadata, Model, ModelDescription};
use crate::fill::{Place, fill, write_at};
use crate::held;

/// The description of a package that Apple's tools show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// A line about the model.
    pub short_description: String,
    /// The model's version.
    pub version: String,
    /// Author of the model.
    pub author: String,
    /// The model's licence.
    pub license: String,
}

/// The figures of a finished write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Operations of all functions, without constants.
    pub ops: usize,
    /// Constants in the weight file.
    pub weights: usize,
    /// Bytes of the weights.
    pub weight_bytes: u64,
    /// Constants with NaN or infinite elements: (name, how many).
    pub non_finite: Vec<(String, u64)>,
}

/// Writes a module as an mlpackage into the folder `dir`, which exists and is empty.
///
/// One function becomes `main`; of several, the first is the default one. Weights are streamed: the memory needed is the
/// graph's and one tensor's. `metadata` is asked for when they have been written, so that it may be computed meanwhile, and
/// goes to the model's user-defined metadata. `progress` gets bytes written and bytes in all.
///
/// The bytes follow from the arguments alone.
///
/// # Errors
/// An op, type or name that Core ML cannot express; a weight that cannot be read or that its dtype cannot hold; a full
/// disk.
pub fn write_package(
    module: &Module,
    source: &dyn WeightSource,
    options: &Options,
    metadata: impl FnOnce() -> BTreeMap<String, String>,
    dir: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary, crate::Error> {
    write_one(module, source, options, metadata, dir, progress).map_err(crate::Error::writing)
}

fn write_one(
    module: &Module,
    source: &dyn WeightSource,
    options: &Options,
    metadata: impl FnOnce() -> BTreeMap<String, String>,
    dir: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary> {
    let mut lowered = lower::lower(module, source)?;
    write_weights(&mut lowered, module, source, dir, progress)?;
    let Lowered { model, blobs, ops, non_finite } = lowered;
    finish(model, options, metadata(), dir)?;
    Ok(Summary { ops, weights: blobs.layout.records().len(), weight_bytes: blobs.layout.file_bytes(), non_finite })
}

/// Writes each function of a module as a package of its own, called `main` there. The packages have one weight file between
/// them, stored once: the others are hard links to the first (copies where the file system has no links).
///
/// `dirs` are folders that exist and are empty, one a function. The rest is as in [`write_package`].
///
/// # Errors
/// As [`write_package`].
pub fn write_siblings(
    module: &Module,
    source: &dyn WeightSource,
    options: &Options,
    metadata: impl FnOnce() -> BTreeMap<String, String>,
    dirs: &[&Path],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary, crate::Error> {
    write_several(module, source, options, metadata, dirs, progress).map_err(crate::Error::writing)
}

fn write_several(
    module: &Module,
    source: &dyn WeightSource,
    options: &Options,
    metadata: impl FnOnce() -> BTreeMap<String, String>,
    dirs: &[&Path],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary> {
    ensure!(dirs.len() == module.functions.len() && !dirs.is_empty(), "expected a folder for each function");
    if let [dir] = dirs {
        return write_one(module, source, options, metadata, dir, progress);
    }
    let mut lowered = lower::lower(module, source)?;
    write_weights(&mut lowered, module, source, dirs[0], progress)?;
    let Lowered { model, blobs, ops, non_finite } = lowered;
    let metadata = metadata();
    for (i, (f, dir)) in module.functions.iter().zip(dirs).enumerate() {
        if i > 0 {
            package::link_weights(dirs[0], dir)?;
        }
        finish(lower::single(&model, &f.name)?, options, metadata.clone(), dir)?;
    }
    Ok(Summary { ops, weights: blobs.layout.records().len(), weight_bytes: blobs.layout.file_bytes(), non_finite })
}

/// Bytes of the weights that [`write_package`] would write. Nothing large is computed.
///
/// # Errors
/// See [`write_package`].
pub fn weight_bytes(module: &Module, source: &dyn WeightSource) -> Result<u64, crate::Error> {
    Ok(lower::lower(module, source).map_err(crate::Error::writing)?.blobs.layout.file_bytes())
}

fn write_weights(
    lowered: &mut Lowered,
    module: &Module,
    source: &dyn WeightSource,
    dir: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let Some(file) = package::create(dir, !lowered.blobs.layout.records().is_empty())? else { return Ok(()) };
    write_records(lowered, module, source, &file, progress)
        .with_context(|| package::cannot_write(&dir.join(package::WEIGHTS)))
}

fn write_records(
    lowered: &mut Lowered,
    module: &Module,
    source: &dyn WeightSource,
    file: &File,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let source = &Remembering::new(source);
    let Lowered { blobs, non_finite, .. } = lowered;
    let (layout, total) = (&blobs.layout, blobs.layout.data_bytes());
    // What is not written is zeros.
    file.set_len(layout.file_bytes())?;
    write_at(file, &layout.header()?, 0)?;
    let (mut places, mut records, mut names) = (Vec::new(), Vec::new(), Vec::new());
    let mut done = 0;
    let mut last: Option<(usize, ValueId, Compressed)> = None;
    for (record, data) in layout.records().iter().zip(&blobs.data) {
        write_at(file, &record.header(), record.offset)?;
        let bytes = match data {
            Data::Bytes(bytes) => Cow::Borrowed(&bytes[..]),
            Data::Value { function, value, name } => {
                let function = &module.functions[*function];
                places.push(Place { function, value: *value, at: record.data() });
                names.push(weights::sources(function, *value).unwrap_or_else(|| name.clone()));
                records.push(record);
                continue;
            }
            Data::Compressed { function, value, piece, name } => {
                let f = &module.functions[*function];
                // The table's record follows that of the codes: one computation serves both.
                let weight = match last.take() {
                    Some((g, v, weight)) if (g, v) == (*function, *value) => weight,
                    _ => weights::compressed(f, *value, source).with_context(|| format!("the weight `{name}`"))?,
                };
                let bytes = match piece {
                    Piece::Codes => weight.packed(),
                    Piece::Table => weight.table_bytes(f.dtype(*value)),
                };
                last = Some((*function, *value, weight));
                Cow::Owned(bytes)
            }
        };
        check_size(record, bytes.len() as u64)?;
        write_at(file, &bytes, record.data())?;
        done += record.bytes;
        progress(done, total);
    }
    let written = fill(file, &places, source, &|_, _| {}, &mut |bytes| progress(done + bytes, total))
        .map_err(|(index, error)| Error::new(error).context(format!("the weight `{}`", names[index])))?;
    for (((written, place), record), name) in written.iter().zip(&places).zip(records).zip(&names) {
        held::check(name, place.function.dtype(place.value), written, non_finite)?;
        check_size(record, written.bytes)?;
    }
    Ok(())
}

fn check_size(record: &Record, bytes: u64) -> Result<()> {
    ensure!(bytes == record.bytes, "expected {} bytes of data, got {bytes}", record.bytes);
    Ok(())
}

fn finish(mut model: Model, options: &Options, user_defined: BTreeMap<String, String>, dir: &Path) -> Result<()> {
    let metadata = Metadata {
        short_description: options.short_description.clone(),
        version_string: options.version.clone(),
        author: options.author.clone(),
        license: options.license.clone(),
        user_defined,
    };
    if metadata != Metadata::default() {
        model.description.get_or_insert_with(ModelDescription::default).metadata = Some(metadata);
    }
    package::finish(dir, &model.encode_to_vec())
}
