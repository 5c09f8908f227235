//! The factors of error feedback, from sums of products.

use nalgebra::DMatrix;

/// The least part of the mean of the diagonal that is added to it.
const LEAST_DAMPING: f64 = 0.01;

/// Sums over windows: products of two inputs, fourth powers of the windows' norms, and the number of windows.
#[derive(Clone, Debug)]
pub(super) struct Moments {
    pub products: DMatrix<f64>,
    pub fourth: f64,
    pub count: usize,
}

impl Moments {
    /// How much of a multiple of the identity makes up for there being few samples, as a part of the mean of the diagonal:
    /// the shrinkage of least expected error of O. Ledoit and M. Wolf, *A well-conditioned estimator for large-dimensional
    /// covariance matrices*, 2004.
    fn damping(&self) -> f64 {
        let (n, p) = (self.count.max(1) as f64, self.products.nrows().max(1) as f64);
        let mean = self.products.trace() / n / p;
        let squares = self.products.norm_squared() / (n * n);
        let apart = squares - p * mean * mean;
        let noise = ((self.fourth / n - squares) / n).clamp(0.0, apart.max(0.0));
        let part = if apart > 0.0 { noise / apart } else { 1.0 };
        (part / (1.0 - part).max(1e-6)).max(LEAST_DAMPING)
    }
}

/// Fⱼₖ of a block, row-major: H = XᵀX + damping, H⁻¹ = UᵀU with U upper triangular, Fⱼₖ = −Uⱼₖ/Uⱼⱼ for k > j, else 0.
///
/// With J the reversal of order and JHJ = LLᵀ, U is JL⁻¹J: no inverse of H is made.
pub(super) fn feedback(moments: &Moments) -> Vec<f32> {
    let products = &moments.products;
    let n = products.nrows();
    let none = || vec![0.0; n * n];
    let damping = moments.damping() * products.trace() / n.max(1) as f64;
    if !(damping.is_finite() && damping > 0.0) {
        return none();
    }
    let reversed = DMatrix::from_fn(n, n, |i, j| products[(n - 1 - i, n - 1 - j)] + if i == j { damping } else { 0.0 });
    let Some(cholesky) = reversed.cholesky() else { return none() };
    let Some(inverse) = cholesky.l().solve_lower_triangular(&DMatrix::identity(n, n)) else { return none() };
    let mut factors = none();
    for j in 0..n {
        let diagonal = inverse[(n - 1 - j, n - 1 - j)];
        for k in j + 1..n {
            factors[j * n + k] = (-inverse[(n - 1 - j, n - 1 - k)] / diagonal) as f32;
        }
    }
    factors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(x: &DMatrix<f64>) -> Moments {
        let fourth = x.row_iter().map(|row| row.norm_squared().powi(2)).sum();
        Moments { products: x.transpose() * x, fourth, count: x.nrows() }
    }

    /// The factors of a channel are those of the least squares of it over the channels after it.
    #[test]
    fn factors_are_regressions() {
        let x = DMatrix::from_fn(40, 4, |i, j| (((i * 7 + j * 13 + i * i * (j + 1)) % 23) as f64 - 11.0) / 7.0);
        let h = x.transpose() * &x;
        let moments = of(&x);
        let damping = moments.damping() * h.trace() / 4.0;
        let f = feedback(&moments);
        for j in 0..3 {
            let after: Vec<usize> = (j + 1..4).collect();
            let a = DMatrix::from_fn(after.len(), after.len(), |p, q| {
                h[(after[p], after[q])] + if p == q { damping } else { 0.0 }
            });
            let b = DMatrix::from_fn(after.len(), 1, |p, _| h[(after[p], j)]);
            let wanted = a.lu().solve(&b).unwrap_or_else(|| DMatrix::zeros(after.len(), 1));
            for (p, k) in after.iter().enumerate() {
                assert!((f64::from(f[j * 4 + k]) - wanted[(p, 0)]).abs() < 1e-6);
            }
            assert!((0..=j).all(|k| f[j * 4 + k] == 0.0));
        }
    }

    #[test]
    fn equal_channels_pass_their_error_on_and_silence_says_nothing() {
        let f = feedback(&of(&DMatrix::from_fn(100, 2, |i, _| if i % 2 == 0 { 1.0 } else { -1.0 })));
        assert!((f[1] - 1.0).abs() < 0.02, "{f:?}");
        assert_eq!(feedback(&of(&DMatrix::zeros(5, 3))), vec![0.0; 9]);
        assert_eq!(feedback(&of(&DMatrix::from_element(1, 1, f64::NAN))), [0.0]);
    }

    /// Few samples of independent inputs show correlations that are not there.
    #[test]
    fn what_few_samples_show_is_damped() {
        // SplitMix64.
        let noise = |i: usize| {
            let mut z = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 40) as f64 / f64::from(1 << 23) - 1.0
        };
        let damping = |rows: usize| of(&DMatrix::from_fn(rows, 64, |i, j| noise(i * 64 + j))).damping();
        assert!(damping(8) > 2.0, "{}", damping(8));
        // With something in common, more samples are trusted more.
        let shared =
            |rows: usize| of(&DMatrix::from_fn(rows, 64, |i, j| noise(i * 64 + j) + noise((1 << 20) + i))).damping();
        assert!(shared(8) > 4.0 * shared(800), "{} and {}", shared(8), shared(800));
        let equal = of(&DMatrix::from_fn(800, 64, |i, _| noise(i)));
        assert!(equal.damping() < 0.02, "{}", equal.damping());
    }
}
