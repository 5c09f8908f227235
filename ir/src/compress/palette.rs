//! Palettes: the fp16 numbers that stand for a run's elements with the least squared error.

use half::f16;

use super::kmeans::Solver;
use crate::ops::{OpError, require};
use crate::rounding::to_f16;

/// fp16 bits of infinity without its sign.
const INFINITE: u16 = 0x7c00;
const SIGN: u16 = 0x8000;
/// Counts that are skipped together if they are zero.
const BLOCK: usize = 32;

/// Weights of input channels are kept above this part of the largest, so that no element is without a say.
const LEAST_IMPORTANCE: f64 = 1e-6;

/// Importance of input channels, normalised.
pub(super) struct Importance {
    weights: Vec<f64>,
    /// Elements of one input channel that lie together.
    inner: usize,
}

impl Importance {
    /// Weights for a tensor of this shape.
    pub(super) fn new(weights: &[f64], shape: &[usize]) -> Result<Self, OpError> {
        require!(
            weights.iter().all(|w| w.is_finite() && *w >= 0.0),
            "the importance of an input channel must be finite and not negative"
        );
        let most = weights.iter().fold(0.0f64, |a, b| a.max(*b));
        let weights = weights.iter().map(|w| if most > 0.0 { (w / most).max(LEAST_IMPORTANCE) } else { 1.0 }).collect();
        Ok(Importance { weights, inner: shape[2..].iter().product() })
    }
}

/// Buffers that one run leaves to the next. Tables are indexed by fp16 bits.
pub(super) struct Scratch {
    /// Zero between runs.
    counts: Vec<u32>,
    /// The same with importance; empty without.
    mass: Vec<f64>,
    codes: Vec<u8>,
    /// Distinct elements, ascending: bits, numbers, weights. −0 is 0.
    bits: Vec<u16>,
    values: Vec<f64>,
    weights: Vec<f64>,
    solver: Solver,
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch {
            counts: vec![0; 1 << 16],
            mass: Vec::new(),
            codes: vec![0; 1 << 16],
            bits: Vec::new(),
            values: Vec::new(),
            weights: Vec::new(),
            solver: Solver::default(),
        }
    }
}

impl Scratch {
    /// Fills `entries` with the palette of one run, ascending, and `codes` with the nearest entry of each element; the last
    /// entry is repeated if there are more than distinct elements. Returns the number of elements that are NaN or infinite;
    /// then nothing is filled.
    pub(super) fn palettize(
        &mut self,
        elements: &[u16],
        importance: Option<&Importance>,
        entries: &mut [u16],
        codes: &mut [u8],
    ) -> usize {
        let non_finite = self.histogram(elements, importance);
        if non_finite > 0 {
            return non_finite;
        }
        let ends = self.solver.cluster(&self.values, &self.weights, entries.len());
        let mut from = 0;
        for (entry, &to) in entries.iter_mut().zip(&ends) {
            let mean = Solver::mean(&self.values[from..to], &self.weights[from..to]);
            *entry = to_f16(mean).to_bits();
            from = to;
        }
        let used = ends.len();
        let last = entries[used - 1];
        entries[used..].fill(last);
        // The entries were rounded: each element goes to the nearest one, the lower one of two.
        let centres: Vec<f64> = entries[..used].iter().map(|b| f16::from_bits(*b).to_f64()).collect();
        let mut at = 0;
        for (bits, x) in self.bits.iter().zip(&self.values) {
            while at + 1 < used && (centres[at + 1] - x).abs() < (centres[at] - x).abs() {
                at += 1;
            }
            self.codes[usize::from(*bits)] = at as u8;
        }
        self.codes[usize::from(SIGN)] = self.codes[0];
        for (code, e) in codes.iter_mut().zip(elements) {
            *code = self.codes[usize::from(*e)];
        }
        0
    }

