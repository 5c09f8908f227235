//! Phase 2: where the blocks go.

use anyhow::{Result, bail};
use serde::Serialize;

use super::Budgets;
use super::scores::Scores;
use super::table::{Cost, Table};

/// Blocks with a place: kinds by their number in the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Placed {
    /// The kind of each group.
    #[serde(skip)]
    pub kinds: Vec<usize>,
    /// The layers in one line.
    pub sandwich: String,
    /// Cost, changes of stream included.
    pub cost: Cost,
    /// Sum of the qualities; 0 without scores.
    pub quality: f64,
}

/// Blocks of low resolution in a stage, about: as in the layout that the paper's figures fit.
const STAGE: usize = 5;

/// The paper's interleaving as a rule: stages of some five blocks of low resolution with runs of the others between them, shorter ones at both
/// ends, and kinds of the others taking turns.
#[must_use]
pub fn interleaved(table: &Table, counts: &[usize]) -> Placed {
    let low = table.low().filter(|low| counts[*low] > 0);
    let lows = low.map_or(0, |low| counts[low]);
    let mut high = mixed(counts, low);
    let stages = if lows == 0 { 0 } else { (lows as f64 / STAGE as f64).round().max(1.0) as usize };
    let stages = stages.min(high.len().saturating_sub(1).max(1)).min(lows.max(1));
    let mut kinds = Vec::new();
    if let Some(low) = low {
        let runs = runs(high.len(), stages + 1);
        for (stage, run) in runs.into_iter().enumerate() {
            kinds.extend(high.drain(..run));
            if stage < stages {
                // The later stages take what does not divide.
                let size = lows / stages + usize::from(stages - stage <= lows % stages);
                kinds.extend(std::iter::repeat_n(low, size));
            }
        }
    } else {
        kinds = high;
    }
    placed(table, kinds, 0.0)
}

/// So many blocks in so many runs: the first and the last take less where it does not divide.
fn runs(blocks: usize, runs: usize) -> Vec<usize> {
    let mut sizes = vec![blocks / runs; runs];
    let inner = (1..runs.saturating_sub(1)).chain([0, runs - 1]);
    inner.take(blocks % runs).for_each(|run| sizes[run] += 1);
    sizes
}

/// The blocks of all kinds but one, taking turns.
fn mixed(counts: &[usize], without: Option<usize>) -> Vec<usize> {
    let wanted: Vec<(usize, usize)> =
        counts.iter().copied().enumerate().filter(|(kind, n)| Some(*kind) != without && *n > 0).collect();
    let all: usize = wanted.iter().map(|(_, n)| n).sum();
    let mut placed = vec![0usize; counts.len()];
    (1..=all)
        .filter_map(|so_far| {
            let behind = |&&(kind, n): &&(usize, usize)| {
                let due = n as f64 * so_far as f64 / all as f64 - placed[kind] as f64;
                (1e6 * due) as i64
            };
            let &(kind, _) = wanted.iter().filter(|(kind, n)| placed[*kind] < *n).rev().max_by_key(behind)?;
            placed[kind] += 1;
            Some(kind)
        })
        .collect()
}

/// A state of the search: what a layout of the first groups costs and is worth. What is worse in every way is dropped.
#[derive(Clone)]
struct State {
    cost: Cost,
    quality: f64,
    kinds: Vec<usize>,
}

/// The layout of the highest quality that keeps both budgets, exactly, and the layouts that no other beats in latency, memory and quality at once.
///
/// # Errors
/// Budgets that no layout keeps.
pub fn best(table: &Table, budgets: Budgets, scores: &Scores) -> Result<(Placed, Vec<Placed>)> {
    let low = table.low();
    let start = State { cost: table.fixed, quality: 0.0, kinds: Vec::new() };
    // By the kind of the last group, which decides whether the next one changes the stream.
    let mut states: Vec<Vec<State>> = vec![Vec::new(); table.kinds.len()];
    for (group, qualities) in scores.by_kind(table).into_iter().enumerate() {
        let mut next: Vec<Vec<State>> = vec![Vec::new(); table.kinds.len()];
        for (kind, quality) in qualities.into_iter().enumerate() {
            let before: Vec<(Option<usize>, &State)> = match group {
                0 => vec![(None, &start)],
                _ => {
                    states.iter().enumerate().flat_map(|(last, all)| all.iter().map(move |s| (Some(last), s))).collect()
                }
            };
            let reached = before.into_iter().map(|(last, state)| {
                let enters = Some(kind) == low && last != low;
                let switch = if enters { table.switch } else { Cost::default() };
                let mut kinds = state.kinds.clone();
                kinds.push(kind);
                State { cost: state.cost + table.kinds[kind].cost + switch, quality: state.quality + quality, kinds }
            });
            next[kind] = undominated(reached.filter(|state| budgets.keep(state.cost)).collect());
        }
        states = next;
    }
    let front = undominated(states.into_iter().flatten().collect());
    let Some(most) = front.iter().reduce(|a, b| if b.quality > a.quality { b } else { a }) else {
        let counts = super::closest(table, budgets, scores.groups())?;
        bail!(
            "no layout keeps both budgets once its changes of stream are counted: counts alone take {:.0} of {} ms and {:.0} of {} MB",
            counts.cost.latency_ms,
            budgets.latency_ms,
            counts.cost.memory_mb,
            budgets.memory_mb
        )
    };
    let most = placed(table, most.kinds.clone(), most.quality);
    let front = front.into_iter().map(|state| placed(table, state.kinds, state.quality)).collect();
    Ok((most, front))
}

/// The states that no other is as good as in every way, the fastest first.
fn undominated(mut states: Vec<State>) -> Vec<State> {
    states.sort_by(|a, b| {
        let by = a.cost.latency_ms.total_cmp(&b.cost.latency_ms).then(b.quality.total_cmp(&a.quality));
        by.then(a.cost.memory_mb.total_cmp(&b.cost.memory_mb))
    });
    let mut kept: Vec<State> = Vec::new();
    for state in states {
        let beaten = |other: &State| other.quality >= state.quality && other.cost.memory_mb <= state.cost.memory_mb;
        if !kept.iter().any(beaten) {
            kept.push(state);
        }
    }
    kept
}

fn placed(table: &Table, kinds: Vec<usize>, quality: f64) -> Placed {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &kind in &kinds {
        match runs.last_mut() {
            Some((last, n)) if *last == kind => *n += 1,
            _ => runs.push((kind, 1)),
        }
    }
    let named: Vec<String> = runs.iter().map(|(kind, n)| format!("{n}×{}", table.kinds[*kind].name)).collect();
    Placed { cost: table.of_layout(&kinds), sandwich: named.join(", "), quality, kinds }
}
