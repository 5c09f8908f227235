//! One-dimensional k-means, solved exactly.
//!
//! The points are sorted and distinct, so that clusters are intervals. With prefix sums W of the weights and S of weight ×
//! value, the squared error of a cluster is a constant less (ΔS)²/ΔW: a clustering is best when the sum of these gains is
//! largest. `best[k][i]`, the largest gain of the first i points in k clusters, is the maximum over j of `best[k−1][j] +
//! gain(j, i)`. The gain satisfies the quadrangle inequality, so the smallest best j grows with i and with k
//! (F. F. Yao, *Efficient dynamic programming using quadrangle inequalities*, 1980): a row is filled from its middle, which
//! bounds what is left and right of it, in O(n log n).

/// Below this many points a row is filled by one thread.
const PARALLEL: usize = 4096;

/// Columns, or starts, that are looked at together.
const LANES: usize = 8;

/// Buffers that one clustering leaves to the next.
#[derive(Default)]
pub(super) struct Solver {
    weight: Vec<f64>,
    moment: Vec<f64>,
    before: Vec<f64>,
    best: Vec<f64>,
    /// Row k, column i: where the last of k clusters of the first i points starts.
    starts: Vec<u16>,
}

impl Solver {
    /// Where the clusters end that minimise the weighted squared error, ascending; the last end is the number of points.
    ///
    /// `values` ascend strictly, fewer than 2^16; `weights` are positive. There are as many clusters as points if `k` is
    /// larger.
    pub(super) fn cluster(&mut self, values: &[f64], weights: &[f64], k: usize) -> Vec<usize> {
        let n = values.len();
        if k >= n {
            return (1..=n).collect();
        }
        self.weight.clear();
        self.moment.clear();
        let (mut w, mut s) = (0.0, 0.0);
        self.weight.push(0.0);
        self.moment.push(0.0);
        for (x, m) in values.iter().zip(weights) {
            w += m;
            s += m * x;
            self.weight.push(w);
            self.moment.push(s);
        }
        let columns = n + 1;
        self.starts.clear();
        self.starts.resize(k * columns, 0);
        self.before.clear();
        self.before.resize(columns, 0.0);
        self.best.clear();
        self.best.resize(columns, 0.0);
        let sums = Sums { weight: &self.weight, moment: &self.moment };
        for i in 1..=n {
            self.before[i] = sums.gain(0, i);
        }
        for row in 1..k {
            let (above, here) = self.starts.split_at_mut(row * columns);
            let above = &above[(row - 1) * columns..];
            // Only the last column of the last row is needed, and no cluster is empty.
            let first = if row + 1 == k { n } else { row + 1 };
            let last = n - (k - 1 - row);
            let level = Row { sums, before: &self.before, above };
            let (best, starts) = (&mut self.best[first..=last], &mut here[first..=last]);
            level.fill(best, starts, first, row, last - 1);
            std::mem::swap(&mut self.before, &mut self.best);
        }
        let mut ends = vec![n; k];
        for row in (1..k).rev() {
            ends[row - 1] = usize::from(self.starts[row * columns + ends[row]]);
        }
        ends
    }

    /// The weighted mean of some points.
    pub(super) fn mean(values: &[f64], weights: &[f64]) -> f64 {
        let w: f64 = weights.iter().sum();
        values.iter().zip(weights).map(|(x, m)| x * m).sum::<f64>() / w
    }
}

#[derive(Clone, Copy)]
struct Sums<'a> {
    weight: &'a [f64],
    moment: &'a [f64],
}

impl Sums<'_> {
    fn gain(&self, j: usize, i: usize) -> f64 {
        let s = self.moment[i] - self.moment[j];
        s * s / (self.weight[i] - self.weight[j])
    }
}

struct Row<'a> {
    sums: Sums<'a>,
    /// The row above: gains, and where its last clusters start.
    before: &'a [f64],
    above: &'a [u16],
}

