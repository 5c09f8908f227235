//! `s2ditc init`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use super::progress::{Progress, count};
use super::usage::{self, bytes};
use super::{Context, print_json, print_line};
use s2dit_files::FloatType;
use s2dit_files::size;
use s2dit_models::config::{preset, with_overrides};
use s2dit_models::init::{DEFAULT_SHARD_SIZE, InitOptions, init};

/// Make a checkpoint with seeded random weights
#[derive(clap::Args)]
#[command(after_help = "Example: s2ditc init --preset small --set ssa_stride=2 --seed 7 --dtype bf16 -o small/")]
pub(super) struct Args {
    /// Configuration to start from, such as tiny, small, 1.8b, mobile, wan2.1-1.3b, self-forcing-1.3b, ltx-video-2b, open-sora-2-11b, clip-vit-l; a wrong name lists all
    #[arg(long, default_value = "tiny", value_parser = usage::preset)]
    preset: String,
    /// Change a field of the configuration; repeatable
    #[arg(long = "set", value_name = "FIELD=JSON")]
    overrides: Vec<String>,
    /// Seed of the weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Element type: bf16, fp16 or fp32
    #[arg(long, default_value = "bf16")]
    dtype: FloatType,
    /// Split the weights into files of at most this size, such as 500MB
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    max_shard_size: Option<u64>,
    /// Folder to make
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, context: Context) -> Result<ExitCode> {
    let options = InitOptions {
        model: with_overrides(&*preset(&args.preset)?, &args.overrides)?,
        seed: args.seed,
        dtype: args.dtype,
        max_shard_size: args.max_shard_size.unwrap_or(DEFAULT_SHARD_SIZE),
        force: context.force,
        threads: context.threads,
    };
    let summary = {
        let progress = Progress::bytes("weights", context.quiet);
        init(&options, &args.output, &|done, total| progress.set(done, total))?
    };
    if args.json {
        print_json(&serde_json::json!({
            "path": args.output, "files": summary.files, "tensors": summary.tensors,
            "parameters": summary.parameters, "bytes": summary.bytes,
        }))?;
    } else if !context.quiet {
        print_line(&format!(
            "{}: {} parameters in {} tensors, {} in {} file(s)",
            args.output.display(),
            count(summary.parameters),
            summary.tensors,
            size(summary.bytes),
            summary.files
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
