//! From an open checkpoint to a streaming kernel: a folder with a contract and the three functions.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use s2dit_backends::output::{Contents, Destination, Staged};
use s2dit_backends::{coreml, onnx};
use s2dit_ir::{Function, Module, ValueId, WeightSource};
use s2dit_passes::partition::partition;
use s2dit_passes::split::{self, EMPTY, HostInput, Kernel, StateKind};
use s2dit_passes::{pipelines, states};
use s2dit_runtime::Timesteps as Listed;
use s2dit_runtime::stream::contract::{self, Contract, StateWrite};

use super::choice::choice;
use super::parts::{Partition, Written, described, is_in_part};
use super::{Compute, Layout, Opset, Precision, Quantized, Summary, Target, TimestepChoice, Watch, form, has_format};
use crate::plan::{Quantize, Sources};
use s2dit_models::checkpoint::Checkpoint;
use s2dit_models::model::Streaming;
use s2dit_models::size::LatentSize;
use s2dit_models::{Family, Model};

/// The place of the states between calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum States {
    /// Inputs and outputs: the host carries them.
    #[default]
    Io,
    /// Core ML states, packed into one.
    Native,
}

/// The spread of the functions over packages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Functions {
    /// One package with three functions, one weight file.
    #[default]
    Shared,
    /// A package each, with one weight file between them on this disk.
    Separate,
}

choice!(States, "states", Io = "io", Native = "native");
choice!(Functions, "functions", Shared = "shared", Separate = "separate");

/// A compile job for a kernel.
#[derive(Clone, Debug)]
pub struct Options {
    /// Format of the output.
    pub target: Target,
    /// Arithmetic.
    pub precision: Precision,
    /// The newest ONNX operator set that may be used.
    pub opset: Opset,
    /// Shape of Core ML packages.
    pub layout: Layout,
    /// Latent rows and columns.
    pub rows: usize,
    /// See [`Options::rows`].
    pub cols: usize,
    /// Timesteps that `denoise` can be asked for.
    pub timesteps: TimestepChoice,
    /// Place of the states between calls.
    pub states: States,
    /// Spread of the functions over packages.
    pub functions: Functions,
    /// Storage of large weights; `None` stores them in the precision.
    pub quantize: Option<Quantize>,
    /// Several packages for each function [Core ML].
    pub partition: Option<Partition>,
}

impl Options {
    /// The kernel that others are compared with: fp32, for ONNX Runtime.
    #[must_use]
    pub fn reference(rows: usize, cols: usize) -> Options {
        Options {
            target: Target::Onnx,
            precision: Precision::Fp32,
            opset: Opset::V21,
            layout: Layout { compute: Compute::Any, ..Layout::default() },
            rows,
            cols,
            timesteps: TimestepChoice::Any,
            states: States::Io,
            functions: Functions::Separate,
            quantize: None,
            partition: None,
        }
    }
}

/// A lowered kernel: what is written, and what the contract says of it.
pub struct Lowered {
    /// Functions `denoise`, the one that writes the states, and `prompt`, as the target gets them.
    pub module: Module,
    kernel: Kernel,
    packing: Vec<states::Packed>,
    /// If the functions are partitioned: each one's parts, with their place among the blocks.
    parts: BTreeMap<String, Vec<(usize, Function)>>,
}

impl Lowered {
    /// The network as it was split: what its host inputs and states are.
    #[must_use]
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Where each state lies in the packed one, if there is one.
    #[must_use]
    pub fn packing(&self) -> &[states::Packed] {
        &self.packing
    }

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
    if options.target == Target::Onnx && options.states == States::Native {
        bail!("--states native is Core ML's: ONNX has no states; use --states io");
    }
    if options.states == States::Native && options.partition.is_some() {
        bail!("--partition needs --states io: packages cannot share a Core ML state");
    }
    if options.states == States::Native && options.precision == Precision::Fp32 {
        bail!("--states native needs --precision fp16: Core ML's states are fp16 only; use --states io for fp32");
    }
    options.timesteps.check(checkpoint)?;
    let mut lowered = lower_graph(checkpoint.model(), checkpoint, &streaming, options, watch)?;
    super::quantize(&mut lowered.module, options.quantize.as_ref(), checkpoint, watch)?;
    let writer = streaming.state_write.name();
    lowered.parts = options.partition.map(|how| cut(&lowered.module, writer, how)).transpose()?.unwrap_or_default();
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
    let mut module = model.build(weights, latent)?;
    watch(None, &module);
    let split_options = split::Options {
        window_frames: streaming.window_frames,
        sink_frames: streaming.sink_frames,
        state_write: match streaming.state_write {
            StateWrite::Commit => split::StateWrite::Commit,
            StateWrite::LastStep => split::StateWrite::LastStep,
        },
        half_states: options.precision == Precision::Fp16,
    };
    let shape = options.layout.options(options.quantize.as_ref(), options.partition.is_some());
    let form = form(options.target, options.precision, options.opset, options.layout.compute, shape);
    let listed = options.timesteps.listed(model)?;
    let place = match options.states {
        States::Io => states::Place::Io,
        States::Native => states::Place::Native,
    };
    let pipeline = pipelines::stream(split_options, listed.as_ref().map(Listed::list), form, place)?;
    let outcome = pipeline.run_with(&mut module, weights, |done, module| watch(Some(done), module))?;
    let kernel = outcome.kernel.context("no kernel")?;
    Ok(Lowered { module, kernel, packing: outcome.packing, parts: BTreeMap::new() })
}

