//! `s2ditc lint`

mod text;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use s2dit_backends::coreml::lint::{Confidence, OpVerdict, Rules};
use s2dit_estimate::Device;
use serde_json::json;

use super::{Context, print_json, print_line};
use crate::lint::{Brief, lint};

/// Check a Core ML package or a Core AI asset, of this or another tool, against what is known of the Neural Engine
#[derive(clap::Args)]
#[command(after_help = "Examples:
  s2ditc lint small.mlpackage
  s2ditc lint small.aimodel
  s2ditc lint kernel/ --deny-fallback --min-confidence high
  s2ditc lint small.mlpackage --device m1
  s2ditc lint small.mlpackage --device-report report.json --rules-file rules.json

Every op gets a verdict: it stays on the Neural Engine, may leave it, or leaves it. Rules are data with a source and a confidence \
(--rules). A rules file changes them: {\"rules\": [{\"id\": \"op-silu\", \"retired\": true, \"because\": \"…\"}]}; it may set severity (costs, \
may_leave, leaves, breaks), confidence, retired, because, params and the texts. A device report comes from examples/device-report.")]
pub(super) struct Args {
    /// An .mlpackage, an .aimodel, or the folder of a kernel
    #[arg(required_unless_present = "rules")]
    path: Option<PathBuf>,
    /// List the rules and stop
    #[arg(long, conflicts_with_all = ["path", "device_report", "deny_fallback"])]
    rules: bool,
    /// Show every finding, and every block
    #[arg(long)]
    all: bool,
    /// Exit 1 if anything may leave the Neural Engine; with =leaves, only if a rule says that it does
    #[arg(long, value_name = "VERDICT", num_args = 0..=1, require_equals = true, default_missing_value = "may-leave")]
    deny_fallback: Option<Deny>,
    /// Apply only rules that are at least so well known: low, medium or high
    #[arg(long, value_name = "LEVEL", default_value = "low")]
    min_confidence: Confidence,
    /// Rules as they are on this device: iphone16promax, iphone15pro, iphone17pro, m1, m4pro, m5, or a file NAME.toml; a rules file changes these
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// JSON that promotes, retires or re-parameterises rules
    #[arg(long, value_name = "FILE")]
    rules_file: Option<PathBuf>,
    /// What a device says of the package (repeat for a kernel's packages)
    #[arg(long, value_name = "FILE")]
    device_report: Vec<PathBuf>,
    /// Print the report, or the rules, as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Deny {
    /// Ops that may leave, and those that leave
    MayLeave,
    /// Ops that leave
    Leaves,
}

pub(super) fn run(args: &Args, context: Context) -> Result<ExitCode> {
    let rules = match &args.device {
        Some(device) => Device::open(device)?.rules(&Rules::builtin()?)?,
        None => Rules::builtin()?,
    };
    let rules = match &args.rules_file {
        Some(file) => rules.overridden(file)?,
        None => rules,
    };
    let rules = rules.at_least(args.min_confidence);
    let Some(path) = args.path.as_ref().filter(|_| !args.rules) else {
        if args.json {
            print_json(&rules.all())?;
        } else {
            print_line(text::rules(&rules).trim_end())?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let all = lint(path, &rules, &args.device_report)?;
    let brief = Brief::of(&all, &rules);
    if args.json {
        print_json(&json!({"summary": brief, "packages": all}))?;
    } else if context.quiet && args.device_report.is_empty() {
        print_line(&format!("{}: {}", path.display(), brief.line()))?;
    } else {
        let reports: Vec<String> = all.iter().map(|linted| text::report(linted, &rules, args.all)).collect();
        print_line(reports.join("\n").trim_end())?;
        if all.len() > 1 {
            print_line(&format!("\n{}: {}", path.display(), brief.line()))?;
        }
    }
    let denied = match args.deny_fallback {
        None => None,
        Some(Deny::MayLeave) => Some(OpVerdict::MayLeave),
        Some(Deny::Leaves) => Some(OpVerdict::Leaves),
    };
    if denied.is_some_and(|denied| brief.verdict >= denied) {
        bail!("`{}`: --deny-fallback: {}", path.display(), brief.line());
    }
    Ok(ExitCode::SUCCESS)
}
