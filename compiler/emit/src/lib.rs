//! From an open checkpoint to a finished file or kernel folder.

mod compute;
pub mod decoder;
pub mod experts;
mod folder;
mod format;
mod functions;
pub mod parts;
pub mod pipeline;
pub mod plan;
mod quantized;
pub mod stream;
pub mod timesteps;
mod vanish;
pub mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};
use s2dit_backends::onnx::pair::Pair;
use s2dit_backends::output::{Destination, Staged};
use s2dit_backends::{coreml, onnx};
use s2dit_ir::verify::verify;
use s2dit_ir::{Module, WeightSource};
use s2dit_passes::PassRun;
use s2dit_passes::pipelines::{self, Engine, Form};
pub use s2dit_runtime::stream::contract::{Precision, Target};
use s2dit_runtime::{Timesteps as Listed, interface};
use serde::Serialize;

pub use self::compute::{ATTENTION, Attention, COMPUTE, Compute, DEVICE, LOWERINGS, Layout};
pub use self::quantized::Quantized;
pub use self::timesteps::TimestepChoice;
pub use self::vanish::Vanished;

use self::folder::{Writer, Written};
use self::parts::Partition;
use crate::plan::{Quantize, Sources};
use s2dit_files::choice;
use s2dit_models::Model;
use s2dit_models::checkpoint::Checkpoint;
use s2dit_models::model::Part;
use s2dit_models::size::Size;

/// The newest ONNX operator set that a model may use. A model says 23 only if it has an op of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Opset {
    /// For older runtimes.
    V21,
    /// Opset 23, which has `RotaryEmbedding`; ONNX Runtime supports it since 1.23.
    #[default]
    V23,
}

choice!(Opset, "opset", V21 = "21", V23 = "23");

/// The precision if none is asked for.
#[must_use]
pub const fn default_precision(target: Target) -> Precision {
    match target {
        Target::Onnx | Target::CoreAi => Precision::Fp32,
        Target::CoreMl => Precision::Fp16,
    }
}

/// The form in which a target gets its graph. `engine` is how the Neural Engine does.
fn form(target: Target, precision: Precision, opset: Opset, compute: Compute, engine: Engine) -> Result<Form> {
    Ok(match (target, precision, compute) {
        (Target::Onnx, Precision::Fp32, _) if opset == Opset::V23 => Form::Onnx23,
        (Target::Onnx, Precision::Fp32, _) => Form::Onnx21,
        (Target::Onnx, Precision::Fp16, _) => Form::OnnxFp16,
        (Target::CoreAi, _, Compute::Any) => bail!(
            "--target coreai has --compute gpu, the graph as PyTorch has it, and ane, the layout of the Neural Engine: found any"
        ),
        (Target::CoreAi, Precision::Fp16, Compute::Gpu) => Form::CoreAiFp16,
        (Target::CoreAi, Precision::Fp16Weights, Compute::Gpu) => Form::CoreAiHalfWeights,
        (Target::CoreAi, Precision::Fp16Weights, Compute::Ane) => {
            bail!("--precision fp16-weights computes in fp32, which the Neural Engine does not: use --compute gpu")
        }
        (Target::CoreMl | Target::Onnx, Precision::Fp16Weights, _) => {
            bail!("--precision fp16-weights is for --target coreai: use fp16 for target {target}")
        }
        (Target::CoreMl, Precision::Fp32, Compute::Any | Compute::Gpu) => Form::Any,
        (Target::CoreAi, Precision::Fp32, Compute::Gpu) => Form::CoreAi,
        (Target::CoreMl, Precision::Fp16, Compute::Any | Compute::Gpu) => Form::AnyFp16,
        (Target::CoreMl | Target::CoreAi, Precision::Fp32, Compute::Ane) => Form::Ane(engine),
        (Target::CoreMl | Target::CoreAi, Precision::Fp16, Compute::Ane) => Form::AneFp16(engine),
    })
}

/// A compile job.
#[derive(Clone, Debug)]
pub struct Options {
    /// Format of the output.
    pub target: Target,
    /// Arithmetic.
    pub precision: Precision,
    /// The newest ONNX operator set that may be used.
    pub opset: Opset,
    /// Shape of a Core ML package or a Core AI asset.
    pub layout: Layout,
    /// Size of the clip, of the text, or the only one.
    pub size: Size,
    /// Timesteps that the step can be asked for.
    pub timesteps: TimestepChoice,
    /// Storage of large weights; `None` stores them in the precision.
    pub quantize: Option<Quantize>,
    /// Several packages or assets that make the step together [Core ML, Core AI].
    pub partition: Option<Partition>,
}

