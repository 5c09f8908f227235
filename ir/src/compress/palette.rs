//! Palettes: the fp16 numbers that stand for a run's elements with the least squared error.

use half::f16;

use super::kmeans::Solver;
use crate::ops::{OpError, require};

/// The fp16 bits of an element as a number that grows with it.
const fn key(bits: u16) -> u16 {
    // −0 is 0.
    let bits = if bits == 0x8000 { 0 } else { bits };
    if bits & 0x8000 == 0 { bits | 0x8000 } else { !bits }
}

/// The inverse of [`key`].
const fn bits(key: u16) -> u16 {
    if key & 0x8000 == 0 { !key } else { key & 0x7fff }
}

/// The key of infinity; larger ones are NaN.
const INFINITE: usize = key(0x7c00) as usize;
/// The key of −infinity; smaller ones are NaN.
const NEGATIVE_INFINITE: usize = key(0xfc00) as usize;
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

/// Buffers that one run leaves to the next.
pub(super) struct Scratch {
    counts: Vec<u32>,
    mass: Vec<f64>,
    codes: Vec<u8>,
    keys: Vec<u16>,
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
            keys: Vec::new(),
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
            *entry = key(f16::from_f64(mean).to_bits());
            from = to;
        }
        let used = ends.len();
        let last = entries[used - 1];
        entries[used..].fill(last);
        // The entries were rounded: each element goes to the nearest one, the lower one of two.
        let centres: Vec<f64> = entries[..used].iter().map(|k| f16::from_bits(bits(*k)).to_f64()).collect();
        let mut at = 0;
        for (k, x) in self.keys.iter().zip(&self.values) {
            while at + 1 < used && (centres[at + 1] - x).abs() < (centres[at] - x).abs() {
                at += 1;
            }
            self.codes[usize::from(*k)] = at as u8;
        }
        for (code, e) in codes.iter_mut().zip(elements) {
            *code = self.codes[usize::from(key(*e))];
        }
        for entry in entries {
            *entry = bits(*entry);
        }
        0
    }

    /// The distinct elements in ascending order with their weights.
    fn histogram(&mut self, elements: &[u16], importance: Option<&Importance>) -> usize {
        self.counts.fill(0);
        for e in elements {
            self.counts[usize::from(key(*e))] += 1;
        }
        if let Some(importance) = importance {
            self.mass.clear();
            self.mass.resize(1 << 16, 0.0);
            let rows = elements.chunks(importance.inner * importance.weights.len());
            for row in rows {
                for (channel, weight) in row.chunks(importance.inner).zip(&importance.weights) {
                    for e in channel {
                        self.mass[usize::from(key(*e))] += weight;
                    }
                }
            }
        }
        self.keys.clear();
        self.values.clear();
        self.weights.clear();
        let counts = self.counts.iter().enumerate();
        for (k, &count) in counts.skip(NEGATIVE_INFINITE + 1).take(INFINITE - NEGATIVE_INFINITE - 1) {
            if count > 0 {
                self.keys.push(k as u16);
                self.values.push(f16::from_bits(bits(k as u16)).to_f64());
                self.weights.push(if importance.is_some() { self.mass[k] } else { f64::from(count) });
            }
        }
        let outside = self.counts[..=NEGATIVE_INFINITE].iter().chain(&self.counts[INFINITE..]);
        outside.map(|c| *c as usize).sum()
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
    fn keys_are_in_the_order_of_the_numbers() {
        let least = 2f32.powi(-24);
        let numbers = [f32::NEG_INFINITY, -65504.0, -1.0, -least, 0.0, least, 1.0, 65504.0, f32::INFINITY];
        let keys: Vec<u16> = numbers.iter().map(|x| key(f16::from_f32(*x).to_bits())).collect();
        assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
        for (x, k) in numbers.iter().zip(keys) {
            assert_eq!(f16::from_bits(bits(k)).to_f32(), *x);
        }
        assert_eq!(key(0x8000), key(0));
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
