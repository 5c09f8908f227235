//! A table of blocks from estimates: what one block more of a kind adds to the step.

use anyhow::{Context, Result};
use s2dit_models::config::with_overrides;
use s2dit_models::model::Model;

use super::table::{Cost, KindCost, LOW, Table};
use crate::device::Device;
use crate::estimate::estimate;
use crate::subject::{self, Options};

/// The likely cost of each kind of block in a model on a device. Each is a difference: three blocks of the kind against two; a change of stream
/// is what two runs of low resolution cost more than one of as many blocks.
///
/// # Errors
/// A model whose configuration has no `layout`; a kind that it does not have; a latent that does not fit.
pub fn probe(model: &dyn Model, kinds: &[String], device: &Device, options: &Options) -> Result<Table> {
    let cost = |layout: &[&str]| -> Result<Cost> {
        let names: Vec<String> = layout.iter().map(|kind| format!("\"{kind}\"")).collect();
        let changed = with_overrides(model, &[format!("layout=[{}]", names.join(","))])
            .context("a search changes the field `layout` of the configuration")?;
        let subject = subject::model(&*changed, "configuration", "probe", options)?;
        let made = estimate(&subject, device, 0.0);
        Ok(Cost { latency_ms: made.step_ms.likely, memory_mb: made.memory.all_loaded as f64 / 1e6 })
    };
    let mut table = Vec::new();
    for kind in kinds {
        let more = cost(&[kind.as_str(); 3])? - cost(&[kind.as_str(); 2])?;
        table.push(KindCost { name: kind.clone(), cost: positive(more) });
    }
    let first = kinds.iter().find(|kind| *kind != LOW).or(kinds.first()).context("no kinds")?.as_str();
    let of = |name: &str| table.iter().find(|k| k.name == name).map(|k| k.cost).unwrap_or_default();
    let fixed = positive(cost(&[first; 3])? - of(first).times(3.0));
    let switch = match kinds.iter().any(|kind| kind == LOW) && first != LOW {
        true => positive(cost(&[first, LOW, first, LOW, first])? - cost(&[first, first, LOW, LOW, first])?),
        false => Cost::default(),
    };
    Ok(Table { source: format!("estimated for {}", device.name), kinds: table, fixed, switch })
}

/// Without what differences of estimates may be below zero.
fn positive(cost: Cost) -> Cost {
    Cost { latency_ms: cost.latency_ms.max(0.0), memory_mb: cost.memory_mb.max(0.0) }
}
