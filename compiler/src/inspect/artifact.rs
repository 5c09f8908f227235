//! Finished artifacts: an ONNX file or an mlpackage, ours or another tool's.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use s2dit_runtime::Timesteps;
use serde::Serialize;

use s2dit_emit::{COMPUTE, Compute};

use super::{ModelReport, Recognition, recognition};
use s2dit_models::config;
use s2dit_models::size::Size;

/// An input, output or state.
#[derive(Debug, Serialize)]
pub struct Feature {
    /// Name.
    pub name: String,
    /// Element type.
    pub dtype: String,
    /// Shape; −1 where it is not static.
    pub shape: Vec<i64>,
}

/// An ONNX file or an mlpackage.
#[derive(Debug, Serialize)]
pub struct ArtifactReport {
    /// Path of the artifact.
    pub path: String,
    /// Format, versions, producer.
    pub format: String,
    /// The oldest systems that load a Core ML package, such as `iOS 18, macOS 15`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_os: Option<String>,
    /// Inputs.
    pub inputs: Vec<Feature>,
    /// Outputs.
    pub outputs: Vec<Feature>,
    /// States.
    pub states: Vec<Feature>,
    /// Operations by type, most frequent first, without constants.
    pub ops: Vec<(String, usize)>,
    /// Stored weight tensors.
    pub weight_tensors: usize,
    /// Bytes of the stored weights.
    pub weight_bytes: u64,
    /// Place of the stored weights.
    pub weight_storage: String,
    /// Bytes of the stored weights by dtype.
    pub weights_by_dtype: BTreeMap<String, u64>,
    /// User-defined metadata.
    pub metadata: BTreeMap<String, String>,
    /// Formulas and blocks recognised in each function of a package.
    pub recognised: Vec<Recognition>,
    /// Why nothing could be: an ONNX file, or ops that cannot be read back.
    pub not_recognised: Option<String>,
    /// The only timesteps that it takes, if it does not take any.
    pub timesteps: Option<Timesteps>,
    /// The model, if the metadata tells which (artifacts of this compiler).
    pub model: Option<ModelReport>,
}

/// The model that the metadata describes, if it does.
fn model_of(metadata: &BTreeMap<String, String>) -> Option<ModelReport> {
    let model = config::parse(metadata.get("s2ditc.config")?, "metadata").ok()?;
    ModelReport::new(&*model, Size::of_metadata(metadata)?).ok()
}

/// An ONNX file.
///
/// # Errors
/// A file that is not ONNX, or whose external data is not there.
pub(super) fn onnx(path: &Path) -> Result<ArtifactReport> {
    use s2dit_backends::onnx::read::{Model, Value};
    let model = Model::open(path)?;
    model.check_external_files()?;
    let feature = |v: Value| Feature { name: v.name, dtype: v.dtype, shape: v.shape };
    let weights_by_dtype = model.weights_by_dtype();
    let external = model.external_files();
    let metadata = model.metadata();
    Ok(ArtifactReport {
        path: path.display().to_string(),
        format: model.format(),
        minimum_os: None,
        inputs: model.inputs().into_iter().map(feature).collect(),
        outputs: model.outputs().into_iter().map(feature).collect(),
        states: Vec::new(),
        ops: model.ops(),
        weight_tensors: model.initializers().len(),
        weight_bytes: weights_by_dtype.values().sum(),
        weight_storage: if external.is_empty() {
            "in the file".into()
        } else {
            format!("external data: {}", external.into_keys().collect::<Vec<_>>().join(", "))
        },
        weights_by_dtype,
        recognised: Vec::new(),
        not_recognised: Some("an ONNX file is not read back as a graph".into()),
        timesteps: Timesteps::of(&metadata)?,
        model: model_of(&metadata),
        metadata,
    })
}

/// Why no formulas are looked for.
const FOR_THE_ENGINE: &str =
    "it is shaped for the Neural Engine; inspect the checkpoint, or compile it with --compute gpu";

