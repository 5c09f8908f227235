//! An estimate for people.

use std::fmt::Write as _;
use std::path::Path;

use s2dit_estimate::fit::Fitted;
use s2dit_estimate::{Estimate, FunctionEstimate, PartEstimate, Range};
use s2dit_files::size;

use crate::cli::progress::count;

/// Functions with more parts than this show runs of equal ones as one line.
const LINES: usize = 12;

/// `210 (130–420)`
pub(in crate::cli) fn range(r: Range) -> String {
    format!("{} ({}–{})", figure(r.likely), figure(r.low), figure(r.high))
}

/// Two significant digits, so that nothing looks more exact than it is.
fn figure(x: f64) -> String {
    if x <= 0.0 || !x.is_finite() {
        return "0".into();
    }
    let digits = 1 - x.log10().floor() as i32;
    let unit = 10f64.powi(-digits);
    format!("{:.*}", digits.max(0) as usize, (x / unit).round() * unit)
}

/// An estimate in one line.
pub(in crate::cli) fn brief(e: &Estimate) -> String {
    let fps = e.frames_per_second.map_or(String::new(), |fps| format!(", {} frames a second", range(fps)));
    format!(
        "{}: step {} ms, {} {} ms{fps}, {} of memory",
        e.subject.name,
        range(e.step_ms),
        if e.subject.streams { "chunk" } else { "clip" },
        range(e.chunk_ms),
        size(e.peak_memory_bytes)
    )
}

/// An estimate.
pub(super) fn report(e: &Estimate, all: bool) -> String {
    let mut out = String::new();
    let about = &e.subject;
    let _ = writeln!(out, "{} {} on {}", about.what, about.name, e.device);
    if let Some(model) = &about.model {
        let latent = about.latent.as_deref().unwrap_or("as it is");
        let _ = writeln!(out, "{model}; latent {latent}, weights {}", about.weights);
    }
    let _ = writeln!(out, "\nlikely (best–worst of what is known of the engine)");
    let row = |out: &mut String, name: &str, value: String| writeln!(out, "  {name:<20} {value}");
    let _ = row(&mut out, "step", format!("{} ms, bound by {}", range(e.step_ms), e.bound_by.name()));
    let calls: Vec<String> =
        e.functions.iter().filter(|f| f.calls > 0).map(|f| format!("{} × {}", f.calls, f.name)).collect();
    let other = if e.other_ms > 0.0 { format!(" + {} ms outside", figure(e.other_ms)) } else { String::new() };
    let what = if about.streams { "chunk" } else { "clip" };
    let _ = row(&mut out, what, format!("{} ms = {}{other}", range(e.chunk_ms), calls.join(" + ")));
    if let (Some(fps), Some(frames)) = (e.frames_per_second, e.frames_per_chunk) {
        let _ = row(&mut out, "frames a second", format!("{}, {frames} frames a {what}", range(fps)));
    }
    let m = e.memory;
    let parts = format!(
        "{} = weights {} + inputs and states {} + activations {}",
        size(m.all_loaded),
        size(m.weights),
        size(m.inputs),
        size(m.activations)
    );
    let _ = row(&mut out, "memory, all loaded", parts);
    let _ = row(&mut out, "one at a time", size(m.one_at_a_time));
    let _ = row(&mut out, "package", size(e.package_bytes));
    let _ = row(&mut out, "first load", format!("{} s, if the phone compiles it", range(e.first_load_s)));
    for f in &e.functions {
        function(f, all, &mut out);
    }
    out.push('\n');
    for note in &e.notes {
        let _ = writeln!(out, "note: {note}");
    }
    out
}

fn function(f: &FunctionEstimate, all: bool, out: &mut String) {
    let packages = if f.packages > 1 { format!(" in {} packages", f.packages) } else { String::new() };
    let _ = writeln!(
        out,
        "\n{}{packages}: {} ms, {} ops, {:.2} TFLOP, bound by {}",
        f.name,
        range(f.ms),
        f.ops,
        f.flops as f64 / 1e12,
        f.bound_by.name()
    );
    let groups = if all || f.parts.len() <= LINES { singles(&f.parts) } else { grouped(&f.parts) };
    for (name, parts) in groups {
        let ms = parts.iter().map(|p| p.ms).sum::<Range>();
        let (ops, flops): (usize, u64) = parts.iter().fold((0, 0), |(o, f), p| (o + p.ops, f + p.flops));
        let kind = if parts[0].kind.is_empty() { String::new() } else { format!(" {}", parts[0].kind) };
        let _ = writeln!(
            out,
            "  {:<22} {:>16} ms {:>5} ops {:>9}FLOP  {}",
            format!("{name}{kind}"),
            range(ms),
            ops,
            count(flops),
            parts[0].bound_by.name()
        );
    }
    let kinds: Vec<String> =
        f.kinds.iter().take(6).map(|k| format!("{} × {} {} ms", k.ops, k.op, figure(k.ms.likely))).collect();
    let _ = writeln!(out, "  longest ops: {}", kinds.join(", "));
    for op in f.slowest.iter().filter(|_| all) {
        let at = format!("{} {}", op.op, op.ty);
        let _ = writeln!(out, "    {:<44} {:>16} ms  {:<12} {}", at, range(op.ms), op.bound_by.name(), op.name);
    }
}

fn singles(parts: &[PartEstimate]) -> Vec<(String, Vec<&PartEstimate>)> {
    parts.iter().map(|part| (part.name.clone(), vec![part])).collect()
}

/// Blocks of one kind together, everything else by itself.
fn grouped(parts: &[PartEstimate]) -> Vec<(String, Vec<&PartEstimate>)> {
    let mut groups: Vec<(String, Vec<&PartEstimate>)> = Vec::new();
    for part in parts {
        let same = |(_, found): &(String, Vec<&PartEstimate>)| !part.kind.is_empty() && found[0].kind == part.kind;
        match groups.iter().position(same) {
            Some(at) => groups[at].1.push(part),
            None => groups.push((part.name.clone(), vec![part])),
        }
    }
    for (name, found) in &mut groups {
        if found.len() > 1 {
            *name = format!("{} ×", found.len());
        }
    }
    groups
}

/// What a fit changed.
pub(super) fn fitted(out: &Path, fitted: &Fitted) -> String {
    let mut text = format!("{}: {}, from {}\n", out.display(), fitted.device.name, fitted.told);
    for row in &fitted.changed {
        let _ = writeln!(text, "  {:<18} {} → {}", row.name, figure(row.before), figure(row.after));
    }
    let _ = write!(
        text,
        "  error of a call    {:.0} % → {:.0} % (median)",
        100.0 * fitted.error_before,
        100.0 * fitted.error_after
    );
    text
}

#[cfg(test)]
mod tests {
    use super::figure;

    #[test]
    fn figures_have_two_digits() {
        for (x, text) in [(0.0, "0"), (0.01234, "0.012"), (1.26, "1.3"), (12.6, "13"), (531.0, "530"), (99.6, "100")] {
            assert_eq!(figure(x), text);
        }
    }
}
