//! A whole pipeline folder: text encoder, transformer, decoder and tokenizer, compiled into one folder.

use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Result, bail};
use s2dit_emit::pipeline::{Options, Plan, compile_pipeline};
use s2dit_emit::{Summary, Target, TimestepChoice, default_precision};
use s2dit_estimate::{Device, device};
use s2dit_files::problems::{Problem, quoted};
use s2dit_ir::Module;
use s2dit_models::checkpoint::{PIPELINE_FILE, PipelineFolder, Wanted};
use s2dit_passes::PassRun;
use s2dit_runtime::pipeline::{Contract, Mode as Makes, Part};
use serde::Serialize;

use super::{Args, Mode, refuse_inputs, say, warn};
use crate::cli::estimate::pipeline::card;
use crate::cli::progress::Progress;
use crate::cli::usage::refuse;
use crate::cli::{Context, print_json, print_line, print_note};

/// `512x288`: columns and rows of pixels, as everybody writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pixels {
    cols: usize,
    rows: usize,
}

impl FromStr for Pixels {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        const MOST: usize = 1 << 15;
        let sides: Option<Vec<usize>> = text.split(['x', 'X', '×']).map(|side| side.trim().parse().ok()).collect();
        match sides.as_deref() {
            Some(&[cols, rows]) if (1..=MOST).contains(&cols) && (1..=MOST).contains(&rows) => {
                Ok(Pixels { cols, rows })
            }
            _ => Err(Problem {
                place: "--size".into(),
                found: quoted(text),
                expected: format!("COLUMNSxROWS of pixels, each from 1 to {MOST}, such as 512x288"),
            }),
        }
    }
}

/// A part of a pipeline by its name.
pub(super) fn part(text: &str) -> Result<Part, Problem> {
    let named = Part::ALL.into_iter().find(|part| part.name() == text);
    named.ok_or_else(|| Problem {
        place: "--components".into(),
        found: quoted(text),
        expected: Part::ALL.map(|part| quoted(part.name())).join(" or "),
    })
}

/// What was made, or would be.
#[derive(Serialize)]
struct Report<'a> {
    /// The contract; of a dry run without its assets.
    contract: &'a Contract,
    components: Vec<Described>,
    notes: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    summaries: Vec<Summary>,
}

/// A component that is compiled.
#[derive(Serialize)]
struct Described {
    part: &'static str,
    /// What it becomes.
    file: String,
    /// The components of the pipeline folder that it is made of.
    from: Vec<String>,
    class: String,
    parameters: usize,
    /// The engine that its packages are meant for.
    #[serde(skip_serializing_if = "Option::is_none")]
    compute: Option<String>,
}

/// Refuses flags that are of one model.
fn check(args: &Args) -> Result<()> {
    let single = [
        (args.component.is_some(), "--component"),
        (args.emit.is_some(), "--emit"),
        (args.explain.is_some(), "--explain"),
        (args.time_passes, "--time-passes"),
        (args.verify_each, "--verify-each"),
        (args.device.is_some(), "--device"),
        (args.weights.says_more_than_loras(), "--config, --state-dict, --input, --result or --bind"),
    ];
    let single = single.into_iter().find(|(given, _)| *given).map(|(_, flag)| flag);
    if let Some(flag) = single.or_else(|| args.chunk.given()) {
        refuse!("{flag} is of one model, and --size compiles a whole pipeline: leave one of them out");
    }
    if args.target() == Target::CoreAi {
        refuse!(
            "--size compiles whole pipelines, which are not written for Core AI yet: compile each part with --component"
        );
    }
    if args.mode == Mode::Clip && args.timesteps.is_some_and(|choice| choice != TimestepChoice::Any) {
        refuse!("--timesteps from-config is for --mode stream here: the scheduler of a pipeline chooses its timesteps");
    }
    if args.batch > 2 {
        refuse!(
            "--batch: found {}, expected 1 or 2 with --size: a call of a pipeline's transformer serves a prompt, or a prompt and its negative",
            args.batch
        );
    }
    if args.mode == Mode::Stream && args.frames.is_some() {
        refuse!("--frames is for clips: a stream has any number of frames");
    }
    Ok(())
}