    /// Finds the distinct elements and their weights; returns how many elements are not finite.
    fn histogram(&mut self, elements: &[u16], importance: Option<&Importance>) -> usize {
        for e in elements {
            self.counts[usize::from(*e)] += 1;
        }
        if let Some(importance) = importance {
            self.mass.clear();
            self.mass.resize(1 << 16, 0.0);
            let rows = elements.chunks(importance.inner * importance.weights.len());
            for row in rows {
                for (channel, weight) in row.chunks(importance.inner).zip(&importance.weights) {
                    for e in channel {
                        self.mass[usize::from(*e)] += weight;
                    }
                }
            }
            self.mass[0] += self.mass[usize::from(SIGN)];
        }
        self.counts[0] += std::mem::take(&mut self.counts[usize::from(SIGN)]);
        self.bits.clear();
        self.values.clear();
        self.weights.clear();
        let mut non_finite = 0;
        // Negative numbers descend with their bits, positive ones ascend.
        let (positive, negative) = self.counts.split_at_mut(usize::from(SIGN));
        let negative = negative.chunks_mut(BLOCK).enumerate().rev().map(|(i, c)| (i, c, true));
        for (block, counts, negative) in
            negative.chain(positive.chunks_mut(BLOCK).enumerate().map(|(i, c)| (i, c, false)))
        {
            if counts.iter().all(|c| *c == 0) {
                continue;
            }
            for i in 0..BLOCK {
                let i = if negative { BLOCK - 1 - i } else { i };
                let count = std::mem::take(&mut counts[i]);
                if count == 0 {
                    continue;
                }
                let magnitude = (block * BLOCK + i) as u16;
                if magnitude >= INFINITE {
                    non_finite += count as usize;
                    continue;
                }
                let bits = if negative { magnitude | SIGN } else { magnitude };
                self.bits.push(bits);
                self.values.push(f16::from_bits(bits).to_f64());
                let weight = self.mass.get(usize::from(bits)).copied();
                self.weights.push(weight.filter(|_| importance.is_some()).unwrap_or(f64::from(count)));
            }
        }
        non_finite
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn palettize(values: &[f32], entries: usize, importance: Option<&Importance>) -> (Vec<f32>, Vec<u8>) {
        let elements: Vec<u16> = values.iter().map(|x| f16::from_f32(*x).to_bits()).collect();
        let (mut table, mut codes) = (vec![0; entries], vec![0; values.len()]);
        assert_eq!(Scratch::default().palettize(&elements, importance, &mut table, &mut codes), 0);
        (table.iter().map(|b| f16::from_bits(*b).to_f32()).collect(), codes)
    }

    #[test]
    fn distinct_elements_are_found_in_ascending_order() {
        let numbers = [1.5f32, -65504.0, 0.0, 2f32.powi(-24), -1.0, -2f32.powi(-24), 65504.0, -0.0, 1.5];
        let elements: Vec<u16> = numbers.iter().map(|x| f16::from_f32(*x).to_bits()).collect();
        let mut scratch = Scratch::default();
        for _ in 0..2 {
            assert_eq!(scratch.histogram(&elements, None), 0);
            let least = 2f64.powi(-24);
            assert_eq!(scratch.values, [-65504.0, -1.0, -least, 0.0, least, 1.5, 65504.0]);
            assert_eq!(scratch.weights, [1.0, 1.0, 1.0, 2.0, 1.0, 2.0, 1.0]);
        }
    }

    #[test]
    fn few_distinct_elements_are_kept_exactly() {
        let (table, codes) = palettize(&[0.5, -0.0, 0.5, -2.0, 0.0], 16, None);
        assert_eq!(table[..3], [-2.0, 0.0, 0.5]);
        assert!(table[3..].iter().all(|e| *e == 0.5));
        assert_eq!(codes, [2, 1, 2, 0, 1]);
        assert_eq!(palettize(&[0.0; 9], 4, None), (vec![0.0; 4], vec![0; 9]));
        assert_eq!(palettize(&[-3.25; 9], 2, None), (vec![-3.25; 2], vec![0; 9]));
    }

    #[test]
    fn importance_pulls_the_entries() {
        // Two input channels: the second one has the say.
        let values = [0.0, 1.0, 0.1, 1.2, 0.2, 1.4, 0.3, 5.0];
        let importance = Importance::new(&[0.0, 3.0], &[4, 2]).unwrap();
        let (table, codes) = palettize(&values, 2, Some(&importance));
        assert!((table[0] - 1.2).abs() < 1e-2 && (table[1] - 5.0).abs() < 1e-2, "{table:?}");
        assert_eq!(codes, [0, 0, 0, 0, 0, 0, 0, 1]);
        assert!(Importance::new(&[f64::NAN], &[4, 1]).is_err());
        assert!(Importance::new(&[-1.0], &[4, 1]).is_err());
        let flat = Importance::new(&[0.0, 0.0], &[4, 2]).unwrap();
        assert_eq!(palettize(&values, 2, Some(&flat)), palettize(&values, 2, None));
    }

    #[test]
    fn what_is_not_finite_is_counted() {
        let elements = [0x7c00, 0x3c00, 0xfc00, 0x7e00, 0xffff];
        assert_eq!(Scratch::default().palettize(&elements, None, &mut [0; 4], &mut [0; 5]), 4);
    }
}