/// The summary of what was made.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The file or package.
    pub path: PathBuf,
    /// Format of the output.
    pub target: Target,
    /// Arithmetic of the output.
    pub precision: Precision,
    /// Storage of the large weights, if they are compressed.
    pub quantize: Option<Quantize>,
    /// Packages or assets that a partitioned step was spread over; of a kernel, those of `denoise`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parts: Option<usize>,
    /// Number of compressed weights, and of all.
    pub quantized: Option<Quantized>,
    /// Operations of the target, without constants.
    pub ops: usize,
    /// Bytes of weights.
    pub weight_bytes: u64,
    /// blake3 hash of the checkpoint's tensors.
    pub checkpoint: String,
    /// Weights with NaN or infinite elements, which were kept as they are: (name, how many).
    pub non_finite: Vec<(String, u64)>,
    /// Weights of which fp16 makes zeros; none in fp32.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vanished: Vec<Vanished>,
}

impl Summary {
    /// The summary of one file or package that was written; the caller says what was quantized and what vanished.
    fn of(checkpoint: &Checkpoint, options: &Options, path: &Path, written: Written) -> Summary {
        let (ops, weight_bytes, non_finite) = written;
        Summary {
            path: path.into(),
            target: options.target,
            precision: options.precision,
            quantize: options.quantize.clone(),
            parts: None,
            quantized: None,
            ops,
            weight_bytes,
            checkpoint: format!("blake3:{}", checkpoint.content_hash().to_hex()),
            non_finite,
            vanished: Vec::new(),
        }
    }
}

/// Sees the module before the first pass (without a run) and after each one.
pub type Watch<'a> = dyn FnMut(Option<&PassRun>, &Module) + 'a;

/// The graph that the target would get, after its passes.
///
/// # Errors
/// A size that does not fit; a defect of a pass.
pub fn lower(checkpoint: &Checkpoint, options: &Options, watch: &mut Watch) -> Result<Module> {
    options.timesteps.check(checkpoint)?;
    let mut module = lower_graph(checkpoint.model(), checkpoint, options, watch)?;
    quantize(&mut module, options.quantize.as_ref(), checkpoint, watch)?;
    Ok(module)
}

/// [`lower`] for weights from anywhere, none of which is compressed yet.
///
/// # Errors
/// See [`lower`].
pub fn lower_graph(
    model: &dyn Model,
    weights: &dyn WeightSource,
    options: &Options,
    watch: &mut Watch,
) -> Result<Module> {
    let mut module = model.build(weights, options.size)?;
    options.timesteps.check_time(&module)?;
    watch(None, &module);
    let engine = options.layout.engine(options.quantize.as_ref(), options.partition.is_some());
    let form = form(options.target, options.precision, options.opset, options.layout.compute, engine)?;
    let pipeline = match model.family().part() {
        Part::Decoder => pipelines::decoder(&form, None)?,
        Part::Step | Part::TextEncoder => {
            let listed = options.timesteps.listed(model)?;
            pipelines::clip(listed.as_ref().map(Listed::list), form)?
        }
    };
    pipeline.run_with(&mut module, weights, |done, module| watch(Some(done), module))?;
    Ok(module)
}

/// Compresses the large weights of a module that is otherwise finished.
fn quantize(module: &mut Module, how: Option<&Quantize>, checkpoint: &Checkpoint, watch: &mut Watch) -> Result<()> {
    let Some(how) = how else { return Ok(()) };
    let start = Instant::now();
    let changes = how.apply(module, checkpoint)?;
    let time = start.elapsed();
    verify(module)?;
    watch(Some(&PassRun { pass: "quantize", changes, time }), module);
    Ok(())
}

