//! `s2ditc verify`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use s2dit_runtime::Engine;

use super::{Context, print_json, print_line};
use crate::verify::{Options, Reference, Report, verify};

/// Run a finished artifact and compare it with a reference; exit 1 below the bar
#[derive(clap::Args)]
#[command(after_help = "Examples:
  s2ditc verify small.mlpackage --golden golden.safetensors --fp16 --min-snr 50
  s2ditc verify small.onnx --checkpoint small/ --blocks

A golden is a safetensors file with the artifact's inputs (latent, timestep, text), its output (velocity) and, for --blocks, the
outputs of the blocks (block0, block1, …) under these names.")]
pub(super) struct Args {
    /// An .onnx file or an .mlpackage
    artifact: PathBuf,
    /// Reference inputs and outputs
    #[arg(long, value_name = "FILE", required_unless_present = "checkpoint", conflicts_with = "checkpoint")]
    golden: Option<PathBuf>,
    /// Compare with the plain fp32 graph of this checkpoint instead, on seeded inputs
    #[arg(long, value_name = "DIR")]
    checkpoint: Option<PathBuf>,
    /// Seed of the inputs for --checkpoint
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Lowest signal-to-noise ratio that passes [default: 100 for fp32 artifacts, 50 for fp16]
    #[arg(long, value_name = "DB")]
    min_snr: Option<f64>,
    /// Round the result of every fp16 op to fp16, as the Neural Engine stores it (packages only)
    #[arg(long)]
    fp16: bool,
    /// What runs the graph: ort, or tract (ONNX files only)
    #[arg(long, default_value = "ort")]
    engine: Engine,
    /// Compare block by block and name the first block below the bar
    #[arg(long)]
    blocks: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, context: Context) -> Result<ExitCode> {
    let reference = match (&args.golden, &args.checkpoint) {
        (Some(golden), _) => Reference::Golden(golden.clone()),
        (None, Some(dir)) => Reference::Checkpoint { dir: dir.clone(), seed: args.seed },
        (None, None) => anyhow::bail!("no reference: name one with --golden or --checkpoint"),
    };
    let options = Options {
        min_snr: args.min_snr,
        fp16: args.fp16,
        engine: args.engine,
        blocks: args.blocks,
        threads: context.threads,
        quiet: context.quiet,
    };
    let report = verify(&args.artifact, &reference, &options)?;
    if args.json {
        print_json(&report)?;
    } else {
        print_line(&text(&report, context.quiet))?;
    }
    Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The report for people; only the verdict if `brief`.
pub(super) fn text(report: &Report, brief: bool) -> String {
    let mut out = String::new();
    if !brief {
        out += &format!(
            "{} against {}, engine {}{}\n",
            report.artifact,
            report.reference,
            report.engine,
            if report.fp16 { ", results rounded to fp16" } else { "" }
        );
        out += "             max abs   rel. L2    SNR dB    cosine   NaN/Inf\n";
        for r in &report.rows {
            let m = &r.metrics;
            out += &format!(
                "{:<10} {:>9.2e} {:>9.2e} {:>9.1} {:>9.6} {:>9}{}\n",
                r.name,
                m.max_abs,
                m.relative_l2,
                m.snr_db,
                m.cosine,
                m.non_finite,
                if r.passed { "" } else { "  below the bar" }
            );
        }
        if let Some(block) = &report.first_block_below {
            out += &format!("the first block below the bar is {block}\n");
        }
    }
    out += if report.passed { "passed" } else { "FAILED" };
    out += &format!(": the bar is {} dB and no NaN or Inf", report.min_snr_db);
    out
}
