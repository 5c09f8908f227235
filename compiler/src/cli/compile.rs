//! `s2ditc compile`

mod chunk;
mod experts;
mod pipeline;
mod recipe;
mod source;
mod tuned;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use s2dit_backends::coreml::lint::Rules;
use s2dit_backends::output::{Destination, Staged, made};
use s2dit_ir::Module;
use s2dit_passes::PassRun;

use self::chunk::ChunkArgs;
use self::recipe::Recipe;
use self::source::Source;
use super::inspect::recognised;
use super::passes::{Passes, eprint_rows};
use super::places::Places;
use super::progress::Progress;
use super::usage::refuse;
use super::weights::{self, WeightArgs};
use super::{Context, print_json, print_line, print_note};
use crate::errors::About as _;
use crate::inspect::recognition;
use crate::lint::{Brief, lint};
use s2dit_emit::decoder;
use s2dit_emit::parts::Partition;
use s2dit_emit::plan::{How, Quantize, Sources};
use s2dit_emit::stream::{self, Functions, States};
use s2dit_emit::watch::PassEffect;
use s2dit_emit::{
    Attention, Compute, Layout, Opset, Options, Precision, Quantized, Summary, Target, TimestepChoice, Watch, compile,
    default_precision, lower,
};
use s2dit_estimate::Device;
use s2dit_estimate::lowering::Chosen;
use s2dit_files::problems::Problem;
use s2dit_files::size;
use s2dit_models::checkpoint::{Checkpoint, FieldOrigin, Wanted};
use s2dit_models::model::{Part, Sampler};
use s2dit_models::size::{LatentSize, Size, StepSize};
use s2dit_quantize::Samples;

/// Compile a checkpoint, or a graph that PyTorch exported, to an ONNX file, a Core ML package or a Core AI asset
#[derive(clap::Args)]
#[command(after_help = "Examples:
  s2ditc compile small/ --latent 3x36x64 -o small.mlpackage
  s2ditc compile small/ --latent 3x36x64 --precision fp16 -o small.onnx
  s2ditc compile small/ --target coreml --latent 3x36x64 --quantize palette4-group16 -o small4.mlpackage
  s2ditc compile small/ --target coreml --latent 3x36x64 --device iphone16promax -o phone.mlpackage
  s2ditc compile small/ --target coreml --latent 3x36x64 --recipe paper --dry-run
  s2ditc compile small/ --target onnx --latent 3x36x64 --emit ir | less
  s2ditc compile small/ --target coreai --latent 3x36x64 -o small.aimodel
  s2ditc compile clip/ --target coreml --tokens 77 -o TextEncoder.mlpackage
  s2ditc compile Wan2.1-T2V-1.3B-Diffusers --target coreml --size 832x480 --frames 81 --quantize palette4-group16 -o wan
  s2ditc compile wan.pt --config config.json --lora fast.safetensors:0.8 --target coreml --latent 3x36x64 -o wan.mlpackage

The compiled step takes latent [B,C,F,H,W], timestep [1] in [0, 1000] and text [B,L,text_dim], B of --batch, and returns velocity \
[B,C,F,H,W]; a model of images takes image [B,M,width] too. An ONNX model with more than 32 MiB of weights keeps them beside it in OUT.HASH.data, a name that the model knows: \
move the two together.

With --mode stream OUT is a folder: three functions (prompt, denoise, and commit or last_step) and contract.json, which says how to call them. A step \
makes the checkpoint's chunk_frames, so --latent is HxW. Run it with s2ditc stream.

Of a pipeline folder with two transformers OUT is a folder with both, and experts.json, which says at which timestep the second takes \
over.

With --size a pipeline folder is compiled whole: OUT is a folder with TextEncoder, Transformer, Decoder, the tokenizer, pipeline.json, which says how to \
make a video from a prompt with them, and a model card. See docs/pipelines.md.

