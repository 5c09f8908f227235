//! The functions of a kernel as files: one package of all, a package each, or an ONNX file each.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use s2dit_backends::output::Contents;
use s2dit_backends::{coreai, coreml, onnx};
use s2dit_ir::{Function, Module};
use s2dit_runtime::stream::contract;

use crate::Target;
use crate::parts::{Written, is_in_part};
use crate::plan::Sources;

/// What a folder of functions holds; `kind` and `ours` are its maker's.
pub(crate) const CONTENTS: Contents<'static> =
    Contents { kind: "a folder of functions", marker: contract::FILE, part: &is_of_functions, ours: &|_| false };

/// The weights of all functions of an ONNX kernel.
const DATA: &str = "weights.data";

/// Which packages share a weight file: what writes the states is `denoise` with another end, and `prompt` has hardly a weight in common
/// with them; a decoder decodes the first chunk with the weights of the others.
const SIBLINGS: [&[&str]; 3] = [&["denoise", "commit", "last_step"], &["prompt"], &["first", "next"]];

/// Name of a package of all functions.
const SHARED: &str = "kernel";

/// Whether a path is of a file in a folder of functions.
fn is_of_functions(path: &str) -> bool {
    let of = |function: &str| match path.strip_prefix(function) {
        Some(".onnx") => true,
        Some(rest) => {
            rest.strip_prefix(".mlpackage/").is_some_and(coreml::package::is_part)
                || rest.strip_prefix(".aimodel/").is_some_and(coreai::asset::is_part)
        }
        None => false,
    };
    let mut names = SIBLINGS.iter().copied().flatten().copied().chain([SHARED]);
    path == contract::FILE || path == DATA || names.any(|f| of(f) || is_in_part(path, f))
}

/// Functions that are to be written.
pub(crate) struct Made<'a> {
    /// The functions.
    pub module: &'a Module,
    /// Those that are spread over packages: each one's parts, with their place among the blocks.
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
        match (self.target, self.shared) {
            (Target::CoreAi, _) => write_asset(self.module, source, about, metadata, dir, progress),
            (Target::Onnx, _) => write_onnx(self.module, source, metadata, dir, progress),
            (Target::CoreMl, true) => write_package(self.module, source, about, metadata, dir, progress),
            (Target::CoreMl, false) => self.write_packages(source, about, metadata, dir, progress),
        }
    }

    /// The file of a function.
    pub(crate) fn file(&self, name: &str) -> String {
        match (self.target, self.shared) {
            (Target::Onnx, _) => format!("{name}.onnx"),
            (Target::CoreAi, _) => format!("{SHARED}.aimodel"),
            (Target::CoreMl, true) => format!("{SHARED}.mlpackage"),
            (Target::CoreMl, false) => artifact_file(name, self.parts.get(name).map(|parts| parts[0].0)),
        }
    }

    /// A package a function, or a part of one.
    fn write_packages(
        &self,
        source: &Sources<'_>,
        about: &coreml::Options,
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
                    let package = dir.join(artifact_file(name, self.parts.contains_key(*name).then_some(index)));
                    std::fs::create_dir(&package)?;
                    let empty = || (Module { functions: Vec::new(), ..module.clone() }, Vec::new());
                    let (siblings, packages) = group.entry(index).or_insert_with(empty);
                    siblings.functions.push(function);
                    packages.push(package);
                }
            }
            groups.extend(group.into_values());
        }
        let metadata = LazyCell::new(metadata);
        let mut total: Written = (0, 0, Vec::new());
        for (group, packages) in &groups {
            let dirs: Vec<&Path> = packages.iter().map(|p| p.as_path()).collect();
            let metadata = || LazyCell::force(&metadata).clone();
            let written = coreml::write_siblings(group, source, about, metadata, &dirs, progress)?;
            total.0 += written.ops;
            total.1 += written.weight_bytes;
            total.2.extend(written.non_finite);
        }
        total.2.sort();
        total.2.dedup();
        Ok(total)
    }
}

/// The package of a function, or of one of its parts.
pub(crate) fn artifact_file(name: &str, part: Option<usize>) -> String {
    format!("{name}{}.mlpackage", part.map(|index| index.to_string()).unwrap_or_default())
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

/// One Core AI asset with every function.
fn write_asset(
    module: &Module,
    source: &Sources<'_>,
    about: &coreml::Options,
    metadata: impl FnOnce() -> BTreeMap<String, String>,
    dir: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Written> {
    let asset = dir.join(format!("{SHARED}.aimodel"));
    std::fs::create_dir(&asset)?;
    let about = coreai::Options {
        short_description: about.short_description.clone(),
        author: about.author.clone(),
        license: about.license.clone(),
    };
    let written = coreai::write_asset(module, source, &about, metadata, &asset, progress)?;
    Ok((written.ops, written.weight_bytes, written.non_finite))
}

/// One package with every function.
fn write_package(
    module: &Module,
    source: &Sources<'_>,
    about: &coreml::Options,
    metadata: impl FnOnce() -> BTreeMap<String, String>,
    dir: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Written> {
    let package = dir.join(format!("{SHARED}.mlpackage"));
    std::fs::create_dir(&package)?;
    let written = coreml::write_package(module, source, about, metadata, &package, progress)?;
    Ok((written.ops, written.weight_bytes, written.non_finite))
}
