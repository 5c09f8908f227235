//! A step as several packages that each fit a phone.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use s2dit_backends::coreml;
use s2dit_backends::output::{Contents, Destination, Staged};
use s2dit_ir::{Function, Interface, Module};
use s2dit_passes::partition::{block_bytes, cuts, filled, partition};
use s2dit_runtime::partition::{self, Part, part_of};
use s2dit_runtime::stream::contract::Port;

use crate::format::has_format;
use crate::plan::Sources;
use s2dit_files::parse_size;
use s2dit_files::problems::{Problem, quoted};

/// Ops, bytes of weights, weights that are not finite.
pub(super) type Written = (usize, u64, Vec<(String, u64)>);

/// The spread of a step over packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partition {
    /// The fewest packages with less than [`PHONE`] bytes of weights each.
    Auto,
    /// So many packages, as even as they can be.
    Count(usize),
    /// The fewest packages with at most this many bytes of weights each.
    Bytes(u64),
}

/// Bytes of weights from which on packages have been seen to fail on iOS: ANEMLL splits there, and the Neural Engine's compiler refuses 2 GiB.
pub const PHONE: u64 = 1_000_000_000;

impl FromStr for Partition {
    type Err = Problem;
    fn from_str(text: &str) -> Result<Self, Problem> {
        let expected = || "auto, a number of packages such as 4, or a size such as 900MB";
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
    /// The first block of each part, for functions that are cut alike.
    ///
    /// # Errors
    /// More parts than blocks; a block that is larger than a part may be.
    pub fn starts(self, functions: &[&Function], interface: &Interface) -> Result<Vec<usize>> {
        let bytes = block_bytes(functions, interface);
        let limit = match self {
            Partition::Count(count) if count > bytes.len() => {
                bail!("--partition: found {count} packages, expected at most {}: one a block", bytes.len())
            }
            Partition::Count(count) => return Ok(cuts(&bytes, count)),
            Partition::Auto => PHONE - 1,
            Partition::Bytes(limit) => limit,
        };
        if let Some((block, size)) = bytes.iter().enumerate().find(|(_, size)| **size > limit) {
            bail!("--partition: block {block} alone has {size} bytes of weights, more than the {limit} of a package");
        }
        // As few as can be, and then even.
        Ok(cuts(&bytes, filled(&bytes, limit).len()))
    }
}

/// Whether a path is of a file in the package of a part: `part0.mlpackage/Manifest.json`.
pub(super) fn is_in_part(path: &str, stem: &str) -> bool {
    let Some((index, file)) = path.strip_prefix(stem).and_then(|rest| rest.split_once(".mlpackage/")) else {
        return false;
    };
    !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit()) && coreml::package::is_part(file)
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
    source: &Sources<'_>,
    about: &coreml::Options,
    metadata: impl FnOnce() -> BTreeMap<String, String>,
    out: Destination<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(Written, usize)> {
    let f = &module.functions[0];
    let interface = &module.interface;
    let starts = how.starts(&[f], interface)?;
    let all: u64 = block_bytes(&[f], interface).iter().sum();
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
        let file = format!("part{index}.mlpackage");
        let package = folder.path().join(&file);
        std::fs::create_dir(&package).with_context(failed)?;
        parts.push(described(&function, file));
        let before = total.1;
        let own = || metadata_of(LazyCell::force(&metadata), index, count);
        let mut shown = |done: u64, _: u64| progress((before + done).min(all), all);
        let written = coreml::write_package(&Module::single(function), source, about, own, &package, &mut shown)
            .map_err(|error| folder.unwritten(&error.into()))?;
        total.0 += written.ops;
        total.1 += written.weight_bytes;
        total.2.extend(written.non_finite);
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
    source.check_unchanged()?;
    folder.commit()?;
    total.2.sort();
    total.2.dedup();
    Ok((total, count))
}
