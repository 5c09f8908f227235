//! What a pipeline folder is compiled to: all that can be said, and refused, before a weight is read.

use anyhow::{Context, Result, bail};
use s2dit_ir::interface::InputRole;
use s2dit_ir::{Interface, Module};
use s2dit_models::checkpoint::{Checkpoint, Lora, Origin, PipelineFolder};
use s2dit_models::model::{Part as Does, Sampler};
use s2dit_models::pipelines::{Kind, makes_padding_zero, scheduler};
use s2dit_models::size::{LatentSize, Size, StepSize};
use s2dit_models::{Model, SchemaWeights};
use s2dit_runtime::pipeline::{
    Assets, Contract, EncoderMask, FORMAT, Latent, Levels, Mode, Part, Sampling, Scheduler, SchedulerKind, Source,
    Text, VERSION, Video,
};
use s2dit_runtime::sampler::{Spacing, of_scheduler};
use serde_json::Map;

use super::{TEXT_ENCODER, TOKENIZER_FOLDER, TRANSFORMER, TokenizerFiles, VAE, file_of};
use crate::parts::Partition;
use crate::plan::How;
use crate::stream::{Functions, States};
use crate::{Attention, Compute, Layout, Opset, Precision, Target, TimestepChoice, decoder, stream};

/// Most frames of a clip.
const MOST_FRAMES: usize = 1 << 16;

/// How a pipeline is compiled.
#[derive(Clone, Debug)]
pub struct Options {
    /// Format of the artifacts.
    pub target: Target,
    /// Arithmetic.
    pub precision: Precision,
    /// The newest ONNX operator set that may be used.
    pub opset: Opset,
    /// Shape of packages; `None` for the Neural Engine, and the GPU for the decoder [Core ML].
    pub compute: Option<Compute>,
    /// Heads of softmax attention.
    pub attention: Attention,
    /// Rows and columns of pixels.
    pub pixels: [usize; 2],
    /// Frames of a clip; `None` for the pipeline's own.
    pub frames: Option<usize>,
    /// A clip or a stream.
    pub mode: Mode,
    /// Prompts of a call of the transformer: 2 for a prompt and its negative; 1 of a stream.
    pub batch: usize,
    /// Timesteps that a stream can be asked for.
    pub timesteps: TimestepChoice,
    /// Place of a stream's states.
    pub states: States,
    /// Spread of a stream's functions over packages.
    pub functions: Functions,
    /// Storage of large weights of the text encoder and the transformer; of a plan, of the transformer.
    pub quantize: Option<How>,
    /// Several packages that make the step together [Core ML].
    pub partition: Option<Partition>,
    /// What is compiled.
    pub parts: Vec<Part>,
    /// Adapters that are merged into the transformer.
    pub loras: Vec<Lora>,
}

