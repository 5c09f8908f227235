//! The functions of a kernel as files: one package or asset of all, a package each, or an ONNX file each.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use s2dit_backends::output::Contents;
use s2dit_backends::{coreml, onnx};
use s2dit_ir::{Function, Module};
use s2dit_runtime::stream::contract;

use crate::Target;
use crate::folder::{Writer, Written, is_inside};
use crate::parts::is_in_part;
use crate::plan::Sources;

/// What a folder of functions holds; `kind` and `ours` are its maker's.
pub(crate) const CONTENTS: Contents<'static> =
    Contents { kind: "a folder of functions", marker: contract::FILE, part: &is_of_functions, ours: &|_| false };

/// The weights of all functions of an ONNX kernel.
const DATA: &str = "weights.data";

/// Which functions share weights, so that their packages have one weight file, or that they are in one asset: what writes the states is `denoise` with another
/// end, and `prompt` has hardly a weight in common with them; a decoder decodes the first chunk with the weights of the others.
const SIBLINGS: [&[&str]; 3] = [&["denoise", "commit", "last_step"], &["prompt"], &["first", "next"]];

/// Name of a package or an asset of all functions.
const SHARED: &str = "kernel";

/// Whether a path is of a file in a folder of functions.
fn is_of_functions(path: &str) -> bool {
    let of = |function: &str| match path.strip_prefix(function) {
        Some(".onnx") => true,
        Some(rest) => is_inside(rest),
        None => false,
    };
    let mut names = SIBLINGS.iter().copied().flatten().copied().chain([SHARED]);
    path == contract::FILE || path == DATA || names.any(|f| of(f) || is_in_part(path, f))
}

/// Functions that are to be written.
pub(crate) struct Made<'a> {
    /// The functions.
    pub module: &'a Module,
    /// Those that are spread over packages or assets: each one's parts, with their place among the blocks.
    pub parts: &'a BTreeMap<String, Vec<(usize, Function)>>,
    /// The format.
    pub target: Target,
    /// All functions are in one package [Core ML]; those for Core AI always are.
    pub shared: bool,
}

impl Made<'_> {
    /// Writes them into the folder `dir`.
    ///
    /// # Errors
    /// A place that cannot be written; weights that the precision cannot hold.
    pub(crate) fn write(
        &self,
        source: &Sources<'_>,
        about: &coreml::Options,
        metadata: impl FnOnce() -> BTreeMap<String, String>,
        dir: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Written> {
        let writer = Writer { target: self.target, source, about };
        match self.target {
            Target::Onnx => write_onnx(self.module, source, metadata, dir, progress),
            Target::CoreMl if !self.shared => self.write_groups(writer, metadata, dir, progress),
            Target::CoreAi if !self.parts.is_empty() => self.write_groups(writer, metadata, dir, progress),
            Target::CoreMl | Target::CoreAi => {
                let artifact = dir.join(format!("{SHARED}.{}", self.target.extension()));
                std::fs::create_dir(&artifact)?;
                writer.write(self.module, metadata, &artifact, progress)
            }
        }
    }

    /// The file of a function.
    pub(crate) fn file(&self, name: &str) -> String {
        match (self.target, self.shared) {
            (Target::Onnx, _) => format!("{name}.onnx"),
            (Target::CoreMl, true) => format!("{SHARED}.mlpackage"),
            (Target::CoreAi, _) if self.parts.is_empty() => format!("{SHARED}.aimodel"),
            (Target::CoreMl | Target::CoreAi, _) => self.part(name, self.parts.get(name).map(|parts| parts[0].0)),
        }
    }

    /// The file of a function, or of one of its parts: a package each, or an asset of all that share weights.
    pub(crate) fn part(&self, name: &str, index: Option<usize>) -> String {
        let alone = SIBLINGS.iter().any(|names| **names == [name]);
        let stem = if self.target == Target::CoreMl || alone { name } else { SHARED };
        let index = index.map(|index| index.to_string()).unwrap_or_default();
        format!("{stem}{index}.{}", self.target.extension())
    }

    /// Packages of functions, or of their parts, that share a weight file; or an asset of those.
    fn write_groups(
        &self,
        writer: Writer<'_>,
        metadata: impl FnOnce() -> BTreeMap<String, String>,
        dir: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Written> {
        let module = self.module;
        let mut groups = Vec::new();
        for names in SIBLINGS {
            // By part; the only one of a function that is whole is called 0.
            let mut group: BTreeMap<usize, (Module, Vec<PathBuf>)> = BTreeMap::new();
            for name in names.iter().filter(|name| module.function(name).is_some()) {
                let whole = || module.function(name).with_context(|| format!("no function `{name}`")).cloned();
                let parts = match self.parts.get(*name) {
                    Some(parts) => parts.clone(),
                    None => vec![(0, whole()?)],
                };
                for (index, function) in parts {
                    let artifact = dir.join(self.part(name, self.parts.contains_key(*name).then_some(index)));
                    let empty = || (Module { functions: Vec::new(), ..module.clone() }, Vec::new());
                    let (siblings, artifacts) = group.entry(index).or_insert_with(empty);
                    siblings.functions.push(function);
                    if !artifacts.contains(&artifact) {
                        std::fs::create_dir(&artifact)?;
                        artifacts.push(artifact);
                    }
                }
            }
            groups.extend(group.into_values());
        }
        let metadata = LazyCell::new(metadata);
        let mut total: Written = (0, 0, Vec::new());
        for (group, artifacts) in &groups {
            let metadata = || LazyCell::force(&metadata).clone();
            let (ops, bytes, non_finite) = match &artifacts[..] {
                [one] => writer.write(group, metadata, one, progress)?,
                several => {
                    let dirs: Vec<&Path> = several.iter().map(|p| p.as_path()).collect();
                    let made = coreml::write_siblings(group, writer.source, writer.about, metadata, &dirs, progress)?;
                    (made.ops, made.weight_bytes, made.non_finite)
                }
            };
            total.0 += ops;
            total.1 += bytes;
            total.2.extend(non_finite);
        }
        total.2.sort();
        total.2.dedup();
        Ok(total)
    }
}

fn write_onnx(
    module: &Module,
    source: &Sources<'_>,
    metadata: impl FnOnce() -> BTreeMap<String, String>,
    dir: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Written> {
    let paths: Vec<_> = module.functions.iter().map(|f| dir.join(format!("{}.onnx", f.name))).collect();
    let models: Vec<(&Function, &Path)> = module.functions.iter().zip(paths.iter().map(|p| p.as_path())).collect();
    let data = || Ok(dir.join(DATA));
    let written = onnx::write_models(&models, source, metadata, data, |_| DATA.into(), progress)?;
    Ok((written.ops, written.weight_bytes, written.non_finite))
}