/// Compiles a checkpoint to `out`, which appears whole or not at all. `watch` sees every pass; `progress` gets bytes written and bytes in all.
///
/// # Errors
/// A size that does not fit, an output that cannot be written, weights that the precision cannot hold, a checkpoint that another
/// process changes meanwhile.
pub fn compile(
    checkpoint: &Checkpoint,
    options: &Options,
    out: Destination<'_>,
    watch: &mut Watch,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary> {
    if options.partition.is_none() {
        check_extension(out.path, options.target)?;
    }
    let module = lower(checkpoint, options, watch)?;
    // Asked for when the weights have been written: most of them are hashed by then.
    let described = described(checkpoint, &module, options)?;
    let metadata = || {
        let hash = ("s2ditc.checkpoint".into(), format!("blake3:{}", checkpoint.content_hash().to_hex()));
        described.into_iter().chain([hash]).collect()
    };
    let summary = match options.target {
        Target::Onnx => write_onnx(&module, checkpoint, options, metadata, out, progress),
        Target::CoreMl | Target::CoreAi => write_folder(&module, checkpoint, options, metadata, out, progress),
    }?;
    let quantized = options.quantize.as_ref().map(|_| Quantized::of(&module));
    Ok(Summary { quantized, vanished: vanished(checkpoint, options.precision), ..summary })
}

/// Weights of a checkpoint that vanish in a precision.
fn vanished(checkpoint: &Checkpoint, precision: Precision) -> Vec<Vanished> {
    match precision {
        Precision::Fp16 | Precision::Fp16Weights => vanish::vanished(checkpoint),
        Precision::Fp32 => Vec::new(),
    }
}

/// Metadata of the artifact, without the checkpoint's hash: enough to compile it again.
fn described(checkpoint: &Checkpoint, module: &Module, options: &Options) -> Result<BTreeMap<String, String>> {
    let model = checkpoint.model();
    let mut metadata = BTreeMap::from([
        ("s2ditc.version".into(), env!("CARGO_PKG_VERSION").into()),
        ("s2ditc.config".into(), model.config().to_string()),
        interface::metadata(&module.interface)?,
        ("s2ditc.mode".into(), "clip".into()),
        ("s2ditc.precision".into(), options.precision.to_string()),
    ]);
    metadata.extend(options.size.metadata());
    metadata.extend(options.timesteps.listed(model)?.map(|listed| listed.metadata()));
    metadata.extend(options.layout.metadata(options.target));
    if options.target == Target::CoreAi {
        metadata.insert("s2ditc.experimental".into(), "no device has loaded such an asset yet".into());
    }
    metadata.extend(options.quantize.iter().flat_map(Quantize::metadata));
    metadata.extend(loras(checkpoint)?);
    Ok(metadata)
}

/// What artifacts say of the adapters that are merged into their weights: a list of files with their hashes and scales, in order.
fn loras(checkpoint: &Checkpoint) -> Result<Option<(String, String)>> {
    let list: Vec<_> = checkpoint.loras().collect();
    Ok(match list.is_empty() {
        true => None,
        false => Some(("s2ditc.lora".into(), serde_json::to_string(&list)?)),
    })
}

/// What a model is, in one sentence.
fn about(model: &dyn Model) -> String {
    if let Some(graph) = model.graph() {
        return format!("A graph that was imported from {}.", graph.format());
    }
    let name = model.family().name();
    match model.family().part() {
        Part::Step => format!("One step of {name}, a video diffusion transformer."),
        Part::TextEncoder => format!("{name}, a text encoder of video diffusion transformers."),
        Part::Decoder => format!("{name}, a decoder of latents to video."),
    }
}

fn check_extension(out: &Path, target: Target) -> Result<()> {
    let wanted = target.extension();
    if out.extension().is_none_or(|e| e != wanted) {
        bail!("output `{}`: expected a name that ends in `.{wanted}` for target {target}", out.display());
    }
    Ok(())
}

fn write_onnx(
    module: &Module,
    checkpoint: &Checkpoint,
    options: &Options,
    metadata: impl FnOnce() -> BTreeMap<String, String>,
    out: Destination<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary> {
    let mut pair = Pair::stage(out)?;
    let model = pair.model().path().to_path_buf();
    let names = pair.names();
    let source = Sources::new(checkpoint, options.quantize.as_ref());
    let stage = || pair.stage_data();
    let location = |identity: &str| names.data(identity);
    let models = [(&module.functions[0], model.as_path())];
    let written = onnx::write_models(&models, &source, metadata, stage, location, progress)
        .map_err(|error| pair.model().unwritten(&error.into()))?;
    source.check_unchanged()?;
    pair.commit(written.location.as_deref())?;
    Ok(Summary::of(checkpoint, options, out.path, (written.ops, written.weight_bytes, written.non_finite)))
}

fn write_folder(
    module: &Module,
    checkpoint: &Checkpoint,
    options: &Options,
    metadata: impl FnOnce() -> BTreeMap<String, String>,
    out: Destination<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary> {
    let about = coreml::Options {
        short_description: about(checkpoint.model()),
        version: env!("CARGO_PKG_VERSION").into(),
        author: "s2ditc".into(),
        license: String::new(),
    };
    let source = Sources::new(checkpoint, options.quantize.as_ref());
    let writer = Writer { target: options.target, source: &source, about: &about };
    if let Some(how) = options.partition {
        let (written, count) = parts::write_clip(module, how, writer, metadata, out, progress)?;
        return Ok(Summary { parts: Some(count), ..Summary::of(checkpoint, options, out.path, written) });
    }
    let artifact = Staged::folder(out, &writer.contents())?;
    let written =
        writer.write(module, metadata, artifact.path(), progress).map_err(|error| artifact.unwritten(&error))?;
    source.check_unchanged()?;
    artifact.commit()?;
    Ok(Summary::of(checkpoint, options, out.path, written))
}
