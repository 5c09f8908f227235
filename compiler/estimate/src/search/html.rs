//! What was found as a page: budgets, counts and the front, layouts as sandwiches.

use std::fmt::Write as _;

use super::table::LOW as LOW_NAME;
use super::{Cost, Found};
use crate::page::{bytes, card, escaped, figure, key, page as paged, table, ticks};

const COLOURS: [&str; 8] = ["#4878a8", "#d9822b", "#4f9f6b", "#8e6bb0", "#c04030", "#7f8c3a", "#3a9aa8", "#9aa3ad"];

/// The page of a search.
#[must_use]
pub fn page(found: &Found, title: &str) -> String {
    let counts: Vec<String> = found.counts.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
    let mut body = format!(
        "<h1>{}: a layout under budgets</h1>\n<p class=\"dim\">Costs of blocks: {}.</p>\n<div class=\"cards\">\n",
        escaped(title),
        escaped(&found.table.source)
    );
    body += &card("blocks", &found.layout.len().to_string(), &counts.join(", "));
    body += &card(
        "a step",
        &format!("{} ms", figure(found.cost.latency_ms)),
        &format!("of {} ms", figure(found.budgets.latency_ms)),
    );
    let megabytes = |mb: f64| bytes((1e6 * mb) as u64);
    body += &card("memory", &megabytes(found.cost.memory_mb), &format!("of {}", megabytes(found.budgets.memory_mb)));
    if let Some(quality) = found.quality {
        body += &card("quality", &format!("{quality:.2}"), "sum of the scores");
    }
    body += "</div>\n<h2>The layout</h2>\n";
    body += &sandwich(&found.layout, found);
    body += match found.places {
        "scores" => {
            "<p>Places are the best that the scores and the budgets allow; a change of stream costs its way down and up.</p>\n"
        }
        _ => {
            "<p><b>Places are a rule and no measurement</b>: stages of about five blocks at low resolution between runs of the others. \
              With <code>--scores</code> they are chosen by what a supernet learned.</p>\n"
        }
    };
    let _ = writeln!(
        body,
        "<h2>Counts</h2>\n<p class=\"dim\">Each dot is a choice of counts, without changes of stream; the box is what the budgets allow, \
         the ring the choice that comes closest to both.</p>"
    );
    body += &scatter(found);
    if !found.front.is_empty() {
        body += "<h2>Quality against latency</h2>\n<p class=\"dim\">Layouts that no other beats in latency, memory and quality.</p>\n";
        body += &front(found);
        let shown: Vec<&super::Placed> = spread(&found.front);
        let rows: Vec<Vec<String>> = (shown.iter())
            .map(|p| {
                vec![
                    p.sandwich.clone(),
                    figure(p.cost.latency_ms),
                    figure(p.cost.memory_mb),
                    format!("{:.2}", p.quality),
                ]
            })
            .collect();
        body += &table(&["layout", "ms", "MB", "quality"], &rows);
    }
    body += "<h2>What blocks cost</h2>\n";
    body += &costs(found);
    paged(&format!("{title}: search"), &body)
}

/// At most a dozen of a front, evenly.
fn spread<T>(all: &[T]) -> Vec<&T> {
    let step = all.len().div_ceil(12).max(1);
    all.iter().step_by(step).collect()
}

fn colour(found: &Found, kind: &str) -> &'static str {
    let at = found.table.kinds.iter().position(|k| k.name == kind).unwrap_or_default();
    COLOURS[at % COLOURS.len()]
}

/// Blocks as boxes: those of low resolution lie lower.
fn sandwich(layout: &[String], found: &Found) -> String {
    let step = (980.0 / layout.len().max(1) as f64).min(44.0);
    let mut svg = String::from("<figure><svg viewBox=\"0 0 1000 104\" role=\"img\" aria-label=\"layout\">\n");
    let level = |kind: &str| if kind == LOW_NAME { 52.0 } else { 10.0 };
    for (i, kind) in layout.iter().enumerate() {
        let (x, y) = (10.0 + step * i as f64, level(kind));
        if i > 0 && level(&layout[i - 1]) != y {
            let _ = writeln!(
                svg,
                "<path class=\"axis\" d=\"M{:.1} {:.1}L{:.1} {:.1}\" stroke-width=\"2\"/>",
                x - step * 0.5,
                level(&layout[i - 1]) + 16.0,
                x + step * 0.45,
                y + 16.0
            );
        }
    }
    for (i, kind) in layout.iter().enumerate() {
        let (x, y) = (10.0 + step * i as f64, level(kind));
        let _ = writeln!(
            svg,
            "<rect class=\"mark\" x=\"{x:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"32\" rx=\"4\" fill=\"{}\"><title>block {i}: \
             {}</title></rect><text class=\"dim\" x=\"{:.1}\" y=\"99\" text-anchor=\"middle\">{i}</text>",
            step * 0.88,
            colour(found, kind),
            escaped(kind),
            x + step * 0.44
        );
    }
    let entries: Vec<(&str, &str)> =
        found.table.kinds.iter().map(|k| (colour(found, &k.name), k.name.as_str())).collect();
    svg + "</svg></figure>\n" + &key(&entries)
}

struct Plane {
    most: (f64, f64),
}

