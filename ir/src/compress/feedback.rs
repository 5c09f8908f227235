//! Error feedback: the error of a weight is made good, as far as it can be, by the weights after it.
//!
//! The table of each run is fixed; codes are chosen input by input. The inputs of an output channel are its input channels,
//! or for a kernel of several positions these channels at each position. If an input j is about Σ Fⱼₖ·(input k) over the
//! inputs k after it, the error e that rounding leaves on the weight of j acts on the output as e·Fⱼₖ on the weights of k
//! do, and is taken out there (E. Frantar et al., *GPTQ*, 2023: with H = XᵀX and H⁻¹ = UᵀU, Fⱼₖ = −Uⱼₖ/Uⱼⱼ).

use half::f16;
use rayon::prelude::*;

use super::{Compressed, Scheme};
use crate::ops::{OpError, require};

/// Output channels that are done together, so that a row of F is read once for all of them.
const ROWS: usize = 16;

/// Inputs whose errors are passed on together to those after them.
const LAZY: usize = 64;
/// Inputs that they are passed on to together.
const COLUMNS: usize = 16;

/// Fⱼₖ of a weight, by blocks of inputs: row j holds the F of input j for the inputs of its own block, and zero up to and with
/// j itself.
#[derive(Clone, Copy, Debug)]
pub struct Feedback<'a> {
    /// Row-major `[inputs, block]`.
    pub factors: &'a [f32],
    /// Inputs of a block; it divides the inputs.
    pub block: usize,
}

/// Chooses the codes of a weight again, with its table as it is. `elements` are fp16 bits.
pub(super) fn reassign(
    compressed: &mut Compressed,
    shape: &[usize],
    elements: &[u16],
    feedback: Feedback<'_>,
) -> Result<(), OpError> {
    let (inner, block) = (shape[1..].iter().product::<usize>(), feedback.block);
    require!(
        block > 0 && inner.is_multiple_of(block) && feedback.factors.len() == inner * block,
        "error feedback: found {} factors in blocks of {block}, expected [{inner}, a part of it]",
        feedback.factors.len()
    );
    let scheme = compressed.scheme;
    let runs = scheme.runs(shape)?;
    let table: Vec<f32> = compressed.table.iter().map(|b| f16::from_bits(*b).to_f32()).collect();
    let grid = Grid { scheme, table: &table, entries: runs.entries, run_len: runs.len };
    compressed.codes.par_chunks_mut(ROWS * inner).enumerate().for_each_init(Vec::new, |wide, (chunk, codes)| {
        let first = chunk * ROWS * inner;
        let rows = codes.len() / inner;
        for from in (0..inner).step_by(block) {
            wide.clear();
            for row in 0..rows {
                let at = first + row * inner + from;
                wide.extend(elements[at..at + block].iter().map(|b| f16::from_bits(*b).to_f32()));
            }
            let factors = &feedback.factors[from * block..][..block * block];
            for start in (0..block).step_by(LAZY) {
                let end = block.min(start + LAZY);
                let mut errors = [[0.0; LAZY]; ROWS];
                for j in start..end {
                    let factors = &factors[j * block..][..end];
                    for (row, (wide, errors)) in wide.chunks_exact_mut(block).zip(&mut errors).enumerate() {
                        let at = row * inner + from + j;
                        let (code, value) = grid.nearest(first + at, wide[j]);
                        codes[at] = code;
                        let error = wide[j] - value;
                        errors[j - start] = error;
                        for (w, f) in wide[j + 1..end].iter_mut().zip(&factors[j + 1..]) {
                            *w += error * f;
                        }
                    }
                }
                pass_on(wide, &errors, &factors[start * block..end * block], block, end);
            }
        }
    });
    Ok(())
}

/// Adds what the errors of a few inputs do to all inputs from `end` on. `factors` are the rows of these inputs.
fn pass_on(wide: &mut [f32], errors: &[[f32; LAZY]; ROWS], factors: &[f32], block: usize, end: usize) {
    let count = factors.len() / block;
    for (pair, errors) in wide.chunks_mut(2 * block).zip(errors.as_chunks::<2>().0) {
        let mut from = end;
        while from < block {
            let columns = COLUMNS.min(block - from);
            // Sums of two rows stay in registers, whatever the machine: the same operations in the same order.
            let mut sums = [[0.0f32; COLUMNS]; 2];
            for j in 0..count {
                let factors = &factors[j * block + from..][..columns];
                let (one, two) = (errors[0][j], errors[1][j]);
                if let Ok(factors) = <&[f32; COLUMNS]>::try_from(factors) {
                    for c in 0..COLUMNS {
                        sums[0][c] += one * factors[c];
                        sums[1][c] += two * factors[c];
                    }
                } else {
                    for (c, f) in factors.iter().enumerate() {
                        sums[0][c] += one * f;
                        sums[1][c] += two * f;
                    }
                }
            }
            for (row, sums) in pair.chunks_exact_mut(block).zip(&sums) {
                row[from..from + columns].iter_mut().zip(sums).for_each(|(w, s)| *w += s);
            }
            from += columns;
        }
    }
}

/// The numbers that an element can become.
struct Grid<'a> {
    scheme: Scheme,
    table: &'a [f32],
    entries: usize,
    run_len: usize,
}

