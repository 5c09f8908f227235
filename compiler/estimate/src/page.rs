//! Pieces of pages: one file each, nothing fetched, no script.

use std::fmt::Write as _;

use s2dit_backends::output::made;

use crate::range::Range;
use crate::time::Bound;

const STYLE: &str = "\
:root{--ink:#1d2733;--dim:#66727f;--line:#e3e8ee;--paper:#fff;--wash:#f6f8fa;--accent:#2f6fa8}\
@media(prefers-color-scheme:dark){:root{--ink:#e6ebf0;--dim:#9aa7b4;--line:#2f3944;--paper:#151b22;--wash:#1d252e;--accent:#7ab3e0}}\
*{box-sizing:border-box}body{font:15px/1.55 system-ui,-apple-system,sans-serif;color:var(--ink);background:var(--paper);max-width:68em;\
margin:2.2em auto;padding:0 1.2em}h1{font-size:1.6em;line-height:1.25;margin:.2em 0}h2{font-size:1.15em;margin:2.2em 0 .5em}\
p{margin:.5em 0}.dim,figcaption{color:var(--dim)}code{font-size:.92em}\
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(11.5em,1fr));gap:.8em;margin:1.4em 0}\
.card{background:var(--wash);border:1px solid var(--line);border-radius:.6em;padding:.7em .9em}.card b{display:block;font-size:1.55em;\
font-weight:650;line-height:1.2}.card span{color:var(--dim);font-size:.88em;display:block}\
table{border-collapse:collapse;width:100%;font-size:.93em}td,th{padding:.28em .7em;text-align:right;border-bottom:1px solid var(--line);\
font-variant-numeric:tabular-nums}th{color:var(--dim);font-weight:550}td:first-child,th:first-child,.left{text-align:left}\
tr:hover td{background:var(--wash)}details{margin:.6em 0}summary{cursor:pointer;color:var(--accent)}\
figure{margin:1em 0}svg{width:100%;height:auto;display:block}svg text{fill:var(--ink);font-size:11px}svg .dim{fill:var(--dim)}\
svg .axis{stroke:var(--line)}svg .mark:hover{stroke:var(--ink);stroke-width:1.5}\
.key{display:flex;flex-wrap:wrap;gap:.3em 1.2em;color:var(--dim);font-size:.9em}.key i{display:inline-block;width:.85em;height:.85em;\
border-radius:.2em;margin-right:.4em;vertical-align:-.08em}.scroll{overflow-x:auto}";

/// A page with a title.
pub(crate) fn page(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n{}\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <title>{}</title>\n<style>{STYLE}</style>\n{body}</html>\n",
        made::COMMENT,
        escaped(title)
    )
}

/// Text as it stands in a page.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The colour of what time is spent on.
pub(crate) const fn colour(bound: Bound) -> &'static str {
    match bound {
        Bound::Products => "#4878a8",
        Bound::Weights => "#d9822b",
        Bound::Activations => "#4f9f6b",
        Bound::Dispatch => "#9aa3ad",
    }
}

/// What the colours mean.
pub(crate) fn key(entries: &[(&str, &str)]) -> String {
    let entry =
        |(colour, text): &(&str, &str)| format!("<span><i style=\"background:{colour}\"></i>{}</span>", escaped(text));
    format!("<p class=\"key\">{}</p>\n", entries.iter().map(entry).collect::<String>())
}

/// A figure in a box: what it is, the number, its range.
pub(crate) fn card(what: &str, number: &str, under: &str) -> String {
    format!(
        "<div class=\"card\"><span>{}</span><b>{}</b><span>{}</span></div>\n",
        escaped(what),
        escaped(number),
        escaped(under)
    )
}

/// A number to two significant digits: nothing looks more exact than it is.
pub(crate) fn figure(x: f64) -> String {
    if x <= 0.0 || !x.is_finite() {
        return "0".into();
    }
    let digits = 1 - x.log10().floor() as i32;
    let unit = 10f64.powi(-digits);
    format!("{:.*}", digits.max(0) as usize, (x / unit).round() * unit)
}

/// `130–420`
pub(crate) fn spread(range: Range) -> String {
    format!("{}–{}", figure(range.low), figure(range.high))
}

/// Bytes as people say them.
pub(crate) fn bytes(n: u64) -> String {
    match n {
        0..1_000_000 => format!("{:.0} kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.0} MB", n as f64 / 1e6),
        _ => format!("{:.2} GB", n as f64 / 1e9),
    }
}

/// Round steps on an axis from 0 to `most`: about five.
pub(crate) fn ticks(most: f64) -> Vec<f64> {
    let rough = (most / 5.0).max(1e-9);
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= rough).unwrap_or(rough);
    (0..).map(|i| f64::from(i) * step).take_while(|x| *x <= most * 1.0001).collect()
}

/// A table; the first row is the head.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut out = String::from("<div class=\"scroll\"><table><tr>");
    head.iter().for_each(|name| {
        let _ = write!(out, "<th>{}</th>", escaped(name));
    });
    out += "</tr>\n";
    for row in rows {
        out += "<tr>";
        row.iter().for_each(|cell| {
            let _ = write!(out, "<td>{}</td>", escaped(cell));
        });
        out += "</tr>\n";
    }
    out + "</table></div>\n"
}
