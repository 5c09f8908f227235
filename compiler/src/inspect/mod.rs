//! Reports on a checkpoint, an ONNX file, an mlpackage, a kernel folder or that of a decoder, for people and as data.

mod artifact;
mod decoder;
mod graph;
mod kernel;
mod model;
mod recognition;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use s2dit_backends::foreign::Foreign;
use s2dit_runtime::decode::contract::Contract;
use s2dit_runtime::experts::Description;
use s2dit_runtime::partition::{self, Partition};
use s2dit_runtime::pipeline::{Contract as PipelineContract, Pipeline};
use s2dit_runtime::stream::contract::{self, Target};
use serde::Serialize;

pub use artifact::ArtifactReport;
pub use decoder::DecoderReport;
pub use graph::{GraphReport, RoleReport};
pub use kernel::{FunctionReport, KernelReport, StateReport};
pub use model::{BlockCost, Layer, ModelReport};
pub use recognition::{NearMiss, Recognised, Recognition, recognition};

use s2dit_files::WEIGHTS;
use s2dit_import::importer_of;
use s2dit_models::checkpoint::{CONFIG_FILE, Checkpoint, Merged, Origin, PIPELINE_FILE};
use s2dit_models::size::{LatentSize, Size};

/// Latent of the costs when no size is asked for, or the nearest one that fits: the 1.8B preset's chunk.
const DEFAULT_LATENT: LatentSize = LatentSize { frames: 3, rows: 36, cols: 64 };

/// The beginning of the metadata's keys in files that this compiler wrote.
const OURS: &str = "s2ditc.";

/// The report on what was inspected.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum InspectReport {
    /// A checkpoint: a folder or a file of weights.
    Checkpoint(CheckpointReport),
    /// A graph that was imported.
    Graph(GraphReport),
    /// An ONNX file.
    Onnx(ArtifactReport),
    /// A Core ML package.
    MlPackage(ArtifactReport),
    /// A Core AI asset.
    CoreAi(ArtifactReport),
    /// A folder of packages or assets that make one step.
    Partition {
        /// What they are for.
        target: Target,
        /// Reports on the parts, in the order in which they run.
        parts: Vec<ArtifactReport>,
    },
    /// The folder of a compiled pipeline.
    Pipeline {
        /// Its contract.
        contract: Box<PipelineContract>,
        /// Reports on its parts, in the order in which they are called.
        parts: Vec<InspectReport>,
    },
    /// A folder of two transformers that share the timesteps.
    Experts {
        /// The timestep from which on the first one is asked.
        boundary: f64,
        /// Reports on both, that of high noise first.
        experts: Vec<InspectReport>,
    },
    /// A kernel folder.
    Kernel(KernelReport),
    /// The folder of a decoder.
    Decoder(DecoderReport),
}

/// A checkpoint: a folder or a file of weights.
#[derive(Debug, Serialize)]
pub struct CheckpointReport {
    /// The folder or file.
    pub path: String,
    /// What the files are, such as `safetensors`.
    pub format: String,
    /// How the names in the files became those of the model.
    pub names: String,
    /// Adapters that are merged into the weights.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub loras: Vec<Merged>,
    /// Weight files.
    pub files: usize,
    /// Tensors.
    pub tensors: usize,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Tensors by dtype.
    pub dtypes: Vec<(String, usize)>,
    /// blake3 of the tensors, however they are spread over files.
    pub hash: String,
    /// The model.
    pub model: ModelReport,
    /// Formulas and blocks recognised in the checkpoint's graph.
    pub recognised: Vec<Recognition>,
}

