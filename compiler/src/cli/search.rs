//! `s2ditc search`

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use s2dit_backends::output::{Staged, made};
use s2dit_estimate::search::{self, Budgets, Found, KindCost, Scores, Table};
use s2dit_estimate::subject::Options;
use s2dit_estimate::{Device, Weights, device};
use s2dit_files::problems::Problem;
use s2dit_models::config::{self, with_overrides};
use s2dit_models::model::Model;
use s2dit_models::size::LatentSize;
use serde_json::Value;

use super::estimate::write_page;
use super::places::Places;
use super::usage::{self, refuse};
use super::{Context, print_json, print_line, print_note};
use crate::errors::About as _;

/// Search a layout of blocks under budgets of latency and memory
#[derive(clap::Args)]
#[command(after_help = "Examples:
  s2ditc search --budget-latency 260 --budget-memory 1500 --quantize w4a8 -o config.json --report search.html
  s2ditc search --budget-latency 531 --budget-memory 4000 --blocks-table measured.toml --json
  s2ditc search --budget-latency 900 --budget-memory 4000 --group 4 --scores scores.toml -o config.json

The search of the S2DiT paper: first how many blocks of each kind come closest to the budgets, exactly; then where they go. With scores, as the \
supernet of examples/search writes them, places are the best under the budgets; without, they follow a rule that interleaves streams. What a block \
costs is estimated for the device, or taken from a table that you measured (docs/estimate.md). The configuration is one that init, estimate and \
compile take.")]
pub(super) struct Args {
    /// Milliseconds of a denoising step
    #[arg(long, value_name = "MS", value_parser = positive)]
    budget_latency: f64,
    /// Megabytes of memory with everything loaded
    #[arg(long, value_name = "MB", value_parser = positive)]
    budget_memory: f64,
    /// Configuration whose layout is searched
    #[arg(long, value_name = "FILE", conflicts_with = "preset")]
    config: Option<PathBuf>,
    /// Preset whose layout is searched [default: mobile]
    #[arg(long, value_name = "NAME", value_parser = usage::preset)]
    preset: Option<String>,
    /// Kinds of blocks to choose from, with commas between them [default: lcha,ssa, or those of the table]
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    kinds: Vec<String>,
    /// Number of blocks [default: as many as the configuration has]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u16).range(1..=1000))]
    blocks: Option<u16>,
    /// Blocks that are chosen together
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    group: u16,
    /// Device that blocks are estimated for; see estimate
    #[arg(long, value_name = "DEVICE", default_value = device::DEFAULT)]
    device: String,
    /// Costs of blocks that somebody measured, in place of estimates
    #[arg(long, value_name = "FILE", conflicts_with_all = ["device", "latent", "quantize", "kinds"])]
    blocks_table: Option<PathBuf>,
    /// Quality of each kind in each group, such as a supernet learned
    #[arg(long, value_name = "FILE")]
    scores: Option<PathBuf>,
    /// Latent that blocks are estimated at [default: 3x36x64, or the nearest that fits]
    #[arg(long, value_name = "FxHxW")]
    latent: Option<LatentSize>,
    /// Weights that blocks are estimated with: fp16, w8a8, w4a8, … [default: fp16]
    #[arg(long, value_name = "SCHEME")]
    quantize: Option<Weights>,
    /// Configuration to make
    #[arg(short, long, value_name = "OUT.json", value_parser = json_file)]
    output: Option<PathBuf>,
    /// Page to make
    #[arg(long, value_name = "OUT.html", value_parser = usage::html)]
    report: Option<PathBuf>,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x.is_finite() && x > 0.0 => Ok(x),
        _ => Err("expected a number above 0".into()),
    }
}

fn json_file(text: &str) -> Result<PathBuf, String> {
    match text.ends_with(".json") {
        true => Ok(text.into()),
        false => Err("expected a name that ends in .json: that is what is written".into()),
    }
}