impl Plane {
    fn x(&self, v: f64) -> f64 {
        60.0 + 920.0 * v / self.most.0
    }
    fn y(&self, v: f64) -> f64 {
        300.0 - 280.0 * v / self.most.1
    }
    fn axes(&self, right: &str, up: &str) -> String {
        let mut svg = String::new();
        for tick in ticks(self.most.0) {
            let x = self.x(tick);
            let _ = writeln!(
                svg,
                "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"16\" y2=\"300\"/><text class=\"dim\" x=\"{x:.1}\" y=\"316\" \
                 text-anchor=\"middle\">{tick:.0}</text>"
            );
        }
        for tick in ticks(self.most.1) {
            let y = self.y(tick);
            let _ = writeln!(
                svg,
                "<line class=\"axis\" x1=\"60\" x2=\"980\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text class=\"dim\" x=\"54\" y=\"{:.1}\" \
                 text-anchor=\"end\">{tick}</text>",
                y + 4.0
            );
        }
        let _ = writeln!(
            svg,
            "<text class=\"dim\" x=\"980\" y=\"334\" text-anchor=\"end\">{}</text><text class=\"dim\" x=\"60\" y=\"11\">{}</text>",
            escaped(right),
            escaped(up)
        );
        svg
    }
}

fn scatter(found: &Found) -> String {
    let all = || found.choices.iter().map(|c| c.cost);
    let most = |of: fn(Cost) -> f64, budget: f64| 1.06 * all().map(of).fold(budget, f64::max);
    let plane = Plane {
        most: (
            most(|c| c.latency_ms, found.budgets.latency_ms).min(4.0 * found.budgets.latency_ms),
            most(|c| c.memory_mb, found.budgets.memory_mb).min(4.0 * found.budgets.memory_mb),
        ),
    };
    let mut svg = String::from("<figure><svg viewBox=\"0 0 1000 340\" role=\"img\" aria-label=\"counts\">\n");
    svg += &plane.axes("ms a step", "MB");
    let (bx, by) = (plane.x(found.budgets.latency_ms), plane.y(found.budgets.memory_mb));
    let _ = writeln!(
        svg,
        "<rect x=\"60\" y=\"{by:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#4f9f6b\" opacity=\"0.13\"/>",
        bx - 60.0,
        300.0 - by
    );
    for choice in found.choices.iter().filter(|c| c.cost.latency_ms <= plane.most.0 && c.cost.memory_mb <= plane.most.1)
    {
        let named: Vec<String> =
            found.table.kinds.iter().zip(&choice.counts).map(|(kind, n)| format!("{n} {}", kind.name)).collect();
        let keeps = found.budgets.keep(choice.cost);
        let _ = writeln!(
            svg,
            "<circle class=\"mark\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"{}\"><title>{}: {} ms, {} MB</title></circle>",
            plane.x(choice.cost.latency_ms),
            plane.y(choice.cost.memory_mb),
            if keeps { "#4878a8" } else { "#b8c0c8" },
            escaped(&named.join(", ")),
            figure(choice.cost.latency_ms),
            figure(choice.cost.memory_mb)
        );
    }
    let chosen = found.closest.cost;
    let _ = writeln!(
        svg,
        "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"8\" fill=\"none\" stroke=\"#c04030\" stroke-width=\"2.5\"/>",
        plane.x(chosen.latency_ms),
        plane.y(chosen.memory_mb)
    );
    svg + "</svg></figure>\n"
}

fn front(found: &Found) -> String {
    let qualities = || found.front.iter().map(|p| p.quality);
    let (low, high) = qualities().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), q| (l.min(q), h.max(q)));
    let right = 1.06 * found.front.iter().map(|p| p.cost.latency_ms).fold(found.budgets.latency_ms, f64::max);
    let height = (high - low).max(1e-9);
    let plane = Plane { most: (right, 1.0) };
    let mut svg =
        String::from("<figure><svg viewBox=\"0 0 1000 340\" role=\"img\" aria-label=\"quality against latency\">\n");
    for tick in ticks(right) {
        let x = plane.x(tick);
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"16\" y2=\"300\"/><text class=\"dim\" x=\"{x:.1}\" y=\"316\" \
             text-anchor=\"middle\">{tick:.0} ms</text>"
        );
    }
    for p in &found.front {
        let chosen = Some(p.quality) == found.quality;
        let _ = writeln!(
            svg,
            "<circle class=\"mark\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"{}\" fill=\"{}\"><title>{}: {} ms, {} MB, quality {:.2}</title></circle>",
            plane.x(p.cost.latency_ms),
            plane.y(0.04 + 0.92 * (p.quality - low) / height),
            if chosen { 7 } else { 4 },
            if chosen { "#c04030" } else { "#4878a8" },
            escaped(&p.sandwich),
            figure(p.cost.latency_ms),
            figure(p.cost.memory_mb),
            p.quality
        );
    }
    for (quality, y) in [(low, 0.04), (high, 0.96)] {
        let _ = writeln!(
            svg,
            "<text class=\"dim\" x=\"54\" y=\"{:.1}\" text-anchor=\"end\">{quality:.2}</text>",
            plane.y(y) + 4.0
        );
    }
    svg + "</svg></figure>\n"
}

fn costs(found: &Found) -> String {
    let t = &found.table;
    let row = |name: &str, cost: Cost| vec![name.to_owned(), figure(cost.latency_ms), figure(cost.memory_mb)];
    let mut rows: Vec<Vec<String>> = t.kinds.iter().map(|kind| row(&kind.name, kind.cost)).collect();
    rows.push(row("down and up, a stage", t.switch));
    rows.push(row("everything else", t.fixed));
    table(&["", "ms", "MB"], &rows)
}
