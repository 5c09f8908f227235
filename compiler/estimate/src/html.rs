//! An estimate as a page: figures with their ranges, a timeline of a chunk, blocks, memory, and where the device's figures are from.

use std::fmt::Write as _;

use crate::device::{Device, Figures};
use crate::estimate::{Estimate, FunctionEstimate};
use crate::page::{bytes, card, colour, escaped, figure, key, page as paged, spread, table, ticks};
use crate::time::Bound;

/// The page of an estimate for a device.
#[must_use]
pub fn page(estimate: &Estimate, device: &Device) -> String {
    let about = &estimate.subject;
    let what = if about.streams { "chunk" } else { "clip" };
    let mut body = format!(
        "<h1>{}</h1>\n<p class=\"dim\">{} on {}{}{}, weights {}. An estimate from shapes: the large number is likely, the range is what the best \
         and the worst of what is known of the engine allow.</p>\n",
        escaped(&about.name),
        about.what,
        escaped(&estimate.device),
        about.model.as_deref().map(|m| format!(" · {}", escaped(m))).unwrap_or_default(),
        about.latent.as_deref().map(|l| format!(" · latent {}", escaped(l))).unwrap_or_default(),
        escaped(&about.weights),
    );
    body += "<div class=\"cards\">\n";
    body += &card(
        "a step",
        &format!("{} ms", figure(estimate.step_ms.likely)),
        &format!("{} ms", spread(estimate.step_ms)),
    );
    body += &card(
        &format!("a {what}"),
        &format!("{} ms", figure(estimate.chunk_ms.likely)),
        &format!("{} ms", spread(estimate.chunk_ms)),
    );
    if let (Some(fps), Some(frames)) = (estimate.frames_per_second, estimate.frames_per_chunk) {
        body += &card("frames a second", &figure(fps.likely), &format!("{}, {frames} frames a {what}", spread(fps)));
    }
    body += &card(
        "memory, all loaded",
        &bytes(estimate.peak_memory_bytes),
        &format!("{} one at a time", bytes(estimate.memory.one_at_a_time)),
    );
    body += &card("package", &bytes(estimate.package_bytes), "to download");
    body += &card(
        "first load",
        &format!("{} s", figure(estimate.first_load_s.likely)),
        &format!("{} s, if the phone compiles it", spread(estimate.first_load_s)),
    );
    body += "</div>\n";
    body += &format!("<h2>A {what} in time</h2>\n");
    body += &timeline(estimate);
    for (i, f) in estimate.functions.iter().enumerate() {
        let _ = writeln!(
            body,
            "<h2><code>{}</code>: {} ms, {} ops, {:.2} TFLOP</h2>\n<p class=\"dim\">{}, bound by {}. Height is the likely time.</p>",
            escaped(&f.name),
            figure(f.ms.likely),
            f.ops,
            f.flops as f64 / 1e12,
            if f.calls == 0 { "once a prompt".into() } else { format!("{} × a {what}", f.calls) },
            f.bound_by.name()
        );
        body += &blocks(f);
        body += &format!("<details{}><summary>parts and ops</summary>\n", if i == 0 { " open" } else { "" });
        body += &parts(f);
        body += "</details>\n";
    }
    body += "<h2>Memory</h2>\n";
    body += &memory(estimate);
    body += "<h2>What is known of the device</h2>\n<p class=\"dim\">Every figure is data with a source. Times are long where a figure is at the slow end \
             of its range, and short at the other.</p>\n<details><summary>figures and sources</summary>\n";
    body += &sources(device);
    body += "</details>\n";
    if !estimate.notes.is_empty() {
        body += "<h2>Notes</h2>\n<ul>";
        estimate.notes.iter().for_each(|note| {
            let _ = write!(body, "<li>{}</li>", escaped(note));
        });
        body += "</ul>\n";
    }
    paged(&format!("{}: estimate", about.name), &body)
}

const COLOURS: [Bound; 4] = Bound::ALL;

fn legend() -> String {
    let entries = COLOURS.map(|bound| (colour(bound), bound.name()));
    key(&entries)
}

const WIDTH: f64 = 1000.0;
/// Calls beyond this are drawn as one bar.
const MOST_CALLS: usize = 60;

