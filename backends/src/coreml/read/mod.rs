//! Reads an mlpackage from disk, ours or another tool's, trusting nothing in it.

mod blobs;
mod compressed;
mod interface;
mod manifest;
mod weights;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use prost::Message;
use s2dit_ir::{FileRegion, TensorType, WeightError, WeightSource};

use super::cost;
use super::proto::{DataType, Function, Model, NamedValueType, Operation, Program, value_type};
use crate::Error;
use crate::coreai::asset::PROGRAM;
use crate::foreign::Foreign;
use crate::input::{LFS_POINTER, is_lfs_pointer, read_file};
use crate::wire;
pub(super) use blobs::WEIGHTS;
pub use compressed::StoredWeight;
pub(super) use compressed::is_compressed;
pub use interface::Feature;
pub use weights::{BlobRecord, WeightFile};

/// Protobuf messages are smaller than this.
const SPEC_LIMIT: u64 = 2 << 30;

/// Specification versions that have ML Programs, with their op sets and the oldest systems that load them (the comments of
/// Apple's `Model.proto`).
const OPSETS: [(i32, &str, &str); 5] = [
    (6, "CoreML5", "iOS 15, macOS 12"),
    (7, "CoreML6", "iOS 16, macOS 13"),
    (8, "CoreML7", "iOS 17, macOS 14"),
    (9, "CoreML8", "iOS 18, macOS 15"),
    (10, "CoreML9", "iOS 26, macOS 26"),
];

/// An open package.
#[derive(Debug)]
pub struct Package {
    path: PathBuf,
    model: Model,
    weights: Option<WeightFile>,
}

impl Package {
    /// Opens a package folder: manifest, model specification, weight file.
    ///
    /// # Errors
    /// A folder that is not a package; a manifest, specification or weight file that is damaged; a model that is no ML Program.
    pub fn open(path: &Path) -> Result<Package, Error> {
        Package::decoded(path).map_err(Error::reading)
    }

    fn decoded(path: &Path) -> Result<Package> {
        let shown = path.display();
        if path.is_file() {
            let found = Foreign::of(path).ok().flatten().map_or("a file".into(), |other| other.to_string());
            bail!("`{shown}`: expected the folder of an .mlpackage, found {found}");
        }
        if path.join(PROGRAM).exists() {
            bail!(
                "`{shown}` is a Core AI asset: expected an .mlpackage; `s2ditc verify` and `s2ditc inspect` read assets"
            );
        }
        let spec = manifest::specification(path)?;
        let bytes = read_file(&spec, SPEC_LIMIT).with_context(|| format!("cannot read `{}`", spec.display()))?;
        if is_lfs_pointer(&bytes) {
            bail!("`{}` is {LFS_POINTER}", spec.display());
        }
        wire::check(&bytes, &cost::MODEL)
            .map_err(|e| anyhow::anyhow!("`{}` is not a Core ML model specification: {e}", spec.display()))?;
        let model = Model::decode(bytes.as_slice())
            .map_err(|e| anyhow::anyhow!("`{}` is not a Core ML model specification: {e}", spec.display()))?;
        let version = model.specification_version;
        if !OPSETS.iter().any(|(v, ..)| *v == version) {
            bail!("`{}`: found specification version {version}, expected 6 to 10", spec.display());
        }
        let weights_path = spec.with_file_name("weights").join("weight.bin");
        let weights = if weights_path.exists() {
            let file = WeightFile::open(&weights_path)?;
            file.records()?;
            Some(file)
        } else {
            None
        };
        let package = Package { path: path.into(), model, weights };
        let program = package.program()?;
        if program.functions.is_empty() {
            bail!("`{shown}`: the program has no functions");
        }
        for (name, function) in &program.functions {
            package.check_opset(name, function)?;
            blobs::check(&package, name, function)?;
            package.check_description(name, function)?;
        }
        Ok(package)
    }

