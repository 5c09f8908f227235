//! `s2ditc passes`

use std::process::ExitCode;

use anyhow::Result;
use s2dit_files::problems::{nearest, quoted};
use s2dit_passes::pipelines::{self, Named};
use s2dit_passes::{PASSES, Pass, PassKind, Property};
use serde_json::{Value, json};

use super::usage::refuse;
use super::{print_json, print_line};

/// List the passes that rewrite a graph, and the orders in which they run
#[derive(clap::Args)]
#[command(after_help = "Examples:
  s2ditc passes
  s2ditc passes stream-coreml-ane-fp16
  s2ditc passes fold-gate --json

`compile --timesteps from-config` adds the pass timesteps: first of a clip's passes, after split in a stream. Compressed weights are \
compressed after the last pass. `compile --emit ir --after PASS` prints the graph after a pass.")]
pub(super) struct Args {
    /// A pass or a pass pipeline; without it, all of them
    name: Option<String>,
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let every = pipelines::every()?;
    let Some(name) = &args.name else {
        if args.json {
            let passes: Vec<_> = PASSES.iter().map(|pass| of_pass(pass, &every)).collect();
            let pipelines: Vec<_> = every.iter().map(of_pipeline).collect();
            let properties: Vec<_> =
                Property::ALL.iter().map(|p| json!({"property": p.name(), "doc": p.doc()})).collect();
            print_json(&json!({"passes": passes, "pipelines": pipelines, "properties": properties}))?;
        } else {
            print_line(&everything(&every))?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    if let Some(pass) = s2dit_passes::pass(name) {
        if args.json { print_json(&of_pass(pass, &every))? } else { print_line(&alone(pass, &every))? }
    } else if let Some(named) = every.iter().find(|named| named.name == *name) {
        if args.json { print_json(&of_pipeline(named))? } else { print_line(&pipeline_text(named))? }
    } else {
        let names = PASSES.iter().map(|pass| pass.name).chain(every.iter().map(|named| named.name.as_str()));
        let expected = match nearest(name, names) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "expected the name of a pass or a pipeline; `s2ditc passes` lists them".into(),
        };
        refuse!("passes: found {}: {expected}", quoted(name));
    }
    Ok(ExitCode::SUCCESS)
}

fn everything(every: &[Named]) -> String {
    let passes: Vec<String> = PASSES.iter().map(|pass| pass_text(pass)).collect();
    let properties = Property::ALL.iter().map(|p| format!("  {:16} {}", p.name(), p.doc()));
    let pipelines: Vec<String> = every.iter().map(pipeline_line).collect();
    format!(
        "passes\n\n{}\n\nproperties of a graph\n\n{}\n\npass pipelines\n\n{}",
        passes.join("\n\n"),
        properties.collect::<Vec<_>>().join("\n"),
        pipelines.join("\n\n")
    )
}

fn pass_text(pass: &PassKind) -> String {
    let mut text = format!("{}\n  {}", pass.name, pass.doc);
    let lists = [("needs", pass.needs), ("establishes", pass.establishes), ("destroys", pass.destroys)];
    for (what, properties) in lists.into_iter().filter(|(_, properties)| !properties.is_empty()) {
        text += &format!("\n  {what:12} {}", names(properties).join(", "));
    }
    if !pass.options.is_empty() {
        text += &format!("\n  {:12} {}", "options", pass.options);
    }
    text
}

/// A pass with the pipelines that it runs in.
fn alone(pass: &PassKind, every: &[Named]) -> String {
    let text = pass_text(pass);
    let pipelines = pipelines_of(pass, every);
    if pipelines.is_empty() { text } else { format!("{text}\n  {:12} {}", "runs in", pipelines.join(", ")) }
}

/// Names of the pipelines that a pass runs in.
fn pipelines_of<'a>(pass: &PassKind, every: &'a [Named]) -> Vec<&'a str> {
    let runs = |named: &&Named| named.pipeline.passes().iter().any(|p| p.kind.name == pass.name);
    every.iter().filter(runs).map(|named| named.name.as_str()).collect()
}

/// A pipeline as its name and its passes.
fn pipeline_line(named: &Named) -> String {
    let passes: Vec<String> = named.pipeline.passes().iter().map(Pass::to_string).collect();
    format!("{}\n  {}\n  {}", named.name, named.doc, passes.join(" → "))
}

/// A pipeline as a table of its passes.
fn pipeline_text(named: &Named) -> String {
    let mut text = format!("{}\n  {}", named.name, named.doc);
    for (i, pass) in named.pipeline.passes().iter().enumerate() {
        text += &format!("\n{:>4} {:40} {}", i + 1, pass.to_string(), pass.kind.doc);
    }
    text
}

fn names(properties: &[Property]) -> Vec<&'static str> {
    properties.iter().map(|p| p.name()).collect()
}

fn of_pass(pass: &PassKind, every: &[Named]) -> Value {
    json!({
        "pass": pass.name,
        "doc": pass.doc,
        "options": pass.options,
        "needs": names(pass.needs),
        "establishes": names(pass.establishes),
        "destroys": names(pass.destroys),
        "pipelines": pipelines_of(pass, every),
    })
}

fn of_pipeline(named: &Named) -> Value {
    let pass = |pass: &Pass| {
        let needs: Vec<_> = pass.needs().map(Property::name).collect();
        json!({"pass": pass.kind.name, "as_written": pass.to_string(), "needs": needs})
    };
    let passes: Vec<Value> = named.pipeline.passes().iter().map(pass).collect();
    json!({"pipeline": named.name, "doc": named.doc, "passes": passes})
}
