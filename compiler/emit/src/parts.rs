//! A step as several packages or assets that each fit a phone.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use s2dit_backends::output::{Contents, Destination, Staged};
use s2dit_ir::{Function, Interface, Module};
use s2dit_passes::partition::{Casts, block_bytes, cuts, filled, partition};
use s2dit_runtime::partition::{self, Part, part_of};
use s2dit_runtime::stream::contract::Port;

use crate::Target;
use crate::folder::{Writer, Written, is_inside};
use crate::format::has_format;
use s2dit_files::parse_size;
use s2dit_files::problems::{Problem, quoted};

/// The spread of a step over parts: packages or assets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partition {
    /// The fewest parts with less than [`limit`] bytes of weights each.
    Auto,
    /// So many parts, as even as they can be.
    Count(usize),
    /// The fewest parts with at most this many bytes of weights each.
    Bytes(u64),
}

/// Bytes of weights from which on an iPhone has been seen to fail: with packages ANEMLL splits there, and the Neural Engine's compiler refuses 2 GiB; Apple's recipes
/// for iOS have assets of less than 2 GB.
#[must_use]
pub const fn limit(target: Target) -> u64 {
    match target {
        Target::CoreMl | Target::Onnx => 1_000_000_000,
        Target::CoreAi => 2_000_000_000,
    }
}

impl FromStr for Partition {
    type Err = Problem;
    fn from_str(text: &str) -> Result<Self, Problem> {
        let expected = || "auto, a number of parts such as 4, or a size such as 900MB";
        match (text, text.parse::<usize>()) {
            ("auto", _) => Ok(Partition::Auto),
            (_, Ok(count @ 1..=1000)) => Ok(Partition::Count(count)),
            _ => match parse_size(text) {
                Ok(bytes) if bytes >= 1000 => Ok(Partition::Bytes(bytes)),
                _ => Err(Problem { place: "partition".into(), found: quoted(text), expected: expected().into() }),
            },
        }
    }
}

impl Partition {
    /// The first block of each part for a target, for functions that are cut alike.
    ///
    /// # Errors
    /// More parts than blocks; a block that is larger than a part may be.
    pub fn starts(self, functions: &[&Function], interface: &Interface, target: Target) -> Result<Vec<usize>> {
        let bytes = block_bytes(functions, interface, stored(target));
        let limit = match self {
            Partition::Count(count) if count > bytes.len() => {
                bail!("--partition: found {count} parts, expected at most {}: one a block", bytes.len())
            }
            Partition::Count(count) => return Ok(cuts(&bytes, count)),
            Partition::Auto => limit(target) - 1,
            Partition::Bytes(limit) => limit,
        };
        if let Some((block, size)) = bytes.iter().enumerate().find(|(_, size)| **size > limit) {
            bail!("--partition: block {block} alone has {size} bytes of weights, more than the {limit} of a part");
        }
        // As few as can be, and then even.
        Ok(cuts(&bytes, filled(&bytes, limit).len()))
    }
}

/// What a target stores of a constant that is the cast of another.
fn stored(target: Target) -> Casts {
    if target == Target::CoreAi { Casts::AreComputed } else { Casts::AreStored }
}

/// Whether a path is of a file in a part: `part0.mlpackage/Manifest.json`.
pub(super) fn is_in_part(path: &str, stem: &str) -> bool {
    let rest = path.strip_prefix(stem).unwrap_or_default();
    let inside = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    inside.len() < rest.len() && is_inside(inside)
}

/// The description of a part that lies in `file`.
pub(super) fn described(f: &Function, file: String) -> Part {
    let port = |name: &str, v| Port { name: name.into(), dtype: f.dtype(v), shape: f.shape(v).to_vec() };
    Part {
        file,
        inputs: f.params().iter().map(|&p| port(f.node(p).name.as_deref().unwrap_or_default(), p)).collect(),
        outputs: f.results.iter().map(|(name, v)| port(name, *v)).collect(),
    }
}

/// Metadata of part `index` of `count`.
pub(super) fn metadata_of(whole: &BTreeMap<String, String>, index: usize, count: usize) -> BTreeMap<String, String> {
    let part = ("s2ditc.part".to_string(), part_of(index, count));
    whole.clone().into_iter().chain([part]).collect()
}

/// Writes the parts of a clip's step and their description to the folder `out`, which appears whole or not at all.
pub(super) fn write_clip(
    module: &Module,
    how: Partition,
    writer: Writer<'_>,
    metadata: impl FnOnce() -> BTreeMap<String, String>,
    out: Destination<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(Written, usize)> {
    let f = &module.functions[0];
    let interface = &module.interface;
    let starts = how.starts(&[f], interface, writer.target)?;
    let all: u64 = block_bytes(&[f], interface, stored(writer.target)).iter().sum();
    let functions = partition(f, interface, &starts)?;
    let count = functions.len();
    let contents = Contents {
        kind: "a partitioned step",
        marker: partition::FILE,
        part: &|path| path == partition::FILE || is_in_part(path, "part"),
        ours: &|folder| has_format(&folder.join(partition::FILE), partition::FORMAT),
    };
    let folder = Staged::folder(out, &contents)?;
    let failed = || format!("cannot write `{}`", out.path.display());
    let metadata = LazyCell::new(metadata);
    let mut parts = Vec::new();
    let mut total: Written = (0, 0, Vec::new());
    for (index, (_, function)) in functions.into_iter().enumerate() {
        let file = format!("part{index}.{}", writer.target.extension());
        let artifact = folder.path().join(&file);
        std::fs::create_dir(&artifact).with_context(failed)?;
        parts.push(described(&function, file));
        let before = total.1;
        let own = || metadata_of(LazyCell::force(&metadata), index, count);
        let mut shown = |done: u64, _: u64| progress((before + done).min(all), all);
        // With the names of what ends blocks.
        let part = Module { interface: interface.clone(), ..Module::single(function) };
        let (ops, bytes, non_finite) =
            writer.write(&part, own, &artifact, &mut shown).map_err(|error| folder.unwritten(&error))?;
        total.0 += ops;
        total.1 += bytes;
        total.2.extend(non_finite);
    }
    let whole = described(f, String::new());
    let description = partition::Description {
        format: partition::FORMAT.into(),
        version: partition::VERSION,
        inputs: whole.inputs,
        outputs: whole.outputs,
        parts,
        metadata: LazyCell::force(&metadata).clone(),
    };
    let text = serde_json::to_string_pretty(&description)? + "\n";
    std::fs::write(folder.path().join(partition::FILE), text).with_context(failed)?;
    writer.source.check_unchanged()?;
    folder.commit()?;
    total.2.sort();
    total.2.dedup();
    Ok((total, count))
}
