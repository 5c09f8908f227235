//! A plan as a page: sizes, errors of blocks, error against size, the worst weights. No scripts, nothing fetched.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Made;
use s2dit_emit::plan::{Plan, Storage};

/// Weights that are listed.
const LISTED: usize = 20;

/// The page.
#[must_use]
pub fn html(made: &Made) -> String {
    let plan = &made.plan;
    let mut page = String::from(
        "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>s2ditc quantize</title>\n<style>body{font:15px/1.5 \
         system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}td,th{padding:.2em \
         .8em;text-align:right;border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}svg{max-width:100%}\
         </style>\n",
    );
    let snr = plan.snr_db.map_or("not measured".into(), |db| format!("{db:.1} dB"));
    let _ = write!(
        page,
        "<h1>Quantization plan</h1>\n<p>Goal: {}. Measured at latent {}, checkpoint <code>{}</code>.</p>\n<p>{}</p>\n<table><tr>\
         <th></th><th>before</th><th>after</th><th>SNR</th></tr><tr><td>weights of the fp16 package</td><td>{}</td><td>{} \
         ({:.1} %)</td><td>{snr}</td></tr></table>\n",
        escaped(&plan.goal),
        escaped(&plan.latent),
        escaped(&plan.checkpoint),
        escaped(&samples(plan)),
        megabytes(made.whole_bytes),
        megabytes(plan.weight_bytes),
        100.0 * plan.weight_bytes as f64 / made.whole_bytes.max(1) as f64,
    );
    page += "<h2>Schemes</h2>\n";
    page += &schemes(plan);
    page +=
        "<h2>Error of each block's output</h2>\n<p>‖planned − whole‖ / ‖whole‖ by block, on the first sample.</p>\n";
    page += &bars(&made.blocks_db);
    if !made.pareto.is_empty() {
        page += "<h2>SNR against mean bits of an fp16 package's 16</h2>\n<p>The line is predicted; the dot is this plan, \
                 measured.</p>\n";
        page += &pareto(made);
    }
    page += "<h2>The weights that the output feels most</h2>\n";
    page += &worst(made);
    page += "</html>\n";
    page
}

/// What it was measured on.
fn samples(plan: &Plan) -> String {
    match &plan.calibration {
        None => "No calibration; measured on seeded noise.".into(),
        Some(c) if c.held_out == 0 => format!("Calibrated and measured on {} sample(s) of {}.", c.samples, c.source),
        Some(c) => format!("Calibrated on {} sample(s) of {}, measured on {} others.", c.samples, c.source, c.held_out),
    }
}

/// How many weights have each scheme, the most bytes first.
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

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Relative errors as bars: ‖stored − whole‖ / ‖whole‖ of each block.
fn bars(blocks_db: &[f64]) -> String {
    const HEIGHT: f64 = 160.0;
    let errors: Vec<f64> = blocks_db.iter().map(|db| 10f64.powf(-db / 20.0)).collect();
    let most = errors.iter().fold(0.0f64, |a, b| a.max(*b)).max(f64::MIN_POSITIVE);
    let step = (800.0 / errors.len().max(1) as f64).min(60.0);
    let mut svg = String::from("<svg viewBox=\"0 0 820 210\" width=\"820\" height=\"210\" role=\"img\">\n");
    for (i, (error, db)) in errors.iter().zip(blocks_db).enumerate() {
        let (x, height) = (10.0 + step * i as f64, HEIGHT * error / most);
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"#4878a8\"><title>block {i}: relative \
             error {error:.2e}, {db:.1} dB</title></rect><text x=\"{:.1}\" y=\"196\" font-size=\"11\" \
             text-anchor=\"middle\">{i}</text>",
            10.0 + HEIGHT - height + 10.0,
            step * 0.8,
            x + step * 0.4
        );
    }
    let _ = writeln!(svg, "<text x=\"10\" y=\"12\" font-size=\"11\">{most:.1e}</text></svg>");
    svg
}

/// Predicted SNR against mean bits, and the plan as a dot.
fn pareto(made: &Made) -> String {
    let elements: u64 = 8 * made.whole_bytes / 16;
    let bits = |bytes: u64| 8.0 * bytes as f64 / elements.max(1) as f64;
    let points: Vec<(f64, f64)> = made.pareto.iter().map(|p| (bits(p.bytes), p.snr_db)).collect();
    let plan = made.plan.snr_db.map(|db| (bits(made.plan.weight_bytes), db));
    let all = || points.iter().chain(&plan);
    let range = |of: fn(&(f64, f64)) -> f64| {
        let (low, high) = all().map(of).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(x), h.max(x)));
        (low, (high - low).max(1e-9))
    };
    let ((left, width), (bottom, height)) = (range(|p| p.0), range(|p| p.1));
    let x = |b: f64| 50.0 + 740.0 * (b - left) / width;
    let y = |db: f64| 250.0 - 220.0 * (db - bottom) / height;
    let line: Vec<String> = points.iter().map(|(b, db)| format!("{:.1},{:.1}", x(*b), y(*db))).collect();
    let mut svg = format!(
        "<svg viewBox=\"0 0 820 290\" width=\"820\" height=\"290\" role=\"img\">\n<polyline points=\"{}\" fill=\"none\" \
         stroke=\"#4878a8\" stroke-width=\"2\"/>\n",
        line.join(" ")
    );
    for (b, db) in &points {
        let _ = writeln!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"#4878a8\"><title>{b:.2} bits, {db:.1} dB \
             (predicted)</title></circle>",
            x(*b),
            y(*db)
        );
    }
    if let Some((b, db)) = plan {
        let _ = writeln!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"6\" fill=\"#c04030\"><title>this plan: {b:.2} bits, {db:.1} dB \
             (measured)</title></circle>",
            x(b),
            y(db)
        );
    }
    for (b, anchor) in [(left, "start"), (left + width, "end")] {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"278\" font-size=\"11\" text-anchor=\"{anchor}\">{b:.1} bits</text>",
            x(b)
        );
    }
    for db in [bottom, bottom + height] {
        let _ = writeln!(svg, "<text x=\"2\" y=\"{:.1}\" font-size=\"11\">{db:.0} dB</text>", y(db) + 4.0);
    }
    svg + "</svg>\n"
}

/// The weights that cost the output most alone, or that err most themselves.
fn worst(made: &Made) -> String {
    let mut rows: Vec<_> = made.plan.weight.iter().zip(&made.alone_db).collect();
    rows.sort_by(|(a, a_db), (b, b_db)| {
        let key = |db: &Option<f64>| db.unwrap_or(f64::INFINITY);
        key(a_db).total_cmp(&key(b_db)).then(b.error.total_cmp(&a.error)).then(a.name.cmp(&b.name))
    });
    let mut table = String::from(
        "<table><tr><th>weight</th><th>scheme</th><th>bytes</th><th>relative error</th><th>why</th></tr>\n",
    );
    for (w, _) in rows.into_iter().take(LISTED) {
        let error = if w.scheme == Storage::Whole { "–".into() } else { format!("{:.2e}", w.error) };
        let _ = writeln!(
            table,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{error}</td><td>{}</td></tr>",
            escaped(&w.name),
            w.scheme,
            w.bytes,
            escaped(&w.why)
        );
    }
    table + "</table>\n"
}
