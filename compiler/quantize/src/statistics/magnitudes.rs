//! Magnitudes of activations, and the scale at which int8 loses least of them.

use s2dit_ir::rounding::to_f16;

/// Bits of an fp32 magnitude that a bin does not tell apart: six of the mantissa are left.
const DROPPED: u32 = 17;
/// Scales are tried that reach the largest magnitude, or down to this part of it.
const LEAST_REACH: f64 = 1.0 / 64.0;
/// The largest integer, on either side of zero.
const LARGEST: f64 = 127.0;

/// A histogram of magnitudes. Values that are not finite are not counted.
#[derive(Clone, Debug)]
pub(super) struct Magnitudes {
    counts: Vec<u64>,
}

impl Magnitudes {
    pub(super) fn new() -> Magnitudes {
        Magnitudes { counts: vec![0; (f32::INFINITY.to_bits() >> DROPPED) as usize] }
    }

    pub(super) fn add(&mut self, values: &[f32]) {
        for x in values {
            if let Some(count) = self.counts.get_mut((x.abs().to_bits() >> DROPPED) as usize) {
                *count += 1;
            }
        }
    }

    /// The scale of the least squared error, as an fp16 number: a larger one rounds more coarsely, a smaller one cuts more
    /// off. `None` if nothing but zeros was seen, or fp16 holds no such scale.
    pub(super) fn scale(&self) -> Option<f64> {
        let edge = |bin: usize| f64::from(f32::from_bits((bin as u32) << DROPPED));
        // The middle of a bin, and how often it was seen; zeros are exact at every scale.
        let seen = self.counts.iter().enumerate().skip(1).filter(|(_, n)| **n > 0);
        let seen: Vec<(f64, f64)> = seen.map(|(bin, n)| ((edge(bin) + edge(bin + 1)) / 2.0, *n as f64)).collect();
        let most = edge(self.counts.iter().rposition(|n| *n > 0)? + 1);
        let tried = (1..self.counts.len()).map(edge).filter(|reach| *reach <= most && *reach > most * LEAST_REACH);
        let (_, reach) = tried
            .map(|reach| (error(&seen, reach / LARGEST), reach))
            .fold((f64::INFINITY, 0.0), |best, found| if found.0 <= best.0 { found } else { best });
        let scale = to_f16(reach / LARGEST).to_f64();
        (scale > 0.0 && scale.is_finite()).then_some(scale)
    }
}

/// The squared error that is to be expected at a scale: of what is cut off, of what becomes zero, and a twelfth of a step's
/// square for the rest.
fn error(seen: &[(f64, f64)], scale: f64) -> f64 {
    let each = |x: f64| match x {
        x if x > (LARGEST + 0.5) * scale => (x - LARGEST * scale).powi(2),
        x if x < scale / 2.0 => x * x,
        _ => scale * scale / 12.0,
    };
    seen.iter().map(|(x, n)| n * each(*x)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale(values: &[f32]) -> Option<f64> {
        let mut magnitudes = Magnitudes::new();
        magnitudes.add(values);
        magnitudes.scale()
    }

    #[test]
    fn the_largest_is_reached_unless_it_stands_alone() {
        let even: Vec<f32> = (-1000..=1000).map(|i| i as f32 / 100.0).collect();
        let reached = scale(&even).unwrap() * 127.0;
        assert!((9.8..10.3).contains(&reached), "{reached}");
        let alone = [&vec![1.0; 1_000_000][..], &[3.0]].concat();
        let cut = scale(&alone).unwrap() * 127.0;
        assert!(cut < 2.0, "{cut}");
    }

    #[test]
    fn what_has_no_range_has_no_scale() {
        assert_eq!(scale(&[]), None);
        assert_eq!(scale(&[0.0, -0.0]), None);
        assert_eq!(scale(&[f32::NAN, f32::INFINITY]), None);
        assert_eq!(scale(&[1e-30]), None);
    }

    /// The expected error is that of rounding, and no other scale has less.
    #[test]
    fn no_scale_is_better() {
        let values: Vec<f32> = (0..20_000)
            .map(|i| {
                let u = (f64::from(i) + 0.5) / 20_000.0;
                // The quantiles of a logistic distribution, whose tails are heavy.
                (u / (1.0 - u)).ln() as f32
            })
            .collect();
        let real = |s: f64| {
            values
                .iter()
                .map(|x| {
                    let x = f64::from(*x);
                    (x - (x / s).round_ties_even().clamp(-128.0, 127.0) * s).powi(2)
                })
                .sum::<f64>()
        };
        let found = scale(&values).unwrap();
        let least = (1..200).map(|i| real(found * f64::from(i) / 100.0)).fold(f64::INFINITY, f64::min);
        assert!(real(found) <= 1.02 * least, "{} and {least}", real(found));
    }
}
