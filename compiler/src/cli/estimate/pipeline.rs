//! `s2ditc estimate` of a compiled pipeline.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use s2dit_estimate::{ComponentEstimate, Device, PipelineEstimate, Range};
use s2dit_files::size;
use s2dit_runtime::Pipeline;
use s2dit_runtime::pipeline::Mode;

use super::text::{range, report};
use super::{Args, refuse_choices};
use crate::cli::terminal::one_line;
use crate::cli::usage::refuse;
use crate::cli::{Context, print_json, print_line};

pub(super) fn run(args: &Args, context: Context, path: &Path) -> Result<ExitCode> {
    refuse_choices(args, path)?;
    let opened = Pipeline::open(path)?;
    let single =
        [(!args.fit.is_empty(), "--fit"), (args.report.is_some(), "--report"), (args.other_ms > 0.0, "--other-ms")];
    if let Some((_, flag)) = single.into_iter().find(|(given, _)| *given) {
        let part =
            opened.contract().assets.parts().last().map_or_else(|| path.into(), |(_, part)| path.join(&part.path));
        refuse!(
            "{flag} is of one network, and `{}` is a whole pipeline: estimate one of its parts, such as `{}`",
            path.display(),
            part.display()
        );
    }
    let made = s2dit_estimate::pipeline(opened.contract(), path, &Device::open(&args.device)?)?;
    if args.json {
        print_json(&made)?;
    } else if context.quiet {
        print_line(&format!("{}: {}", one_line(&made.pipeline), whole(&made)))?;
    } else {
        print_line(text(&made, args.all).trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A time in milliseconds, or in seconds if it is long.
fn time(ms: Range) -> String {
    if ms.likely < 10_000.0 { format!("{} ms", range(ms)) } else { format!("{} s", range(ms * 1e-3)) }
}

/// The whole in a line.
fn whole(e: &PipelineEstimate) -> String {
    let fps = e.frames_per_second.map_or(String::new(), |fps| format!(", {} frames a second", range(fps)));
    format!(
        "{} {}{fps}, memory {} with a part at a time ({}), {} with all loaded",
        total(e),
        time(e.total_ms),
        size(e.memory.working),
        e.memory.working_part.replace('_', " "),
        size(e.memory.all)
    )
}

/// What the time is of.
fn what(e: &PipelineEstimate) -> &'static str {
    match e.mode {
        Mode::Clip => "clip",
        Mode::Stream => "chunk",
    }
}

/// What the sum of all parts is.
fn total(e: &PipelineEstimate) -> String {
    let rest = if e.is_whole { "" } else { ", these parts" };
    format!("{}{rest}", what(e))
}

/// A part in a line.
fn line(component: &ComponentEstimate) -> String {
    let calls = match component.calls {
        1 => "1 call".to_owned(),
        calls => format!("{calls} calls"),
    };
    let networks =
        if component.networks.len() > 1 { format!(" of {} networks", component.networks.len()) } else { String::new() };
    let bytes: u64 = component.networks.iter().map(|network| network.package_bytes).sum();
    format!(
        "{calls}{networks}, {}, {} of memory, {} on the disk",
        time(component.ms),
        size(component.peak_memory_bytes),
        size(bytes)
    )
}

/// The estimate as lines of a model card.
pub(in crate::cli) fn card(e: &PipelineEstimate) -> Vec<String> {
    let mut lines = vec![
        format!("On {}, likely (best–worst of what is known of the engine), not measured:", e.device),
        String::new(),
    ];
    lines.extend(e.components.iter().map(|component| format!("- {}: {}", component.part, line(component))));
    lines.push(format!("- {}", whole(e)));
    lines
}

/// The estimate for people.
fn text(e: &PipelineEstimate, all: bool) -> String {
    let guidance =
        if e.mode == Mode::Clip && e.guidance > 1.0 { format!(", guidance {}", e.guidance) } else { String::new() };
    let mut out = format!(
        "pipeline {} ({}) on {}\n{} of {} frames, {}x{} pixels, {} steps{guidance}\n\nlikely (best–worst of what is known of the engine)\n",
        one_line(&e.pipeline),
        one_line(&e.class),
        e.device,
        what(e),
        e.frames,
        e.cols,
        e.rows,
        e.steps
    );
    let mut row = |name: &str, value: String| out += &format!("  {name:<18} {value}\n");
    for component in &e.components {
        let engine = match component.compute.as_deref() {
            Some("gpu") => "; meant for the GPU",
            _ => "",
        };
        row(&component.part.replace('_', " "), format!("{}{engine}", line(component)));
    }
    row(&total(e), time(e.total_ms));
    if let Some(fps) = e.frames_per_second {
        row("frames a second", range(fps));
    }
    let working = e.memory.working_part.replace('_', " ");
    row("memory, working", format!("{}: the {working}, as generate loads and drops parts", size(e.memory.working)));
    row("memory, all loaded", size(e.memory.all));
    row("packages", size(e.package_bytes));
    row("first load", format!("{} s, if the phone compiles all of it", range(e.first_load_s)));
    out.push('\n');
    for note in &e.notes {
        out += &format!("note: {note}\n");
    }
    if all {
        for network in e.components.iter().flat_map(|component| &component.networks) {
            out += &format!("\n{}", report(network, true));
        }
    }
    out
}