impl Row<'_> {
    /// Fills the columns from `first` on; their best starts lie in `low..=high`.
    fn fill(&self, best: &mut [f64], starts: &mut [u16], first: usize, low: usize, high: usize) {
        if best.len() <= LANES {
            return self.fill_block(best, starts, first, low, high);
        }
        let middle = best.len() / 2;
        let i = first + middle;
        let from = low.max(usize::from(self.above[i]));
        let (gain, start) = self.search(i, from, high.min(i - 1));
        best[middle] = gain;
        starts[middle] = start as u16;
        let (best_left, best_right) = best.split_at_mut(middle);
        let (starts_left, starts_right) = starts.split_at_mut(middle);
        let parallel = self.before.len() > PARALLEL && middle > PARALLEL / 4;
        let mut left = || self.fill(best_left, starts_left, first, low, start);
        let mut right = || self.fill(&mut best_right[1..], &mut starts_right[1..], i + 1, start, high);
        if parallel {
            rayon::join(left, right);
        } else {
            left();
            right();
        }
    }

    /// [`Row::fill`] for a few columns: all starts for all of them at once, which is faster than to halve on.
    fn fill_block(&self, best: &mut [f64], starts: &mut [u16], first: usize, low: usize, high: usize) {
        if best.is_empty() {
            return;
        }
        let column = |lane: usize| first + lane.min(best.len() - 1);
        let w: [f64; LANES] = std::array::from_fn(|l| self.sums.weight[column(l)]);
        let s: [f64; LANES] = std::array::from_fn(|l| self.sums.moment[column(l)]);
        let mut most = [f64::NEG_INFINITY; LANES];
        // Starts as numbers of the same width as gains, so that both are selected by one mask.
        let mut at = [0.0f64; LANES];
        // Starts before the first column are starts for every column.
        let from = low.max(usize::from(self.above[first]));
        let to = (high + 1).min(first).max(from);
        let before = self.before[from..to].iter().zip(&self.sums.weight[from..to]).zip(&self.sums.moment[from..to]);
        for (j, ((b, wj), sj)) in before.enumerate() {
            for l in 0..LANES {
                let d = s[l] - sj;
                let gain = b + d * d / (w[l] - wj);
                let more = gain > most[l];
                most[l] = if more { gain } else { most[l] };
                at[l] = if more { j as f64 } else { at[l] };
            }
        }
        for (l, (best, start)) in best.iter_mut().zip(starts).enumerate() {
            (*best, *start) = (most[l], (from + at[l] as usize) as u16);
            for j in to..=high.min(first + l - usize::from(first + l > 0)) {
                let gain = self.before[j] + self.sums.gain(j, first + l);
                if gain > *best {
                    (*best, *start) = (gain, j as u16);
                }
            }
        }
    }

    /// The largest gain of the first `i` points whose last cluster starts in `from..=to`, and the smallest such start.
    fn search(&self, i: usize, from: usize, to: usize) -> (f64, usize) {
        let (w, s) = (self.sums.weight[i], self.sums.moment[i]);
        let before = &self.before[from..=to];
        let weight = &self.sums.weight[from..=to];
        let moment = &self.sums.moment[from..=to];
        let gain = |b: f64, wj: f64, sj: f64| b + (s - sj) * (s - sj) / (w - wj);
        let (mut most, mut at) = (f64::NEG_INFINITY, 0);
        let chunks = before.as_chunks::<LANES>().0.iter();
        let chunks = chunks.zip(weight.as_chunks::<LANES>().0).zip(moment.as_chunks::<LANES>().0);
        for (c, ((b, w), s)) in chunks.enumerate() {
            let mut gains = [0.0; LANES];
            for lane in 0..LANES {
                gains[lane] = gain(b[lane], w[lane], s[lane]);
            }
            let halves: [f64; 4] =
                std::array::from_fn(|l| if gains[l] < gains[l + 4] { gains[l + 4] } else { gains[l] });
            let peak = halves[0].max(halves[1]).max(halves[2]).max(halves[3]);
            if peak > most {
                most = peak;
                at = c * LANES + gains.iter().position(|g| *g == peak).unwrap_or(0);
            }
        }
        for j in before.len() / LANES * LANES..before.len() {
            let g = gain(before[j], weight[j], moment[j]);
            if g > most {
                (most, at) = (g, j);
            }
        }
        (most, from + at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(values: &[f64], weights: &[f64], ends: &[usize]) -> f64 {
        let mut from = 0;
        let mut total = 0.0;
        for &to in ends {
            let mean = Solver::mean(&values[from..to], &weights[from..to]);
            total += (from..to).map(|i| weights[i] * (values[i] - mean).powi(2)).sum::<f64>();
            from = to;
        }
        total
    }

    /// The least error over every way to cut.
    fn brute_force(values: &[f64], weights: &[f64], k: usize, cut: &mut Vec<usize>) -> f64 {
        let n = values.len();
        let from = cut.last().copied().unwrap_or(0);
        if k == 1 {
            cut.push(n);
            let total = error(values, weights, cut);
            cut.pop();
            return total;
        }
        let mut least = f64::INFINITY;
        for end in from + 1..=n + 1 - k {
            cut.push(end);
            least = least.min(brute_force(values, weights, k - 1, cut));
            cut.pop();
        }
        least
    }

    proptest! {
        #[test]
        fn no_clustering_is_better(
            points in prop::collection::btree_map(-1000i32..1000, 1u32..50, 1..12), k in 1usize..6, offset in 0i32..100_000
        ) {
            let values: Vec<f64> = points.keys().map(|x| f64::from(x + offset) / 64.0).collect();
            let weights: Vec<f64> = points.values().map(|w| f64::from(*w)).collect();
            let ends = Solver::default().cluster(&values, &weights, k);
            let found = error(&values, &weights, &ends);
            let least = brute_force(&values, &weights, k.min(values.len()), &mut Vec::new());
            prop_assert!(found <= least + 1e-9 * least.max(1e-6), "{found} > {least}");
        }

        /// The plain O(k·n²) recursion, for sizes that run in parallel too.
        #[test]
        fn long_rows_are_those_of_the_plain_recursion(seed in 0u32..1000, k in 2usize..9) {
            let n = 400;
            let values: Vec<f64> = (0..n).map(|i| f64::from(i) + f64::from(seed * (i + 7) % 97) / 100.0).collect();
            let weights: Vec<f64> = (0..n).map(|i| f64::from(1 + seed * (i + 3) % 31)).collect();
            let ends = Solver::default().cluster(&values, &weights, k);
            let mut sums = vec![(0.0, 0.0)];
            for (x, w) in values.iter().zip(&weights) {
                let (a, b) = sums[sums.len() - 1];
                sums.push((a + w, b + w * x));
            }
            let gain = |j: usize, i: usize| (sums[i].1 - sums[j].1).powi(2) / (sums[i].0 - sums[j].0);
            let mut best: Vec<f64> = (0..=n as usize).map(|i| if i == 0 { 0.0 } else { gain(0, i) }).collect();
            for row in 1..k {
                best = (0..=n as usize)
                    .map(|i| (row..i).map(|j| best[j] + gain(j, i)).fold(f64::NEG_INFINITY, f64::max))
                    .collect();
            }
            let mut from = 0;
            let mut found = 0.0;
            for &to in &ends {
                found += gain(from, to);
                from = to;
            }
            prop_assert!((found - best[n as usize]).abs() <= 1e-12 * found);
        }
    }
}
