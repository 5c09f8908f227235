//! A model that is not compiled yet: its graph is built and lowered as `compile` would, without the bytes of any weight.

use anyhow::{Result, bail};
use s2dit_emit::stream::{self, Functions, States};
use s2dit_emit::{Compute, Layout, Opset, Options as ClipOptions, Precision, Target, TimestepChoice, lower_graph};
use s2dit_ir::Module;
use s2dit_models::SchemaWeights;
use s2dit_models::model::{Model, Sampler};
use s2dit_models::size::{LatentSize, Size};
use s2dit_runtime::stream::contract::StateWrite;

use super::{Callable, Subject};
use crate::storage::Weights;

/// A whole clip in one step, or a stream of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A whole clip in one step.
    Clip,
    /// A stream of chunks.
    Stream,
}

s2dit_files::choice!(Mode, "mode", Clip = "clip", Stream = "stream");

/// How a model would be compiled.
#[derive(Clone, Debug)]
pub struct Options {
    /// Latent frames, rows and columns of a clip; of a stream, rows and columns count.
    pub latent: Option<LatentSize>,
    /// `None` for a stream where the model streams.
    pub mode: Option<Mode>,
    /// Shape of the package: treatment of attention's heads, and what a device asks for.
    pub layout: Layout,
    /// Storage of the weights.
    pub weights: Weights,
}

impl Default for Options {
    fn default() -> Options {
        Options { latent: None, mode: None, layout: Layout::default(), weights: Weights::WHOLE }
    }
}

/// The latent of the paper's video, 512×288 in chunks of three latent frames.
const DEFAULT_LATENT: LatentSize = LatentSize { frames: 3, rows: 36, cols: 64 };

/// The subject that a model would be compiled to, for the Neural Engine in fp16. `name` is for reports.
///
/// # Errors
/// A latent that does not fit; a mode that the model does not have.
pub fn model(model: &dyn Model, what: &'static str, name: &str, options: &Options) -> Result<Subject> {
    let streaming = model.streaming();
    let mode = options.mode.unwrap_or(if streaming.is_ok() { Mode::Stream } else { Mode::Clip });
    let size = options.latent.map_or_else(|| model.usual_size(DEFAULT_LATENT), Size::from);
    let latent = size.latent().ok();
    let layout = options.layout.clone();
    let source = SchemaWeights::new(model);
    let (mut module, latent) = match mode {
        Mode::Clip => {
            let how = clip_options(layout, size, options.weights);
            (lower_graph(model, &source, &how, &mut |_, _| {})?, latent)
        }
        Mode::Stream => {
            let streaming = streaming?;
            if let Some(given) = options.latent.filter(|given| [given.frames, given.rows, given.cols].contains(&0)) {
                bail!("latent {given}: found a side of 0, expected sides from 1");
            }
            let latent = LatentSize { frames: streaming.chunk_frames, ..latent.unwrap_or(DEFAULT_LATENT) };
            let how = stream_options(layout, latent, options.weights);
            (stream::lower_graph(model, &source, &streaming, &how, &mut |_, _| {})?.module, Some(latent))
        }
    };
    options.weights.apply(&mut module)?;
    let lowered = Lowered { what, name, mode, latent, weights: options.weights.to_string() };
    lowered.subject(model, module)
}

/// What is said of a lowered module.
pub struct Lowered<'a> {
    /// `configuration`, `checkpoint`, ….
    pub what: &'static str,
    /// A file, folder or preset.
    pub name: &'a str,
    /// What it makes.
    pub mode: Mode,
    /// The latent of a call.
    pub latent: Option<LatentSize>,
    /// Storage of the weights in words.
    pub weights: String,
}

impl Lowered<'_> {
    /// The subject that a model's lowered module is.
    ///
    /// # Errors
    /// A stream of a model that does not stream; a module that lacks a function.
    pub fn subject(self, model: &dyn Model, module: Module) -> Result<Subject> {
        let Lowered { what, name, mode, latent, weights } = self;
        let calls = match mode {
            // What has no sampler is called once: a component of a pipeline, a graph.
            Mode::Clip => vec![("main", model.sampler().map_or(1, |sampler| sampler.sigmas().len()))],
            Mode::Stream => {
                let (streaming, steps) = (model.streaming()?, model.sampler()?.sigmas().len());
                let denoise = match streaming.state_write {
                    StateWrite::Commit => steps,
                    StateWrite::LastStep => steps.saturating_sub(1),
                };
                vec![("denoise", denoise), (streaming.state_write.name(), 1), ("prompt", 0)]
            }
        };
        let outline = model.outline();
        let scale = model.temporal_scale();
        let mut notes = Vec::new();
        let frames = match (latent, mode, model.graph()) {
            (None, _, None) => None,
            (_, _, Some(_)) => {
                notes.push("a graph does not say its sampler or its autoencoder: a clip is one call".to_owned());
                None
            }
            (Some(latent), Mode::Clip, None) => {
                notes.push(format!("a latent frame becomes {scale} frames of video, the first one becomes 1"));
                Some(scale * latent.frames.saturating_sub(1) + 1)
            }
            (Some(latent), Mode::Stream, None) => {
                notes.push(format!("a latent frame becomes {scale} frames of video"));
                Some(scale * latent.frames)
            }
        };
        if mode == Mode::Clip && matches!(model.sampler(), Ok(Sampler::Euler { .. })) {
            notes.push("classifier-free guidance is not counted: it doubles the steps' time".into());
        }
        Ok(Subject {
            name: name.into(),
            what,
            model: Some(format!("{}, {}", model.family().name(), outline.sandwich())),
            latent: latent.map(|latent| latent.to_string()),
            latent_frames: latent.map(|latent| latent.frames),
            weights,
            streams: mode == Mode::Stream,
            kinds: (0..outline.blocks()).map(|block| outline.kind(block).unwrap_or_default().to_owned()).collect(),
            state_bytes: module.states.iter().map(|state| state.ty.bytes() as u64).sum(),
            functions: callables(&module, &calls)?,
            separate: false,
            frames,
            bytes_on_disk: None,
            interface: module.interface,
            notes,
        })
    }
}

fn callables(module: &Module, calls: &[(&str, usize)]) -> Result<Vec<Callable>> {
    let callable = |&(name, calls): &(&str, usize)| {
        let Some(f) = module.function(name) else { bail!("no function `{name}`") };
        Ok(Callable { name: name.into(), parts: vec![f.clone()], calls })
    };
    calls.iter().map(callable).collect()
}

fn clip_options(layout: Layout, size: Size, weights: Weights) -> ClipOptions {
    ClipOptions {
        target: Target::CoreMl,
        precision: Precision::Fp16,
        opset: Opset::default(),
        layout: Layout { compute: Compute::Ane, ..layout },
        size,
        timesteps: TimestepChoice::Any,
        quantize: weights.quantize(),
        partition: None,
    }
}

fn stream_options(layout: Layout, latent: LatentSize, weights: Weights) -> stream::Options {
    stream::Options {
        target: Target::CoreMl,
        precision: Precision::Fp16,
        opset: Opset::default(),
        layout: Layout { compute: Compute::Ane, ..layout },
        rows: latent.rows,
        cols: latent.cols,
        timesteps: TimestepChoice::FromConfig,
        states: States::Io,
        functions: Functions::Shared,
        quantize: weights.quantize(),
        partition: None,
    }
}