/// The calls of a chunk one after the other, each cut into its parts, and these into what they are spent on.
fn timeline(estimate: &Estimate) -> String {
    let mut calls: Vec<(&FunctionEstimate, usize)> = Vec::new();
    let all: usize = estimate.functions.iter().map(|f| f.calls).sum();
    for f in estimate.functions.iter().filter(|f| f.calls > 0) {
        match all <= MOST_CALLS {
            true => calls.extend(std::iter::repeat_n((f, 1), f.calls)),
            false => calls.push((f, f.calls)),
        }
    }
    let total = estimate.chunk_ms.likely.max(1e-9);
    let x = |ms: f64| WIDTH * ms / total;
    let mut svg = format!("<figure><svg viewBox=\"0 0 {WIDTH} 104\" role=\"img\" aria-label=\"timeline\">\n");
    for tick in ticks(total) {
        let at = x(tick);
        let anchor = if at > WIDTH - 30.0 {
            "end"
        } else if at < 10.0 {
            "start"
        } else {
            "middle"
        };
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"20\" y2=\"84\"/><text class=\"dim\" x=\"{at:.1}\" y=\"99\" \
             text-anchor=\"{anchor}\">{} ms</text>",
            figure_whole(tick)
        );
    }
    let mut at = 0.0;
    for (f, times) in calls {
        let (start, times) = (at, times as f64);
        let share = if f.parts.is_empty() {
            1.0
        } else {
            f.ms.likely / f.parts.iter().map(|p| p.ms.likely).sum::<f64>().max(1e-9)
        };
        for part in &f.parts {
            let ms = part.ms.likely * share * times;
            let _ = write!(
                svg,
                "<g class=\"mark\"><title>{} · {} {}: {} ms, bound by {}</title>",
                escaped(&f.name),
                escaped(&part.name),
                escaped(&part.kind),
                figure(ms),
                part.bound_by.name()
            );
            // As wide as it takes, and cut by what it is spent on.
            let (mut y, whole) = (26.0, part.spent_ms.values().sum::<f64>().max(1e-12));
            for bound in COLOURS {
                let height = 52.0 * part.spent_ms.get(bound.name()).copied().unwrap_or_default() / whole;
                let _ = write!(
                    svg,
                    "<rect x=\"{:.2}\" y=\"{y:.1}\" width=\"{:.2}\" height=\"{height:.1}\" fill=\"{}\"/>",
                    x(at),
                    (x(ms) - 0.35).max(0.2),
                    colour(bound)
                );
                y += height;
            }
            svg += "</g>\n";
            at += ms;
        }
        let label = if times > 1.0 { format!("{} × {}", times, f.name) } else { f.name.clone() };
        if x(at - start) > 40.0 {
            let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"15\">{}</text>", x(start) + 1.0, escaped(&label));
        }
    }
    if estimate.other_ms > 0.0 {
        let _ = writeln!(
            svg,
            "<rect class=\"mark\" x=\"{:.2}\" y=\"26\" width=\"{:.2}\" height=\"52\" fill=\"#c9b458\"><title>text encoder and decoder: {} \
             ms</title></rect><text x=\"{WIDTH}\" y=\"15\" text-anchor=\"end\">other</text>",
            x(at),
            x(estimate.other_ms),
            figure(estimate.other_ms)
        );
    }
    svg + "</svg></figure>\n" + &legend()
}

fn figure_whole(x: f64) -> String {
    if x >= 1.0 || x == 0.0 { format!("{x:.0}") } else { figure(x) }
}

