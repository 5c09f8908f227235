//! `s2ditc ranges`

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use s2dit_estimate::{Device, device};

use super::progress::Progress;
use super::terminal::one_line;
use super::{Context, print_json, print_line};
use s2dit_proof::ranges::{Options, RangeVerdict, ranges};

/// Say how close each fp16 value of a package comes to the largest fp16 number
#[derive(clap::Args)]
#[command(after_help = "Examples:
  s2ditc ranges small.mlpackage
  s2ditc ranges small.kernel --samples 1000 --json > ranges.json

The artifact is run in fp32, so that what fp16 cannot hold is seen. Results of products become infinite on the Neural Engine at half of what fp16 holds: \
see --device. Exit code 1 if a value overflows.")]
pub(super) struct Args {
    /// An .mlpackage, a folder of partitioned packages or a kernel folder
    pub(super) artifact: PathBuf,
    /// Recorded inputs, as for verify, instead of seeded ones
    #[arg(long, value_name = "FILE")]
    golden: Option<PathBuf>,
    /// Clips to run, with timesteps from 1000 to 0; chunks of a stream [default: 8, or all of the golden]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    samples: Option<u64>,
    /// Device whose largest products count: iphone16promax, iphone15pro, iphone17pro, m1, m4pro, m5, or a file NAME.toml
    #[arg(long, value_name = "DEVICE", default_value = device::DEFAULT)]
    device: String,
    /// Seed of the inputs
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Values to list
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
    /// Print the report of every value as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, context: Context) -> Result<ExitCode> {
    let options = Options {
        golden: args.golden.clone(),
        seed: args.seed,
        samples: args.samples,
        product_largest: Device::open(&args.device)?.limits.product_largest.value as f32,
        threads: context.threads,
        quiet: context.quiet,
    };
    let report = {
        let progress = Progress::calls("samples", context.quiet);
        ranges(&args.artifact, &options, &mut |done, total| progress.say(done, total, || format!("{done} of {total}")))?
    };
    if args.json {
        print_json(&report)?;
    } else {
        let mut text = format!(
            "{}, {}\n{:>12} {:>9}  {:10} {:18} of\n",
            one_line(&report.artifact),
            one_line(&report.inputs),
            "largest",
            "headroom",
            "",
            "op"
        );
        for row in report.rows.iter().take(args.top) {
            let verdict = match row.verdict {
                RangeVerdict::Overflows => "OVERFLOWS",
                RangeVerdict::AtRisk => "at risk",
                RangeVerdict::Holds => "",
            };
            let scope = if report.rows[0].function == "main" {
                one_line(&row.scope)
            } else {
                format!("{}: {}", one_line(&row.function), one_line(&row.scope))
            };
            let headroom = f64::from(row.limit) / f64::from(row.largest.max(f32::MIN_POSITIVE));
            writeln!(text, "{:>12.4e} {:>8.1}×  {verdict:10} {:18} {scope}", row.largest, headroom, row.op)?;
            if !row.rewrite.is_empty() {
                writeln!(text, "{:>36}{}", "", row.rewrite)?;
            }
        }
        write!(
            text,
            "{} fp16 values: {} overflow, {} are at risk, above a quarter of the largest that holds; the rest hold",
            report.rows.len(),
            report.overflows,
            report.at_risk
        )?;
        print_line(&text)?;
    }
    Ok(if report.overflows > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
