//! float64 to the 16-bit types, rounded once. (`half`'s own conversion does not look at the lower half of a float64 and
//! takes a value just beside the middle of two for the middle.)

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// The nearest fp16, ties to even.
pub fn to_f16(x: f64) -> f16 {
    f16::from_f32(to_odd(x))
}

/// The nearest bf16, ties to even.
pub fn to_bf16(x: f64) -> bf16 {
    bf16::from_f32(to_odd(x))
}

/// [`to_f16`] of many, with the processor's own conversion where it has one.
pub fn to_f16s(values: &[f64]) -> Vec<f16> {
    let mut halves = vec![f16::ZERO; values.len()];
    halves.convert_from_f32_slice(&values.iter().map(|x| to_odd(*x)).collect::<Vec<_>>());
    halves
}

/// `x` in fp32, rounded to odd: rounded again, to a type of at least two bits less, it is as if rounded once (Boldo &
/// Melquiond, "Emulation of FMA and correctly rounded sums", IEEE Transactions on Computers 57, 2008).
pub(crate) fn to_odd(x: f64) -> f32 {
    let near = x as f32;
    let back = f64::from(near);
    let inexact = back != x && !x.is_nan();
    let toward_zero = near.to_bits() - u32::from(inexact && back.abs() > x.abs());
    f32::from_bits(toward_zero | u32::from(inexact))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Between each two neighbours: the middle goes to the even one, all beside it to the nearer.
    #[test]
    fn numbers_are_rounded_once() {
        let check = |bits: u16, value: fn(u16) -> f64, round: fn(f64) -> u16| {
            let (below, above) = (value(bits), value(bits + 1));
            let middle = (below + above) / 2.0;
            let (less, more) = (middle.next_down(), middle.next_up());
            let even = bits + bits % 2;
            assert_eq!([below, less, middle, more, above].map(round), [bits, bits, even, bits + 1, bits + 1]);
            assert_eq!(round(-more), (bits + 1) | 0x8000);
        };
        for bits in 0..0x7bff {
            check(bits, |b| f16::from_bits(b).to_f64(), |x| to_f16(x).to_bits());
        }
        for bits in 0..0x7f7f {
            check(bits, |b| bf16::from_bits(b).to_f64(), |x| to_bf16(x).to_bits());
        }
    }

    #[test]
    fn what_is_too_large_is_infinite_and_a_nan_stays_one() {
        let values = [65519.999999, 65520.0, 1e300, f64::NEG_INFINITY, 5e-324, -0.0];
        let want = [65504.0, f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY, 0.0, 0.0];
        assert_eq!(values.map(|x| to_f16(x).to_f64()), want);
        assert!(to_f16(f64::NAN).is_nan() && to_bf16(f64::NAN).is_nan());
        assert_eq!(to_f16s(&values), values.map(to_f16));
    }
}
