//! The report on an imported graph, for people.

use std::fmt::Write;

use anyhow::Result;

use super::{costs, recognised};
use crate::cli::progress::count;
use crate::cli::terminal::one_line;
use crate::inspect::GraphReport;
use s2dit_files::size;

/// The report on a graph.
pub(super) fn text(g: &GraphReport) -> Result<String> {
    let dtypes: Vec<String> = g.dtypes.iter().map(|(dtype, n)| format!("{n} {dtype}")).collect();
    let mut out = format!(
        "graph {}: {}, {} parameters, {} in {} file(s), tensors: {}\n{}\n",
        one_line(&g.path),
        one_line(&g.format),
        count(g.parameters),
        size(g.bytes),
        g.files,
        dtypes.join(", "),
        g.hash
    );
    for lora in &g.loras {
        writeln!(out, "merged {} × {} into {} tensors", one_line(&lora.file), lora.scale, lora.tensors)?;
    }
    for (title, flag, list) in [("input", "--input", &g.inputs), ("result", "--result", &g.outputs)] {
        for v in list {
            let guess = if v.guessed {
                format!("  (guessed; {flag} ROLE={} says another)", one_line(&v.name))
            } else {
                String::new()
            };
            writeln!(out, "  {title:<7} {:<22} {:<24} {}{guess}", one_line(&v.name), v.ty, v.role)?;
        }
    }
    match (g.blocks.first(), g.blocks.last()) {
        (Some(first), Some(last)) => {
            writeln!(out, "{} ops; {} blocks, {} to {}", g.ops, g.blocks.len(), one_line(first), one_line(last))?;
        }
        _ => writeln!(out, "{} ops; no blocks: no list of modules that each hand on one value", g.ops)?,
    }
    costs(&g.costs, &mut out)?;
    recognised(&g.recognised, &mut out)?;
    Ok(out)
}
