//! A kernel folder as text.

use std::fmt::Write;

use anyhow::Result;
use s2dit_files::size;
use s2dit_runtime::stream::contract::{KernelSampler, Port, StateWrite};

use crate::cli::terminal::one_line;
use crate::inspect::{FunctionReport, KernelReport, StateReport};

/// The report for people.
pub(super) fn text(k: &KernelReport) -> Result<String> {
    let quantized =
        k.quantize.as_ref().map(|scheme| format!(", weights quantized ({})", one_line(scheme))).unwrap_or_default();
    let mut out = format!(
        "kernel {}: {}{quantized}, {}, by {}\n",
        one_line(&k.path),
        k.summary,
        size(k.bytes),
        one_line(&k.compiler)
    );
    writeln!(out, "{}", one_line(&k.checkpoint))?;
    if let Some(systems) = &k.minimum_os {
        writeln!(out, "needs {systems} or later")?;
    }
    out.push('\n');
    let [_, c, f, h, w] = k.chunk.shape();
    let windows = match (k.window_frames, k.sink_frames) {
        (0, 0) => "no windows".to_owned(),
        (n, 0) => format!("windows hold the last {n} latent frames"),
        (n, sinks) => format!("windows hold the last {n} latent frames and the stream's first {sinks}"),
    };
    writeln!(out, "a chunk is {c}×{f}×{h}×{w}; {windows}; prompts {}×{}", k.text.tokens, k.text.dim)?;
    let KernelSampler::FlowMatchingAr { timesteps, .. } = &k.sampler;
    let steps: Vec<String> = timesteps.iter().map(|t| format!("{t:.1}")).collect();
    let only = if k.timesteps.is_some() { " and no others" } else { "" };
    let writes = match k.state_write {
        StateWrite::Commit => "then `commit` writes the states",
        StateWrite::LastStep => "the last of which is `last_step` and writes the states",
    };
    writeln!(out, "{} steps a chunk, at {}{only}, {writes}", steps.len(), steps.join(", "))?;
    // States and what the host computes are many, and listed once below.
    functions(&mut out, &k.functions, "states and host inputs", |name| {
        let state = name.strip_suffix("_out").unwrap_or(name);
        k.states.iter().any(|s| s.name == state) || k.host_inputs.iter().any(|(host, _)| host == name)
    })?;
    writeln!(out, "\nhost inputs")?;
    for (name, kind) in &k.host_inputs {
        writeln!(out, "  {:<24} {kind}", one_line(name))?;
    }
    states(&mut out, &k.states, k.state_bytes)?;
    Ok(out)
}

/// Functions with what they take and return, but for what is `listed` elsewhere; `inputs` says what such inputs are.
pub(super) fn functions(
    out: &mut String,
    functions: &[FunctionReport],
    inputs: &str,
    listed: impl Fn(&str) -> bool,
) -> Result<()> {
    for function in functions {
        writeln!(
            out,
            "\n{}: `{}` of {}",
            function.name,
            one_line(&function.function),
            one_line(&function.files.join(", "))
        )?;
        let kinds = [("input", inputs, &function.inputs), ("output", "states", &function.outputs)];
        for (what, rest, ports) in kinds {
            let (others, shown): (Vec<&Port>, Vec<&Port>) = ports.iter().partition(|p| listed(&p.name));
            for p in shown {
                writeln!(out, "  {what:<7} {:<16} {}{:?}", one_line(&p.name), p.dtype, p.shape)?;
            }
            if !others.is_empty() {
                writeln!(out, "  {what:<7} and {} {rest}", others.len())?;
            }
        }
    }
    Ok(())
}

/// States, and the bytes of all of them.
pub(super) fn states(out: &mut String, states: &[StateReport], bytes: u64) -> Result<()> {
    writeln!(out, "\n{} states, {}", states.len(), size(bytes))?;
    for s in states {
        let shape = format!("{}{:?}", s.dtype, s.shape);
        writeln!(out, "  {:<24} {shape:<28} {:>10}  {}", one_line(&s.name), size(s.bytes), one_line(&s.meaning))?;
    }
    Ok(())
}
