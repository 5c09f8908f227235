//! The search for a layout under budgets (S2DiT, arXiv 2601.12719, §3.3): first how many blocks of each kind, then where.

mod counts;
mod html;
mod places;
mod probe;
mod scores;
mod table;

use anyhow::{Result, bail};
use serde::Serialize;

pub use counts::{Counts, closest, combinations};
pub use html::page;
pub use places::{Placed, best, interleaved};
pub use probe::probe;
pub use scores::Scores;
pub use table::{Cost, KindCost, Table};

/// What a step may take.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Budgets {
    /// Milliseconds of a denoising step.
    pub latency_ms: f64,
    /// Megabytes with everything loaded.
    pub memory_mb: f64,
}

impl Budgets {
    /// Whether a cost keeps both.
    #[must_use]
    pub fn keep(&self, cost: Cost) -> bool {
        cost.latency_ms <= self.latency_ms && cost.memory_mb <= self.memory_mb
    }

    /// Squared distance of a cost from the budgets, each in parts of the budget.
    #[must_use]
    pub fn distance(&self, cost: Cost) -> f64 {
        let left = [1.0 - cost.latency_ms / self.latency_ms, 1.0 - cost.memory_mb / self.memory_mb];
        left.iter().map(|x| x * x).sum()
    }
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// Kind of each block, in order.
    pub layout: Vec<String>,
    /// Blocks of each kind, in the table's order.
    pub counts: serde_json::Map<String, serde_json::Value>,
    /// Cost of the layout, changes of stream included.
    pub cost: Cost,
    /// Sum of the qualities, if there were scores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality: Option<f64>,
    /// How places were chosen: `scores`, or `interleaved`, which is a rule and no measurement.
    pub places: &'static str,
    /// The budgets.
    pub budgets: Budgets,
    /// What the blocks cost.
    pub table: Table,
    /// Counts by the first phase, without changes of stream: the closest to the budgets.
    pub closest: Counts,
    /// Every choice of counts for two kinds, or the nearest ones of more: what the picture shows.
    pub choices: Vec<Counts>,
    /// With scores: layouts that no other beats in latency, memory and quality.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub front: Vec<Placed>,
}

/// The choices that a picture shows at most.
const MOST_CHOICES: usize = 2000;

/// Searches a layout of `blocks` blocks in groups of `group`.
///
/// # Errors
/// Budgets that no layout keeps: the smallest that one does; a group that does not divide the blocks; scores of other groups.
pub fn search(table: &Table, budgets: Budgets, blocks: usize, group: usize, scores: Option<&Scores>) -> Result<Found> {
    if group == 0 || !blocks.is_multiple_of(group) {
        bail!("--group {group}: found {blocks} blocks, expected a multiple of the group");
    }
    let groups = blocks / group;
    // A group is a block of so many times the cost.
    let grouped = table.times(group as f64);
    let closest = closest(&grouped, budgets, groups)?;
    let (placed, front) = match scores {
        Some(scores) => {
            scores.check(table, groups)?;
            best(&grouped, budgets, scores)?
        }
        None => (fitting(&grouped, budgets, groups, &closest)?, Vec::new()),
    };
    let layout: Vec<String> =
        (placed.kinds.iter()).flat_map(|&kind| std::iter::repeat_n(table.kinds[kind].name.clone(), group)).collect();
    let count = |name: &str| layout.iter().filter(|kind| *kind == name).count();
    let counts = table.kinds.iter().map(|kind| (kind.name.clone(), count(&kind.name).into())).collect();
    Ok(Found {
        counts,
        layout,
        cost: placed.cost,
        quality: scores.map(|_| placed.quality),
        places: if scores.is_some() { "scores" } else { "interleaved" },
        budgets,
        table: table.clone(),
        choices: combinations(&grouped, groups, MOST_CHOICES, budgets),
        closest,
        front,
    })
}

/// The interleaving of the closest counts whose layout keeps the budgets with its changes of stream: where those of the first phase do not,
/// of the next closest that do.
fn fitting(table: &Table, budgets: Budgets, groups: usize, first: &Counts) -> Result<Placed> {
    let placed = interleaved(table, &first.counts);
    if budgets.keep(placed.cost) {
        return Ok(placed);
    }
    // Budgets without what changes of stream take, until a layout fits.
    let mut left = budgets;
    for _ in 0..=groups {
        left.latency_ms -= table.switch.latency_ms.max(1e-3 * budgets.latency_ms);
        left.memory_mb -= table.switch.memory_mb;
        let counts = closest(table, left, groups)?;
        let placed = interleaved(table, &counts.counts);
        if budgets.keep(placed.cost) {
            return Ok(placed);
        }
    }
    bail!("no interleaved layout keeps both budgets once its changes of stream are counted: raise them a little")
}

#[cfg(test)]
mod tests;