pub(super) fn run(args: &Args, context: Context, pixels: Pixels, start: Instant) -> Result<ExitCode> {
    check(args)?;
    let origin = args.weights.origin(&args.checkpoint, Wanted::Pipeline, context)?;
    let Some(folder) = PipelineFolder::open(&origin.path)? else {
        if Contract::is_in(&origin.path) {
            bail!(
                "`{}`: found the folder of a compiled pipeline, expected the pipeline folder of diffusers that it was compiled from, with {PIPELINE_FILE}",
                origin.path.display()
            );
        }
        refuse!(
            "--size is for a pipeline folder: `{}` has no {PIPELINE_FILE}; a model by itself takes --latent or --tokens",
            origin.path.display()
        );
    };
    let parts = if args.components.is_empty() { Part::ALL.to_vec() } else { args.components.clone() };
    let mode = if args.mode == Mode::Stream { Makes::Stream } else { Makes::Clip };
    let tables = match (mode, args.target()) {
        (Makes::Stream, Target::CoreMl) => TimestepChoice::FromConfig,
        _ => TimestepChoice::Any,
    };
    let options = Options {
        target: args.target(),
        precision: args.precision.unwrap_or(default_precision(args.target())),
        opset: args.opset.unwrap_or_default(),
        compute: args.compute,
        attention: args.attention.unwrap_or_default(),
        pixels: [pixels.rows, pixels.cols],
        frames: args.frames,
        mode,
        batch: args.batch.into(),
        timesteps: args.timesteps.unwrap_or(tables),
        states: args.states.unwrap_or_default(),
        functions: args.functions.unwrap_or_default(),
        quantize: args.quantize.clone(),
        partition: args.partition,
        parts,
        loras: origin.loras.clone(),
    };
    let plan = Plan::new(&folder, &options)?;
    let notes = plan.notes.clone();
    if !context.quiet {
        for note in &notes {
            print_note(&format!("note: {note}"));
        }
    }
    let components: Vec<Described> = plan.components.iter().map(described).collect();
    if args.dry_run {
        let report = Report { contract: &plan.contract, components, notes: &notes, summaries: Vec::new() };
        if args.json {
            print_json(&report)?;
        } else {
            print_line(&dry(&report))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let Some(out) = &args.output else { refuse!("no output: name a folder for the pipeline with -o, such as -o wan") };
    if out.extension().is_some_and(|e| e == args.target().extension()) {
        let ending = args.target().extension();
        bail!("output `{}`: a pipeline goes into a folder, expected a name without .{ending}", out.display());
    }
    for (_, checkpoint) in plan.components.iter().flat_map(|component| &component.checkpoints) {
        refuse_inputs(checkpoint, out)?;
    }
    let made = {
        let progress = Progress::bytes("weights", context.quiet);
        let watch = &mut |_: Option<&PassRun>, _: &Module| {};
        let mut shown = |_: Part, done: u64, all: u64| progress.set(done, all);
        compile_pipeline(plan, context.to(out), watch, &mut shown, &mut estimated)?
    };
    let summaries: Vec<Summary> = made.summaries.into_iter().map(|(_, summary)| summary).collect();
    for summary in &summaries {
        warn(args, summary, context);
    }
    if args.json {
        print_json(&Report { contract: &made.contract, components, notes: &notes, summaries })?;
    } else if !context.quiet {
        for summary in &summaries {
            say(summary, None, None, None)?;
        }
        let seconds = start.elapsed().as_secs_f64();
        print_line(&format!("{}: {}, {}, {seconds:.1} s", out.display(), made.contract.class, sizes(&made.contract)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn described(component: &s2dit_emit::pipeline::Component) -> Described {
    let models = component.checkpoints.iter().map(|(_, checkpoint)| checkpoint.model());
    let parameters = models.flat_map(|model| model.tensors()).map(|tensor| tensor.elements()).sum();
    Described {
        part: component.part.name(),
        file: component.file.clone(),
        from: component.checkpoints.iter().map(|(name, _)| name.clone()).collect(),
        class: component.checkpoints[0].1.model().family().class().into(),
        parameters,
        compute: component.compute.map(|compute| compute.to_string()),
    }
}

/// What a pipeline makes, in one line.
fn sizes(contract: &Contract) -> String {
    let Contract { video, latent, .. } = contract;
    let frames = video.frames.map_or("any number of frames".into(), |frames| format!("{frames} frames"));
    format!(
        "{frames} of {}x{} pixels at {} a second from a latent of {}x{}x{}x{}",
        video.cols, video.rows, video.fps, latent.channels, latent.frames, latent.rows, latent.cols
    )
}

/// The text of a dry run.
fn dry(report: &Report<'_>) -> String {
    let mut out = format!("{}: {}\n", report.contract.class, sizes(report.contract));
    for one in &report.components {
        let compute = one.compute.as_ref().map_or(String::new(), |compute| format!(", for {compute}"));
        out += &format!(
            "  {:<13} {:<24} of {} ({}), {} parameters{compute}\n",
            one.part,
            one.file,
            one.from.join(" and "),
            one.class,
            one.parameters
        );
    }
    let sampling = &report.contract.sampling;
    out += &match report.contract.mode {
        Makes::Clip => format!(
            "  {:<13} {}, {} steps, guidance {}, {}\n",
            "sampling",
            report.contract.scheduler.class,
            sampling.steps,
            sampling.guidance,
            sampling.calls()
        ),
        Makes::Stream => format!("  {:<13} {} steps a chunk\n", "sampling", sampling.steps),
    };
    out += "nothing was written: --dry-run";
    out
}

/// Lines of the model card; none if the pipeline cannot be estimated.
fn estimated(contract: &Contract, dir: &Path) -> Vec<String> {
    let made = Device::open(device::DEFAULT).and_then(|device| s2dit_estimate::pipeline(contract, dir, &device));
    made.map(|made| card(&made)).unwrap_or_default()
}
