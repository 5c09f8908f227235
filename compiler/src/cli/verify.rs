//! `s2ditc verify`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use s2dit_runtime::Engine;
use s2dit_runtime::decode::contract::Contract as DecoderContract;
use s2dit_runtime::pipeline::Contract as PipelineContract;
use s2dit_runtime::stream::contract;

use super::places::Places;
use super::progress::Progress;
use super::style;
use super::terminal::one_line;
use super::usage::{refuse, svg};
use super::weights::WeightArgs;
use super::{Context, print_json, print_line, print_note};
use s2dit_emit::plan::How;
use s2dit_files::problems::Problems;
use s2dit_models::checkpoint::{PIPELINE_FILE, PipelineFolder, Wanted};
use s2dit_proof::stream::verify as stream;
use s2dit_proof::verify::{Compared, Model, Options, Reference, Verdict, VerifyReport, verify};
use s2dit_proof::{decode, pipeline};

use crate::errors::About as _;

/// Run a finished artifact and compare it with a reference; exit 1 below the bar
#[derive(clap::Args)]
#[command(after_help = "Examples:
  s2ditc verify small.mlpackage --golden golden.safetensors --fp16
  s2ditc verify small4.mlpackage --golden golden.safetensors --checkpoint small/ --quantize plan.toml
  s2ditc verify small.kernel --golden stream.safetensors --fp16 --plot error.svg
  s2ditc verify torch_export.onnx --checkpoint small/
  s2ditc verify small.onnx --checkpoint small/ --blocks
  s2ditc verify model.mlpackage --graph model.pt2
  s2ditc verify small.aimodel --golden golden.safetensors --engine coreai
  s2ditc verify small.kernel --checkpoint small/ --chunks 64
  s2ditc verify wan --checkpoint Wan2.1-T2V-1.3B-Diffusers --card

What a pass shows: --golden FILE, that the artifact computes what your own model computed. --checkpoint DIR, that compiling kept \
the numbers of this compiler's reading of the checkpoint, whatever your model is. Both together, that the reading is the golden's \
model and that a quantized artifact computes the reading: a low bar alone cannot tell a wrong model from the error of \
quantization. An ONNX export of your PyTorch model with --checkpoint, that the reading is your model.

A golden is a safetensors file with the artifact's inputs (latent, timestep, text), its output (velocity) and, for --blocks, the \
outputs of the blocks (block0, block1, …) under these names; other tensors are ignored, and listed. With --blocks a block below \
the bar fails the verification too.

The golden of a stream has stream.noise [chunks,steps,1,C,F,H,W], text [1,L,text_dim] and stream.latents [chunks,1,C,F,H,W]: the \
first noise of a chunk starts it, the others re-noise. A kernel folder is compared chunk by chunk.

torch_export.onnx is an ONNX file that torch.onnx.export made of your PyTorch model, with inputs latent, timestep and text of static \
shape and the output velocity.

The verdict is `passed` (exit 0), `FAILED` or `NO VERDICT` (exit 1): the last where a quantized artifact has no bar, or one so low \
that a wrong model reaches it.")]
#[command(group(clap::ArgGroup::new("reference").required(true).multiple(true)))]
pub(super) struct Args {
    /// An .onnx file, an .mlpackage, an .aimodel, a kernel folder or the folder of a pipeline
    pub(super) artifact: PathBuf,
    /// Inputs and outputs that your own model computed
    #[arg(long, value_name = "FILE", group = "reference")]
    golden: Option<PathBuf>,
    /// Compare with the plain fp32 graph of this checkpoint, or of this file that PyTorch exported, on seeded inputs or those of --golden
    #[arg(long, visible_alias = "graph", value_name = "DIR", group = "reference")]
    checkpoint: Option<PathBuf>,
    #[command(flatten)]
    pub(super) weights: WeightArgs,
    /// Compress the weights of the checkpoint's graph as those of the artifact are; without --golden, judge only storage and
    /// arithmetic
    #[arg(long, value_name = "SCHEME|PLAN", requires = "checkpoint")]
    quantize: Option<How>,
    /// Seed of the inputs for --checkpoint [default: 0]
    #[arg(long, value_name = "N", conflicts_with = "golden")]
    seed: Option<u64>,
    /// Lowest signal-to-noise ratio that passes [default: 100 for fp32 artifacts, 50 for fp16, 45 for fp16 streams; for
    /// quantized ones 3 less than their plan measured]
    #[arg(long, value_name = "DB", value_parser = decibels)]
    min_snr: Option<f64>,
    /// Round the result of every fp16 op to fp16, as the Neural Engine stores it (packages only)
    #[arg(long)]
    fp16: bool,
    /// What runs the graph: ort, tract (ONNX files only), or coreai (Apple's runtime, for .aimodel only; fetched on first need)
    #[arg(long, default_value = "ort")]
    engine: Engine,
    /// Compare block by block too, and name the first block below the bar; the verdict stays that of the results
    #[arg(long)]
    blocks: bool,
    /// Chunks of a stream to compare [default: all of the golden, or 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    chunks: Option<u64>,
    /// Draw SNR against chunk of a stream
    #[arg(long, value_name = "SVG", value_parser = svg)]
    plot: Option<PathBuf>,
    /// Write the figures into the model card of a pipeline
    #[arg(long, requires = "checkpoint")]
    card: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

fn decibels(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|db: &f64| db.is_finite() && *db >= 0.0)
        .ok_or_else(|| "expected a number of decibels from 0, such as 50".into())
}