pub(super) fn run(args: &Args, context: Context) -> Result<ExitCode> {
    Places::default()
        .input("--config", &args.config)
        .input("--blocks-table", &args.blocks_table)
        .input("--scores", &args.scores)
        .output("-o", &args.output)
        .output("--report", &args.report)
        .check()?;
    let model = match (&args.config, &args.preset) {
        (Some(file), _) => config::read(file)?,
        (None, name) => config::preset(name.as_deref().unwrap_or("mobile"))?,
    };
    if model.config().get("layout").is_none() {
        bail!(
            "found a configuration of {} without a field `layout`, expected one whose blocks can be chosen, such as that of --preset mobile",
            model.family().name()
        );
    }
    let table = match &args.blocks_table {
        Some(file) => {
            let table = Table::read(file).about("E0903")?;
            for KindCost { name, .. } in &table.kinds {
                if let Some(problem) = unknown_kind(&*model, name)? {
                    bail!("`{}`: kind: found {}, expected {}", file.display(), problem.found, problem.expected);
                }
            }
            table
        }
        None => estimated(args, &*model)?,
    };
    let scores = args.scores.as_deref().map(Scores::read).transpose().about("E0903")?;
    let blocks = args.blocks.map_or_else(|| model.outline().blocks(), usize::from);
    let budgets = Budgets { latency_ms: args.budget_latency, memory_mb: args.budget_memory };
    let found = search::search(&table, budgets, blocks, usize::from(args.group), scores.as_ref()).about("E0904")?;
    let mut staged = Vec::new();
    if let Some(out) = &args.output {
        let text = configuration(&*model, &found)?;
        let file = Staged::file(context.to(out), &made::config)?;
        std::fs::write(file.path(), text).with_context(|| format!("cannot write `{}`", out.display()))?;
        staged.push(file);
    }
    let title = args.config.as_ref().map(|file| file.display().to_string());
    let title = title.or_else(|| args.preset.clone()).unwrap_or_else(|| "mobile".into());
    if let Some(out) = &args.report {
        write_page(context, out, &search::page(&found, &title))?;
    }
    Staged::commit_all(staged)?;
    if args.json {
        print_json(&found)?;
    } else {
        print_line(&text(&found))?;
        if scores.is_none() && !context.quiet {
            print_note(
                "note: places follow a rule that interleaves streams, and no measurement: --scores takes those that a supernet learned",
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn estimated(args: &Args, model: &dyn Model) -> Result<Table> {
    let device = Device::open(&args.device).about("E0903")?;
    let kinds: Vec<String> = match args.kinds.is_empty() {
        true => vec!["lcha".into(), "ssa".into()],
        false => args.kinds.clone(),
    };
    if let Some((i, kind)) = kinds.iter().enumerate().find(|(i, kind)| kinds[..*i].contains(kind)) {
        refuse!("--kinds: found {kind} twice (position {}), expected each kind once", i + 1);
    }
    for kind in &kinds {
        if let Some(problem) = unknown_kind(model, kind)? {
            refuse!("--kinds: found {}, expected {}", problem.found, problem.expected);
        }
    }
    let weights = args.quantize.unwrap_or(Weights::WHOLE);
    search::probe(model, &kinds, &device, &Options { latent: args.latent, weights, ..Options::default() })
}

/// What is wrong with the name of a kind, if the model has none such.
fn unknown_kind(model: &dyn Model, kind: &str) -> Result<Option<Problem>> {
    let layout = format!("layout={}", serde_json::to_string(&[kind])?);
    let problems = with_overrides(model, &[layout]).err().map(|problems| problems.0).unwrap_or_default();
    // What else may be wrong with so short a layout is not the user's.
    Ok(problems.into_iter().find(|problem| problem.place.ends_with("layout[0]")))
}

/// The model's configuration with the layout that was found.
fn configuration(model: &dyn Model, found: &Found) -> Result<String> {
    let layout = serde_json::to_string(&found.layout)?;
    let changed: Arc<dyn Model> = with_overrides(model, &[format!("layout={layout}")])
        .context("the layout that was found is none of this configuration")?;
    let mut config = changed.config();
    if let Value::Object(fields) = &mut config {
        fields.insert(format!("_{}", made::MADE_BY), made::by().into());
    }
    Ok(format!("{config:#}\n"))
}

fn text(found: &Found) -> String {
    let mut runs: Vec<(&str, usize)> = Vec::new();
    for kind in &found.layout {
        match runs.last_mut() {
            Some((last, n)) if last == kind => *n += 1,
            _ => runs.push((kind, 1)),
        }
    }
    let sandwich: Vec<String> = runs.iter().map(|(kind, n)| format!("{n}×{kind}")).collect();
    let counts: Vec<String> = found.counts.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
    let costs: Vec<String> = (found.table.kinds.iter())
        .map(|k| format!("{} {:.1} ms, {:.0} MB", k.name, k.cost.latency_ms, k.cost.memory_mb))
        .collect();
    let quality = found.quality.map(|q| format!(", quality {q:.2}")).unwrap_or_default();
    format!(
        "{}\n  {} in {} blocks, places by {}{quality}\n  step    {:.0} of {} ms\n  memory  {:.0} of {} MB\n  costs   {}; a stage {:.1} ms, the rest {:.1} ms ({})",
        sandwich.join(", "),
        counts.join(" and "),
        found.layout.len(),
        if found.places == "scores" { "scores" } else { "a rule" },
        found.cost.latency_ms,
        found.budgets.latency_ms,
        found.cost.memory_mb,
        found.budgets.memory_mb,
        costs.join("; "),
        found.table.switch.latency_ms,
        found.table.fixed.latency_ms,
        found.table.source,
    )
}
