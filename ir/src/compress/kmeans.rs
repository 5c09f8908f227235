//! Exact one-dimensional k-means.
//!
//! The points are sorted and distinct, so that clusters are intervals. With prefix sums W of the weights and S of weight ×
//! value, the squared error of a cluster is a constant less (ΔS)²/ΔW: a clustering is best when the sum of these gains is
//! largest. The gain satisfies the quadrangle inequality, so the largest sum is concave in the number of clusters, and each
//! point of it is reached with a penalty on every cluster (A. Aggarwal, B. Schieber and T. Tokuyama, *Finding a minimum
//! weight k-link path in graphs with the concave Monge property*, 1994). [`Penalised`] solves that without regard to k; one
//! or two penalties find k clusters. Where no penalty does, because k lies on a straight stretch between k₁ and k₂, one exchange
//! between their clusterings makes the best one with k.

use super::penalised::{Penalised, Sums};

/// Stretches of points from whose density the first penalty is guessed.
const STRETCHES: usize = 64;

/// Buffers that one clustering leaves to the next.
#[derive(Default)]
pub(super) struct Solver {
    sums: Sums,
    penalised: Penalised,
}

/// The best clustering with as many clusters as it has.
struct Best {
    /// End of each cluster.
    ends: Vec<usize>,
    /// The sum of gains.
    gain: f64,
}

impl Solver {
    /// The ends of the clusters that minimise the weighted squared error, ascending; the last end is the number of points.
    ///
    /// `values` ascend strictly; `weights` are positive. There are as many clusters as points if `k` is larger.
    pub(super) fn cluster(&mut self, values: &[f64], weights: &[f64], k: usize) -> Vec<usize> {
        let n = values.len();
        if k >= n {
            return (1..=n).collect();
        }
        self.sums.of(values, weights);
        let mut few = self.best(vec![n]);
        if k == 1 {
            return few.ends;
        }
        let mut many = self.best((1..=n).collect());
        let mut penalty = guess(values, weights, k);
        // The penalties at which `few` and `many` were found.
        let (mut above, mut below) = (f64::INFINITY, 0.0);
        // Whether `few` and `many` are equally good at this penalty.
        let mut balanced = false;
        loop {
            let found = self.penalised.solve(&self.sums, penalty);
            let count = found.len();
            if count == k {
                return found;
            }
            let progress = few.ends.len() < count && count < many.ends.len();
            if !progress && balanced {
                return exchange(&few.ends, &many.ends, k);
            }
            if progress && count < k {
                (few, above) = (self.best(found), penalty);
            } else if progress {
                (many, below) = (self.best(found), penalty);
            }
            // Errors fall with the square of the number of clusters, what one more gains with its cube.
            let next = penalty * (count as f64 / k as f64).powi(3);
            balanced = !(progress && below < next && next < above) || many.ends.len() - few.ends.len() == 2;
            let slope = (many.gain - few.gain) / (many.ends.len() - few.ends.len()) as f64;
            penalty = if balanced { slope } else { next };
        }
    }

    fn best(&self, ends: Vec<usize>) -> Best {
        let starts = std::iter::once(&0).chain(&ends);
        let gain = starts.zip(&ends).map(|(from, to)| self.sums.gain(*from, *to)).sum();
        Best { ends, gain }
    }

    /// The weighted mean of some points.
    pub(super) fn mean(values: &[f64], weights: &[f64]) -> f64 {
        let w: f64 = weights.iter().sum();
        values.iter().zip(weights).map(|(x, m)| x * m).sum::<f64>() / w
    }
}

/// What the k-th cluster gains, about: the slope of the error (∫ p^⅓)³ / 12k² of many clusters at density p (P. F. Panter and
/// W. Dite, *Quantization distortion in pulse-count modulation*, 1951). It only has to be near; roots of roots stand for the
/// cube root, since they are the same on every machine.
fn guess(values: &[f64], weights: &[f64], k: usize) -> f64 {
    let n = values.len();
    let span = values[n - 1] - values[0];
    let total: f64 = weights.iter().sum();
    let stretches = STRETCHES.min(n - 1);
    let mut integral = 0.0;
    for i in 0..stretches {
        let (from, to) = (i * (n - 1) / stretches, (i + 1) * (n - 1) / stretches);
        let width = (values[to] - values[from]) / span;
        let mass = weights[from..to].iter().sum::<f64>() / total;
        let root = (mass / width).sqrt().sqrt();
        let root16 = root.sqrt().sqrt();
        integral += width * root * root16 * root16.sqrt().sqrt();
    }
    total * span * span * integral.powi(3) / (6.0 * (k as f64 + 1.0).powi(3))
}

