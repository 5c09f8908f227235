//! `s2ditc inspect`

mod decoder;
mod graph;
mod kernel;
mod pipeline;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use super::progress::count;
use super::terminal::one_line;
use super::usage::refuse;
use super::weights::WeightArgs;
use super::{Context, print_json, print_line};
use crate::inspect::{ArtifactReport, BlockCost, InspectReport, ModelReport, Recognition, inspect};
use s2dit_files::size;
use s2dit_models::checkpoint::Wanted;
use s2dit_models::size::{LatentSize, Size};
use s2dit_runtime::stream::contract::Target;

/// Show what a checkpoint, a graph, an ONNX file, an mlpackage or a kernel folder is
#[derive(clap::Args)]
#[command(after_help = "Example: s2ditc inspect small/ --latent 3x36x64")]
#[command(group(clap::ArgGroup::new("size")))]
pub(super) struct Args {
    /// Checkpoint (a folder, a file of weights, or OWNER/NAME on the Hugging Face hub), graph that PyTorch exported, .onnx file, .mlpackage or kernel folder
    path: PathBuf,
    #[command(flatten)]
    pub(super) weights: WeightArgs,
    /// Latent frames, rows and columns for a checkpoint's costs [default: 3x36x64, or the nearest that fits]
    #[arg(long, value_name = "FxHxW", group = "size")]
    latent: Option<LatentSize>,
    /// Text tokens for the costs of a text encoder's checkpoint [default: those that pipelines pad to]
    #[arg(long, value_name = "N", group = "size")]
    tokens: Option<usize>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, context: Context) -> Result<ExitCode> {
    let size = args.latent.map(Size::from).or(args.tokens.map(Size::Tokens));
    let report = inspect(&args.weights.origin(&args.path, Wanted::OnlyTransformer, context)?, size)?;
    if size.is_some() && !matches!(report, InspectReport::Checkpoint(_) | InspectReport::Graph(_)) {
        let flag = if args.latent.is_some() { "--latent" } else { "--tokens" };
        refuse!("{flag} is for checkpoints: `{}` was compiled for one size", args.path.display());
    }
    if args.json {
        print_json(&report)?;
        return Ok(ExitCode::SUCCESS);
    }
    print_line(text(&report)?.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// A report for people.
fn text(report: &InspectReport) -> Result<String> {
    Ok(match report {
        InspectReport::Checkpoint(c) => {
            let dtypes: Vec<String> = c.dtypes.iter().map(|(d, n)| format!("{n} {d}")).collect();
            let mut text = format!(
                "checkpoint {}: {} in {} file(s), tensors: {}\n{}\nread as {}: {}\n{}\n",
                c.path,
                size(c.bytes),
                c.files,
                dtypes.join(", "),
                c.hash,
                one_line(&c.format),
                one_line(&c.names),
                c.loras
                    .iter()
                    .map(|lora| format!(
                        "merged {} × {} into {} tensors\n",
                        one_line(&lora.file),
                        lora.scale,
                        lora.tensors
                    ))
                    .collect::<String>()
            );
            model(&c.model, &mut text)?;
            recognised(&c.recognised, &mut text)?;
            text
        }
        InspectReport::Graph(g) => graph::text(g)?,
        InspectReport::Onnx(a) => artifact("ONNX model", a)?,
        InspectReport::MlPackage(a) => artifact("Core ML package", a)?,
        InspectReport::CoreAi(a) => artifact("Core AI asset", a)?,
        InspectReport::Partition { target, parts } => {
            let kind = if *target == Target::CoreAi { "Core AI asset" } else { "Core ML package" };
            let what = |i: usize| format!("{kind} {} of {}", i + 1, parts.len());
            let texts = parts.iter().enumerate().map(|(i, part)| artifact(&what(i), part));
            texts.collect::<Result<Vec<_>>>()?.join("\n")
        }
        InspectReport::Pipeline { contract, parts } => pipeline::text(contract, parts)?,
        InspectReport::Experts { boundary, experts } => {
            let texts = experts.iter().map(text).collect::<Result<Vec<_>>>()?;
            format!(
                "two transformers: the first from timestep {boundary} on, the second below it\n\n{}",
                texts.join("\n")
            )
        }
        InspectReport::Kernel(k) => kernel::text(k)?,
        InspectReport::Decoder(d) => decoder::text(d)?,
    })
}

fn model(m: &ModelReport, out: &mut String) -> Result<()> {
    writeln!(
        out,
        "{}, {}: {} parameters, {} blocks, width {} = {} heads × {}",
        m.family,
        match m.chunk_frames {
            Some(n) => {
                let sink = m.sink_frames.filter(|n| *n > 0).map(|n| format!(" and the first {n}")).unwrap_or_default();
                let sees = match m.window_frames.unwrap_or_default() {
                    0 if sink.is_empty() => String::new(),
                    before => format!(", attention sees {before} before them{sink}"),
                };
                format!("streaming {n} latent frames a step{sees}")
            }
            None => m.variant.clone(),
        },
        count(m.parameters),
        m.blocks,
        m.width,
        m.heads,
        m.head_dim
    )?;
    let [frames, rows, cols] = m.grid;
    let tokens = frames * rows * cols;
    match m.latent {
        Some([c, f, h, w]) => {
            writeln!(out, "latent {c}×{f}×{h}×{w} → {tokens} tokens on a {frames}×{rows}×{cols} grid")?;
        }
        None => writeln!(out, "{tokens} text tokens")?,
    }
    let inputs: Vec<String> = m.inputs.iter().map(|i| format!("{} {:?}", i.name, i.shape)).collect();
    writeln!(out, "inputs: {}", inputs.join(", "))?;
    if let Some(sampler) = &m.sampler {
        writeln!(out, "sampler: {sampler}")?;
    }
    writeln!(out)?;

    let most = m.layers.iter().map(|l| l.tokens).max().unwrap_or(1).max(1);
    for l in &m.layers {
        let bar = "█".repeat((l.tokens * 24).div_ceil(most));
        let blocks =
            if l.blocks == 1 { l.first.to_string() } else { format!("{}–{}", l.first, l.first + l.blocks - 1) };
        let stage = l.stage.map(|s| format!("  stage {s}")).unwrap_or_default();
        writeln!(out, "  {:>7} tokens {bar:^24} {:>4} × {:<5}  block {blocks}{stage}", l.tokens, l.blocks, l.kind)?;
    }

    writeln!(out, "\nparameters")?;
    for (part, n) in &m.parts {
        writeln!(out, "  {part:<26} {:>9}  {:>5.1} %", count(*n), *n as f64 / m.parameters.max(1) as f64 * 100.0)?;
    }

    costs(&m.costs, out)
}

/// Writes the costs of the parts of one step, and their sum.
fn costs(costs: &[BlockCost], out: &mut String) -> Result<()> {
    // Traffic is a sum over ops; a column called activations would be read as the memory that a block needs.
    writeln!(out, "\none call                       FLOPs   weights      traffic  ops")?;
    for c in costs {
        writeln!(
            out,
            "  {:<18} {:<5} {:>9} {:>9} {:>12} {:>4}",
            c.part,
            c.kind,
            count(c.flops),
            size(c.weight_bytes),
            size(c.activation_bytes),
            c.ops
        )?;
    }
    let sum = |f: fn(&BlockCost) -> u64| costs.iter().map(f).sum::<u64>();
    writeln!(
        out,
        "  {:<24} {:>9} {:>9} {:>12} {:>4}",
        "total",
        count(sum(|c| c.flops)),
        size(sum(|c| c.weight_bytes)),
        size(sum(|c| c.activation_bytes)),
        costs.iter().map(|c| c.ops).sum::<usize>()
    )?;
    writeln!(
        out,
        "  weights, traffic: bytes in fp16; traffic is what all ops read and write, added up: never in memory at once"
    )?;
    Ok(())
}

/// Writes what was recognised in each function, and what nearly was.
pub(super) fn recognised(list: &[Recognition], out: &mut String) -> Result<()> {
    let listed = |counts: &BTreeMap<&str, usize>| {
        counts.iter().map(|(op, n)| format!("{n} {op}")).collect::<Vec<_>>().join(", ")
    };
    for r in list {
        writeln!(
            out,
            "\nrecognised in `{}`: {} lcha, {} linear, {} ssa in {} stage(s), {} full, {} cross",
            one_line(&r.function),
            r.lcha,
            r.linear,
            r.ssa,
            r.stages,
            r.full,
            r.cross
        )?;
        for region in r.regions.iter().filter(|region| region.kind != "cross") {
            let stage = region.stage.map(|s| format!(" {s}")).unwrap_or_default();
            let kind = format!("{}{stage}", region.kind);
            writeln!(
                out,
                "  {:<18} {kind:<6} {:>7} tokens  {}",
                one_line(&region.scope),
                region.tokens,
                listed(&region.formulas)
            )?;
        }
        if !r.formulas.is_empty() {
            writeln!(out, "  formulas: {}", listed(&r.formulas))?;
        }
        if !r.leftovers.is_empty() {
            writeln!(out, "  ops of such formulas that stand alone: {}", listed(&r.leftovers))?;
        }
        for miss in &r.near_misses {
            writeln!(out, "  nearly {} at `{}`: {}", miss.rule, one_line(&miss.scope), one_line(&miss.reason))?;
        }
    }
    Ok(())
}

fn artifact(what: &str, a: &ArtifactReport) -> Result<String> {
    let mut out = format!("{what} {}: {}\n", one_line(&a.path), one_line(&a.format));
    if let Some(systems) = &a.minimum_os {
        writeln!(out, "  needs {systems} or later")?;
    }
    for (title, list) in [("input", &a.inputs), ("output", &a.outputs), ("state", &a.states)] {
        for v in list {
            writeln!(out, "  {title:<7} {:<12} {}{:?}", one_line(&v.name), v.dtype, v.shape)?;
        }
    }
    if let Some(listed) = &a.timesteps {
        writeln!(out, "  timestep: {listed}")?;
    }
    writeln!(
        out,
        "\nweights: {} in {} tensors ({})",
        size(a.weight_bytes),
        a.weight_tensors,
        one_line(&a.weight_storage)
    )?;
    for (dtype, bytes) in &a.weights_by_dtype {
        writeln!(out, "  {dtype:<8} {:>10}", size(*bytes))?;
    }
    writeln!(out, "\n{} operations", a.ops.iter().map(|(_, n)| n).sum::<usize>())?;
    for chunk in a.ops.chunks(4) {
        let row: Vec<String> =
            chunk.iter().map(|(op, n)| format!("{:<28}", format!("{n:>5} {}", one_line(op)))).collect();
        writeln!(out, "  {}", row.concat().trim_end())?;
    }
    recognised(&a.recognised, &mut out)?;
    if let Some(why) = &a.not_recognised {
        writeln!(out, "\nno formulas recognised: {}", one_line(why))?;
    }
    if !a.metadata.is_empty() {
        writeln!(out, "\nmetadata")?;
        for (k, v) in &a.metadata {
            let short: String =
                if v.chars().count() > 90 { v.chars().take(90).chain(['…']).collect() } else { v.clone() };
            writeln!(out, "  {:<20} {}", one_line(k), one_line(&short))?;
        }
    }
    if let Some(m) = &a.model {
        out.push('\n');
        model(m, &mut out)?;
    }
    Ok(out)
}