/// Inspects a path by what lies there.
///
/// # Errors
/// Nothing there, or something that is none of these; problems of the file.
pub fn inspect(origin: &Origin, size: Option<Size>) -> Result<InspectReport> {
    let path = origin.path.as_path();
    if is_checkpoint(origin) {
        return checkpoint(origin, size);
    }
    if path.is_dir() && (path.extension().is_some_and(|e| e == "mlpackage") || path.join("Manifest.json").exists()) {
        return Ok(InspectReport::MlPackage(artifact::mlpackage(path)?));
    }
    if path.join(s2dit_backends::coreai::asset::PROGRAM).exists()
        || (path.is_dir() && path.extension().is_some_and(|e| e == "aimodel"))
    {
        return Ok(InspectReport::CoreAi(artifact::aimodel(path)?));
    }
    if Pipeline::is_in(path) {
        let opened = Pipeline::open(path)?;
        let parts =
            opened.contract().assets.parts().map(|(part, _)| inspect(&opened.part(part)?.as_path().into(), None));
        let parts = parts.collect::<Result<_>>()?;
        return Ok(InspectReport::Pipeline { contract: Box::new(opened.contract().clone()), parts });
    }
    if path.join(partition::FILE).is_file() {
        let opened = Partition::open(path)?;
        let files = opened.description().parts.iter().map(|part| path.join(&part.file));
        let target = opened.target();
        let report: fn(&Path) -> Result<ArtifactReport> =
            if target == Target::CoreAi { artifact::aimodel } else { artifact::mlpackage };
        let parts = files.map(|file| report(&file)).collect::<Result<_>>()?;
        return Ok(InspectReport::Partition { target, parts });
    }
    if let Some(pair) = Description::read(path)? {
        let one = |expert: &PathBuf| match Description::read(expert)? {
            None => inspect(&expert.as_path().into(), None),
            Some(_) => bail!(
                "`{}`: found a pair of experts, expected an expert of the pair `{}`",
                expert.display(),
                path.display()
            ),
        };
        let experts = pair.paths(path).iter().map(one).collect::<Result<_>>()?;
        return Ok(InspectReport::Experts { boundary: pair.boundary, experts });
    }
    if Contract::is_in(path) {
        return Ok(InspectReport::Decoder(decoder::decoder(path)?));
    }
    if path.is_dir() && path.join(contract::FILE).exists() {
        return Ok(InspectReport::Kernel(kernel::kernel(path)?));
    }
    if path.is_dir() {
        // A link that leads nowhere is the checkpoint's to say.
        let has = |file: &str| path.join(file).symlink_metadata().is_ok();
        if !has(CONFIG_FILE) && !has(PIPELINE_FILE) {
            if let Some(part) = a_part(path) {
                bail!(
                    "`{}`: found `{part}` without {}, expected the whole folder of a kernel or decoder: copy or compile it again; \
                     or name the file itself",
                    path.display(),
                    contract::FILE
                );
            }
            bail!(
                "`{}`: expected a checkpoint folder with {CONFIG_FILE}, an .mlpackage with Manifest.json or a kernel folder with {}",
                path.display(),
                contract::FILE
            );
        }
        return checkpoint(origin, size);
    }
    if path.extension().is_some_and(|ending| ending == "toml") && path.is_file() {
        bail!(
            "`{}`: found a text that may be a plan of `s2ditc quantize`, expected a checkpoint or an artifact: `s2ditc compile --quantize PLAN` takes plans",
            path.display()
        );
    }
    if path.exists() {
        // A file that says by its name or its first bytes what it is has an error of its own.
        let is_known = path.extension().is_some_and(|ending| ending == Target::Onnx.extension())
            || !Foreign::of(path).is_ok_and(|found| found.is_none());
        let read = artifact::onnx(path);
        let Some(mut report) = read.map(Some).or_else(|error| if is_known { Err(error) } else { Ok(None) })? else {
            bail!(
                "`{}`: found a file of none of the formats that are read, expected weights (safetensors, torch.save, GGUF), a graph (.pt2, .onnx) or an artifact",
                path.display()
            );
        };
        if !report.metadata.keys().any(|key| key.starts_with(OURS)) {
            match checkpoint(origin, size) {
                Ok(graph) => return Ok(graph),
                Err(error) => report.not_recognised = Some(format!("cannot be read as a graph: {error:#}")),
            }
        }
        return Ok(InspectReport::Onnx(report));
    }
    bail!("`{}`: expected a checkpoint folder, an .onnx file or an .mlpackage; nothing is there", path.display())
}

/// The name of an artifact that lies in a folder.
fn a_part(folder: &Path) -> Option<String> {
    let names = std::fs::read_dir(folder).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let endings = [Target::Onnx, Target::CoreMl, Target::CoreAi].map(|target| format!(".{}", target.extension()));
    names.filter(|name| endings.iter().any(|ending| name.ends_with(ending))).min()
}

/// Whether a checkpoint is meant: by how it is to be read, or by what the file is.
fn is_checkpoint(origin: &Origin) -> bool {
    let said = origin.config.is_some() || origin.state_dict.is_some() || !origin.loras.is_empty();
    // An ONNX file may be an artifact of ours.
    let is_graph = || importer_of(&origin.path).is_some_and(|i| i.name() != "onnx" || !origin.ask.is_empty());
    let is_file = || Foreign::of(&origin.path).is_ok_and(|found| found.is_some_and(|found| WEIGHTS.contains(&found)));
    said || is_file() || is_graph()
}

fn checkpoint(origin: &Origin, size: Option<Size>) -> Result<InspectReport> {
    let checkpoint = Checkpoint::open_from(origin)?;
    if let Some(graph) = checkpoint.model().graph() {
        return Ok(InspectReport::Graph(GraphReport::new(&checkpoint, graph, size)?));
    }
    let (model, weights) = (checkpoint.model(), checkpoint.weights());
    let size = size.unwrap_or_else(|| model.usual_size(DEFAULT_LATENT));
    Ok(InspectReport::Checkpoint(CheckpointReport {
        path: checkpoint.path().display().to_string(),
        format: checkpoint.format(),
        names: checkpoint.naming().to_string(),
        loras: checkpoint.loras().cloned().collect(),
        files: weights.doors().len(),
        tensors: weights.names().len(),
        bytes: weights.stored_bytes(),
        dtypes: weights.dtypes().iter().map(|(d, n)| (d.to_string(), *n)).collect(),
        hash: format!("blake3:{}", checkpoint.content_hash().to_hex()),
        model: ModelReport::new(model, size)?,
        recognised: recognition(model.build(&checkpoint, size)?)?,
    }))
}
