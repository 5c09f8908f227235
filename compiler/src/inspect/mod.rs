//! Reports on a checkpoint, an ONNX file, an mlpackage or a kernel folder, for people and as data.

mod artifact;
mod kernel;
mod model;
mod recognition;

use std::path::Path;

use anyhow::{Result, bail};
use s2dit_backends::foreign::Foreign;
use s2dit_runtime::pipeline::{self, Pipeline};
use s2dit_runtime::stream::contract;
use serde::Serialize;

pub use artifact::ArtifactReport;
pub use kernel::{FunctionReport, KernelReport, StateReport};
pub use model::{BlockCost, Layer, ModelReport};
pub use recognition::{NearMiss, Recognised, Recognition, recognition};

use s2dit_models::checkpoint::{CONFIG_FILE, Checkpoint, pipeline_problem};
use s2dit_models::size::LatentSize;

/// Latent of the costs when none is asked for, or the nearest one that fits: the 1.8B preset's chunk.
const DEFAULT_LATENT: LatentSize = LatentSize { frames: 3, rows: 36, cols: 64 };

/// The report on what was inspected.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum InspectReport {
    /// A checkpoint folder.
    Checkpoint(CheckpointReport),
    /// An ONNX file.
    Onnx(ArtifactReport),
    /// A Core ML package.
    MlPackage(ArtifactReport),
    /// A folder of packages that make one step.
    Pipeline {
        /// Reports on the packages, in the order in which they run.
        parts: Vec<ArtifactReport>,
    },
    /// A kernel folder.
    Kernel(KernelReport),
}

/// A checkpoint folder.
#[derive(Debug, Serialize)]
pub struct CheckpointReport {
    /// The folder.
    pub path: String,
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
    /// Formulas and blocks recognised in the checkpoint's clip graph.
    pub recognised: Vec<Recognition>,
}

/// Inspects a path by what lies there.
///
/// # Errors
/// Nothing there, or something that is none of these; problems of the file.
pub fn inspect(path: &Path, latent: Option<LatentSize>) -> Result<InspectReport> {
    if path.is_dir() && (path.extension().is_some_and(|e| e == "mlpackage") || path.join("Manifest.json").exists()) {
        return Ok(InspectReport::MlPackage(artifact::mlpackage(path)?));
    }
    if path.join(pipeline::FILE).is_file() {
        let opened = Pipeline::open(path)?;
        let files = opened.description().parts.iter().map(|part| path.join(&part.file));
        return Ok(InspectReport::Pipeline {
            parts: files.map(|file| artifact::mlpackage(&file)).collect::<Result<_>>()?,
        });
    }
    if path.is_dir() && path.join(contract::FILE).exists() {
        return Ok(InspectReport::Kernel(kernel::kernel(path)?));
    }
    if path.is_dir() {
        if let Some(problem) = pipeline_problem(path) {
            return Err(problem.into());
        }
        if !path.join(CONFIG_FILE).exists() {
            bail!(
                "`{}`: expected a checkpoint folder with {CONFIG_FILE}, an .mlpackage with Manifest.json or a kernel folder with {}",
                path.display(),
                contract::FILE
            );
        }
        let checkpoint = Checkpoint::open(path)?;
        let latent = latent.unwrap_or_else(|| checkpoint.model().nearest_latent(DEFAULT_LATENT));
        let model = ModelReport::new(checkpoint.model(), latent)?;
        let recognised = recognition(checkpoint.model().build(&checkpoint, latent)?)?;
        return Ok(InspectReport::Checkpoint(CheckpointReport {
            path: path.display().to_string(),
            files: checkpoint.weights().files().len(),
            tensors: checkpoint.weights().names().len(),
            bytes: checkpoint.weights().stored_bytes(),
            dtypes: checkpoint.weights().dtypes().iter().map(|(d, n)| (d.to_string(), *n)).collect(),
            hash: format!("blake3:{}", checkpoint.content_hash().to_hex()),
            model,
            recognised,
        }));
    }
    if path.is_file() && Foreign::of(path).is_ok_and(|found| found == Some(Foreign::Safetensors)) {
        bail!(
            "`{}`: expected a checkpoint folder, an .onnx file or an .mlpackage; inspect the folder that holds this file and {CONFIG_FILE}",
            path.display()
        );
    }
    if path.exists() {
        return Ok(InspectReport::Onnx(artifact::onnx(path)?));
    }
    bail!("`{}`: expected a checkpoint folder, an .onnx file or an .mlpackage; nothing is there", path.display())
}
