//! Two transformers of a pipeline folder: both are compiled, into one folder.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use s2dit_ir::Module;
use s2dit_models::checkpoint::FieldOrigin;
use s2dit_passes::PassRun;
use serde::Serialize;

use super::recipe::Recipe;
use super::source::{Experts, said};
use super::{Args, Job, Made, Mode, lint_of, refuse_inputs, say, tuned, warn};
use crate::cli::progress::Progress;
use crate::cli::usage::refuse;
use crate::cli::{Context, print_json, print_line};
use s2dit_emit::experts::{self, compile_experts};
use s2dit_emit::plan::How;

/// The summary of both.
#[derive(Serialize)]
struct Summary {
    /// The timestep from which on the first one is asked.
    boundary: f64,
    experts: Vec<Made>,
}

pub(super) fn run(args: &Args, context: Context, pair: &Experts, start: Instant) -> Result<ExitCode> {
    let [high, low] = &pair.names;
    let whole = [
        (args.mode == Mode::Stream, "--mode stream"),
        (args.emit.is_some(), "--emit"),
        (args.explain.is_some(), "--explain"),
        (args.time_passes, "--time-passes"),
        (args.verify_each, "--verify-each"),
        (args.weights.is_given(), "--config, --lora or --state-dict"),
        (matches!(args.quantize, Some(How::Plan(_))), "--quantize PLAN"),
        (args.recipe == Some(Recipe::Paper), "--recipe paper"),
    ];
    if let Some((_, flag)) = whole.into_iter().find(|(given, _)| *given) {
        refuse!(
            "{flag} is of one checkpoint, and `{}` has two transformers: add --component {high} or --component {low}",
            args.checkpoint.display()
        );
    }
    let Some(out) = &args.output else {
        refuse!("no output: name a folder for both transformers with -o, such as -o model")
    };
    if out.extension().is_some_and(|e| e == args.target().extension()) {
        bail!(
            "output `{}`: two transformers go into a folder, expected a name without .{}; or one of them, with --component {high} or \
             --component {low}",
            out.display(),
            args.target().extension()
        );
    }
    let (mut options, mut chosen) = (Vec::new(), Vec::new());
    for checkpoint in &pair.checkpoints {
        refuse_inputs(checkpoint, out)?;
        let mut job = Job::new(args, checkpoint)?;
        if let Some(device) = tuned::device(args)? {
            let (for_device, tuned) = job.tuned(checkpoint, device)?;
            job = for_device;
            chosen.push(tuned);
        }
        let Job::Clip(own) = job else { bail!("a stream of two transformers") };
        options.push(own);
    }
    let [one, two] =
        [0, 1].map(|i| experts::Job { name: &pair.names[i], checkpoint: &pair.checkpoints[i], options: &options[i] });
    let summaries = {
        let progress = Progress::bytes("weights", context.quiet);
        let mut shown = |index: usize, done: u64, all: u64| progress.set(index as u64 * all + done, 2 * all);
        let watch = &mut |_: Option<&PassRun>, _: &Module| {};
        compile_experts([one, two], pair.boundary, context.to(out), watch, &mut shown)?
    };
    if !context.quiet && !args.json {
        chosen.iter().for_each(tuned::say);
    }
    let mut made = Vec::new();
    let mut chosen = chosen.into_iter();
    for (summary, checkpoint) in summaries.into_iter().zip(&pair.checkpoints) {
        warn(args, &summary, context);
        let tuned = chosen.next();
        let lint = lint_of(args, &summary, tuned.as_ref().map(|tuned| &tuned.device), context)?;
        let fields: Vec<FieldOrigin> = checkpoint.origins().to_vec();
        let device = tuned.and_then(|tuned| tuned.chosen);
        made.push(Made { summary, fields, passes: Vec::new(), device, lint });
    }
    if args.json {
        print_json(&Summary { boundary: pair.boundary, experts: made })?;
    } else if !context.quiet {
        for one in &made {
            say(&one.summary, one.lint.as_ref(), args.device.as_deref(), None)?;
        }
        if let Some(line) = said(&pair.checkpoints[0]) {
            print_line(&line)?;
        }
        let (out, boundary, seconds) = (out.display(), pair.boundary, start.elapsed().as_secs_f64());
        print_line(&format!("{out}: {high} from timestep {boundary} on, {low} below it, {seconds:.1} s"))?;
    }
    Ok(ExitCode::SUCCESS)
}