/// What a pipeline folder is compiled to.
#[derive(Debug)]
pub struct Plan {
    /// The contract, but for its assets and their identity.
    pub contract: Contract,
    /// The models, in the order in which they are called.
    pub components: Vec<Component>,
    /// The tokenizer.
    pub tokenizer: Option<TokenizerFiles>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// A model that is compiled.
#[derive(Debug)]
pub struct Component {
    /// What it is in the pipeline.
    pub part: Part,
    /// The file, package or folder that it becomes.
    pub file: String,
    /// The components of the pipeline folder, one but for a pair of experts.
    pub checkpoints: Vec<(String, Checkpoint)>,
    /// Arithmetic.
    pub precision: Precision,
    /// The engine that its packages are meant for [Core ML].
    pub compute: Option<Compute>,
    pub(super) job: Job,
}

/// How a model is compiled.
#[derive(Debug)]
pub(super) enum Job {
    Clip(crate::Options),
    Experts([crate::Options; 2], f64),
    Stream(stream::Options),
    Decoder(decoder::Options),
}

impl Plan {
    /// Reads a pipeline folder.
    ///
    /// # Errors
    /// A class that is not compiled whole; a component that is missing, damaged or does not fit the others; sizes that the decoder or the
    /// transformer cannot make; choices that do not go together.
    pub fn new(folder: &PipelineFolder, options: &Options) -> Result<Plan> {
        let kind = Kind::of(folder)?;
        let mut notes = Vec::new();
        let transformers = open_transformers(folder, &options.loras)?;
        let model = transformers[0].1.model();
        let vae = open(folder, VAE, Does::Decoder)?;
        let scale = Scale::of(vae.model()).with_context(|| format!("`{}`", vae.path().display()))?;
        let latent = latent_of(options, kind, &transformers[0].1, scale)?;
        let step = Shapes::of(model, latent.into())?;
        let (mut text, text_encoder) = text_of(folder, kind, options, &step, &mut notes)?;
        let channels = check_channels(&step, vae.model(), scale)?;
        if let Err(problems) = vae.model().grid(latent.into()) {
            bail!("`{}`: {problems}", vae.path().display());
        }
        let (scheduler, sampling) = sampling_of(folder, kind, options, &transformers[0].1)?;
        if sampling.batch == 2 && !sampling.is_guided() {
            notes.push(format!(
                "--batch 2: {} makes clips without guidance, so that half of each call is for nothing unless somebody asks for guidance",
                kind.class
            ));
        }
        let tokenizer = match &text_encoder {
            Some(_) => Some(TokenizerFiles::read(&folder.needed(TOKENIZER_FOLDER)?, &mut text)?),
            None => None,
        };
        let contract = Contract {
            format: FORMAT.into(),
            version: VERSION,
            compiler: format!("s2ditc {}", env!("CARGO_PKG_VERSION")),
            id: String::new(),
            class: kind.class.into(),
            target: options.target,
            mode: options.mode,
            latent: Latent { channels, frames: latent.frames, rows: latent.rows, cols: latent.cols },
            video: Video {
                frames: (options.mode == Mode::Clip).then(|| 1 + (latent.frames - 1) * scale.temporal),
                rows: options.pixels[0],
                cols: options.pixels[1],
                fps: kind.fps(model),
                temporal_scale: scale.temporal,
                spatial_scale: scale.spatial,
            },
            text,
            scheduler,
            sampling,
            assets: Assets::default(),
            source: Source {
                name: folder.dir().file_name().map(|name| name.to_string_lossy().into_owned()),
                licence: folder.licence(),
            },
        };
        let mut components = Vec::new();
        let wanted = |part: Part| options.parts.contains(&part);
        if let Some(encoder) = text_encoder {
            let job =
                Job::Clip(options.clip(Size::Tokens(contract.text.tokens), options.scheme(&encoder)?, Compute::Ane));
            components.push(options.component(Part::TextEncoder, vec![(TEXT_ENCODER.into(), encoder)], job));
        }
        if wanted(Part::Transformer) {
            let job = options.transformer(folder, &transformers, latent)?;
            components.push(options.component(Part::Transformer, transformers, job));
        }
        if wanted(Part::Decoder) {
            let job = options.decoder(vae.model(), latent)?;
            components.push(options.component(Part::Decoder, vec![(VAE.into(), vae)], job));
        }
        Ok(Plan { contract, components, tokenizer, notes })
    }
}

impl Options {
    fn component(&self, part: Part, checkpoints: Vec<(String, Checkpoint)>, job: Job) -> Component {
        let is_folder = match &job {
            Job::Clip(options) => options.partition.is_some(),
            Job::Experts(..) | Job::Stream(_) | Job::Decoder(_) => true,
        };
        let file = if is_folder { part.stem().into() } else { file_of(part, self.target) };
        let usual = if part == Part::Decoder { Compute::Gpu } else { Compute::Ane };
        let compute = (self.target == Target::CoreMl).then(|| self.compute.unwrap_or(usual));
        Component { part, file, checkpoints, precision: self.precision, compute, job }
    }

    /// The scheme of a model's weights; a plan is the transformer's.
    fn scheme(&self, checkpoint: &Checkpoint) -> Result<Option<crate::plan::Quantize>> {
        match &self.quantize {
            Some(how @ How::Every(_)) => Ok(how.open(checkpoint)?),
            Some(How::Plan(_)) | None => Ok(None),
        }
    }

    fn layout(&self, usual: Compute) -> Layout {
        Layout { compute: self.compute.unwrap_or(usual), attention: self.attention, ..Layout::default() }
    }

    fn clip(&self, size: Size, quantize: Option<crate::plan::Quantize>, usual: Compute) -> crate::Options {
        crate::Options {
            target: self.target,
            precision: self.precision,
            opset: self.opset,
            layout: self.layout(usual),
            size,
            timesteps: TimestepChoice::Any,
            quantize,
            partition: None,
        }
    }

