//! Integers with a scale: q · s stands for an element.

use half::f16;

/// Scales that are tried for 4-bit integers, as parts of the one that reaches the largest element.
const TRIED: [f32; 16] =
    [1.0, 0.97, 0.94, 0.91, 0.88, 0.85, 0.82, 0.79, 0.76, 0.73, 0.70, 0.67, 0.64, 0.61, 0.58, 0.55];

/// The least and the largest code.
const fn codes(bits: u8) -> (f32, f32) {
    // coremltools and ONNX Runtime keep int8 symmetric as well; 4-bit codes are too few to leave one out.
    if bits == 8 { (-127.0, 127.0) } else { (-8.0, 7.0) }
}

/// The least and the largest code whose product with a scale is a finite fp16 number.
pub(super) fn range(bits: u8, scale: f32) -> (f32, f32) {
    let (low, high) = codes(bits);
    let most = (f16::MAX.to_f32() / scale).floor();
    (low.max(-most), high.min(most))
}

/// Fills `codes` with two's complements and returns the scale's fp16 bits.
///
/// int8 takes the least scale that reaches the largest element. int4 takes the one of a few with the least squared error:
/// cutting off the outermost elements often gains more for the others. Elements that are all zero or of one magnitude are
/// exact. Every code stands for a finite fp16 number.
pub(super) fn quantize(elements: &[f32], bits: u8, codes: &mut [u8]) -> u16 {
    let most = elements.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let of_one_magnitude = elements.iter().all(|x| x.abs() == most || *x == 0.0);
    let scale = if most == 0.0 {
        f16::ONE
    } else if of_one_magnitude && f16::from_f32(most).to_f32() == most {
        f16::from_f32(most)
    } else if bits == 8 {
        reaching(most, 127.0)
    } else {
        let full = most / 7.0;
        let mut best = (f32::INFINITY, f16::ONE);
        for part in TRIED {
            let scale = reaching(full * part, 1.0);
            let error = error(elements, scale.to_f32(), range(bits, scale.to_f32()));
            if error < best.0 {
                best = (error, scale);
            }
        }
        best.1
    };
    let (low, high) = range(bits, scale.to_f32());
    let inverse = 1.0 / scale.to_f32();
    for (code, x) in codes.iter_mut().zip(elements) {
        *code = nearest(x * inverse).clamp(low, high) as i8 as u8;
    }
    scale.to_bits()
}

/// The fp16 number nearest to `most / steps`, or the next one if it does not reach `most` in `steps`, or the one before if
/// `steps` of it are more than the largest fp16 number.
fn reaching(most: f32, steps: f32) -> f16 {
    let scale = f16::from_f32(most / steps);
    if scale.to_f32() * steps > f16::MAX.to_f32() {
        return f16::from_bits(scale.to_bits() - 1);
    }
    let reaches = scale.to_f32() * (steps + 0.5) >= most && scale.to_bits() > 0;
    if reaches { scale } else { f16::from_bits(scale.to_bits() + 1) }
}

/// The nearest integer, ties to even, for |x| < 2^22.
fn nearest(x: f32) -> f32 {
    // Adding 1.5 · 2^23 leaves no bits for a fraction: unlike `round_ties_even`, this needs no SSE 4.1 to be fast.
    const SHIFT: f32 = 12_582_912.0;
    (x + SHIFT) - SHIFT
}

fn error(elements: &[f32], scale: f32, (low, high): (f32, f32)) -> f32 {
    let inverse = 1.0 / scale;
    let mut lanes = [0.0f32; 8];
    let (chunks, rest) = elements.as_chunks::<8>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            let e = nearest(x * inverse).clamp(low, high) * scale - x;
            *lane += e * e;
        }
    }
    for x in rest {
        let e = nearest(x * inverse).clamp(low, high) * scale - x;
        lanes[0] += e * e;
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(elements: &[f32], bits: u8) -> Vec<f32> {
        let mut codes = vec![0; elements.len()];
        let scale = f16::from_bits(quantize(elements, bits, &mut codes)).to_f32();
        codes.iter().map(|c| f32::from(*c as i8) * scale).collect()
    }

    #[test]
    fn the_error_is_at_most_half_a_step() {
        for magnitude in [1e-6f32, 3e-5, 1e-3, 0.7, 900.0, 60000.0] {
            let elements: Vec<f32> = (0..999).map(|i| ((i * 37 % 1999) as f32 / 1000.0 - 1.0) * magnitude).collect();
            let most = elements.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            let step = (most / 127.0).max(2f32.powi(-24)) * 1.02 + 2f32.powi(-24);
            for (x, y) in elements.iter().zip(decoded(&elements, 8)) {
                assert!((x - y).abs() <= step / 2.0, "{x} became {y} with steps of {step}");
            }
        }
    }

    /// 65504 / 127 rounds up to 516, and 127 · 516 is more than fp16 holds.
    #[test]
    fn every_code_stands_for_a_finite_fp16_number() {
        for most in [60000.0f32, 65344.0, 65472.0, 65504.0] {
            for (bits, largest_error) in [(8, 300.0), (4, 6000.0)] {
                let elements: Vec<f32> = (-50..=50).map(|i| f16::from_f32(most * i as f32 / 50.0).to_f32()).collect();
                for (x, y) in elements.iter().zip(decoded(&elements, bits)) {
                    assert!(f16::from_f32(y).is_finite(), "{bits} bits: {x} became {y}, beyond fp16");
                    assert!((x - y).abs() <= largest_error, "{bits} bits: {x} became {y}");
                }
                let scale = f16::from_bits(quantize(&elements, bits, &mut vec![0; elements.len()])).to_f32();
                let (low, high) = range(bits, scale);
                assert!([low, high].iter().all(|code| f16::from_f32(code * scale).is_finite()), "{bits} bits, {scale}");
            }
        }
    }

    #[test]
    fn one_magnitude_is_exact() {
        for bits in [4, 8] {
            assert_eq!(decoded(&[0.0; 5], bits), [0.0; 5]);
            assert_eq!(decoded(&[0.3125, -0.3125, 0.0], bits), [0.3125, -0.3125, 0.0]);
            assert_eq!(decoded(&[f16::from_f32(0.1).to_f32(); 3], bits), [f16::from_f32(0.1).to_f32(); 3]);
        }
    }

    #[test]
    fn int4_is_no_worse_than_reaching_the_largest_element() {
        let elements: Vec<f32> = (0..32).map(|i| ((i * 29 % 64) as f32 - 31.5).powi(3) / 30000.0).collect();
        let most = elements.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let squares = |y: &[f32]| elements.iter().zip(y).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
        let plain = reaching(most / 7.0, 1.0).to_f32();
        let plain: Vec<f32> = elements.iter().map(|x| (x / plain).round().clamp(-8.0, 7.0) * plain).collect();
        assert!(squares(&decoded(&elements, 4)) <= squares(&plain) * 1.0001);
    }
}