/// A Core ML package.
///
/// # Errors
/// A folder that is not a readable package.
pub(super) fn mlpackage(path: &Path) -> Result<ArtifactReport> {
    use s2dit_backends::coreml::Package;
    use s2dit_backends::coreml::read::Feature as Described;
    let package = Package::open(path)?;
    let feature = |v: Described| Feature { name: v.name, dtype: v.dtype, shape: v.shape };
    let records = package.weights().map(|w| w.records()).transpose()?.unwrap_or_default();
    let mut weights_by_dtype: BTreeMap<String, u64> = BTreeMap::new();
    for record in &records {
        *weights_by_dtype.entry(record.type_name().into()).or_default() += record.size;
    }
    let metadata = package.metadata();
    let (recognised, not_recognised) = match recognised(&package) {
        _ if metadata.get(COMPUTE).is_some_and(|compute| *compute == Compute::Ane.to_string()) => {
            (Vec::new(), Some(FOR_THE_ENGINE.into()))
        }
        Ok(list) => (list, None),
        Err(why) => (Vec::new(), Some(format!("{why:#}"))),
    };
    Ok(ArtifactReport {
        path: path.display().to_string(),
        format: package.format(),
        minimum_os: Some(package.minimum_os().into()),
        inputs: package.inputs().into_iter().map(feature).collect(),
        outputs: package.outputs().into_iter().map(feature).collect(),
        states: package.states().into_iter().map(feature).collect(),
        ops: package.ops(),
        weight_tensors: records.len(),
        weight_bytes: weights_by_dtype.values().sum(),
        weight_storage: "weights/weight.bin".into(),
        weights_by_dtype,
        recognised,
        not_recognised,
        timesteps: Timesteps::of(&metadata)?,
        model: model_of(&metadata),
        metadata,
    })
}

/// A Core AI asset.
///
/// # Errors
/// A folder that is not a readable asset.
pub(super) fn aimodel(path: &Path) -> Result<ArtifactReport> {
    use s2dit_backends::coreai::Asset;
    use s2dit_backends::coreai::read::Feature as Described;
    let asset = Asset::open(path)?;
    let feature = |v: Described| Feature { name: v.name, dtype: v.dtype, shape: v.shape };
    let weights_by_dtype = asset.weights_by_dtype();
    let metadata = asset.metadata();
    let read_back = s2dit_backends::coreai::raise(&asset, None).map_err(anyhow::Error::from).and_then(recognition);
    let (recognised, not_recognised) = match read_back {
        _ if metadata.get(COMPUTE).is_some_and(|compute| *compute == Compute::Ane.to_string()) => {
            (Vec::new(), Some(FOR_THE_ENGINE.into()))
        }
        Ok(found) => (found, None),
        Err(why) => (Vec::new(), Some(format!("{why:#}"))),
    };
    let mut ops: Vec<(String, usize)> = asset.ops().into_iter().collect();
    ops.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    Ok(ArtifactReport {
        path: path.display().to_string(),
        format: asset.format(),
        minimum_os: Some("iOS 27, macOS 27".into()),
        inputs: asset.inputs(asset.main()).into_iter().map(feature).collect(),
        outputs: asset.outputs(asset.main()).into_iter().map(feature).collect(),
        states: asset.states(asset.main()).into_iter().map(feature).collect(),
        ops,
        weight_tensors: asset.resources().count(),
        weight_bytes: weights_by_dtype.values().sum(),
        weight_storage: "in main.mlirb".into(),
        weights_by_dtype,
        recognised,
        not_recognised,
        timesteps: Timesteps::of(&metadata)?,
        model: model_of(&metadata),
        metadata,
    })
}

fn recognised(package: &s2dit_backends::coreml::Package) -> Result<Vec<Recognition>> {
    let mut all = Vec::new();
    for function in package.functions() {
        all.extend(recognition(s2dit_backends::coreml::raise(package, Some(&function))?)?);
    }
    Ok(all)
}
