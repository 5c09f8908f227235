//! A plan as a page: what is alarming, sizes, bits by block and weight, errors of blocks, error against size, every weight. The
//! page is one file: its script only sorts the table, and nothing is fetched.

mod alarms;
mod charts;
mod heat;
mod table;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Made;
use crate::Survey;
use s2dit_emit::plan::{Entry, Plan, Storage};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:62em;margin:2em auto;padding:0 1em;color:#222}\
    table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}\
    td:first-child,th:first-child,td:last-child,th:last-child{text-align:left}\
    table.sortable th{cursor:pointer;user-select:none}table.sortable th:hover,tr:hover td{background:#eef4fa}\
    svg{max-width:100%}svg .cell:hover,svg .mark:hover{stroke:#000;stroke-width:1.5}\
    ul.alarms{background:#fff4e5;border-left:4px solid #d9822b;padding:.6em 1em .6em 2em}";

/// The page of a plan that was made for a checkpoint.
#[must_use]
pub fn html(made: &Made, survey: &Survey<'_>) -> String {
    let checkpoint = survey.checkpoint;
    let outline = checkpoint.model().outline();
    let plan = &made.plan;
    let name = checkpoint.path().canonicalize().ok();
    let name = name.as_deref().unwrap_or(checkpoint.path()).file_name().map(|n| n.to_string_lossy().into_owned());
    let name = escaped(name.as_deref().unwrap_or("checkpoint"));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{name}: quantization plan</title>\n<style>{STYLE}</style>\n"
    );
    let snr = plan.snr_db.map_or("not measured".into(), |db| format!("{db:.1} dB"));
    let _ = write!(
        page,
        "<h1>{name}: quantization plan</h1>\n<p>The model: {} blocks ({}), {:.1} M parameters, checkpoint <code>{}</code>. \
         The goal: {}. It was measured at {}. {}</p>\n",
        outline.blocks(),
        escaped(&outline.sandwich()),
        checkpoint.weights().parameters() as f64 / 1e6,
        escaped(&plan.checkpoint),
        escaped(&plan.goal),
        escaped(&plan.measured_at()),
        escaped(&samples(plan)),
    );
    page += &alarms::list(made);
    let _ = writeln!(
        page,
        "<table><tr><th></th><th>before</th><th>after</th><th>SNR</th></tr><tr><td>weights of the fp16 package</td><td>{}</td>\
         <td>{} ({:.1} %)</td><td>{snr}</td></tr></table>",
        megabytes(made.whole_bytes),
        megabytes(plan.weight_bytes),
        100.0 * plan.weight_bytes as f64 / made.whole_bytes.max(1) as f64,
    );
    page += "<h2>Schemes</h2>\n";
    page += &schemes(plan);
    page += "<h2>Bits by block and weight</h2>\n<p>A row is a weight, a column a block; point at a cell for its scheme.</p>\n";
    page += &heat::map(plan, &survey.module.interface);
    page += "<h2>Error of each block's output</h2>\n<p>‖planned − whole‖ / ‖whole‖ by block, on the first sample; each line is ten \
             times the one below it.</p>\n";
    page += &charts::bars(&made.blocks_db);
    if !made.pareto.is_empty() {
        page += "<h2>SNR against mean bits of an fp16 package's 16</h2>\n<p>The line is predicted; the dot is this plan, \
                 measured. Each tick doubles the bits.</p>\n";
        page += &charts::pareto(made);
    }
    page +=
        "<h2>Weights, those that the output feels most first</h2>\n<p>Click on a column's head to sort by it.</p>\n";
    page += &table::weights(made);
    page += table::SORT;
    page += "</html>\n";
    page
}

/// What the plan was measured on.
fn samples(plan: &Plan) -> String {
    match &plan.calibration {
        None => "There was no calibration; the SNR was measured on seeded noise.".into(),
        Some(c) if c.held_out == 0 => format!("Calibrated and measured on {} sample(s) of {}.", c.samples, c.source),
        Some(c) => format!("Calibrated on {} sample(s) of {}, measured on {} others.", c.samples, c.source, c.held_out),
    }
}

/// A table of schemes with the number of their weights, the most bytes first.
fn schemes(plan: &Plan) -> String {
    let mut totals: BTreeMap<String, (usize, u64)> = BTreeMap::new();
    for w in &plan.weight {
        let total = totals.entry(w.scheme.to_string()).or_default();
        *total = (total.0 + 1, total.1 + w.bytes);
    }
    let mut totals: Vec<_> = totals.into_iter().collect();
    totals.sort_by_key(|(_, (_, bytes))| std::cmp::Reverse(*bytes));
    let rows: String = totals
        .into_iter()
        .map(|(scheme, (n, bytes))| format!("<tr><td>{scheme}</td><td>{n}</td><td>{}</td></tr>", megabytes(bytes)))
        .collect();
    format!("<table><tr><th>scheme</th><th>weights</th><th>size</th></tr>{rows}</table>\n")
}

/// Bits of a code.
fn bits(entry: &Entry) -> u8 {
    match entry.scheme {
        Storage::Whole => 16,
        Storage::Compressed(scheme) => scheme.bits(),
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
