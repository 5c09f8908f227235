//! From an open checkpoint to a streaming kernel: a folder with a contract and the three functions.

mod describe;
mod job;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use s2dit_backends::coreml;
use s2dit_backends::output::{Contents, Destination, Staged};
use s2dit_ir::{Function, Module, WeightSource};
use s2dit_passes::partition::partition;
use s2dit_passes::pipelines;
use s2dit_passes::split;
use s2dit_runtime::Timesteps as Listed;
use s2dit_runtime::stream::contract::{self, Contract, StateWrite};

use self::describe::contract;
pub use self::job::{Functions, Lowered, Options, States};
use super::format::has_format;
use super::functions;
use super::parts::Partition;
use super::{Precision, Quantized, Summary, Target, Watch, form};
use crate::plan::{Quantize, Sources};
use s2dit_models::checkpoint::Checkpoint;
use s2dit_models::model::Streaming;
use s2dit_models::size::LatentSize;
use s2dit_models::{Family, Model};

impl Lowered {
    /// The module and its contract; `hash` is the checkpoint's.
    ///
    /// # Errors
    /// A checkpoint without a list of timesteps.
    pub fn with_contract(self, checkpoint: &Checkpoint, options: &Options, hash: String) -> Result<(Module, Contract)> {
        let contract = contract(checkpoint, options, &self, hash)?;
        Ok((self.module, contract))
    }
}

/// The kernel's module after the target's passes.
///
/// # Errors
/// A bidirectional checkpoint; a choice that the target does not have; a latent that does not fit.
pub fn lower(checkpoint: &Checkpoint, options: &Options, watch: &mut Watch) -> Result<Lowered> {
    let streaming = checkpoint.streaming()?;
    options.states.check(options.target, options.precision)?;
    if options.states == States::Native && options.partition.is_some() {
        bail!("--partition needs --states io: parts cannot share a state");
    }
    options.timesteps.check(checkpoint)?;
    let mut lowered = lower_graph(checkpoint.model(), checkpoint, &streaming, options, watch)?;
    super::quantize(&mut lowered.module, options.quantize.as_ref(), checkpoint, watch)?;
    let writer = streaming.state_write.name();
    let parts = options.partition.map(|how| cut(&lowered.module, writer, how, options.target));
    lowered.parts = parts.transpose()?.unwrap_or_default();
    Ok(lowered)
}

/// [`lower`] for weights from anywhere, none of which is compressed yet, and for any `streaming`; not partitioned.
///
/// # Errors
/// See [`lower`].
pub fn lower_graph(
    model: &dyn Model,
    weights: &dyn WeightSource,
    streaming: &Streaming,
    options: &Options,
    watch: &mut Watch,
) -> Result<Lowered> {
    let latent = LatentSize { frames: streaming.chunk_frames, rows: options.rows, cols: options.cols };
    let mut module = model.build(weights, latent.into())?;
    watch(None, &module);
    let split_options = split::Options {
        window_frames: streaming.window_frames,
        sink_frames: streaming.sink_frames,
        ahead: streaming.ahead,
        state_write: match streaming.state_write {
            StateWrite::Commit => split::StateWrite::Commit,
            StateWrite::LastStep => split::StateWrite::LastStep,
        },
        half_states: options.precision == Precision::Fp16,
    };
    let engine = options.layout.engine(options.quantize.as_ref(), options.partition.is_some());
    let form = form(options.target, options.precision, options.opset, options.layout.compute, engine)?;
    let listed = options.timesteps.listed(model)?;
    let place = options.states.place(options.target);
    let writer = if model.graph().is_some() { pipelines::Writer::Exporter } else { pipelines::Writer::Frontend };
    let pipeline = pipelines::stream(writer, split_options, listed.as_ref().map(Listed::list), form, place)?;
    let outcome = pipeline.run_with(&mut module, weights, |done, module| watch(Some(done), module))?;
    let kernel = outcome.kernel.context("no kernel")?;
    Ok(Lowered { module, kernel, packing: outcome.packing, parts: BTreeMap::new() })
}