A text encoder takes tokens [1,L] (int32) and, if its pipeline masks padding, text_mask [1,L], and returns text [1,L,width]: name L with --tokens.")]
#[command(group(clap::ArgGroup::new("size")))]
pub(super) struct Args {
    /// Checkpoint: a folder with config.json and safetensors, a pipeline folder with model_index.json, a file of weights, OWNER/NAME on
    /// the Hugging Face hub; or a graph (see docs/import.md)
    checkpoint: PathBuf,
    /// A model of a pipeline folder by its name, such as transformer_2 or text_encoder [default: all of its transformers]
    #[arg(long, value_name = "NAME")]
    component: Option<String>,
    #[command(flatten)]
    pub(super) weights: WeightArgs,
    /// What to make: onnx, coreml, or coreai (experimental: Core AI assets, of which no device has loaded one yet)
    /// [default: what the ending of OUT says; coreml for a folder]
    #[arg(long)]
    target: Option<Target>,
    /// Latent frames, rows and columns of the clip; rows and columns of a stream. A graph has the size that it was exported for
    #[arg(long, value_name = "FxHxW", group = "size")]
    latent: Option<Sides>,
    #[command(flatten)]
    chunk: ChunkArgs,
    /// Text tokens of a text encoder, padding included
    #[arg(long, value_name = "N", group = "size")]
    tokens: Option<usize>,
    /// Columns and rows of pixels of a pipeline folder that is compiled whole, such as 512x288
    #[arg(long = "size", value_name = "WxH", group = "size")]
    pixels: Option<pipeline::Pixels>,
    /// Frames of the clip, with --size [default: the pipeline's own, such as 81]
    #[arg(long, value_name = "N", requires = "pixels")]
    frames: Option<usize>,
    /// Parts of the pipeline to compile, with --size: text_encoder, transformer or decoder, with commas between [default: all]
    #[arg(long, value_name = "A,B", requires = "pixels", value_delimiter = ',', value_parser = pipeline::part)]
    components: Vec<s2dit_runtime::pipeline::Part>,
    /// Say what would be made, with --size or --recipe, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Clips that a step takes at once: with 2 a call serves a prompt and its negative, for guidance
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    batch: u8,
    /// A whole clip in one step, or a stream of chunks
    #[arg(long, value_name = "MODE", default_value = "clip")]
    mode: Mode,
    /// Where a stream keeps its states: io (inputs and outputs) or native (states of Core ML, handles of Core AI) [default: io]
    #[arg(long)]
    states: Option<States>,
    /// A stream's functions: shared (one package) or separate (one each) [default: shared for coreml; onnx is always separate]
    #[arg(long)]
    functions: Option<Functions>,
    /// Timesteps that the step can be asked for: any, or from-config (the sampler's, as tables in place of the time embedding)
    /// [default: any; from-config for a coreml stream]
    #[arg(long, value_name = "WHICH")]
    timesteps: Option<TimestepChoice>,
    /// fp32, fp16, or for coreai fp16-weights, which computes in fp32 [default: fp16 for coreml and for --compute ane, fp32 for onnx and coreai]
    #[arg(long)]
    precision: Option<Precision>,
    /// Store large weights in few bits: int8, int4-block32, palette4-group16, palette6, …; fp16 leaves them; or as a plan
    /// says (plan.toml, from s2ditc quantize)
    #[arg(long, value_name = "SCHEME|PLAN")]
    quantize: Option<How>,
    /// Choices that are known to go together: paper (4-bit palettes in blocks, 8-bit ones around them, int8 activations, as arXiv 2601.12719 runs on its phone; makes
    /// OUT.plan.toml too) or safe (8-bit palettes, fp16 activations, attention per head: what is known to stay on the Neural Engine) [Core ML]
    #[arg(long, value_name = "NAME")]
    recipe: Option<Recipe>,
    /// Samples that --recipe paper measures activations on: a safetensors file, as quantize takes it, or seeded [default: seeded]
    #[arg(long, value_name = "FILE|seeded")]
    calibrate: Option<Samples>,
    /// Spread the step over packages or assets that each fit a phone: auto (below 1 GB of weights each; for coreai below 2 GB), a number, or a size
    /// such as 900MB [Core ML, Core AI]. OUT is a folder: the parts and partition.json; of a stream, the kernel
    #[arg(long, value_name = "HOW")]
    partition: Option<Partition>,
    /// What packages are shaped for: ane (the Neural Engine: channels first, all fp16), gpu or any (as PyTorch has it); a decoder has one shape
    /// for all, and the package says the choice [Core ML; default: ane. Core AI has gpu, the default, and ane]
    #[arg(long)]
    compute: Option<Compute>,
    /// Heads of softmax attention on the Neural Engine: batched (fewest ops) or per-head (smallest values) [default: batched]
    #[arg(long)]
    attention: Option<Attention>,
    /// Choose the form of the graph for this device, by its limits and by estimated time: iphone16promax, iphone15pro, iphone17pro, m1, m4pro, m5, or a file NAME.toml
    /// [Core ML]
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Newest ONNX operator set to use: 21 (older runtimes, tract) or 23 [default: 23]
    #[arg(long, value_name = "N")]
    opset: Option<Opset>,
    /// Stop at the IR and print it (or write it to OUT)
    #[arg(long, value_name = "WHAT")]
    emit: Option<Emit>,
    /// The IR after this pass, by name (the last of the name) or position, instead of after all
    #[arg(long, value_name = "PASS", requires = "emit")]
    after: Option<String>,
    /// Say what each pass did and how long it took
    #[arg(long)]
    time_passes: bool,
    /// Run the graph in ONNX Runtime after each pass, and say how far its results moved
    #[arg(long)]
    verify_each: bool,
    /// Stop and say what a pass recognises, and what nearly and why not: fuse
    #[arg(long, value_name = "PASS", conflicts_with_all = ["emit", "output"])]
    explain: Option<Explain>,
    /// File or package to make
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// A whole clip in one step
    Clip,
    /// A stateful kernel that makes a stream chunk by chunk
    Stream,
}