/// The parts of each function. `denoise` and the one that writes the states are cut alike, because they share weights.
fn cut(module: &Module, writer: &str, how: Partition) -> Result<BTreeMap<String, Vec<(usize, Function)>>> {
    let function = |name: &str| module.function(name).with_context(|| format!("no function `{name}`"));
    let (denoise, writer, prompt) = (function("denoise")?, function(writer)?, function("prompt")?);
    let interface = &module.interface;
    let starts = how.starts(&[denoise, writer], interface)?;
    // The prompt is a fraction of the step: a number of packages is meant for the step.
    let prompt_starts = match how {
        Partition::Count(_) => vec![0],
        Partition::Auto | Partition::Bytes(_) => how.starts(&[prompt], interface)?,
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
    let contents = Contents {
        kind: "a kernel",
        marker: contract::FILE,
        part: &is_in_kernel,
        ours: &|folder| has_format(&folder.join(contract::FILE), contract::FORMAT),
    };
    let folder = Staged::folder(out, &contents)?;
    let dir = folder.path().to_path_buf();
    let contract = contract(checkpoint, options, &lowered, String::new())?;
    let source = Sources::new(checkpoint, options.quantize.as_ref());
    let metadata = || {
        let hash = checkpoint.content_hash().to_hex();
        let contract = Contract { checkpoint: format!("blake3:{hash}"), ..contract.clone() };
        let mut metadata = metadata(&contract, options.quantize.as_ref());
        metadata.extend(options.layout.metadata(options.target));
        metadata
    };
    let about = about(checkpoint.model().family());
    let written = match options.target {
        Target::Onnx => write_onnx(&lowered.module, &source, metadata, &dir, progress),
        Target::CoreMl if options.partition.is_none() && options.functions == Functions::Shared => {
            write_package(&lowered.module, &source, &about, metadata, &dir, progress)
        }
        Target::CoreMl => write_packages(&lowered, &source, &about, metadata, &dir, progress),
    };
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

/// Whether a path is of a file in a kernel's folder.
fn is_in_kernel(path: &str) -> bool {
    const FUNCTIONS: [&str; 5] = ["prompt", "denoise", "commit", "last_step", "kernel"];
    let of = |function: &str| match path.strip_prefix(function) {
        Some(".onnx") => true,
        Some(rest) => rest.strip_prefix(".mlpackage/").is_some_and(coreml::package::is_part),
        None => false,
    };
    path == contract::FILE || path == DATA || FUNCTIONS.iter().any(|f| of(f) || is_in_part(path, f))
}

/// The weights of all functions of an ONNX kernel.
const DATA: &str = "weights.data";

/// The contract inside the artifact, beside what every artifact says.
fn metadata(contract: &Contract, quantize: Option<&Quantize>) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::from([
        ("s2ditc.version".into(), env!("CARGO_PKG_VERSION").into()),
        ("s2ditc.checkpoint".into(), contract.checkpoint.clone()),
        ("s2ditc.config".into(), contract.config.to_string()),
        ("s2ditc.mode".into(), "stream".into()),
        ("s2ditc.contract".into(), serde_json::to_string(contract).unwrap_or_default()),
    ]);
    metadata.extend(contract.timesteps.as_ref().map(Listed::metadata));
    metadata.extend(quantize.into_iter().flat_map(Quantize::metadata));
    metadata
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

fn about(of: &dyn Family) -> coreml::Options {
    coreml::Options {
        short_description: format!("A streaming kernel of {}; see s2ditc.contract.", of.name()),
        version: env!("CARGO_PKG_VERSION").into(),
        author: "s2ditc".into(),
        license: String::new(),
    }
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
    let package = dir.join("kernel.mlpackage");
    std::fs::create_dir(&package)?;
    let written = coreml::write_package(module, source, about, metadata, &package, progress)?;
    Ok((written.ops, written.weight_bytes, written.non_finite))
}

/// Which packages share a weight file: what writes the states is `denoise` with another end, and `prompt` has hardly a weight in common
/// with them.
const SIBLINGS: [&[&str]; 2] = [&["denoise", "commit", "last_step"], &["prompt"]];

/// A package a function, or a part of one.
fn write_packages(
    lowered: &Lowered,
    source: &Sources<'_>,
    about: &coreml::Options,
    metadata: impl FnOnce() -> BTreeMap<String, String>,
    dir: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Written> {
    let module = &lowered.module;
    let mut groups = Vec::new();
    for names in SIBLINGS {
        // By part; the only one of a function that is whole is called 0.
        let mut group: BTreeMap<usize, (Module, Vec<PathBuf>)> = BTreeMap::new();
        for name in names.iter().filter(|name| module.function(name).is_some()) {
            let whole = || module.function(name).with_context(|| format!("no function `{name}`")).cloned();
            let parts = match lowered.parts.get(*name) {
                Some(parts) => parts.clone(),
                None => vec![(0, whole()?)],
            };
            for (index, function) in parts {
                let package = dir.join(artifact_file(name, lowered.parts.contains_key(*name).then_some(index)));
                std::fs::create_dir(&package)?;
                let empty = || (Module { functions: Vec::new(), ..(*module).clone() }, Vec::new());
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

/// The package of a function, or of one of its parts.
fn artifact_file(name: &str, part: Option<usize>) -> String {
    format!("{name}{}.mlpackage", part.map(|index| index.to_string()).unwrap_or_default())
}

/// The contract: everything that a host needs to know. `hash` is the checkpoint's.
fn contract(checkpoint: &Checkpoint, options: &Options, lowered: &Lowered, hash: String) -> Result<Contract> {
    let (streaming, sampler) = (checkpoint.streaming()?, checkpoint.sampler()?);
    let interface = &lowered.module.interface;
    let shape = |name: Option<&str>| -> Result<&[usize]> {
        let find = |name| lowered.module.functions.iter().find_map(|f| Some(f.shape(f.by_name(name)?)));
        name.and_then(find).context("a kernel without a latent or a text")
    };
    let [_, channels, frames, rows, cols] = *shape(interface.latent())? else {
        bail!("a latent of another rank than 5")
    };
    let [_, tokens, dim] = *shape(interface.text())? else { bail!("a text of another rank than 3") };
    let native = options.states == States::Native;
    let separate =
        options.target == Target::Onnx || options.partition.is_some() || options.functions == Functions::Separate;
    let function = |name: &str| -> Result<contract::Function> {
        let f = lowered.module.function(name).with_context(|| format!("no function `{name}`"))?;
        let file = match (options.target, separate) {
            (Target::Onnx, _) => format!("{name}.onnx"),
            (Target::CoreMl, true) => artifact_file(name, lowered.parts.get(name).map(|parts| parts[0].0)),
            (Target::CoreMl, false) => "kernel.mlpackage".into(),
        };
        let port = |name: &str, v: ValueId| contract::Port {
            name: name.into(),
            dtype: f.dtype(v),
            shape: f.shape(v).to_vec(),
        };
        let packages_call_it_main = options.target == Target::CoreMl && separate;
        Ok(contract::Function {
            file,
            function: if packages_call_it_main { "main".into() } else { name.into() },
            inputs: f.params().iter().map(|&p| port(f.node(p).name.as_deref().unwrap_or_default(), p)).collect(),
            outputs: f.results.iter().map(|(name, v)| port(name, *v)).collect(),
            parts: lowered
                .parts
                .get(name)
                .into_iter()
                .flatten()
                .map(|(index, part)| described(part, artifact_file(name, Some(*index))))
                .collect(),
        })
    };
    let writer = |pass: StateWrite| (streaming.state_write == pass).then(|| function(pass.name())).transpose();
    let host_inputs = lowered
        .kernel
        .host_inputs
        .iter()
        .map(|(name, input)| contract::HostInput {
            name: name.clone(),
            kind: match input {
                HostInput::Rope(t) => {
                    contract::HostInputKind::Rope { part: t.part, grid: t.grid, axis_dims: t.axis_dims, theta: t.theta }
                }
                HostInput::WindowMask { sink_tokens, window_tokens, tokens_per_frame, own_tokens } => {
                    contract::HostInputKind::WindowMask {
                        sink_tokens: *sink_tokens,
                        window_tokens: *window_tokens,
                        tokens_per_frame: *tokens_per_frame,
                        own_tokens: *own_tokens,
                        empty: EMPTY as f32,
                    }
                }
                HostInput::SinkMask { sink_tokens, tokens_per_frame } => {
                    contract::HostInputKind::SinkMask { sink_tokens: *sink_tokens, tokens_per_frame: *tokens_per_frame }
                }
                HostInput::PastWeight => contract::HostInputKind::PastWeight,
                HostInput::NewWeight => contract::HostInputKind::NewWeight,
            },
        })
        .collect();
    let declared = &lowered.kernel.module.states;
    let states = if native {
        let cache = lowered.module.states.iter().map(|s| contract::State {
            name: s.name.clone(),
            dtype: s.ty.dtype,
            shape: s.ty.shape.clone(),
            meaning: "every buffer of the network, in rows; see packing".into(),
            kind: contract::StateKind::Packed,
        });
        cache.collect()
    } else {
        let state = |(s, info): (&s2dit_ir::StateDecl, &split::StateInfo)| contract::State {
            name: s.name.clone(),
            dtype: s.ty.dtype,
            shape: s.ty.shape.clone(),
            meaning: meaning(info, streaming.sink_frames),
            kind: match info.kind {
                StateKind::Window => contract::StateKind::Window,
                StateKind::Mean | StateKind::MeanLow if info.name.contains("_norm") => contract::StateKind::LinearNorm,
                StateKind::Mean | StateKind::MeanLow => contract::StateKind::LinearSum,
                StateKind::Tail => contract::StateKind::ConvTail,
            },
        };
        declared.iter().zip(&lowered.kernel.states).map(state).collect()
    };
    let packing = lowered
        .packing
        .iter()
        .map(|p| contract::Packed {
            buffer: p.name.clone(),
            state: states::CACHE.into(),
            row: p.row,
            rows: p.rows,
            shape: p.shape.clone(),
        })
        .collect();
    Ok(Contract {
        format: contract::FORMAT.into(),
        version: contract::VERSION,
        compiler: format!("s2ditc {}", env!("CARGO_PKG_VERSION")),
        target: match options.target {
            Target::Onnx => contract::Target::Onnx,
            Target::CoreMl => contract::Target::CoreMl,
        },
        precision: match options.precision {
            Precision::Fp32 => contract::Precision::Fp32,
            Precision::Fp16 => contract::Precision::Fp16,
        },
        states_policy: if native { contract::StatesPolicy::Native } else { contract::StatesPolicy::Io },
        functions_policy: if separate {
            contract::FunctionsPolicy::Separate
        } else {
            contract::FunctionsPolicy::Shared
        },
        checkpoint: hash,
        config: checkpoint.model().config(),
        chunk: contract::Chunk { channels, frames, rows, cols },
        interface: interface.clone(),
        window_frames: streaming.window_frames,
        sink_frames: streaming.sink_frames,
        state_write: streaming.state_write,
        text: contract::Text { tokens, dim },
        sampler: contract::Sampler::FlowMatchingAr { timesteps: sampler.timesteps(), sigmas: sampler.sigmas() },
        timesteps: options.timesteps.listed(checkpoint.model())?,
        functions: contract::Functions {
            prompt: function("prompt")?,
            denoise: function("denoise")?,
            commit: writer(StateWrite::Commit)?,
            last_step: writer(StateWrite::LastStep)?,
        },
        host_inputs,
        states,
        packing,
    })
}

fn meaning(info: &split::StateInfo, sink_frames: usize) -> String {
    let what = match info.kind {
        StateKind::Window if sink_frames > 0 => {
            "keys or values of the stream's first frames, then of the last frames, oldest first"
        }
        StateKind::Window => "keys or values of the last frames, oldest first",
        StateKind::Mean => "mean over chunks of linear attention's sums a token",
        StateKind::MeanLow => "what fp16 leaves out of the mean",
        StateKind::Tail => "the last frames of the convolution's input",
    };
    format!("{what} ({})", info.scope)
}