/// The parts of each function. `denoise` and the one that writes the states are cut alike, because they share weights.
fn cut(
    module: &Module,
    writer: &str,
    how: Partition,
    target: Target,
) -> Result<BTreeMap<String, Vec<(usize, Function)>>> {
    let function = |name: &str| module.function(name).with_context(|| format!("no function `{name}`"));
    let (denoise, writer, prompt) = (function("denoise")?, function(writer)?, function("prompt")?);
    let interface = &module.interface;
    let starts = how.starts(&[denoise, writer], interface, target)?;
    // The prompt is a fraction of the step: a number of parts is meant for the step.
    let prompt_starts = match how {
        Partition::Count(_) => vec![0],
        Partition::Auto | Partition::Bytes(_) => how.starts(&[prompt], interface, target)?,
    };
    let cut = [(denoise, &starts), (writer, &starts), (prompt, &prompt_starts)];
    cut.into_iter().map(|(f, starts)| Ok((f.name.clone(), partition(f, interface, starts)?))).collect()
}

/// Compiles a kernel folder to `out`, which appears whole or not at all.
///
/// # Errors
/// See [`lower`]; an output that cannot be written; weights that the precision cannot hold; a checkpoint that another process
/// changes meanwhile.
pub fn compile(
    checkpoint: &Checkpoint,
    options: &Options,
    out: Destination<'_>,
    watch: &mut Watch,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary> {
    let lowered = lower(checkpoint, options, watch)?;
    let ours = |folder: &Path| has_format(&folder.join(contract::FILE), contract::FORMAT);
    let folder = Staged::folder(out, &Contents { kind: "a kernel", ours: &ours, ..functions::CONTENTS })?;
    let dir = folder.path().to_path_buf();
    let contract = contract(checkpoint, options, &lowered, String::new())?;
    let inside = serde_json::to_value(&contract)?;
    let source = Sources::new(checkpoint, options.quantize.as_ref());
    let loras = super::loras(checkpoint)?;
    let metadata = || {
        let hash = checkpoint.content_hash().to_hex();
        let contract = Contract { checkpoint: format!("blake3:{hash}"), ..contract.clone() };
        let mut inside = inside;
        inside["checkpoint"] = contract.checkpoint.as_str().into();
        let mut metadata = metadata(&contract, inside.to_string(), options.quantize.as_ref());
        metadata.extend(options.layout.metadata(options.target));
        metadata.extend(loras);
        metadata
    };
    let about = about(checkpoint.model().family());
    let (target, shared) = (options.target, options.shared());
    let made = functions::Made { module: &lowered.module, parts: &lowered.parts, target, shared };
    let written = made.write(&source, &about, metadata, &dir, progress);
    let (ops, weight_bytes, non_finite) = written.map_err(|error| folder.unwritten(&error))?;
    let hash = checkpoint.content_hash().to_hex().to_string();
    let contract = Contract { checkpoint: format!("blake3:{hash}"), ..contract };
    contract.check()?;
    std::fs::write(dir.join(contract::FILE), contract.to_json()?)
        .with_context(|| format!("cannot write `{}`", out.path.display()))?;
    source.check_unchanged()?;
    folder.commit()?;
    Ok(Summary {
        path: out.path.into(),
        target: options.target,
        precision: options.precision,
        quantize: options.quantize.clone(),
        parts: lowered.parts.get("denoise").map(Vec::len),
        quantized: options.quantize.as_ref().map(|_| Quantized::of(&lowered.module)),
        ops,
        weight_bytes,
        checkpoint: format!("blake3:{hash}"),
        non_finite,
        vanished: super::vanished(checkpoint, options.precision),
    })
}

/// The contract inside the artifact, `text`, beside what every artifact says.
fn metadata(contract: &Contract, text: String, quantize: Option<&Quantize>) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::from([
        ("s2ditc.version".into(), env!("CARGO_PKG_VERSION").into()),
        ("s2ditc.checkpoint".into(), contract.checkpoint.clone()),
        ("s2ditc.config".into(), contract.config.to_string()),
        ("s2ditc.mode".into(), "stream".into()),
        ("s2ditc.contract".into(), text),
    ]);
    metadata.extend(contract.timesteps.as_ref().map(Listed::metadata));
    metadata.extend(quantize.into_iter().flat_map(Quantize::metadata));
    metadata
}

fn about(of: &dyn Family) -> coreml::Options {
    coreml::Options {
        short_description: format!("A streaming kernel of {}; see s2ditc.contract.", of.name()),
        version: env!("CARGO_PKG_VERSION").into(),
        author: "s2ditc".into(),
        license: String::new(),
    }
}