/// `FxHxW` or `HxW`.
#[derive(Clone, Copy)]
enum Sides {
    Clip(LatentSize),
    Chunk { rows: usize, cols: usize },
}

impl std::str::FromStr for Sides {
    type Err = Problem;
    fn from_str(text: &str) -> Result<Self, Problem> {
        let sides: Option<Vec<usize>> = text.split(['x', 'X', '×']).map(|side| side.trim().parse().ok()).collect();
        match sides.as_deref() {
            Some(&[rows, cols]) => Ok(Sides::Chunk { rows, cols }),
            _ => text.parse().map(Sides::Clip),
        }
    }
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Emit {
    /// The text form of the graph that the target would get
    Ir,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Explain {
    /// The formulas and blocks that the pass finds in each function, and what is nearly one
    Fuse,
}

impl Args {
    /// The target, if it was not said: a name that ends in .onnx, .mlpackage or .aimodel says it.
    fn target(&self) -> Target {
        self.target.or_else(|| self.output.as_deref().and_then(said_by)).unwrap_or(Target::CoreMl)
    }

    /// Which timesteps, if it was not said: the stream of a step asks for its sampler's only, and a phone gains most from tables. So does a recipe that leaves nothing to the
    /// CPU, of a model that says its sampler.
    fn timesteps(&self, checkpoint: &Checkpoint) -> TimestepChoice {
        let model = checkpoint.model();
        let tables = self.recipe == Some(Recipe::Safe) && model.graph().is_none() && model.sampler().is_ok();
        self.timesteps.unwrap_or(match (self.mode, self.target(), model.family().part()) {
            (_, Target::CoreMl, Part::Step) if tables => TimestepChoice::FromConfig,
            (Mode::Stream, Target::CoreMl, Part::Step) => TimestepChoice::FromConfig,
            _ => TimestepChoice::Any,
        })
    }

    /// Refuses what would do nothing.
    fn check(&self) -> Result<()> {
        let given = [(self.states.is_some(), "--states"), (self.functions.is_some(), "--functions")];
        if let (Mode::Clip, Some((_, flag))) = (self.mode, given.into_iter().find(|(given, _)| *given)) {
            refuse!("{flag} is for --mode stream: a clip has no states, and one function");
        }
        if self.mode == Mode::Stream && self.batch != 1 {
            refuse!("--batch is for clips: a stream's states are those of one video");
        }
        self.check_recipe()?;
        if self.dry_run && self.pixels.is_none() && self.recipe.is_none() {
            refuse!("--dry-run is for --size or --recipe: without them compile makes what its flags say");
        }
        if self.recipe == Some(Recipe::Paper) && (self.emit.is_some() || self.explain.is_some()) {
            refuse!(
                "--emit and --explain show the graph without the plan that --recipe paper makes: leave the recipe out"
            );
        }
        if self.compute.is_some_and(|compute| compute != Compute::Ane) && self.attention.is_some() {
            refuse!("--attention is for --compute ane: gpu and any leave attention as it is");
        }
        match self.target() {
            Target::CoreAi if self.functions == Some(Functions::Separate) => {
                refuse!("--functions separate is for --target coreml and onnx: a Core AI asset has all functions");
            }
            Target::CoreAi if self.compute != Some(Compute::Ane) && self.attention.is_some() => {
                refuse!("--attention is for --compute ane: gpu leaves attention as it is");
            }
            Target::CoreAi if self.opset.is_some() => {
                refuse!("--opset is for --target onnx: a Core AI asset has no ONNX operators");
            }
            Target::Onnx if self.partition.is_some() => {
                refuse!("--partition is for --target coreml and coreai: an ONNX model is one file");
            }
            Target::Onnx if self.compute.is_some() || self.attention.is_some() => {
                refuse!("--compute and --attention are for --target coreml");
            }
            Target::CoreMl if self.opset.is_some() => {
                refuse!("--opset is for --target onnx: a Core ML package has no ONNX operators");
            }
            Target::Onnx if self.functions == Some(Functions::Shared) => {
                refuse!("--functions shared is for --target coreml: an ONNX file has one function");
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn run(args: &Args, context: Context) -> Result<ExitCode> {
    let start = Instant::now();
    args.check()?;
    let plan = args.quantize.as_ref().and_then(How::plan);
    let samples = args.calibrate.as_ref().and_then(|samples| match samples {
        Samples::File(path) => Some(path),
        Samples::Seeded => None,
    });
    let device_file = args.device.as_ref().filter(|device| device.ends_with(".toml")).map(PathBuf::from);
    Places::default()
        .input("--quantize", plan)
        .input("--config or --lora", args.weights.files())
        .input("--device", device_file.as_ref())
        .input("--calibrate", samples)
        .output("-o", &args.output)
        .check()?;
    if let Some(pixels) = args.pixels {
        return pipeline::run(args, context, pixels, start);
    }
    let component = args.component.as_deref();
    let wanted = component.map_or(Wanted::Transformers, Wanted::Component);
    match Source::open(&args.weights.origin(&args.checkpoint, wanted, context)?, component)? {
        Source::One(mut checkpoint) => {
            args.chunk.apply(&mut checkpoint, args.mode == Mode::Stream)?;
            one(args, context, &checkpoint, start)
        }
        Source::Experts(pair) => experts::run(args, context, &pair, start),
    }
}

/// Compiles one checkpoint.
fn one(args: &Args, context: Context, checkpoint: &Checkpoint, start: Instant) -> Result<ExitCode> {
    if !context.quiet {
        weights::note(checkpoint);
    }
    note_of_clip(args, checkpoint, context);
    let mut job = Job::new(args, checkpoint)?;
    let mut fresh = None;
    if let Some(recipe) = args.recipe {
        recipe::check_model(recipe, checkpoint)?;
        if args.dry_run {
            let planned = recipe::planned(args, recipe, checkpoint, job.size(checkpoint)?)?;
            if args.json {
                print_json(&planned)?;
            } else {
                print_line(&recipe::words(&planned))?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        if let (Recipe::Paper, Some(out)) = (recipe, &args.output) {
            refuse_inputs(checkpoint, out)?;
            let (plan, files) = recipe::plan(args, context, checkpoint, job.size(checkpoint)?, out)?;
            fresh = Some(files);
            job.quantized_by(How::Plan(plan).open(checkpoint)?);
        }
    }
    let (job, tuned) = match tuned::device(args)? {
        Some(device) => {
            let (job, tuned) = job.tuned(checkpoint, device)?;
            (job, Some(tuned))
        }
        None => (job, None),
    };
    let stored = job.quantize().cloned();
    let sources = Sources::new(checkpoint, stored.as_ref());
    let mut passes =
        Passes::new(args.after.as_deref(), args.time_passes, args.verify_each.then_some(&sources), context)
            .at(args.timesteps(checkpoint).listed(checkpoint.model())?);
    if let Some(Emit::Ir) = args.emit {
        let module = job.lower(checkpoint, &mut |done, module| passes.see(done, module))?;
        let text = passes.text(&module)?;
        match &args.output {
            None => print_line(text.trim_end())?,
            Some(out) => {
                if let Some(ending) = said_by(out).map(Target::extension) {
                    bail!(
                        "output `{}`: --emit ir writes a text, expected a name without .{ending}, such as graph.s2",
                        out.display()
                    );
                }
                refuse_inputs(checkpoint, out)?;
                let staged = Staged::file(context.to(out), &made::ir)?;
                std::fs::write(staged.path(), text).with_context(|| format!("cannot write `{}`", out.display()))?;
                staged.commit()?;
            }
        }
        eprint_rows(&passes.finish()?);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(Explain::Fuse) = args.explain {
        // As the pass found it: later passes give formulas the form of the target.
        let mut fused = None;
        job.lower(checkpoint, &mut |done, module| {
            if done.is_some_and(|s| s.pass == "fuse") {
                fused = Some(module.clone());
            }
        })?;
        let found = recognition(fused.context("no pass `fuse` ran")?)?;
        if args.json {
            print_json(&found)?;
        } else {
            let mut text = String::new();
            recognised(&found, &mut text)?;
            print_line(text.trim())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let Some(out) = &args.output else {
        refuse!("no output: name one with -o, such as -o model.{}", args.target().extension());
    };
    if args.partition.is_some() && out.extension().is_some_and(|e| e == args.target().extension()) {
        let ending = args.target().extension();
        bail!("output `{}`: parts go into a folder, expected a name without .{ending}", out.display());
    }
    if let Some(ending) = said_by(out).map(Target::extension).filter(|_| args.mode == Mode::Stream) {
        bail!("output `{}`: a kernel goes into a folder, expected a name without .{ending}", out.display());
    }
    refuse_inputs(checkpoint, out)?;
    let summary = {
        let progress = Progress::bytes("weights", context.quiet);
        let watch = &mut |done: Option<&PassRun>, module: &Module| passes.see(done, module);
        job.compile(checkpoint, context.to(out), watch, &mut |done, total| progress.set(done, total))?
    };
    if let Some(fresh) = fresh {
        fresh.keep();
    }
    let passes = passes.finish()?;
    warn(args, &summary, context);
    let lint = lint_of(args, &summary, tuned.as_ref().map(|tuned| &tuned.device), context)?;
    if args.json {
        let fields = checkpoint.origins().to_vec();
        let device = tuned.and_then(|tuned| tuned.chosen);
        print_json(&Made { summary, fields, passes, device, lint })?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(tuned) = tuned.as_ref().filter(|_| !context.quiet) {
        tuned::say(tuned);
    }
    eprint_rows(&passes);
    if !context.quiet {
        say(&summary, lint.as_ref(), args.device.as_deref(), Some(start))?;
        if let Some(line) = source::said(checkpoint) {
            print_line(&line)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The target that the ending of a name says: a package, an ONNX file or an asset.
fn said_by(out: &Path) -> Option<Target> {
    let targets = [Target::CoreMl, Target::Onnx, Target::CoreAi];
    targets.into_iter().find(|target| out.extension().is_some_and(|ending| ending == target.extension()))
}

/// Says that a whole clip of a model that makes video chunk by chunk is seldom what is wanted.
fn note_of_clip(args: &Args, checkpoint: &Checkpoint, context: Context) {
    let model = checkpoint.model();
    let is_of_chunks = model.streaming().is_ok() && matches!(model.sampler(), Ok(Sampler::Fixed { .. }));
    if args.mode == Mode::Clip && !context.quiet && is_of_chunks {
        print_note(
            "note: a whole clip of an autoregressive model, in which every frame sees every other: the model makes video chunk by chunk, so that `s2ditc stream` does not sample such a clip; --mode stream compiles what it samples",
        );
    }
}

/// Says what the weights lost.
fn warn(args: &Args, summary: &Summary, context: Context) {
    let place = if args.pixels.is_some() { format!("`{}`: ", summary.path.display()) } else { String::new() };
    for (tensor, n) in &summary.non_finite {
        print_note(&format!("warning: {place}tensor `{tensor}`: {n} element(s) are NaN or infinite; they were kept"));
    }
    for gone in &summary.vanished {
        print_note(&format!(
            "warning: {place}tensor `{}`: {:.1} % of its elements are too small for fp16 and become 0: compile with --precision fp32",
            gone.tensor,
            gone.percent()
        ));
    }
    if let (Some(how), Some(Quantized { weights: 0, of })) = (&summary.quantize, summary.quantized) {
        let flag = args.recipe.map_or(format!("--quantize {how}"), |recipe| format!("--recipe {recipe}"));
        print_note(&format!(
            "warning: {place}{flag}: 0 of {of} weights quantized: none is large enough and fits the scheme, or the plan keeps all of them"
        ));
    }
    if let Some(Quantize::Plan(plan)) = &summary.quantize
        && args.target() == Target::CoreMl
        && plan.plan.overrides.is_empty()
        && summary.weight_bytes > plan.plan.weight_bytes + plan.plan.weight_bytes / 200
        && !context.quiet
    {
        print_note(&format!(
            "note: {} of weights, and the plan counted {} at {}: tables of positions grow with the size",
            size(summary.weight_bytes),
            size(plan.plan.weight_bytes),
            plan.plan.measured_at()
        ));
    }
}

/// What lint says of a package in brief, unless nobody is told.
fn lint_of(args: &Args, summary: &Summary, device: Option<&Device>, context: Context) -> Result<Option<Brief>> {
    let told = args.target() == Target::CoreMl && (args.json || !context.quiet);
    told.then(|| brief(&summary.path, device)).transpose()
}

/// Prints a summary in a line or two; `start` is of a compile that made nothing else.
fn say(summary: &Summary, lint: Option<&Brief>, device: Option<&str>, start: Option<Instant>) -> Result<()> {
    let out = summary.path.display();
    print_line(&format!(
        "{out}: {} {}{}{}, {} ops, {} of weights{}{}",
        summary.target,
        summary.precision,
        summary.quantize.as_ref().map(|q| format!(" {q}")).unwrap_or_default(),
        summary.parts.map(|n| format!(" in {n} part(s)")).unwrap_or_default(),
        summary.ops,
        size(summary.weight_bytes),
        summary.quantized.map(|q| format!(", {} of {} weights quantized", q.weights, q.of)).unwrap_or_default(),
        start.map(|start| format!(", {:.1} s", start.elapsed().as_secs_f64())).unwrap_or_default()
    ))?;
    if let Some(lint) = lint {
        let device = device.map(|device| format!(" --device {device}")).unwrap_or_default();
        print_line(&format!("lint: {}; see s2ditc lint {out}{device}", lint.line()))?;
    }
    Ok(())
}

/// The summary of a compile, with lint's verdicts in brief.
#[derive(serde::Serialize)]
struct Made {
    #[serde(flatten)]
    summary: Summary,
    /// Where fields of the configuration are from that a pipeline keeps elsewhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<FieldOrigin>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    passes: Vec<PassEffect>,
    /// What was chosen for the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<Chosen>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lint: Option<Brief>,
}

fn brief(out: &Path, device: Option<&Device>) -> Result<Brief> {
    let rules = Rules::builtin()?;
    let rules = device.map_or(Ok(rules.clone()), |device| device.rules(&rules))?;
    Ok(Brief::of(&lint(out, &rules, &[])?, &rules))
}

/// Refuses an output that would take the place of a file of the checkpoint, or of a folder around it.
fn refuse_inputs(checkpoint: &Checkpoint, out: &Path) -> Result<()> {
    let Ok(out_real) = std::fs::canonicalize(out) else { return Ok(()) };
    for input in checkpoint.files() {
        if std::fs::canonicalize(&input).is_ok_and(|input| input.starts_with(&out_real)) {
            bail!("cannot write `{}`: `{}` of the checkpoint is there", out.display(), input.display());
        }
    }
    Ok(())
}

/// A compile job: clip, stream, or a decoder's stream.
#[derive(Clone)]
enum Job {
    Clip(Options),
    Stream(stream::Options),
    Decoder(decoder::Options),
}

impl Job {
    fn new(args: &Args, checkpoint: &Checkpoint) -> Result<Job> {
        let target = args.target();
        let usual = match (target, args.compute) {
            // It computes in nothing else.
            (Target::CoreAi, Some(Compute::Ane)) => Precision::Fp16,
            _ => default_precision(target),
        };
        let precision = args.precision.unwrap_or(usual);
        let plan = args.quantize.as_ref().and_then(How::plan);
        let quantize = args.storage().map(|how| how.open(checkpoint)).transpose().about_file(plan, "E0501")?.flatten();
        let partition = args.partition;
        let usual = if target == Target::CoreAi { Compute::Gpu } else { Compute::default() };
        let layout =
            Layout { compute: args.compute.unwrap_or(usual), attention: args.attention(), ..Layout::default() };
        if args.latent.is_none() && args.batch != 1 {
            refuse!(
                "--batch goes with --latent: a graph has the batch that it was exported for, and a text encoder takes one text"
            );
        }
        let clip = |size| Options {
            target,
            precision,
            opset: args.opset.unwrap_or_default(),
            layout: layout.clone(),
            size,
            timesteps: args.timesteps(checkpoint),
            quantize: quantize.clone(),
            partition,
        };
        let is_decoder = checkpoint.model().family().part() == Part::Decoder;
        let sides = match (args.mode, args.latent, checkpoint.model().graph()) {
            (Mode::Stream, None, Some(graph)) => {
                graph.size().latent().ok().map(|latent| Sides::Chunk { rows: latent.rows, cols: latent.cols })
            }
            (_, given, _) => given,
        };
        if is_decoder && partition.is_some() {
            refuse!("--partition is for steps: a decoder is one package or asset");
        }
        Ok(match (args.mode, sides, args.tokens) {
            (Mode::Clip, Some(Sides::Clip(latent)), _) => {
                Job::Clip(clip(StepSize { latent, batch: args.batch.into() }.into()))
            }
            (Mode::Clip, None, Some(tokens)) => Job::Clip(clip(Size::Tokens(tokens))),
            (Mode::Clip, None, None) => match checkpoint.model().graph() {
                Some(graph) => Job::Clip(clip(graph.size())),
                None => refuse!(
                    "--latent FxHxW says how large the clip is, such as --latent 3x36x64; of a text encoder --tokens N how long the text; of a whole pipeline --size COLUMNSxROWS"
                ),
            },
            (Mode::Stream, Some(Sides::Chunk { rows, cols }), _) if is_decoder => Job::Decoder(decoder::Options {
                target,
                precision,
                opset: args.opset.unwrap_or_default(),
                layout,
                chunk: LatentSize { frames: args.chunk.chunk.map_or(1, usize::from), rows, cols },
                states: args.states.unwrap_or_default(),
                functions: args.functions.unwrap_or_default(),
                quantize,
            }),
            (Mode::Stream, Some(Sides::Chunk { rows, cols }), _) => Job::Stream(stream::Options {
                target,
                precision,
                opset: args.opset.unwrap_or_default(),
                layout,
                rows,
                cols,
                timesteps: args.timesteps(checkpoint),
                states: args.states.unwrap_or_default(),
                functions: args.functions.unwrap_or_default(),
                quantize,
                partition,
            }),
            (Mode::Clip, Some(Sides::Chunk { rows, cols }), _) => {
                bail!(
                    "latent size: found {rows}x{cols}, expected FRAMESxROWSxCOLUMNS, such as 3x{rows}x{cols}; or --mode stream"
                )
            }
            (Mode::Stream, None, _) => {
                refuse!("--latent HxW says how large the frames of the stream are, such as --latent 36x64")
            }
            (Mode::Stream, Some(Sides::Clip(l)), _) if is_decoder => bail!(
                "latent size: found {l}, expected ROWSxCOLUMNS, such as {}x{}: a stream has any number of frames; --chunk {} takes so many at a time",
                l.rows,
                l.cols,
                l.frames
            ),
            (Mode::Stream, Some(Sides::Clip(l)), _) => bail!(
                "latent size: found {l}, expected ROWSxCOLUMNS, such as {}x{}: a stream's frames are the checkpoint's chunk_frames",
                l.rows,
                l.cols
            ),
        })
    }

    /// The size that weights are measured at.
    fn size(&self, checkpoint: &Checkpoint) -> Result<Size> {
        Ok(match self {
            Job::Clip(options) => options.size,
            Job::Stream(options) => {
                let frames = checkpoint.streaming()?.chunk_frames;
                LatentSize { frames, rows: options.rows, cols: options.cols }.into()
            }
            Job::Decoder(options) => options.chunk.into(),
        })
    }

    fn quantize(&self) -> Option<&Quantize> {
        match self {
            Job::Clip(options) => options.quantize.as_ref(),
            Job::Stream(options) => options.quantize.as_ref(),
            Job::Decoder(options) => options.quantize.as_ref(),
        }
    }

    fn quantized_by(&mut self, how: Option<Quantize>) {
        match self {
            Job::Clip(options) => options.quantize = how,
            Job::Stream(options) => options.quantize = how,
            Job::Decoder(options) => options.quantize = how,
        }
    }

    fn lower(&self, checkpoint: &Checkpoint, watch: &mut Watch) -> Result<Module> {
        match self {
            Job::Clip(options) => lower(checkpoint, options, watch),
            Job::Stream(options) => Ok(stream::lower(checkpoint, options, watch)?.module),
            Job::Decoder(options) => Ok(decoder::lower(checkpoint, options, watch)?.module),
        }
    }

    fn compile(
        &self,
        checkpoint: &Checkpoint,
        out: Destination<'_>,
        watch: &mut Watch,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Summary> {
        match self {
            Job::Clip(options) => compile(checkpoint, options, out, watch, progress),
            Job::Stream(options) => stream::compile(checkpoint, options, out, watch, progress),
            Job::Decoder(options) => decoder::compile(checkpoint, options, out, watch, progress),
        }
    }
}
