//! `s2ditc quantize`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use s2dit_backends::output::{Staged, made as known};
use s2dit_files::size;
use s2dit_runtime::compare::EXACT_DB;

use super::places::Places;
use super::progress::Progress;
use super::usage::{self, bytes, refuse};
use super::weights::{self, WeightArgs};
use super::{Context, print_json, print_line};
use s2dit_models::checkpoint::{Checkpoint, Wanted};
use s2dit_models::size::{LatentSize, Size};
use s2dit_quantize::{Goal, Request, Samples, Survey, Uniform, html, make, stats_file};

use crate::errors::About as _;

/// Plan how each large weight is stored, for compile --quantize
#[derive(clap::Args)]
#[command(after_help = "Examples:
  s2ditc quantize small/ --scheme palette4-group16 --calibrate seeded -o plan.toml
  s2ditc quantize small/ --target-size 24MB --calibrate samples.safetensors -o plan.toml
  s2ditc quantize small/ --min-snr 35 -o plan.toml
  s2ditc quantize small/ --scheme w8a8 --calibrate samples.safetensors -o plan.toml
  s2ditc compile small/ --target coreml --latent 3x36x64 --quantize plan.toml -o small.mlpackage

Samples are a safetensors file with latent [N,C,F,H,W], timestep [N] and text [N,L,text_dim] (and text_mask [N,L], pooled [N,width] or guidance [N] for a model that takes it), or tokens [N,L] of a text encoder, as in a golden. A quarter of them \
(of four or more) measures, the others calibrate. `seeded` stands for sixteen samples of noise, which --target-size, --min-snr \
and w8a8 take if none are named. Statistics go beside the plan, as PLAN.stats.safetensors, of about the checkpoint's size; both files \
are needed to compile. The size is that of weight.bin at the plan's latent: tables of positions grow with the latent. A plan is for one checkpoint and every target.")]
#[command(group(clap::ArgGroup::new("size")))]
pub(super) struct Args {
    /// Checkpoint: a folder with config.json and safetensors, a file of weights, or OWNER/NAME on the Hugging Face hub
    pub(super) checkpoint: PathBuf,
    #[command(flatten)]
    pub(super) weights: WeightArgs,
    /// One scheme for every weight that it fits: int8, palette4-group16, …; w8a8: int8 activations too
    #[arg(long, value_name = "SCHEME", required_unless_present_any = ["target_size", "min_snr"])]
    scheme: Option<Uniform>,
    /// The least error in at most this size of all weights of the fp16 package, such as 900MB or 1.2GB
    #[arg(long, value_name = "SIZE", value_parser = bytes, conflicts_with_all = ["scheme", "min_snr"])]
    target_size: Option<u64>,
    /// The fewest bytes with at least this signal-to-noise ratio, shown by a run
    #[arg(long, value_name = "DB", conflicts_with = "scheme")]
    min_snr: Option<f64>,
    /// Collect statistics on these samples (a safetensors file, or seeded), and choose codes by them
    #[arg(long, value_name = "FILE|seeded")]
    calibrate: Option<Samples>,
    /// Latent to measure at: frames, rows and columns [default: that of the samples, or 3x16x24, or the checkpoint's chunk]
    #[arg(long, value_name = "FxHxW", group = "size")]
    latent: Option<LatentSize>,
    /// Text tokens to measure at, of a text encoder [default: those that pipelines pad to]
    #[arg(long, value_name = "N", group = "size")]
    tokens: Option<usize>,
    /// The plan to make
    #[arg(short, long, value_name = "PLAN.toml")]
    output: PathBuf,
    /// Also write a page about the plan: sizes, errors of blocks, error against bits, the worst weights
    #[arg(long, value_name = "OUT.html", value_parser = usage::html)]
    report: Option<PathBuf>,
    /// Print the plan, errors of blocks and other sizes as JSON
    #[arg(long)]
    json: bool,
}

/// The highest SNR that can be asked for.
const MOST_DB: f64 = 60.0;

pub(super) fn run(args: &Args, context: Context) -> Result<ExitCode> {
    if args.output.extension().is_none_or(|e| e != "toml") {
        refuse!("output `{}`: expected a name that ends in `.toml`", args.output.display());
    }
    let samples = args.calibrate.as_ref().and_then(|samples| match samples {
        Samples::File(path) => Some(path),
        Samples::Seeded => None,
    });
    let statistics = stats_file(&args.output);
    Places::default()
        .input("DIR", [&args.checkpoint])
        .input("--config or --lora", args.weights.files())
        .input("--calibrate", samples)
        .output("-o", [&args.output])
        .output("-o, its statistics", &statistics)
        .output("--report", &args.report)
        .check()?;
    let checkpoint =
        Checkpoint::open_from(&args.weights.origin(&args.checkpoint, Wanted::OnlyTransformer, context)?)?;
    if !context.quiet {
        weights::note(&checkpoint);
    }
    let goal = match (args.scheme, args.target_size, args.min_snr) {
        (Some(scheme), ..) => Goal::Scheme(scheme),
        (_, Some(size), _) => Goal::Size(size),
        (_, _, Some(snr)) if snr.is_finite() && snr <= MOST_DB => Goal::Snr(snr),
        (.., snr) => bail!(
            "--min-snr: found {}, expected a number of decibels of at most {MOST_DB}: fp16 arithmetic alone may cost as much",
            snr.unwrap_or(f64::NAN)
        ),
    };
    let frames = checkpoint.model().streaming().map_or(3, |streaming| streaming.chunk_frames);
    let default = || checkpoint.model().usual_size(LatentSize { frames, rows: 16, cols: 24 });
    let asked = args.latent.map(Size::from).or(args.tokens.map(Size::Tokens));
    let mut survey = Survey::new(&checkpoint, asked.unwrap_or_else(default))?;
    if let (None, Some(samples)) = (asked, &args.calibrate)
        && let Some(size) = samples.size(&survey.module.interface).about("E0503")?
    {
        survey = Survey::new(&checkpoint, size)?;
    }
    let request = Request { goal, calibrate: args.calibrate.clone(), threads: context.threads };
    // Found now, not after the work.
    let report = args
        .report
        .as_ref()
        .map(|path| Ok::<_, anyhow::Error>((path, Staged::file(context.to(path), &known::markup)?)))
        .transpose()?;
    let made = {
        let progress = Progress::calls("quantize", context.quiet);
        make(&survey, &request, context.to(&args.output), &mut |what, done, all| {
            progress.say(done as u64, all as u64, || format!("{what} {done}/{all}"));
        })
        .about_file(samples, "E0503")?
    };
    if let Some((path, staged)) = report {
        let page = format!("{}\n{}", known::COMMENT, html(&made, &survey));
        std::fs::write(staged.path(), page).with_context(|| format!("cannot write `{}`", path.display()))?;
        staged.commit()?;
    }
    if args.json {
        print_json(&made)?;
    } else if !context.quiet {
        let snr = match made.plan.snr_db {
            Some(db) if db >= EXACT_DB => ", nothing lost".into(),
            Some(db) => format!(", {db:.1} dB"),
            None => String::new(),
        };
        let seen = made.plan.calibration.as_ref().is_some_and(|c| c.held_out == 0);
        let seen = if seen { " on the samples of the calibration" } else { "" };
        print_line(&format!(
            "{}: {} weights, {} of {}{snr}{seen}",
            args.output.display(),
            made.plan.weight.len(),
            size(made.plan.weight_bytes),
            size(made.whole_bytes)
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
