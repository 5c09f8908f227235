//! Reads an mlpackage from disk, ours or another tool's, trusting nothing in it.

mod manifest;
mod weights;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use prost::Message;
use s2dit_ir::{FileRegion, TensorType, WeightError, WeightSource};

use super::proto::{Function, FunctionDescription, Model, Operation, Program};
pub use weights::{BlobRecord, WeightFile};

/// Protobuf's own limit.
const LARGEST_SPEC: u64 = 2 << 30;

/// An input, output or state of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Name.
    pub name: String,
    /// Element type, as the IR names it.
    pub dtype: String,
    /// Shape.
    pub shape: Vec<i64>,
}

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
    pub fn open(path: &Path) -> Result<Package> {
        let shown = path.display();
        let spec = manifest::specification(path)?;
        let size = std::fs::metadata(&spec).with_context(|| format!("cannot read `{}`", spec.display()))?.len();
        if size > LARGEST_SPEC {
            bail!("`{}`: {size} bytes, but a model specification has at most {LARGEST_SPEC}", spec.display());
        }
        let bytes = std::fs::read(&spec).with_context(|| format!("cannot read `{}`", spec.display()))?;
        let model = Model::decode(bytes.as_slice())
            .map_err(|e| anyhow::anyhow!("`{}` is not a Core ML model specification: {e}", spec.display()))?;
        if !(7..=10).contains(&model.specification_version) {
            bail!(
                "`{}`: found specification version {}, expected 7 to 10",
                spec.display(),
                model.specification_version
            );
        }
        let weights = spec.with_file_name("weights").join("weight.bin");
        let weights = if weights.is_file() { Some(WeightFile::open(&weights)?) } else { None };
        let package = Package { path: path.into(), model, weights };
        let program = package.program()?;
        if program.functions.is_empty() {
            bail!("`{shown}`: the program has no functions");
        }
        for (name, function) in &program.functions {
            package.check_description(name, function)?;
        }
        Ok(package)
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
            format!("function `{name}`: expected a block for opset `{}`, found {found:?}", function.opset)
        })
    }

    fn description(&self, function: &str) -> FunctionDescription {
        let Some(d) = &self.model.description else { return FunctionDescription::default() };
        match d.functions.iter().find(|f| f.name == function) {
            Some(f) => f.clone(),
            None => FunctionDescription {
                name: function.into(),
                input: d.input.clone(),
                output: d.output.clone(),
                state: d.state.clone(),
            },
        }
    }

    /// Inputs of the default function.
    pub fn inputs(&self) -> Vec<Feature> {
        self.description(&self.default_function()).input.iter().map(feature).collect()
    }

    /// Outputs of the default function.
    pub fn outputs(&self) -> Vec<Feature> {
        self.description(&self.default_function()).output.iter().map(feature).collect()
    }

    /// States of the default function.
    pub fn states(&self) -> Vec<Feature> {
        self.description(&self.default_function()).state.iter().map(feature).collect()
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

    /// Operations of all functions, without constants.
    pub fn operations(&self) -> impl Iterator<Item = &Operation> {
        let functions = self.program().into_iter().flat_map(|p| p.functions.values());
        functions
            .flat_map(|f| f.block_specializations.values())
            .flat_map(|b| &b.operations)
            .filter(|o| o.r#type != "const")
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

    /// The description must name what the function takes and returns, or Core ML cannot load it.
    fn check_description(&self, name: &str, function: &Function) -> Result<()> {
        let description = self.description(name);
        let shown = self.path.display();
        let mut described: Vec<&str> =
            description.input.iter().chain(&description.state).map(|f| f.name.as_str()).collect();
        let mut taken: Vec<&str> = function.inputs.iter().map(|i| i.name.as_str()).collect();
        described.sort_unstable();
        taken.sort_unstable();
        if described != taken {
            bail!("`{shown}`: function `{name}` takes {taken:?}, but the model description has {described:?}");
        }
        let returned = &self.block(name, function)?.outputs;
        let described: Vec<&String> = description.output.iter().map(|f| &f.name).collect();
        let mut sorted: Vec<&String> = returned.iter().collect();
        let mut wanted = described.clone();
        sorted.sort_unstable();
        wanted.sort_unstable();
        if sorted != wanted {
            bail!("`{shown}`: function `{name}` returns {returned:?}, but the model description has {described:?}");
        }
        Ok(())
    }
}

fn feature(f: &super::proto::FeatureDescription) -> Feature {
    let array = f.r#type.as_ref().and_then(array_of);
    let dtype = match array.map(|a| a.data_type) {
        Some(65568) => "f32",
        Some(65600) => "f64",
        Some(65552) => "f16",
        Some(131_104) => "i32",
        Some(131_080) => "i8",
        _ => "?",
    };
    Feature { name: f.name.clone(), dtype: dtype.into(), shape: array.map(|a| a.shape.clone()).unwrap_or_default() }
}

/// The array of a feature or of a state.
fn array_of(ty: &super::proto::FeatureType) -> Option<&super::proto::ArrayFeatureType> {
    use super::proto::feature_type::Type;
    match ty.r#type.as_ref()? {
        Type::MultiArrayType(array) => Some(array),
        Type::StateType(state) => state.array_type.as_ref(),
        _ => None,
    }
}

/// Weights by record: `@64` is the tensor whose record starts at byte 64 of the weight file.
impl WeightSource for Package {
    fn ty(&self, name: &str) -> Option<TensorType> {
        let record = self.weights.as_ref()?.record(offset_of(name)?).ok()?;
        Some(TensorType::new(record.dtype?, [record.elements()?]))
    }

    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
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

fn offset_of(name: &str) -> Option<u64> {
    name.strip_prefix('@')?.parse().ok()
}
