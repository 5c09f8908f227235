//! Errors of blocks as bars, and SNR against bits as a line; both axes that span decades are logarithmic.

use std::fmt::Write as _;

use super::super::Made;

/// Relative errors as bars on a logarithmic axis: ‖stored − whole‖ / ‖whole‖ of each block.
pub(super) fn bars(blocks_db: &[f64]) -> String {
    const HEIGHT: f64 = 160.0;
    const LEFT: f64 = 50.0;
    // 20 dB are a factor of ten.
    let decades: Vec<f64> = blocks_db.iter().map(|db| -db / 20.0).collect();
    // Exact blocks have no bar; they would stretch the axis.
    let seen = || decades.iter().copied().filter(|d| *d > -16.0);
    let top = seen().reduce(f64::max).unwrap_or(0.0).ceil();
    let bottom = seen().reduce(f64::min).unwrap_or(-1.0).floor().min(top - 1.0);
    let y = |decade: f64| 10.0 + HEIGHT * (top - decade) / (top - bottom);
    let step = (760.0 / decades.len().max(1) as f64).min(60.0);
    let mut svg =
        String::from("<svg viewBox=\"0 0 820 210\" width=\"820\" height=\"210\" role=\"img\" font-size=\"11\">\n");
    for decade in bottom as i32..=top as i32 {
        let at = y(f64::from(decade));
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"815\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" \
             text-anchor=\"end\">1e{decade}</text>",
            LEFT - 4.0,
            at + 4.0
        );
    }
    for (i, (decade, db)) in decades.iter().zip(blocks_db).enumerate() {
        let (x, at) = (LEFT + 4.0 + step * i as f64, y(decade.max(bottom)));
        let _ = writeln!(
            svg,
            "<rect class=\"mark\" x=\"{x:.1}\" y=\"{at:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#4878a8\"><title>block {i}: \
             relative error {:.2e}, {db:.1} dB</title></rect><text x=\"{:.1}\" y=\"196\" text-anchor=\"middle\">{i}</text>",
            step * 0.8,
            10.0 + HEIGHT - at,
            10f64.powf(*decade),
            x + step * 0.4
        );
    }
    svg + "</svg>\n"
}

/// Predicted SNR against mean bits, and the plan as a dot. Bits are on a logarithmic axis, as decibels are by themselves.
pub(super) fn pareto(made: &Made) -> String {
    let elements: u64 = 8 * made.whole_bytes / 16;
    let bits = |bytes: u64| 8.0 * bytes as f64 / elements.max(1) as f64;
    let points: Vec<(f64, f64)> = made.pareto.iter().map(|p| (bits(p.bytes), p.snr_db)).collect();
    let plan = made.plan.snr_db.map(|db| (bits(made.plan.weight_bytes), db));
    let all = || points.iter().chain(&plan);
    let range = |of: fn(&(f64, f64)) -> f64| {
        let (low, high) = all().map(of).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(x), h.max(x)));
        (low, (high - low).max(1e-9))
    };
    let ((left, width), (bottom, height)) = (range(|p| p.0.log2()), range(|p| p.1));
    let x = |b: f64| 50.0 + 740.0 * (b.log2() - left) / width;
    let y = |db: f64| 250.0 - 220.0 * (db - bottom) / height;
    let line: Vec<String> = points.iter().map(|(b, db)| format!("{:.1},{:.1}", x(*b), y(*db))).collect();
    let mut svg =
        String::from("<svg viewBox=\"0 0 820 290\" width=\"820\" height=\"290\" role=\"img\" font-size=\"11\">\n");
    for ticked in [0.5f64, 1.0, 2.0, 4.0, 8.0, 16.0].into_iter().filter(|b| (left..=left + width).contains(&b.log2())) {
        let at = x(ticked);
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"30\" y2=\"262\" stroke=\"#ddd\"/><text x=\"{at:.1}\" y=\"278\" \
             text-anchor=\"middle\">{ticked} bits</text>"
        );
    }
    let _ =
        writeln!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"#4878a8\" stroke-width=\"2\"/>", line.join(" "));
    for (b, db) in &points {
        let _ = writeln!(
            svg,
            "<circle class=\"mark\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"#4878a8\"><title>{b:.2} bits, {db:.1} dB \
             (predicted)</title></circle>",
            x(*b),
            y(*db)
        );
    }
    if let Some((b, db)) = plan {
        let _ = writeln!(
            svg,
            "<circle class=\"mark\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"6\" fill=\"#c04030\"><title>this plan: {b:.2} bits, {db:.1} dB \
             (measured)</title></circle>",
            x(b),
            y(db)
        );
    }
    for db in [bottom, bottom + height] {
        let _ = writeln!(svg, "<text x=\"2\" y=\"{:.1}\">{db:.0} dB</text>", y(db) + 4.0);
    }
    svg + "</svg>\n"
}