/// The clustering with k clusters that is as good as `few` and `many`, which are equally good at one penalty.
///
/// With d = |many| − k there is an m such that the m-th cluster of `few` contains the one of `many` that is d further on. The
/// clusters of `few` before it, one that starts as it does and ends as the other, and those of `many` after are k; the ones
/// that are left over are clusters too, and by the quadrangle inequality the sums of gains of both are together no less than before.
fn exchange(few: &[usize], many: &[usize], k: usize) -> Vec<usize> {
    let further = many.len() - k;
    let m = (0..few.len()).find(|m| few[*m] >= many[m + further]).unwrap_or(0);
    few[..m].iter().chain(&many[m + further..]).copied().collect()
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

        /// Equal distances and weights: many clusterings are equally good, and most numbers of clusters have no penalty of
        /// their own.
        #[test]
        fn ties_are_exchanged(n in 2usize..13, k in 1usize..12, groups in 1usize..4) {
            let values: Vec<f64> = (0..n).map(|i| (i + i / groups) as f64).collect();
            let weights = vec![3.0; n];
            let ends = Solver::default().cluster(&values, &weights, k);
            prop_assert_eq!(ends.len(), k.min(n));
            prop_assert!(ends.is_sorted_by(|a, b| a < b) && ends[ends.len() - 1] == n);
            let least = brute_force(&values, &weights, k.min(n), &mut Vec::new());
            prop_assert!(error(&values, &weights, &ends) <= least + 1e-9);
        }

        /// Against the plain O(k·n²) recursion, in sizes and shapes as weights have them: what fp16 numbers lie around zero, the
        /// same with outliers, and a dense grid.
        #[test]
        fn long_rows_are_those_of_the_plain_recursion(seed in 0u32..1000, k in 2usize..70, kind in 0usize..3) {
            let n = 300usize;
            let noise = |i: usize, m: u32| seed.wrapping_mul(i as u32 * 7919 + 13).wrapping_add(i as u32 * 31) % m;
            let values: Vec<f64> = match kind {
                0 | 1 => (0..n)
                    .map(|i| {
                        let x = i as f64 - 149.5;
                        let far = kind == 1 && (i == 0 || i + 3 > n);
                        x.signum() * 2f64.powf(x.abs() / 12.0 - 17.0) * if far { 300.0 } else { 1.0 }
                    })
                    .collect(),
                _ => (0..n).map(|i| i as f64 + f64::from(noise(i, 97)) / 100.0).collect(),
            };
            let weights: Vec<f64> = (0..n).map(|i| f64::from(1 + noise(i, if kind == 1 { 3 } else { 31 }))).collect();
            let ends = Solver::default().cluster(&values, &weights, k);
            prop_assert_eq!(ends.len(), k);
            let mut sums = vec![(0.0f64, 0.0f64)];
            for (x, w) in values.iter().zip(&weights) {
                let (a, b) = sums[sums.len() - 1];
                sums.push((a + w, b + w * x));
            }
            let gain = |j: usize, i: usize| (sums[i].1 - sums[j].1).powi(2) / (sums[i].0 - sums[j].0);
            let mut best: Vec<f64> = (0..=n).map(|i| if i == 0 { 0.0 } else { gain(0, i) }).collect();
            for row in 1..k {
                best = (0..=n).map(|i| (row..i).map(|j| best[j] + gain(j, i)).fold(f64::NEG_INFINITY, f64::max)).collect();
            }
            let mut from = 0;
            let mut found = 0.0;
            for &to in &ends {
                found += gain(from, to);
                from = to;
            }
            prop_assert!((found - best[n]).abs() <= 1e-12 * found, "{found} {}", best[n]);
        }
    }
}
