//! From an open checkpoint of a decoder to the folder of a decoder that streams: a contract and two functions.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use s2dit_backends::coreml;
use s2dit_backends::output::{Contents, Destination, Staged};
use s2dit_ir::{Function, Module, StateDecl, ValueId, WeightSource};
use s2dit_passes::{pipelines, states};
use s2dit_runtime::decode::contract::{self, Contract};

use crate::format::has_format;
use crate::functions::{self, Made};
use crate::plan::{Quantize, Sources};
use crate::stream::{Functions, States};
use crate::{Layout, Opset, Precision, Quantized, Summary, Target, Watch, form};
use s2dit_models::Model;
use s2dit_models::checkpoint::Checkpoint;
use s2dit_models::size::LatentSize;

/// A compile job for a decoder that streams.
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
    /// The latent of a call.
    pub chunk: LatentSize,
    /// Place of the states between calls.
    pub states: States,
    /// Spread of the functions over packages.
    pub functions: Functions,
    /// Storage of large weights; `None` stores them in the precision.
    pub quantize: Option<Quantize>,
}

/// A lowered decoder: what is written, and what the contract says of it.
pub struct Lowered {
    /// Functions `first` and `next`, as the target gets them.
    pub module: Module,
    /// The states before they found their place.
    declared: Vec<StateDecl>,
    packing: Vec<states::Packed>,
}

/// The decoder's module after the target's passes.
///
/// # Errors
/// A model that does not decode chunk by chunk; a choice that the target does not have; a latent that does not fit.
pub fn lower(checkpoint: &Checkpoint, options: &Options, watch: &mut Watch) -> Result<Lowered> {
    options.states.check(options.target, options.precision)?;
    let mut lowered = lower_graph(checkpoint.model(), checkpoint, options, watch)?;
    crate::quantize(&mut lowered.module, options.quantize.as_ref(), checkpoint, watch)?;
    Ok(lowered)
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
) -> Result<Lowered> {
    let mut module = model.build_chunks(weights, options.chunk)?;
    watch(None, &module);
    let mut declared = module.states.clone();
    if options.precision == Precision::Fp16 {
        for state in &mut declared {
            state.ty.dtype = s2dit_ir::DType::F16;
        }
    }
    let engine = options.layout.engine(options.quantize.as_ref(), false);
    let form = form(options.target, options.precision, options.opset, options.layout.compute, engine)?;
    let place = options.states.place(options.target);
    let pipeline = pipelines::decoder(&form, Some(place))?;
    let outcome = pipeline.run_with(&mut module, weights, |done, module| watch(Some(done), module))?;
    Ok(Lowered { module, declared, packing: outcome.packing })
}

/// Compiles the folder of a decoder to `out`, which appears whole or not at all.
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
    let folder = Staged::folder(out, &Contents { kind: "a decoder", ours: &ours, ..functions::CONTENTS })?;
    let dir = folder.path().to_path_buf();
    let parts = BTreeMap::new();
    let shared =
        options.target == Target::CoreAi || options.target == Target::CoreMl && options.functions == Functions::Shared;
    let made = Made { module: &lowered.module, parts: &parts, target: options.target, shared };
    let contract = contract(checkpoint, options, &lowered, &made)?;
    let source = Sources::new(checkpoint, options.quantize.as_ref());
    let loras = crate::loras(checkpoint)?;
    let hashed = || {
        let hash = checkpoint.content_hash().to_hex();
        Contract { checkpoint: format!("blake3:{hash}"), ..contract.clone() }
    };
    let inside = serde_json::to_value(&contract)?;
    let metadata = || {
        let contract = hashed();
        let mut inside = inside;
        inside["checkpoint"] = contract.checkpoint.as_str().into();
        let mut metadata = BTreeMap::from([
            ("s2ditc.version".into(), env!("CARGO_PKG_VERSION").into()),
            ("s2ditc.checkpoint".into(), contract.checkpoint.clone()),
            ("s2ditc.config".into(), contract.config.to_string()),
            ("s2ditc.mode".into(), "stream".into()),
            ("s2ditc.contract".into(), inside.to_string()),
        ]);
        metadata.extend(options.quantize.iter().flat_map(Quantize::metadata));
        metadata.extend(options.layout.metadata(options.target));
        metadata.extend(loras);
        metadata
    };
    let about = coreml::Options {
        short_description: format!(
            "{}, a decoder of latents to video that streams; see s2ditc.contract.",
            checkpoint.model().family().name()
        ),
        version: env!("CARGO_PKG_VERSION").into(),
        author: "s2ditc".into(),
        license: String::new(),
    };
    let written = made.write(&source, &about, metadata, &dir, progress);
    let (ops, weight_bytes, non_finite) = written.map_err(|error| folder.unwritten(&error))?;
    let contract = hashed();
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
        parts: None,
        quantized: options.quantize.as_ref().map(|_| Quantized::of(&lowered.module)),
        ops,
        weight_bytes,
        checkpoint: contract.checkpoint,
        non_finite,
        vanished: crate::vanished(checkpoint, options.precision),
    })
}

