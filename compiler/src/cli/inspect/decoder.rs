//! The folder of a decoder as text.

use std::fmt::Write;

use anyhow::Result;

use super::kernel::{functions, states};
use crate::cli::terminal::one_line;
use crate::inspect::DecoderReport;
use s2dit_files::size;

/// The report for people.
pub(super) fn text(d: &DecoderReport) -> Result<String> {
    let quantized =
        d.quantize.as_ref().map(|scheme| format!(", weights quantized ({})", one_line(scheme))).unwrap_or_default();
    let compute = d.compute.as_ref().map(|engine| format!(" for {}", one_line(engine))).unwrap_or_default();
    let mut out = format!(
        "decoder {}: {}{compute}, {}{quantized}, {}, by {}\n{}\n\n",
        one_line(&d.path),
        d.target,
        d.precision,
        size(d.bytes),
        one_line(&d.compiler),
        one_line(&d.checkpoint)
    );
    let [_, c, f, h, w] = d.chunk.shape();
    writeln!(
        out,
        "a call takes a latent of {c}×{f}×{h}×{w} and makes {} frames of {}×{}; the first one {}",
        d.video.next_frames, d.video.rows, d.video.cols, d.video.first_frames
    )?;
    functions(&mut out, &d.functions, "states", |name| {
        let state = name.strip_suffix("_out").unwrap_or(name);
        d.states.iter().any(|s| s.name == state)
    })?;
    states(&mut out, &d.states, d.state_bytes)?;
    Ok(out)
}