    fn check_opset(&self, name: &str, function: &Function) -> Result<()> {
        let version = self.model.specification_version;
        let wanted: Vec<&str> = OPSETS.iter().filter(|(v, ..)| *v <= version).map(|(_, o, _)| *o).collect();
        if !wanted.contains(&function.opset.as_str()) {
            bail!(
                "`{}`: function `{name}`: found op set `{}`, expected one of specification version {version}: {}",
                self.path.display(),
                function.opset,
                wanted.join(", ")
            );
        }
        Ok(())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The weight file, if there is one.
    pub fn weights(&self) -> Option<&WeightFile> {
        self.weights.as_ref()
    }

    pub(super) fn program(&self) -> Result<&Program> {
        self.model
            .ml_program
            .as_ref()
            .with_context(|| format!("`{}`: expected an ML Program, found another kind of model", self.path.display()))
    }

    /// Names of the functions, the default one first.
    pub fn functions(&self) -> Vec<String> {
        let default = self.default_function();
        let mut names: Vec<String> = self.program().map(|p| p.functions.keys().cloned().collect()).unwrap_or_default();
        names.sort_by_key(|n| *n != default);
        names
    }

    fn default_function(&self) -> String {
        let named = self.model.description.as_ref().map(|d| d.default_function_name.clone()).unwrap_or_default();
        if named.is_empty() { "main".into() } else { named }
    }

    /// A function of the program, `None` for the default one.
    pub(super) fn function(&self, name: Option<&str>) -> Result<(String, &Function)> {
        let name = name.map_or_else(|| self.default_function(), str::to_string);
        let function = self.program()?.functions.get(&name).with_context(|| {
            format!("`{}`: no function `{name}`; it has {}", self.path.display(), self.functions().join(", "))
        })?;
        Ok((name, function))
    }

    /// The block that runs: the specialisation for the function's opset.
    pub(super) fn block<'f>(&self, name: &str, function: &'f Function) -> Result<&'f super::proto::Block> {
        function.block_specializations.get(&function.opset).with_context(|| {
            let found: Vec<&str> = function.block_specializations.keys().map(String::as_str).collect();
            let shown = self.path.display();
            format!("`{shown}`: function `{name}`: expected a block for opset `{}`, found {found:?}", function.opset)
        })
    }

    /// User-defined metadata.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let metadata = self.model.description.as_ref().and_then(|d| d.metadata.as_ref());
        metadata.map(|m| m.user_defined.clone()).unwrap_or_default()
    }

    /// `Core ML specification 9, CoreML8, functions main`
    pub fn format(&self) -> String {
        let opsets: std::collections::BTreeSet<&str> =
            self.program().map(|p| p.functions.values().map(|f| f.opset.as_str()).collect()).unwrap_or_default();
        format!(
            "Core ML specification {}, opset {}, functions {}",
            self.model.specification_version,
            opsets.into_iter().collect::<Vec<_>>().join(" + "),
            self.functions().join(", ")
        )
    }

    /// The oldest systems that load the package, by its specification version: `iOS 18, macOS 15`.
    pub fn minimum_os(&self) -> &'static str {
        let version = self.model.specification_version;
        OPSETS.iter().find(|(v, ..)| *v == version).map_or("", |(_, _, systems)| systems)
    }

    /// Operations of all functions, without constants.
    pub fn operations(&self) -> impl Iterator<Item = &Operation> {
        let functions = self.program().into_iter().flat_map(|p| p.functions.values());
        functions
            .flat_map(|f| f.block_specializations.values())
            .flat_map(|b| &b.operations)
            .filter(|o| o.r#type != "const")
    }

    /// Whether an operation gives fp16.
    pub fn has_fp16(&self) -> bool {
        let is_fp16 = |v: &NamedValueType| {
            let ty = v.r#type.as_ref().and_then(|t| t.r#type.as_ref());
            matches!(ty, Some(value_type::Type::TensorType(t)) if t.data_type == DataType::Float16 as i32)
        };
        self.operations().flat_map(|o| &o.outputs).any(is_fp16)
    }

    /// Operation counts by type, most frequent first.
    pub fn ops(&self) -> Vec<(String, usize)> {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for op in self.operations() {
            *counts.entry(op.r#type.clone()).or_default() += 1;
        }
        let mut list: Vec<_> = counts.into_iter().collect();
        list.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        list
    }
}

/// Weights by record: `@64` is the tensor whose record starts at byte 64 of the weight file. Compressed ones by function and
/// value: `main%w`.
impl WeightSource for Package {
    fn ty(&self, name: &str) -> Option<TensorType> {
        if let Some((function, value)) = name.split_once('%') {
            return self.compressed(function, value).ok().and_then(|c| c.ty().ok());
        }
        let record = self.weights.as_ref()?.record(offset_of(name)?).ok()?;
        Some(TensorType::new(record.dtype?, [record.elements()?]))
    }

    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
        if let Some((function, value)) = name.split_once('%') {
            let decoded = self.compressed(function, value).and_then(|c| c.bytes());
            let failed = |e: anyhow::Error| WeightError::Read { name: name.into(), message: format!("{e:#}") };
            return decoded.map(Cow::Owned).map_err(failed);
        }
        let missing = || WeightError::Missing { name: name.into() };
        let weights = self.weights.as_ref().ok_or_else(missing)?;
        let record = weights
            .record(offset_of(name).ok_or_else(missing)?)
            .map_err(|e| WeightError::Read { name: name.into(), message: format!("{e:#}") })?;
        Ok(Cow::from(weights.data(&record)))
    }

    fn region(&self, name: &str) -> Option<FileRegion> {
        let weights = self.weights.as_ref()?;
        let record = weights.record(offset_of(name)?).ok()?;
        Some(FileRegion { path: weights.path().into(), offset: record.data_offset, len: record.size })
    }
}

/// The weight source's name of a record.
pub(super) fn record_name(offset: u64) -> String {
    format!("@{offset}")
}

/// The weight source's name of a compressed weight. `%` is in no identifier of MIL.
pub(super) fn compressed_name(function: &str, value: &str) -> String {
    format!("{function}%{value}")
}

fn offset_of(name: &str) -> Option<u64> {
    name.strip_prefix('@')?.parse().ok()
}