    fn transformer(
        &self,
        folder: &PipelineFolder,
        transformers: &[(String, Checkpoint)],
        latent: LatentSize,
    ) -> Result<Job> {
        let whole = |checkpoint: &Checkpoint| -> Result<crate::Options> {
            let quantize = self.quantize.as_ref().map(|how| how.open(checkpoint)).transpose()?.flatten();
            let size = StepSize { latent, batch: self.batch }.into();
            Ok(crate::Options { partition: self.partition, ..self.clip(size, quantize, Compute::Ane) })
        };
        let first = &transformers[0].1;
        Ok(match (self.mode, transformers) {
            (Mode::Clip, [_]) => Job::Clip(whole(first)?),
            (Mode::Clip, [_, (_, second)]) => {
                if matches!(self.quantize, Some(How::Plan(_))) {
                    bail!("--quantize PLAN is of one checkpoint, and the pipeline has two transformers: use a scheme");
                }
                Job::Experts([whole(first)?, whole(second)?], folder.boundary()?)
            }
            (Mode::Stream, [_]) => Job::Stream(stream::Options {
                target: self.target,
                precision: self.precision,
                opset: self.opset,
                layout: self.layout(Compute::Ane),
                rows: latent.rows,
                cols: latent.cols,
                timesteps: self.timesteps,
                states: self.states,
                functions: self.functions,
                quantize: whole(first)?.quantize,
                partition: self.partition,
            }),
            _ => bail!("--mode stream: a pipeline with {} transformers does not stream", transformers.len()),
        })
    }

    fn decoder(&self, model: &dyn Model, latent: LatentSize) -> Result<Job> {
        if self.mode == Mode::Clip {
            return Ok(Job::Clip(self.clip(latent.into(), None, Compute::Gpu)));
        }
        model.build_chunks(&SchemaWeights::new(model), latent).context("component `vae`, with --mode stream")?;
        Ok(Job::Decoder(decoder::Options {
            target: self.target,
            precision: self.precision,
            opset: self.opset,
            layout: self.layout(Compute::Gpu),
            chunk: latent,
            states: self.states,
            functions: self.functions,
            quantize: None,
        }))
    }
}

/// The graph of a model: its roles and shapes.
struct Shapes {
    module: Module,
}

impl Shapes {
    fn of(model: &dyn Model, size: Size) -> Result<Shapes> {
        Ok(Shapes { module: model.build(&SchemaWeights::new(model), size)? })
    }

    fn interface(&self) -> &Interface {
        &self.module.interface
    }

    /// The shape of the input of a role.
    fn input(&self, is: impl Fn(&InputRole) -> bool) -> Option<&[usize]> {
        let function = &self.module.functions[0];
        let name = &self.interface().inputs.iter().find(|input| is(&input.role))?.name;
        Some(function.shape(function.by_name(name)?))
    }

    /// The shape of the first result.
    fn output(&self) -> Option<&[usize]> {
        let function = &self.module.functions[0];
        let (_, value) = function.results.iter().find(|(name, _)| Some(name.as_str()) == self.interface().output())?;
        Some(function.shape(*value))
    }
}

/// What a latent becomes.
#[derive(Clone, Copy, Debug)]
struct Scale {
    temporal: usize,
    spatial: usize,
}

impl Scale {
    /// The latent that a decoder is asked with.
    const PROBE: LatentSize = LatentSize { frames: 2, rows: 4, cols: 4 };

