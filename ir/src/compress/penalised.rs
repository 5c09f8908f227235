//! The intervals with the largest sum of gains less a penalty for each.
//!
//! `best[i]`, the most for the first i points, is the maximum over j of `best[j] + gain(j, i) − penalty`; by the quadrangle
//! inequality the smallest best j grows with i. Columns are filled in blocks that end before the last intervals of its columns
//! start, so that all of them are independent: the block's last column first, which bounds the others, then halves
//! (F. F. Yao, *Efficient dynamic programming using quadrangle inequalities*, 1980).

/// Columns, or starts, that are looked at together.
const LANES: usize = 8;

/// Columns of a block at the most.
const BLOCK: usize = 256;

/// Prefix sums of the weights and of weight × value.
#[derive(Default)]
pub(super) struct Sums {
    weight: Vec<f64>,
    moment: Vec<f64>,
}

impl Sums {
    /// Fills the sums for these points.
    pub(super) fn of(&mut self, values: &[f64], weights: &[f64]) {
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
    }

    /// The squared error about zero that the interval of the points `j..i` saves.
    pub(super) fn gain(&self, j: usize, i: usize) -> f64 {
        let s = self.moment[i] - self.moment[j];
        s * s / (self.weight[i] - self.weight[j])
    }
}

/// Buffers that one solution leaves to the next.
#[derive(Default)]
pub(super) struct Penalised {
    best: Vec<f64>,
    /// Start of the last interval of the first i points.
    starts: Vec<u32>,
}

impl Penalised {
    /// The ends of the best intervals, ascending; the last end is the number of points.
    pub(super) fn solve(&mut self, sums: &Sums, penalty: f64) -> Vec<usize> {
        let columns = sums.weight.len();
        self.best.clear();
        self.best.resize(columns, 0.0);
        self.starts.clear();
        self.starts.resize(columns, 0);
        let mut done = 1;
        let mut most = BLOCK;
        while done < columns {
            // Half of the last interval: likely to be less than the next one.
            let len = ((done - self.starts[done - 1] as usize) / 2).clamp(1, most).min(columns - done);
            if self.fill(sums, penalty, done, len) {
                done += len;
                most = BLOCK;
            } else {
                most = len / 2;
            }
        }
        let mut ends = Vec::new();
        let mut end = columns - 1;
        while end > 0 {
            ends.push(end);
            end = self.starts[end] as usize;
        }
        ends.reverse();
        ends
    }

    /// Fills a block of columns from `first` on; false if the last interval of one starts in the block.
    fn fill(&mut self, sums: &Sums, penalty: f64, first: usize, len: usize) -> bool {
        let (before, best) = self.best.split_at_mut(first);
        let (starts_before, starts) = self.starts.split_at_mut(first);
        let (best, starts) = (&mut best[..len], &mut starts[..len]);
        let block = Block { sums, before, penalty };
        let low = starts_before[first - 1] as usize;
        let last = first + len - 1;
        let (most, high) = search(sums, before, last, low, first - 1);
        (best[len - 1], starts[len - 1]) = (most - penalty, high as u32);
        block.fill(&mut best[..len - 1], &mut starts[..len - 1], first, low, high);
        // A start in the block that is better for any of its columns is better for the last one too.
        len == 1 || search(sums, &self.best, last, first, last - 1).0 <= most
    }
}

/// The values that the columns of a block share: starts lie in `before`.
struct Block<'a> {
    sums: &'a Sums,
    before: &'a [f64],
    penalty: f64,
}

impl Block<'_> {
    /// Fills the columns from `first` on; their best starts lie in `low..=high`.
    fn fill(&self, best: &mut [f64], starts: &mut [u32], first: usize, low: usize, high: usize) {
        if best.len() <= LANES {
            return self.fill_few(best, starts, first, low, high);
        }
        let middle = best.len() / 2;
        let (most, start) = search(self.sums, self.before, first + middle, low, high);
        best[middle] = most - self.penalty;
        starts[middle] = start as u32;
        let (best_left, best_right) = best.split_at_mut(middle);
        let (starts_left, starts_right) = starts.split_at_mut(middle);
        self.fill(best_left, starts_left, first, low, start);
        self.fill(&mut best_right[1..], &mut starts_right[1..], first + middle + 1, start, high);
    }

    /// [`Block::fill`] for a few columns: all starts for all of them at once, which is faster than to halve on.
    fn fill_few(&self, best: &mut [f64], starts: &mut [u32], first: usize, low: usize, high: usize) {
        if best.is_empty() {
            return;
        }
        let column = |lane: usize| first + lane.min(best.len() - 1);
        let w: [f64; LANES] = std::array::from_fn(|l| self.sums.weight[column(l)]);
        let s: [f64; LANES] = std::array::from_fn(|l| self.sums.moment[column(l)]);
        let mut most = [f64::NEG_INFINITY; LANES];
        // Starts as numbers of the same width as gains, so that both are selected by one mask.
        let mut at = [0.0f64; LANES];
        let range = low..high + 1;
        let before =
            self.before[range.clone()].iter().zip(&self.sums.weight[range.clone()]).zip(&self.sums.moment[range]);
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
            (*best, *start) = (most[l] - self.penalty, low as u32 + at[l] as u32);
        }
    }
}

/// The most for the first `i` points, without the last penalty, if the last interval starts in `from..=to`, and the smallest
/// such start.
fn search(sums: &Sums, before: &[f64], i: usize, from: usize, to: usize) -> (f64, usize) {
    let (w, s) = (sums.weight[i], sums.moment[i]);
    let before = &before[from..=to];
    let weight = &sums.weight[from..=to];
    let moment = &sums.moment[from..=to];
    let gain = |b: f64, wj: f64, sj: f64| b + (s - sj) * (s - sj) / (w - wj);
    let (mut most, mut at) = (f64::NEG_INFINITY, 0);
    let chunks = before.as_chunks::<LANES>().0.iter();
    let chunks = chunks.zip(weight.as_chunks::<LANES>().0).zip(moment.as_chunks::<LANES>().0);
    for (c, ((b, w), s)) in chunks.enumerate() {
        let mut gains = [0.0; LANES];
        for lane in 0..LANES {
            gains[lane] = gain(b[lane], w[lane], s[lane]);
        }
        let halves: [f64; 4] = std::array::from_fn(|l| if gains[l] < gains[l + 4] { gains[l + 4] } else { gains[l] });
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
