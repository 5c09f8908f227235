//! `s2ditc compile`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use s2dit_backends::output::Staged;
use s2dit_ir::text;

use super::progress::{Progress, size};
use super::{Context, print_json, print_line};
use crate::checkpoint::Checkpoint;
use crate::compile::{Options, Precision, Target, compile, lower};
use crate::config::LatentSize;

/// Compile a checkpoint to an ONNX file or a Core ML package
#[derive(clap::Args)]
#[command(after_help = "Examples:
  s2ditc compile small/ --target coreml --latent 3x36x64 -o small.mlpackage
  s2ditc compile small/ --target onnx --latent 3x36x64 --precision fp16 -o small.onnx
  s2ditc compile small/ --target onnx --latent 3x36x64 --emit ir | less

The compiled step takes latent [1,C,F,H,W], timestep [1] in [0, 1000] and text [1,L,text_dim], and returns velocity
[1,C,F,H,W]. An ONNX model with more than 32 MiB of weights keeps them beside it in OUT.data.")]
pub(super) struct Args {
    /// Folder with config.json and safetensors
    checkpoint: PathBuf,
    /// What to make: onnx or coreml
    #[arg(long)]
    target: Target,
    /// Latent frames, rows and columns of the clip
    #[arg(long, value_name = "FxHxW")]
    latent: LatentSize,
    /// fp32 or fp16 [default: fp16 for coreml, fp32 for onnx]
    #[arg(long)]
    precision: Option<Precision>,
    /// Stop at the IR and print it (or write it to OUT)
    #[arg(long, value_name = "WHAT")]
    emit: Option<Emit>,
    /// File or package to make
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Emit {
    /// The text form of the graph that the target would get
    Ir,
}

pub(super) fn run(args: &Args, context: Context) -> Result<ExitCode> {
    let start = Instant::now();
    let checkpoint = Checkpoint::open(&args.checkpoint)?;
    let precision = args.precision.unwrap_or(args.target.default_precision());
    let options = Options { target: args.target, precision, latent: args.latent };
    if let Some(Emit::Ir) = args.emit {
        let text = text::print(&lower(&checkpoint, &options)?);
        match &args.output {
            None => print_line(text.trim_end())?,
            Some(out) => {
                let staged = Staged::file(out)?;
                std::fs::write(staged.path(), text)?;
                staged.commit()?;
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let Some(out) = &args.output else {
        bail!("no output: name one with -o, such as -o model.{}", args.target.extension());
    };
    let summary = {
        let progress = Progress::bytes("weights", context.quiet);
        compile(&checkpoint, &options, out, &mut |done, total| progress.set(done, total))?
    };
    for (tensor, n) in &summary.non_finite {
        eprintln!("warning: tensor `{tensor}`: {n} element(s) are NaN or infinite; they were kept");
    }
    if args.json {
        print_json(&summary)?;
    } else if !context.quiet {
        print_line(&format!(
            "{}: {} {}, {} ops, {} of weights, {:.1} s",
            out.display(),
            summary.target,
            summary.precision,
            summary.ops,
            size(summary.weight_bytes),
            start.elapsed().as_secs_f64()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