    /// What a decoder makes of two frames of 4×4.
    fn of(decoder: &dyn Model) -> Result<Scale> {
        let shapes = Shapes::of(decoder, Scale::PROBE.into())?;
        match shapes.output() {
            Some(&[1, 3, frames, rows, _]) if frames > 1 && rows % 4 == 0 => {
                Ok(Scale { temporal: frames - 1, spatial: rows / 4 })
            }
            other => {
                bail!("found a decoder that makes {other:?} of a latent of 2x4x4, expected frames of three colours")
            }
        }
    }
}

/// Opens a component and checks what it does.
fn open(folder: &PipelineFolder, name: &str, does: Does) -> Result<Checkpoint> {
    let path = folder.needed(name)?;
    let checkpoint = Checkpoint::open(&path)?;
    let found = checkpoint.model().family().part();
    if found != does {
        bail!("`{}`: found a {found}, expected a {does}", path.display());
    }
    Ok(checkpoint)
}

/// Opens the one or two transformers.
fn open_transformers(folder: &PipelineFolder, loras: &[Lora]) -> Result<Vec<(String, Checkpoint)>> {
    let mut names: Vec<String> = folder.transformers().into_iter().map(|(name, _)| name.to_owned()).collect();
    if names.is_empty() {
        names.push(TRANSFORMER.into());
    }
    if names.len() > 2 {
        bail!("`{}`: found {} transformers, expected one or two", folder.dir().display(), names.len());
    }
    if names.len() > 1 && !loras.is_empty() {
        bail!("--lora is of one checkpoint, and `{}` has two transformers", folder.dir().display());
    }
    let open = |name: String| {
        let origin = Origin { path: folder.needed(&name)?, loras: loras.to_vec(), ..Origin::default() };
        let checkpoint = Checkpoint::open_from(&origin)?;
        let does = checkpoint.model().family().part();
        if does != Does::Step {
            bail!("`{}`: found a {does}, expected a step", origin.path.display());
        }
        Ok((name, checkpoint))
    };
    names.into_iter().map(open).collect()
}

/// The latent of the pixels and frames that are asked for.
fn latent_of(options: &Options, kind: &Kind, checkpoint: &Checkpoint, scale: Scale) -> Result<LatentSize> {
    let [rows, cols] = options.pixels;
    let model = checkpoint.model();
    let frames = match options.mode {
        Mode::Stream => checkpoint.streaming()?.chunk_frames,
        Mode::Clip => {
            if let (Ok(Sampler::Fixed { .. }), Ok(_)) = (model.sampler(), model.streaming()) {
                bail!(
                    "`{}`: an autoregressive model makes video chunk by chunk: use --mode stream",
                    checkpoint.path().display()
                );
            }
            let frames = options.frames.unwrap_or(kind.frames);
            if frames > MOST_FRAMES {
                bail!("--frames: found {frames}, expected at most {MOST_FRAMES}");
            }
            if frames == 0 || !(frames - 1).is_multiple_of(scale.temporal) {
                let below = frames.saturating_sub(1) / scale.temporal * scale.temporal + 1;
                bail!(
                    "--frames: found {frames}, expected a multiple of {} and 1 more, such as {below} or {}: the decoder makes the first frame alone, and {} of each other latent frame",
                    scale.temporal,
                    below.saturating_add(scale.temporal),
                    scale.temporal
                );
            }
            1 + (frames - 1) / scale.temporal
        }
    };
    let latent = LatentSize { frames, rows: rows / scale.spatial, cols: cols / scale.spatial };
    let fits = rows % scale.spatial == 0 && cols % scale.spatial == 0 && latent.rows > 0 && latent.cols > 0;
    if fits && model.grid(latent.into()).is_ok() {
        return Ok(latent);
    }
    // The nearest size that the transformer takes, as pixels.
    let wanted = LatentSize { rows: latent.rows.max(1), cols: latent.cols.max(1), ..latent };
    let near = model.usual_size(wanted).latent()?;
    if !fits || [near.rows, near.cols] != [latent.rows, latent.cols] {
        bail!(
            "--size: found {cols}x{rows}, expected columns and rows that the decoder (multiples of {}) and the transformer make, such as {}x{}",
            scale.spatial,
            near.cols * scale.spatial,
            near.rows * scale.spatial
        );
    }
    model.grid(latent.into()).with_context(|| format!("--size {cols}x{rows}"))?;
    Ok(latent)
}

/// The latent channels of the transformer, which are those of the decoder.
fn check_channels(step: &Shapes, decoder: &dyn Model, scale: Scale) -> Result<usize> {
    let of = |shape: Option<&[usize]>| shape.and_then(|shape| shape.get(1).copied()).unwrap_or_default();
    let (taken, made) = (of(step.input(|role| *role == InputRole::Latent)), of(step.output()));
    if taken != made {
        bail!(
            "component `{TRANSFORMER}`: found one that takes a latent of {taken} channels and makes {made}, expected a transformer that makes video from text alone"
        );
    }
    let shapes = Shapes::of(decoder, Scale::PROBE.into())?;
    let wanted = of(shapes.input(|role| *role == InputRole::Latent));
    if wanted != made {
        bail!(
            "component `{VAE}`: found a decoder of latents of {wanted} channels (scale {}), expected {made}, as `{TRANSFORMER}` makes",
            scale.spatial
        );
    }
    Ok(made)
}

/// The text of the contract, and the text encoder if it is compiled.
fn text_of(
    folder: &PipelineFolder,
    kind: &Kind,
    options: &Options,
    step: &Shapes,
    notes: &mut Vec<String>,
) -> Result<(Text, Option<Checkpoint>)> {
    let Some(&[_, tokens, width]) = step.input(|role| *role == InputRole::Text) else {
        bail!("component `{TRANSFORMER}`: found one without text, expected a transformer that makes video from text");
    };
    for input in &step.interface().inputs {
        if matches!(input.role, InputRole::Image | InputRole::Guidance | InputRole::Other { .. }) {
            bail!(
                "component `{TRANSFORMER}`: found an input `{}`, expected only a latent, a time and text",
                input.name
            );
        }
    }
    let has = |role: InputRole| step.input(|found| *found == role).is_some();
    let mut text = Text {
        tokens,
        width,
        vocabulary: 0,
        padding: 0,
        cleaning: kind.cleaning,
        encoder_mask: EncoderMask::None,
        zero_padding: kind.zero_padding,
        step_mask: has(InputRole::TextMask),
        pooled: has(InputRole::Pooled),
    };
    if !options.parts.contains(&Part::TextEncoder) {
        return Ok((text, None));
    }
    if let Some(why) = kind.without_encoder {
        notes.push(format!("the text encoder of {} is left out: {why}", kind.class));
        return Ok((text, None));
    }
    let encoder = open(folder, TEXT_ENCODER, Does::TextEncoder)?;
    let shown = encoder.path().display();
    let shapes = Shapes::of(encoder.model(), Size::Tokens(tokens))
        .with_context(|| format!("`{shown}`, with the {tokens} text tokens of `{TRANSFORMER}`"))?;
    let found = shapes.output().and_then(|shape| shape.last().copied()).unwrap_or_default();
    if found != width {
        bail!("`{shown}`: found embeddings of width {found}, expected {width}, as `{TRANSFORMER}` takes");
    }
    let vocabulary = shapes.interface().inputs.iter().find_map(|input| match input.role {
        InputRole::Tokens { vocabulary } => Some(vocabulary),
        _ => None,
    });
    text.vocabulary = vocabulary.with_context(|| format!("`{shown}`: found no input of token ids"))?;
    if shapes.input(|role| *role == InputRole::TextMask).is_some() {
        text.encoder_mask = kind.encoder_mask;
    }
    if makes_padding_zero(encoder.model()) != kind.zero_padding {
        bail!(
            "`{shown}`: field zero_padding: found {}, expected {}, as {} makes its text",
            !kind.zero_padding,
            kind.zero_padding,
            kind.class
        );
    }
    if text.pooled && shapes.interface().outputs.len() < 2 {
        bail!("`{shown}`: found no embedding of the whole text, expected one, as `{TRANSFORMER}` takes");
    }
    Ok((text, Some(encoder)))
}

/// The scheduler and the defaults of sampling.
fn sampling_of(
    folder: &PipelineFolder,
    kind: &Kind,
    options: &Options,
    checkpoint: &Checkpoint,
) -> Result<(Scheduler, Sampling)> {
    let usual = Sampling {
        steps: kind.steps,
        levels: kind.levels,
        batch: options.batch,
        guidance: kind.guidance,
        guidance_2: None,
        negative: String::new(),
    };
    if options.mode == Mode::Stream {
        let steps = checkpoint.sampler()?.sigmas().len();
        let kernel = Scheduler { kind: SchedulerKind::Kernel, class: String::new(), config: Map::new() };
        return Ok((kernel, Sampling { steps, guidance: 1.0, levels: Levels::Scheduler, ..usual }));
    }
    // A pipeline of our own may leave the scheduler out: the model has one.
    if folder.class_of("scheduler").is_none()
        && let Sampler::Euler { steps, shift } = checkpoint.sampler()?
    {
        let config = Map::from_iter([("shift".to_owned(), shift.into())]);
        let euler =
            Scheduler { kind: SchedulerKind::FlowMatchEuler, class: "FlowMatchEulerDiscreteScheduler".into(), config };
        return Ok((euler, Sampling { steps, ..usual }));
    }
    let (entries, place) = folder.scheduler()?;
    let scheduler = scheduler(entries, &place)?;
    // What cannot be sampled is not compiled.
    let spacing = match usual.levels {
        Levels::Scheduler => Spacing::Scheduler,
        Levels::Linear => Spacing::Linear,
    };
    of_scheduler(&scheduler.class, &scheduler.config, spacing, &place)?;
    Ok((scheduler, usual))
}