pub(super) fn run(args: &Args, context: Context) -> Result<ExitCode> {
    Places::default()
        .input("ARTIFACT", [&args.artifact])
        .input("--golden", &args.golden)
        .input("--checkpoint", &args.checkpoint)
        .input("--config or --lora", args.weights.files())
        .output("--plot", &args.plot)
        .check()?;
    if args.checkpoint.is_none() && args.weights.is_given() {
        refuse!("--config, --lora, --input and their like say how --checkpoint DIR is read, and there is none");
    }
    if PipelineContract::is_in(&args.artifact) {
        return whole(args, context);
    }
    if args.card {
        bail!("--card is for the folder of a pipeline, and `{}` is none", args.artifact.display());
    }
    let model = (args.checkpoint.as_ref())
        .map(|path| {
            let origin = args.weights.origin(path, Wanted::OnlyTransformer, context)?;
            Ok::<_, Problems>(Model { origin, quantize: args.quantize.clone() })
        })
        .transpose()?;
    let reference = match (&args.golden, model) {
        (Some(file), model) => Reference::Golden { file: file.clone(), model },
        (None, Some(model)) => Reference::Checkpoint { model, seed: args.seed.unwrap_or_default() },
        (None, None) => refuse!("name a reference: --golden FILE or --checkpoint DIR"),
    };
    if args.artifact.join(contract::FILE).exists() {
        return kernel(args, &reference, context);
    }
    for (given, flag) in [(args.plot.is_some(), "--plot"), (args.chunks.is_some(), "--chunks")] {
        if given {
            bail!("{flag} is for streams, but `{}` is not a kernel folder", args.artifact.display());
        }
    }
    let options = Options {
        min_snr: args.min_snr,
        fp16: args.fp16,
        engine: args.engine,
        blocks: args.blocks,
        threads: context.threads,
        quiet: context.quiet,
    };
    let report = verify(&args.artifact, &reference, &options).about_file(args.golden.as_ref(), "E0801")?;
    if !context.quiet {
        for note in &report.notes {
            print_note(&format!("note: {note}"));
        }
    }
    if args.json {
        print_json(&report)?;
    } else {
        print_line(&text(&report, args.golden.is_some()))?;
    }
    Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Verifies a whole pipeline.
fn whole(args: &Args, context: Context) -> Result<ExitCode> {
    let single = [
        (args.golden.is_some(), "--golden"),
        (args.blocks, "--blocks"),
        (args.plot.is_some(), "--plot"),
        (args.engine != Engine::Ort, "--engine"),
        (args.weights.says_more_than_loras(), "--config, --state-dict, --input, --result or --bind"),
    ];
    if let Some((_, flag)) = single.into_iter().find(|(given, _)| *given) {
        bail!(
            "{flag} is of one model: `{}` is a whole pipeline, which --checkpoint PIPELINE verifies",
            args.artifact.display()
        );
    }
    let Some(checkpoint) = &args.checkpoint else { refuse!("name the pipeline folder with --checkpoint") };
    let origin = args.weights.origin(checkpoint, Wanted::Pipeline, context)?;
    let Some(folder) = PipelineFolder::open(&origin.path)? else {
        bail!("`{}`: found no {PIPELINE_FILE}, expected the pipeline folder that was compiled", origin.path.display());
    };
    let options = pipeline::Options {
        min_snr: args.min_snr,
        fp16: args.fp16,
        loras: origin.loras.clone(),
        quantize: args.quantize.clone(),
        seed: args.seed.unwrap_or_default(),
        chunks: args.chunks,
        threads: context.threads,
        quiet: context.quiet,
        card: args.card,
        force: context.force,
    };
    let report = {
        let progress = Progress::calls("parts", context.quiet);
        pipeline::verify(&args.artifact, &folder, &options, &mut |part| progress.say(0, 1, || part.to_owned()))?
    };
    if !context.quiet {
        for note in &report.notes {
            print_note(&format!("note: {note}"));
        }
    }
    if args.json {
        print_json(&report)?;
    } else {
        print_line(&pipeline_text(&report))?;
    }
    Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The report of a pipeline.
fn pipeline_text(report: &pipeline::PipelineReport) -> String {
    let mut out = format!("{} against {}\n", one_line(&report.artifact), one_line(&report.reference));
    for part in &report.parts {
        let bar = part.min_snr_db.map_or("no bar".to_owned(), |bar| format!("bar {} dB", hundredths(bar)));
        let of_weights = part.of_weights_snr_db.map_or(String::new(), |db| {
            format!("; {db:.1} dB against the uncompressed weights: the cost of compression")
        });
        out += &format!(
            "  {:<14} {:<16} {:>7.1} dB at least, {bar}: {}{of_weights}\n",
            part.part,
            one_line(&part.component),
            part.least_snr_db,
            word(part.verdict)
        );
    }
    if !report.chain.is_empty() {
        let bar = hundredths(report.chain_min_snr_db);
        out += &format!("prompt to pixels in one step, bar {bar} dB\n             {COLUMNS}\n");
        for row in &report.chain {
            out += &format!("{:<10} {}", one_line(&row.name), figures(&row.metrics, row.passed));
        }
    }
    let below: Vec<String> = report.below.iter().map(|name| one_line(name)).collect();
    let below = below.join(", ");
    out + &match report.verdict {
        Verdict::Passed => {
            let alike = match report.parts.iter().any(|part| part.of_weights_snr_db.is_some()) {
                true => ", with weights that are stored alike",
                false => "",
            };
            format!(
                "{}: every file has its hash, the description is that of the pipeline folder, and every part computes what the fp32 graph of its component does{alike}",
                word(report.verdict)
            )
        }
        Verdict::Failed => format!("{}: below the bar: {below}", word(report.verdict)),
        Verdict::NoVerdict => {
            format!(
                "{}: nothing says a bar for {below}: give one with --min-snr, or the plan with --quantize",
                word(report.verdict)
            )
        }
    }
}

fn kernel(args: &Args, reference: &Reference, context: Context) -> Result<ExitCode> {
    if args.blocks {
        bail!("--blocks is for clips: a stream is compared chunk by chunk");
    }
    if args.engine == Engine::Tract {
        bail!(
            "--engine tract is for clips: a stream runs with ONNX Runtime, and one of Core AI with --engine coreai too"
        );
    }
    let options = stream::Options {
        min_snr: args.min_snr,
        fp16: args.fp16,
        engine: args.engine,
        chunks: args.chunks,
        plot: args.plot.clone(),
        force: context.force,
        threads: context.threads,
        quiet: context.quiet,
    };
    let progress = Progress::calls("chunks", context.quiet);
    let report = match DecoderContract::is_in(&args.artifact) {
        true => decode::verify(&args.artifact, reference, &options, |done, all| {
            progress.say(done, all, || format!("chunk {done}/{all}"));
        }),
        false => stream::verify(&args.artifact, reference, &options, |at| {
            progress.say(at.calls_done, at.calls, || format!("chunk {}/{}", at.chunk + 1, at.chunks));
        }),
    };
    drop(progress);
    let report = report.about_file(args.golden.as_ref(), "E0801")?;
    if args.json {
        print_json(&report)?;
    } else {
        print_line(&stream_text(&report))?;
    }
    Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn hundredths(db: f64) -> f64 {
    (db * 100.0).round() / 100.0
}

const COLUMNS: &str = "max abs   rel. L2    SNR dB    cosine   NaN/Inf";

/// The figures of a row, or dashes if an element is not finite: figures of the finite elements alone would mislead.
fn figures(m: &s2dit_runtime::compare::Metrics, passed: bool) -> String {
    if m.non_finite + m.reference_non_finite > 0 {
        return format!("{:>9} {:>9} {:>9} {:>9} {:>9}  NaN or Inf\n", "–", "–", "–", "–", m.non_finite);
    }
    format!(
        "{:>9.2e} {:>9.2e} {:>9.1} {:>9.6} {:>9}{}\n",
        m.max_abs,
        m.relative_l2,
        m.snr_db,
        m.cosine,
        m.non_finite,
        if passed { String::new() } else { style::bad("  below the bar") }
    )
}

/// The report for people.
pub(super) fn text(report: &VerifyReport, is_golden: bool) -> String {
    let mut out = format!(
        "{} against {}, engine {}, {}\n             {COLUMNS}\n",
        one_line(&report.artifact),
        one_line(&report.reference),
        report.engine,
        report.arithmetic
    );
    let table = |rows: &[Compared]| {
        rows.iter().map(|r| format!("{:<10} {}", one_line(&r.name), figures(&r.metrics, r.passed))).collect::<String>()
    };
    out += &table(&report.rows);
    for check in &report.checks {
        out += &format!("{}, bar {} dB:\n{}", one_line(&check.what), hundredths(check.min_snr_db), table(&check.rows));
    }
    if let Some(block) = &report.first_block_below {
        out += &format!("the first block below the bar is {block}");
        out += match report.passed {
            true => ", and the results are not: blocks say where a difference arises, results whether it matters\n",
            false => "\n",
        };
    }
    let failed = report.verdict == Verdict::Failed;
    out += &verdict(report.verdict, report.min_snr_db, "and no NaN or Inf", &report.proves);
    if failed && report.blocks_unseen {
        out += match is_golden {
            false => "\nrun it again with --blocks to see the first block that differs",
            true => {
                "\nrun it again with --blocks and a golden that has the tokens after each block (docs/formats.md) to see the first block that differs\n\
                 run verify --checkpoint DIR with the weights that were compiled: if that passes, the golden is of other weights"
            }
        };
    }
    out
}

/// A verdict in a word.
fn word(verdict: Verdict) -> String {
    match verdict {
        Verdict::Passed => style::good("passed"),
        Verdict::Failed => style::bad("FAILED"),
        Verdict::NoVerdict => style::doubtful("NO VERDICT"),
    }
}

/// The last lines of a report.
fn verdict(verdict: Verdict, bar: Option<f64>, also: &str, proves: &str) -> String {
    let word = word(verdict);
    let bar = bar.map_or("nothing says a bar for the comparison above".into(), |bar| {
        format!("the bar is {} dB {also}", hundredths(bar))
    });
    format!("{word}: {bar}\n{proves}")
}

/// The report of a stream; the middle of a long one is left out.
fn stream_text(report: &stream::StreamVerifyReport) -> String {
    const SHOWN: usize = 24;
    let mut out = format!(
        "{} ({}) against {}, {}\n  chunk      {COLUMNS}\n",
        one_line(&report.artifact),
        report.kernel,
        one_line(&report.reference),
        report.arithmetic
    );
    let n = report.rows.len();
    for (i, r) in report.rows.iter().enumerate() {
        if n > SHOWN && i == SHOWN / 2 {
            out += &format!("{:>7}    {} chunks more (all are in --json)\n", "…", n - SHOWN);
        }
        if n <= SHOWN || i < SHOWN / 2 || i >= n - SHOWN / 2 {
            out += &format!("{:>7}    {}", r.chunk, figures(&r.metrics, r.passed));
        }
    }
    let snr = || report.rows.iter().map(|r| r.metrics.snr_db);
    out += &format!(
        "SNR {:.1} to {:.1} dB over {n} chunk(s); trend {:+.2} dB (last third less first)\n",
        snr().min_by(f64::total_cmp).unwrap_or(f64::NAN),
        snr().max_by(f64::total_cmp).unwrap_or(f64::NAN),
        report.trend_db
    );
    if let Some(chunk) = report.first_chunk_below {
        out += &format!("the first chunk below the bar is {chunk}\n");
    }
    for check in &report.checks {
        let below = check.first_chunk_below.map(|c| format!("; the first chunk below is {c}")).unwrap_or_default();
        let (least, bar) = (check.least_snr_db, hundredths(check.min_snr_db));
        out += &format!("{}: {least:.1} dB at least, bar {bar} dB{below}\n", check.what);
    }
    out += &verdict(report.verdict, report.min_snr_db, "for every chunk", &report.proves);
    out
}
