//! Phase 1: how many blocks of each kind.

use anyhow::{Result, bail};
use serde::Serialize;

use super::Budgets;
use super::table::{Cost, Table};

/// Blocks of each kind, in the table's order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Counts {
    /// Blocks of each kind.
    pub counts: Vec<usize>,
    /// Their cost and the step's own, without changes of stream.
    pub cost: Cost,
}

/// The counts of `blocks` blocks that keep both budgets and come closest to them, exactly.
///
/// Kinds are decided one after the other; what is left to decide is a number of blocks and what the budgets have left. The last two kinds have
/// a closed form, since the distance is convex along their line, and a state is dropped if no mixture of the kinds that are left could come
/// closer than the best so far. Of equally close counts the first in the table's order wins, more of the earlier kinds first.
///
/// # Errors
/// Budgets that no counts keep.
pub fn closest(table: &Table, budgets: Budgets, blocks: usize) -> Result<Counts> {
    let costs: Vec<Cost> = table.kinds.iter().map(|kind| kind.cost).collect();
    let mut search = Search { costs: &costs, budgets, best: None, chosen: vec![0; costs.len()] };
    search.decide(0, blocks, table.fixed);
    match search.best {
        Some((_, counts)) => Ok(Counts { cost: table.of_counts(&counts), counts }),
        None => bail!("{}", too_small(table, budgets, blocks)),
    }
}

/// Distances that differ by less than this are the same: sums of the same numbers in another order.
const SAME: f64 = 1e-12;

struct Search<'a> {
    costs: &'a [Cost],
    budgets: Budgets,
    best: Option<(f64, Vec<usize>)>,
    chosen: Vec<usize>,
}

impl Search<'_> {
    /// Decides kinds from `kind` on for `left` blocks, when those before cost `spent`.
    fn decide(&mut self, kind: usize, left: usize, spent: Cost) {
        match self.costs.len() - kind {
            1 => {
                self.chosen[kind] = left;
                self.offer(spent + self.costs[kind].times(left as f64));
            }
            2 => self.last_two(kind, left, spent),
            _ if self.bound(kind, left, spent) => {
                for n in (0..=left).rev() {
                    self.chosen[kind] = n;
                    self.decide(kind + 1, left - n, spent + self.costs[kind].times(n as f64));
                }
            }
            _ => {}
        }
    }

    /// Along `a·n + b·(left − n)` the distance is a parabola in n, and what the budgets allow an interval.
    fn last_two(&mut self, kind: usize, left: usize, spent: Cost) {
        let (a, b) = (self.costs[kind], self.costs[kind + 1]);
        let (start, step) = (spent + b.times(left as f64), a - b);
        let room = [
            (self.budgets.latency_ms, start.latency_ms, step.latency_ms),
            (self.budgets.memory_mb, start.memory_mb, step.memory_mb),
        ];
        let (mut low, mut high) = (0.0f64, left as f64);
        let (mut slope, mut curve) = (0.0, 0.0);
        for (budget, start, step) in room {
            let at = (budget - start) / step;
            if step > 0.0 {
                high = high.min(at);
            } else if step < 0.0 {
                low = low.max(at);
            } else if start > budget {
                return;
            }
            let (rest, step) = (1.0 - start / budget, step / budget);
            slope += rest * step;
            curve += step * step;
        }
        let middle = if curve > 0.0 { slope / curve } else { high };
        // A unit of rounding on each side of the interval; `offer` looks again.
        let near = |x: f64| x.clamp(-1.0, left as f64 + 1.0) as i64;
        let mut seen = [near(low), near(high), near(middle.clamp(low.min(high), high.max(low)))]
            .into_iter()
            .flat_map(|n| n - 1..=n + 1)
            .filter(|n| (0..=left as i64).contains(n))
            .collect::<Vec<i64>>();
        seen.sort_unstable_by(|a, b| b.cmp(a));
        seen.dedup();
        for n in seen {
            let n = n as usize;
            (self.chosen[kind], self.chosen[kind + 1]) = (n, left - n);
            self.offer(spent + a.times(n as f64) + b.times((left - n) as f64));
        }
    }

    fn offer(&mut self, cost: Cost) {
        if !self.budgets.keep(cost) {
            return;
        }
        let distance = self.budgets.distance(cost);
        let better = match &self.best {
            None => true,
            Some((best, counts)) => {
                distance < best - SAME || (distance <= best + SAME && self.chosen > *counts && distance <= *best)
            }
        };
        if better {
            self.best = Some((distance, self.chosen.clone()));
        }
    }

    /// Whether the kinds that are left could lead to something that keeps the budgets and is closer than the best. `left` blocks cost at least
    /// and at most what all of the cheapest and the dearest kind cost, in each of the two.
    fn bound(&self, kind: usize, left: usize, spent: Cost) -> bool {
        let reach = |of: fn(&Cost) -> f64| {
            let each = self.costs[kind..].iter().map(of);
            let (low, high) = each.fold((f64::INFINITY, 0.0f64), |(l, h), x| (l.min(x), h.max(x)));
            (of(&spent) + low * left as f64, of(&spent) + high * left as f64)
        };
        let (latency, memory) = (reach(|c| c.latency_ms), reach(|c| c.memory_mb));
        let slack = 1.0 + SAME;
        if latency.0 > self.budgets.latency_ms * slack || memory.0 > self.budgets.memory_mb * slack {
            return false;
        }
        let nearest = Cost {
            latency_ms: latency.1.min(self.budgets.latency_ms),
            memory_mb: memory.1.min(self.budgets.memory_mb),
        };
        self.best.as_ref().is_none_or(|(best, _)| self.budgets.distance(nearest) <= best + SAME)
    }
}

