//! Error against chunk, as an SVG that a browser shows.

use std::fmt::Write;

use s2dit_backends::output::made::COMMENT;

/// Size in pixels, and the room for labels.
const SIZE: (f64, f64) = (720.0, 320.0);
const LEFT: f64 = 56.0;
const TOP: f64 = 36.0;
const RIGHT: f64 = 16.0;
const BOTTOM: f64 = 40.0;

/// A line of SNR in dB over chunks, with the bar that each must reach, if there is one.
pub(super) fn svg(title: &str, snr_db: &[f64], bar_db: Option<f64>) -> String {
    let shown = || snr_db.iter().copied().chain(bar_db);
    let low = shown().reduce(f64::min).unwrap_or(0.0);
    let high = shown().reduce(f64::max).unwrap_or(0.0);
    let step = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0].into_iter().find(|s| (high - low) / s <= 6.0).unwrap_or(200.0);
    let (low, high) = ((low / step).floor() * step, ((high / step).floor() + 1.0) * step);
    let (width, height) = (SIZE.0 - LEFT - RIGHT, SIZE.1 - TOP - BOTTOM);
    let x = |i: usize| LEFT + width * (i as f64 + 0.5) / snr_db.len().max(1) as f64;
    let y = |db: f64| TOP + height * (high - db) / (high - low);
    let title = title.replace('&', "&amp;").replace('<', "&lt;");

    let (w, h) = SIZE;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n{COMMENT}\n<rect width=\"{w}\" height=\"{h}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{title}</text>\n"
    );
    // Writing to a string does not fail.
    let mut line = |text: String| _ = writeln!(out, "{text}");
    for i in 0..=((high - low) / step).round() as usize {
        let db = low + step * i as f64;
        line(format!(
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"#ddd\"/>",
            w - RIGHT,
            y(db),
            y(db)
        ));
        line(format!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{db} dB</text>", LEFT - 6.0, y(db) + 4.0));
    }
    let every = snr_db.len().div_ceil(10).max(1);
    for i in (0..snr_db.len()).step_by(every) {
        line(format!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{i}</text>", x(i), h - BOTTOM + 18.0));
    }
    line(format!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">chunk</text>", LEFT + width / 2.0, h - 6.0));
    if let Some(bar_db) = bar_db {
        line(format!(
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"#c33\" stroke-dasharray=\"6 4\"/>",
            w - RIGHT,
            y(bar_db),
            y(bar_db)
        ));
        let at = y(bar_db) - 4.0;
        line(format!("<text x=\"{:.1}\" y=\"{at:.1}\" fill=\"#c33\">bar {bar_db} dB</text>", LEFT + 6.0));
    }
    let points: Vec<String> = snr_db.iter().enumerate().map(|(i, db)| format!("{:.1},{:.1}", x(i), y(*db))).collect();
    line(format!("<polyline points=\"{}\" fill=\"none\" stroke=\"#2468b0\" stroke-width=\"1.5\"/>", points.join(" ")));
    if snr_db.len() <= 100 {
        for (i, db) in snr_db.iter().enumerate() {
            let colour = if bar_db.is_some_and(|bar| *db < bar) { "#c33" } else { "#2468b0" };
            line(format!("<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\" fill=\"{colour}\"/>", x(i), y(*db)));
        }
    }
    out + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_is_drawn_inside() {
        let picture = svg("a < b", &[60.0, 44.0, 61.5], Some(45.0));
        assert!(picture.contains("a &lt; b") && picture.contains("bar 45 dB"));
        assert_eq!(picture.matches("<circle").count(), 3);
        assert_eq!(picture.matches("fill=\"#c33\"/>").count(), 1, "one chunk is below the bar");
        let points = picture.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        for point in points.split(' ') {
            let (x, y) = point.split_once(',').unwrap();
            let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
            assert!((LEFT..SIZE.0 - RIGHT).contains(&x) && (TOP..=SIZE.1 - BOTTOM).contains(&y));
        }
    }
}
