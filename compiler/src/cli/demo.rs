//! `s2ditc demo`

mod model;
mod strip;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use s2dit_backends::output::Destination;
use s2dit_files::size;
use s2dit_models::checkpoint::{Checkpoint, PipelineFolder};
use s2dit_runtime::pipeline::{Mode, Part, Pipeline};
use s2dit_runtime::{Engine, RunOptions};
use serde::Serialize;

use super::progress::{Progress, count};
use super::style;
use super::{Context, print_json, print_line};
use s2dit_emit::pipeline::{Options, Plan, compile_pipeline};
use s2dit_emit::stream::{Functions, States};
use s2dit_emit::{Attention, Opset, Summary, Target, TimestepChoice, default_precision};
use s2dit_proof::decode::VideoOutput;
use s2dit_proof::generate::{Report, Request, frames};
use s2dit_proof::stream::verify::{self, verify};
use s2dit_proof::verify::Reference;

/// Chunks of the video: a little over five seconds.
const CHUNKS: u64 = 6;

/// Compile a small trained S2DiT to both targets, prove both against PyTorch, and make a video with the package
#[derive(clap::Args)]
#[command(
    after_help = "Example: s2ditc demo --prompt \"three small blue triangles spinning on a white background\" -o /tmp/demo

The model knows a toy world alone; examples/toyworld says how its captions are made, and how it was trained."
)]
pub(super) struct Args {
    /// Folder for the model, the artifacts and the video
    #[arg(short, long, value_name = "DIR", default_value = "s2ditc-demo")]
    pub(super) output: PathBuf,
    /// What the video shows, in the words of the toy world
    #[arg(long, value_name = "TEXT", default_value = model::PROMPT)]
    prompt: String,
    /// Seed of the noise
    #[arg(long, value_name = "N", default_value = "0")]
    seed: u64,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// A comparison of a compiled transformer with PyTorch.
#[derive(Serialize)]
struct Proof {
    artifact: PathBuf,
    what: &'static str,
    /// The chunk that is farthest from PyTorch's.
    snr_db: f64,
    relative_l2: f64,
    bar_db: f64,
    passed: bool,
}

/// What the demo did.
#[derive(Serialize)]
struct Done {
    proofs: Vec<Proof>,
    video: Report,
    videos: Vec<PathBuf>,
}

pub(super) fn run(args: &Args, context: Context) -> Result<ExitCode> {
    let say = |line: &str| if context.quiet || args.json { Ok(()) } else { print_line(line) };
    let folder = &args.output;
    let new = make_folder(folder)?;

    say("1  a model: a small S2DiT, trained to draw shapes that move, with its text encoder and its decoder")?;
    let start = Instant::now();
    let bytes = model::write(folder).inspect_err(|_| {
        if new {
            // Only what this run has begun.
            let _ = std::fs::remove_dir_all(folder);
        }
    })?;
    let source = folder.join(model::PIPELINE_NAME);
    let checkpoint = Checkpoint::open(&source.join("transformer"))?;
    let parameters = checkpoint.model().tensors().iter().map(|tensor| tensor.elements() as u64).sum();
    say(&line(&source, &format!("a transformer of {} parameters, {} in all", count(parameters), size(bytes)), start))?;
    say(&format!("   its layout is {}", checkpoint.model().outline().sandwich()))?;

    say("\n2  compiled to both targets, for a stream of any length")?;
    let (onnx, package) = (folder.join("onnx"), folder.join("coreml"));
    for (target, out) in [(Target::Onnx, &onnx), (Target::CoreMl, &package)] {
        let start = Instant::now();
        let summaries = compiled(&source, target, context.to(out), context)?;
        let (ops, bytes) = summaries.iter().fold((0, 0), |(ops, bytes), s| (ops + s.ops, bytes + s.weight_bytes));
        let what = format!("{target} in {}, {ops} ops, {} of weights", default_precision(target), size(bytes));
        say(&line(out, &what, start))?;
    }

    say("\n3  proved: the files on disk, run on this machine, against PyTorch in float64")?;
    let proofs = prove(folder, &onnx, &package, context, &say)?;

    say("\n4  a video: the package, every result rounded to fp16 as the Neural Engine stores it")?;
    let (video, videos) = film(args, &package, context, &say)?;

    let passed = proofs.iter().all(|proof| proof.passed);
    if args.json {
        print_json(&Done { proofs, video, videos })?;
    } else {
        let shown = folder.display();
        say(&format!(
            "\nEverything is in {shown}. Go on with:\n   s2ditc generate {shown}/coreml --prompt \"{}\" --seed 1 -o again.gif\n   s2ditc lint {shown}/coreml/Transformer\n   s2ditc verify {shown}/coreml --checkpoint {shown}/{} --fp16",
            model::ANOTHER_PROMPT,
            model::PIPELINE_NAME
        ))?;
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Compiles the pipeline folder.
fn compiled(source: &Path, target: Target, to: Destination<'_>, context: Context) -> Result<Vec<Summary>> {
    let folder = PipelineFolder::open(source)?.context("a pipeline folder")?;
    let plan = Plan::new(
        &folder,
        &Options {
            target,
            precision: default_precision(target),
            opset: Opset::default(),
            compute: None,
            attention: Attention::default(),
            pixels: model::PIXELS,
            frames: None,
            mode: Mode::Stream,
            batch: 1,
            timesteps: if target == Target::CoreMl { TimestepChoice::FromConfig } else { TimestepChoice::Any },
            states: States::default(),
            functions: Functions::default(),
            quantize: None,
            partition: None,
            parts: Part::ALL.to_vec(),
            loras: Vec::new(),
        },
    )?;
    let progress = Progress::bytes("weights", context.quiet);
    let mut shown = |_: Part, done: u64, all: u64| progress.set(done, all);
    let made = compile_pipeline(plan, to, &mut |_, _| {}, &mut shown, &mut |_, _| Vec::new())?;
    Ok(made.summaries.into_iter().map(|(_, summary)| summary).collect())
}

/// Streams with the compiled transformers and compares every chunk with the golden's.
fn prove(
    folder: &Path,
    onnx: &Path,
    package: &Path,
    context: Context,
    say: &impl Fn(&str) -> Result<()>,
) -> Result<Vec<Proof>> {
    let reference = Reference::Golden { file: folder.join(model::GOLDEN_NAME), model: None };
    let mut proofs = Vec::new();
    for (pipeline, fp16, bar, what) in [
        (onnx, false, 100.0, "ONNX Runtime, fp32"),
        (package, false, 50.0, "the package, fp32 arithmetic"),
        (package, true, 45.0, "the package, every result rounded to fp16"),
    ] {
        let options = verify::Options {
            min_snr: Some(bar),
            fp16,
            engine: Engine::Ort,
            chunks: None,
            plot: None,
            force: false,
            threads: context.threads,
            quiet: context.quiet,
        };
        let artifact = pipeline.join("Transformer");
        let report = verify(&artifact, &reference, &options, |_| {})?;
        let worst = report.rows.iter().map(|row| &row.metrics).min_by(|a, b| a.snr_db.total_cmp(&b.snr_db));
        let worst = worst.context("a golden without chunks")?;
        let verdict = if report.passed { style::good("ok") } else { style::bad("FAILED") };
        say(&format!("   {:<16} {:6.1} dB (bar {bar}) {verdict}  {what}", name(pipeline), worst.snr_db))?;
        proofs.push(Proof {
            artifact,
            what,
            snr_db: worst.snr_db,
            relative_l2: worst.relative_l2,
            bar_db: bar,
            passed: report.passed,
        });
    }
    Ok(proofs)
}

/// Makes the video, in every format that the program has.
fn film(
    args: &Args,
    package: &Path,
    context: Context,
    say: &impl Fn(&str) -> Result<()>,
) -> Result<(Report, Vec<PathBuf>)> {
    let start = Instant::now();
    let pipeline = Pipeline::open(package)?;
    let video = pipeline.contract().video;
    let names = if cfg!(feature = "mp4") { &["video.gif", "video.mp4"][..] } else { &["video.gif"] };
    let paths: Vec<PathBuf> = names.iter().map(|name| args.output.join(name)).collect();
    let request = Request { prompt: args.prompt.clone(), seed: args.seed, chunks: Some(CHUNKS), ..Request::default() };
    let run = RunOptions { fp16: true, threads: context.threads, quiet: context.quiet, ..RunOptions::default() };
    let progress = Progress::calls("the video", context.quiet);
    let mut watch = |part: Part, done: u64, total: u64| {
        progress.say(done, total, || format!("{}: {done}/{total}", part.name().replace('_', " ")));
    };
    let mut files: Vec<VideoOutput> = Vec::new();
    let mut strip = strip::Strip::default();
    let mut report = frames(&pipeline, &request, &run, &mut watch, &mut |made, total| {
        if files.is_empty() {
            for path in &paths {
                files.push(VideoOutput::create(context.to(path), [1, 3, total, video.rows, video.cols], video.fps)?);
            }
        }
        strip.push(made, total);
        files.iter_mut().try_for_each(|file| file.push(made))
    })?;
    drop(progress);
    files.into_iter().try_for_each(VideoOutput::finish)?;
    let strange = model::strange_words(&args.prompt)?;
    if !strange.is_empty() {
        report.notes.push(format!(
            "the demo's model has seen no caption with {}: its captions look like \"{}\"",
            strange.join(", "),
            model::PROMPT
        ));
    }
    say(&format!("   \"{}\"", args.prompt))?;
    report.notes.iter().try_for_each(|note| say(&format!("   note: {note}")))?;
    if !context.quiet && !args.json {
        strip.print()?;
    }
    for path in &paths {
        let what = format!("{} frames of {}x{}, {} a second", report.frames, report.cols, report.rows, report.fps);
        say(&line(path, &what, start))?;
    }
    Ok((report, paths))
}

/// Makes the demo's folder, and says whether it was not there. A new folder tells git to ignore it: people run the demo inside a checkout.
///
/// # Errors
/// A folder with things in it that no run of the demo made.
fn make_folder(folder: &Path) -> Result<bool> {
    const IGNORE: &str = ".gitignore";
    let new = !folder.exists();
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read `{}`", folder.display()))?;
    let foreign = entries.flatten().map(|entry| entry.file_name()).find(|name| name != IGNORE);
    if let Some(foreign) = foreign.filter(|_| !model::is_begun(folder)) {
        bail!(
            "`{}`: found `{}`, and that folder is not the demo's: expected an empty folder, or that of another run of this demo; name one with -o",
            folder.display(),
            foreign.display()
        );
    }
    if new {
        let ignore = folder.join(IGNORE);
        std::fs::write(&ignore, "*\n").with_context(|| format!("cannot write `{}`", ignore.display()))?;
    }
    Ok(new)
}

fn line(path: &Path, what: &str, start: Instant) -> String {
    format!("   {:<16} {what}, {:.1} s", name(path), start.elapsed().as_secs_f64())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