impl Grid<'_> {
    /// The code whose number is nearest to `x` in the run of the element at `at`, and that number.
    fn nearest(&self, at: usize, x: f32) -> (u8, f32) {
        let table = &self.table[at / self.run_len * self.entries..][..self.entries];
        match self.scheme {
            Scheme::Palette { .. } => {
                // Entries ascend: the first one above the middle to its next.
                let code = table.windows(2).take_while(|pair| x - pair[0] > pair[1] - x).count();
                (code as u8, table[code])
            }
            Scheme::Int8 | Scheme::Block { .. } => {
                let (low, high) = super::integer::range(self.scheme.bits(), table[0]);
                let code = (x / table[0]).round_ties_even().clamp(low, high);
                (code as i8 as u8, code * table[0])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::compress::compress;

    fn halves(values: &[f32]) -> Vec<u16> {
        values.iter().map(|x| f16::from_f32(*x).to_bits()).collect()
    }

    /// Two channels that always carry the same number: their weights may err, their sum need not.
    #[test]
    fn the_next_channel_makes_good() {
        let elements = halves(&[0.4, 0.4, 0.0, 1.0]);
        let scheme = "palette1".parse().unwrap();
        let mut c = compress(scheme, &[2, 2], &elements, None, None).unwrap();
        c.table = halves(&[0.0, 1.0]);
        reassign(&mut c, &[2, 2], &elements, Feedback { factors: &[0.0, 1.0, 0.0, 0.0], block: 2 }).unwrap();
        assert_eq!(c.decompress(DType::F32), [0.0, 1.0, 0.0, 1.0]);
        reassign(&mut c, &[2, 2], &elements, Feedback { factors: &[0.0; 4], block: 2 }).unwrap();
        assert_eq!(c.decompress(DType::F32), [0.0, 0.0, 0.0, 1.0], "without feedback: the nearest");
    }

    #[test]
    fn without_factors_codes_stay_the_nearest() {
        let elements: Vec<u16> =
            halves(&(0..32 * 64).map(|i| ((i * 37 % 1999) as f32 / 1000.0 - 1.0).powi(3)).collect::<Vec<_>>());
        for scheme in ["palette4-group16", "palette8", "int8", "int4-block32"] {
            let scheme = scheme.parse().unwrap();
            let mut c = compress(scheme, &[32, 64], &elements, None, None).unwrap();
            let plain = c.decompress(DType::F32);
            reassign(&mut c, &[32, 64], &elements, Feedback { factors: &[0.0; 64 * 16], block: 16 }).unwrap();
            let error = |y: &[f64]| -> f64 {
                elements.iter().zip(y).map(|(x, y)| (f16::from_bits(*x).to_f64() - y).powi(2)).sum()
            };
            let (before, after) = (error(&plain), error(&c.decompress(DType::F32)));
            assert!((before - after).abs() <= 1e-6 * before, "{scheme}: {before} became {after}");
        }
    }

    /// Errors that are passed on together do what they do one after the other.
    #[test]
    fn together_or_one_by_one() {
        let (rows, inner, block) = (21, 2 * 203, 203);
        let noise = |i: usize| ((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / (1 << 23) as f32 - 1.0;
        let elements = halves(&(0..rows * inner).map(noise).collect::<Vec<_>>());
        let factors: Vec<f32> =
            (0..inner * block).map(|i| if i % block > i / block % block { 0.1 * noise(i + 7) } else { 0.0 }).collect();
        let mut c = compress("palette3".parse().unwrap(), &[rows, inner], &elements, None, None).unwrap();
        let table: Vec<f64> = c.table.iter().map(|b| f16::from_bits(*b).to_f64()).collect();
        let mut expected = Vec::new();
        for row in elements.chunks_exact(inner) {
            let mut wide: Vec<f64> = row.iter().map(|b| f16::from_bits(*b).to_f64()).collect();
            for j in 0..inner {
                let distance = |code: &usize| (table[*code] - wide[j]).abs();
                let code = (0..table.len()).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap();
                let error = wide[j] - table[code];
                let end = (j / block + 1) * block;
                (j + 1..end).for_each(|k| wide[k] += error * f64::from(factors[j * block + k % block]));
                expected.push(code as u8);
            }
        }
        reassign(&mut c, &[rows, inner], &elements, Feedback { factors: &factors, block }).unwrap();
        // A value between two entries may go to either; what follows from it differs in the rest of its row.
        let rows_alike = c.codes.chunks_exact(block).zip(expected.chunks_exact(block)).filter(|(a, b)| a == b).count();
        assert!(rows_alike + 2 >= 2 * rows, "{rows_alike} of {}", 2 * rows);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let elements = [0; 8];
        let mut c = compress(Scheme::Int8, &[2, 4], &elements, None, None).unwrap();
        let wrong = |factors: &[f32], block| {
            reassign(&mut c.clone(), &[2, 4], &elements, Feedback { factors, block }).unwrap_err().to_string()
        };
        assert!(wrong(&[0.0; 12], 3).contains("in blocks of 3"));
        assert!(wrong(&[0.0; 7], 2).contains("found 7 factors"));
        let kernel = reassign(&mut c, &[2, 2, 2], &elements, Feedback { factors: &[0.0; 8], block: 2 });
        assert!(kernel.is_ok(), "a kernel of two positions has four inputs");
    }
}
