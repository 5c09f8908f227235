//! From sums of products to the factors of error feedback.

use nalgebra::DMatrix;

/// Part of the mean of the diagonal that is added to it: the samples are few, and may leave channels without a value.
const DAMPING: f64 = 0.01;

/// Fⱼₖ of a block, row-major: H = XᵀX + damping, H⁻¹ = UᵀU with U upper triangular, Fⱼₖ = −Uⱼₖ/Uⱼⱼ for k > j, else 0.
///
/// With J the reversal of order and JHJ = LLᵀ, U is JL⁻¹J: no inverse of H is made.
pub(super) fn feedback(products: &DMatrix<f64>) -> Vec<f32> {
    let n = products.nrows();
    let none = || vec![0.0; n * n];
    let damping = DAMPING * products.diagonal().sum() / n.max(1) as f64;
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

    /// The factors of a channel are those of the least squares of it over the channels after it.
    #[test]
    fn factors_are_regressions() {
        let x = DMatrix::from_fn(40, 4, |i, j| (((i * 7 + j * 13 + i * i * (j + 1)) % 23) as f64 - 11.0) / 7.0);
        let h = x.transpose() * &x;
        let damping = DAMPING * h.diagonal().sum() / 4.0;
        let f = feedback(&h);
        for j in 0..4 {
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
        let f = feedback(&DMatrix::from_element(2, 2, 5.0));
        assert!((f[1] - 1.0).abs() < 0.02, "{f:?}");
        assert_eq!(feedback(&DMatrix::zeros(3, 3)), vec![0.0; 9]);
        assert_eq!(feedback(&DMatrix::from_element(1, 1, f64::NAN)), [0.0]);
    }
}