/// What the smallest layouts take.
fn too_small(table: &Table, budgets: Budgets, blocks: usize) -> String {
    let least = |of: fn(&Cost) -> f64| {
        let kind = table.kinds.iter().min_by(|a, b| of(&a.cost).total_cmp(&of(&b.cost)));
        kind.map(|kind| (kind.name.as_str(), table.fixed + kind.cost.times(blocks as f64)))
    };
    let (Some((fast, fastest)), Some((small, smallest))) = (least(|c| c.latency_ms), least(|c| c.memory_mb)) else {
        return "no kinds of blocks".into();
    };
    format!(
        "no {blocks} blocks keep both budgets: found --budget-latency {} and --budget-memory {}, expected at least {:.0} ms ({blocks} × {fast}, \
         {:.0} MB) and {:.0} MB ({blocks} × {small}, {:.0} ms)",
        budgets.latency_ms,
        budgets.memory_mb,
        fastest.latency_ms.ceil(),
        fastest.memory_mb.ceil(),
        smallest.memory_mb.ceil(),
        smallest.latency_ms.ceil()
    )
}

/// Every choice of counts, or if there are more than `most` the closest ones to the budgets along each first count.
#[must_use]
pub fn combinations(table: &Table, blocks: usize, most: usize, budgets: Budgets) -> Vec<Counts> {
    let kinds = table.kinds.len();
    let mut all = Vec::new();
    let mut number = 1.0;
    for i in 0..kinds.saturating_sub(1) {
        number *= (blocks + i + 1) as f64 / (i + 1) as f64;
    }
    if number <= most as f64 {
        let mut counts = vec![0; kinds];
        each(&mut counts, 0, blocks, &mut |counts| {
            all.push(Counts { counts: counts.to_vec(), cost: table.of_counts(counts) });
        });
        return all;
    }
    // The first kind at every count, the others as close as they come.
    let rest = Table { kinds: table.kinds[1..].to_vec(), ..table.clone() };
    for n in 0..=blocks {
        let fixed = table.fixed + table.kinds[0].cost.times(n as f64);
        if let Ok(found) = closest(&Table { fixed, ..rest.clone() }, budgets, blocks - n) {
            let counts: Vec<usize> = std::iter::once(n).chain(found.counts).collect();
            all.push(Counts { cost: table.of_counts(&counts), counts });
        }
    }
    all
}

/// Calls `then` with every way to give `left` blocks to the kinds from `kind` on.
pub(super) fn each(counts: &mut Vec<usize>, kind: usize, left: usize, then: &mut dyn FnMut(&[usize])) {
    if kind + 1 == counts.len() {
        counts[kind] = left;
        return then(counts);
    }
    for n in 0..=left {
        counts[kind] = n;
        each(counts, kind + 1, left - n, then);
    }
}
