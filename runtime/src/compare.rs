//! The distance of a tensor from a reference.

use serde::Serialize;

/// Differences between a tensor and its reference, computed in f64.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metrics {
    /// max |x − r|
    pub max_abs: f64,
    /// ‖x − r‖ / ‖r‖; if the reference is zero, ‖x‖
    pub relative_l2: f64,
    /// −20·log₁₀(relative L2), at most 400: what equal tensors have.
    pub snr_db: f64,
    /// x·r / (‖x‖·‖r‖); 1 if both are zero.
    pub cosine: f64,
    /// NaN or infinite elements of the tensor.
    pub non_finite: usize,
    /// NaN or infinite elements of the reference.
    pub reference_non_finite: usize,
}

/// SNR of equal tensors, so that a report never holds an infinity (JSON has none).
pub const EXACT_DB: f64 = 400.0;

/// Compares two tensors of the same length. Elements that are not finite on either side are counted, and left out of the
/// other figures; if that leaves none, the figures are the worst there are.
///
/// ```
/// let found = s2dit_runtime::compare::compare(&[1.0, 2.0, f32::NAN], &[1.0, 2.5, 3.0]);
/// assert_eq!((found.max_abs, found.non_finite), (0.5, 1));
/// ```
pub fn compare(x: &[f32], reference: &[f32]) -> Metrics {
    let mut m = Metrics {
        max_abs: 0.0,
        relative_l2: 0.0,
        snr_db: EXACT_DB,
        cosine: 1.0,
        non_finite: 0,
        reference_non_finite: 0,
    };
    let (mut dd, mut rr, mut xx, mut xr) = (0.0, 0.0, 0.0, 0.0);
    for (&x, &r) in x.iter().zip(reference) {
        m.non_finite += usize::from(!x.is_finite());
        m.reference_non_finite += usize::from(!r.is_finite());
        if x.is_finite() && r.is_finite() {
            let (x, r) = (f64::from(x), f64::from(r));
            m.max_abs = m.max_abs.max((x - r).abs());
            dd += (x - r) * (x - r);
            rr += r * r;
            xx += x * x;
            xr += x * r;
        }
    }
    if !x.is_empty() && (m.non_finite == x.len() || m.reference_non_finite == x.len()) {
        return Metrics { relative_l2: 10f64.powf(EXACT_DB / 20.0), snr_db: -EXACT_DB, cosine: 0.0, ..m };
    }
    m.relative_l2 = if rr > 0.0 { (dd / rr).sqrt() } else { dd.sqrt() };
    if m.relative_l2 > 0.0 {
        m.snr_db = (-20.0 * m.relative_l2.log10()).min(EXACT_DB);
    }
    if xx > 0.0 && rr > 0.0 {
        m.cosine = xr / (xx.sqrt() * rr.sqrt());
    } else if xx != rr {
        m.cosine = 0.0;
    }
    m
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_follow_their_definitions() {
        let m = compare(&[1.0, 2.0, 3.0], &[1.0, 2.0, 4.0]);
        assert_eq!(m.max_abs, 1.0);
        assert!((m.relative_l2 - (1.0f64 / 21.0).sqrt()).abs() < 1e-15);
        assert!((m.snr_db - 10.0 * 21f64.log10()).abs() < 1e-12);
        assert!((m.cosine - 17.0 / (14f64 * 21.0).sqrt()).abs() < 1e-15);
    }

    #[test]
    fn equal_zero_and_broken_tensors_have_finite_figures() {
        assert_eq!(compare(&[1.0, -2.0], &[1.0, -2.0]).snr_db, EXACT_DB);
        assert_eq!(compare(&[0.0], &[0.0]).cosine, 1.0);
        let m = compare(&[1.0, 1.0], &[0.0, 0.0]);
        assert_eq!((m.relative_l2, m.cosine), (2f64.sqrt(), 0.0));
        let m = compare(&[f32::NAN, 1.0, 2.0], &[1.0, f32::INFINITY, 2.0]);
        assert_eq!((m.non_finite, m.reference_non_finite, m.max_abs), (1, 1, 0.0));
    }
}