/// The contract, without the checkpoint's hash.
fn contract(checkpoint: &Checkpoint, options: &Options, lowered: &Lowered, made: &Made<'_>) -> Result<Contract> {
    let module = &lowered.module;
    let function = |name: &str| module.function(name).with_context(|| format!("no function `{name}`"));
    let port = |f: &Function, name: &str, v: ValueId| contract::Port {
        name: name.into(),
        dtype: f.dtype(v),
        shape: f.shape(v).to_vec(),
    };
    let described = |name: &str| -> Result<contract::Function> {
        let f = function(name)?;
        let alone = options.target == Target::CoreMl && !made.shared;
        Ok(contract::Function {
            file: made.file(name),
            function: if alone { "main".into() } else { name.into() },
            inputs: f.params().iter().map(|&p| port(f, f.node(p).name.as_deref().unwrap_or_default(), p)).collect(),
            outputs: f.results.iter().map(|(name, v)| port(f, name, *v)).collect(),
            parts: Vec::new(),
        })
    };
    let frames = |name: &str| -> Result<[usize; 3]> {
        let f = function(name)?;
        let video =
            module.interface.output().and_then(|output| f.by_name(output)).context("a decoder without a video")?;
        let [_, _, frames, rows, cols] = *f.shape(video) else { bail!("a video of another rank than 5") };
        Ok([frames, rows, cols])
    };
    let ([first_frames, rows, cols], [next_frames, ..]) = (frames("first")?, frames("next")?);
    let latent = module.interface.latent().and_then(|name| function("first").ok()?.by_name(name));
    let channels = latent.map(|v| Ok::<_, anyhow::Error>(function("first")?.shape(v)[1])).context("no latent")??;
    let native = options.states == States::Native;
    let state = |s: &StateDecl, kind: contract::StateKind, meaning: String| contract::State {
        name: s.name.clone(),
        dtype: s.ty.dtype,
        shape: s.ty.shape.clone(),
        meaning,
        kind,
    };
    let states = match options.states.place(options.target) == states::Place::Native {
        true => {
            let meaning = || "every buffer of the decoder, in rows; see packing".into();
            module.states.iter().map(|s| state(s, contract::StateKind::Packed, meaning())).collect()
        }
        false => {
            let meaning = |s: &StateDecl| format!("the last frames of a layer's input ({})", s.name);
            lowered.declared.iter().map(|s| state(s, contract::StateKind::ConvTail, meaning(s))).collect()
        }
    };
    let packed = |p: &states::Packed| contract::Packed {
        buffer: p.name.clone(),
        state: states::CACHE.into(),
        row: p.row,
        rows: p.rows,
        shape: p.shape.clone(),
    };
    let LatentSize { frames: chunk_frames, rows: chunk_rows, cols: chunk_cols } = options.chunk;
    Ok(Contract {
        format: contract::FORMAT.into(),
        version: contract::VERSION,
        compiler: format!("s2ditc {}", env!("CARGO_PKG_VERSION")),
        target: options.target,
        precision: options.precision,
        compute: (options.target == Target::CoreMl).then(|| options.layout.compute.to_string()),
        states_policy: if native { contract::StatesPolicy::Native } else { contract::StatesPolicy::Io },
        functions_policy: if made.shared {
            contract::FunctionsPolicy::Shared
        } else {
            contract::FunctionsPolicy::Separate
        },
        checkpoint: String::new(),
        config: checkpoint.model().config(),
        chunk: contract::Chunk { channels, frames: chunk_frames, rows: chunk_rows, cols: chunk_cols },
        interface: module.interface.clone(),
        video: contract::Video { first_frames, next_frames, rows, cols },
        functions: contract::Functions { first: described("first")?, next: described("next")? },
        states,
        packing: lowered.packing.iter().map(packed).collect(),
    })
}