/// Parts as stacked bars: what their time is spent on.
fn blocks(f: &FunctionEstimate) -> String {
    const HEIGHT: f64 = 150.0;
    let most = f.parts.iter().map(|p| p.ms.likely).fold(1e-9, f64::max);
    let step = ((WIDTH - 50.0) / f.parts.len().max(1) as f64).min(64.0);
    let y = |ms: f64| 10.0 + HEIGHT * (1.0 - ms / most);
    let mut svg =
        format!("<figure><svg viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\" aria-label=\"parts\">\n", HEIGHT + 62.0);
    for tick in ticks(most) {
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"44\" x2=\"{WIDTH}\" y1=\"{0:.1}\" y2=\"{0:.1}\"/><text class=\"dim\" x=\"40\" y=\"{1:.1}\" \
             text-anchor=\"end\">{2}</text>",
            y(tick),
            y(tick) + 4.0,
            if tick > 0.0 { figure(tick) } else { "ms".into() }
        );
    }
    for (i, part) in f.parts.iter().enumerate() {
        let x = 50.0 + step * i as f64;
        let mut at = 0.0;
        for bound in COLOURS {
            let ms = part.spent_ms.get(bound.name()).copied().unwrap_or_default();
            let _ = writeln!(
                svg,
                "<rect class=\"mark\" x=\"{x:.1}\" y=\"{:.2}\" width=\"{:.1}\" height=\"{:.2}\" fill=\"{}\"><title>{} {}: {} ms ({}), of \
                 them {} on {}; {} ops</title></rect>",
                y(at + ms),
                step * 0.8,
                HEIGHT * ms / most,
                colour(bound),
                escaped(&part.name),
                escaped(&part.kind),
                figure(part.ms.likely),
                spread(part.ms),
                figure(ms),
                bound.name(),
                part.ops
            );
            at += ms;
        }
        let (tx, ty) = (x + step * 0.4, HEIGHT + 22.0);
        let name = part.name.strip_prefix("blocks.").unwrap_or(&part.name);
        let _ = writeln!(
            svg,
            "<text x=\"{tx:.1}\" y=\"{ty:.1}\" transform=\"rotate(-45 {tx:.1} {ty:.1})\" text-anchor=\"end\">{}</text>",
            escaped(&if part.kind.is_empty() { name.to_owned() } else { format!("{} {name}", part.kind) })
        );
    }
    svg + "</svg></figure>\n" + &legend()
}

fn parts(f: &FunctionEstimate) -> String {
    let rows: Vec<Vec<String>> = (f.parts.iter())
        .map(|p| {
            vec![
                p.name.clone(),
                p.kind.clone(),
                figure(p.ms.likely),
                spread(p.ms),
                p.ops.to_string(),
                format!("{:.1}", p.flops as f64 / 1e9),
                bytes(p.weight_bytes),
                p.bound_by.name().into(),
            ]
        })
        .collect();
    let kinds: Vec<Vec<String>> = (f.kinds.iter().take(12))
        .map(|k| vec![k.op.into(), k.ops.to_string(), figure(k.ms.likely), spread(k.ms)])
        .collect();
    table(&["part", "kind", "ms", "range", "ops", "GFLOP", "weights read", "bound by"], &rows)
        + "<p class=\"dim\">Ops by the time of all of one type:</p>\n"
        + &table(&["op", "ops", "ms", "range"], &kinds)
}

fn memory(estimate: &Estimate) -> String {
    let m = estimate.memory;
    let entries = [
        ("weights", m.weights, "#d9822b"),
        ("inputs and states", m.inputs, "#8e6bb0"),
        ("activations", m.activations, "#4f9f6b"),
    ];
    let total = m.all_loaded.max(1) as f64;
    let mut svg = format!("<figure><svg viewBox=\"0 0 {WIDTH} 34\" role=\"img\" aria-label=\"memory\">\n");
    let mut at = 0.0;
    for (name, size, fill) in entries {
        let width = WIDTH * size as f64 / total;
        let _ = writeln!(
            svg,
            "<rect class=\"mark\" x=\"{at:.1}\" y=\"4\" width=\"{:.1}\" height=\"26\" fill=\"{fill}\"><title>{name}: {}</title></rect>",
            (width - 1.0).max(0.2),
            bytes(size)
        );
        at += width;
    }
    let labels = entries.map(|(name, size, fill)| (fill, format!("{name} {}", bytes(size))));
    let labels: Vec<(&str, &str)> = labels.iter().map(|(fill, text)| (*fill, text.as_str())).collect();
    svg + "</svg></figure>\n" + &key(&labels)
}

fn sources(device: &Device) -> String {
    let rows: Vec<Vec<String>> = (device.figures.each().into_iter().zip(Figures::NAMES))
        .map(|((name, f), (_, doc))| {
            let range = format!("{} ({}–{})", f.likely, f.low, f.high);
            vec![name.into(), range, f.confidence.to_string(), format!("{} {}.", doc.trim(), f.source)]
        })
        .collect();
    table(&["figure", "likely (range)", "confidence", "what it is, and who says so"], &rows)
        .replace("<table>", "<table style=\"text-align:left\" class=\"figures\">")
}
