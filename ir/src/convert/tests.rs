//! Every implementation against a reference that knows the formats only: sign, exponent, fraction.

use super::*;

const FLOATS: [DType; 3] = [DType::BF16, DType::F16, DType::F32];

/// Exponent and fraction bits.
fn format(dtype: DType) -> (u32, u32) {
    match dtype {
        DType::BF16 => (8, 7),
        DType::F16 => (5, 10),
        DType::F32 => (8, 23),
        _ => (11, 52),
    }
}

/// A number as ±significand·2^exponent, or what is none.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Number {
    Finite {
        negative: bool,
        significand: u64,
        exponent: i32,
    },
    Infinite {
        negative: bool,
    },
    /// The fraction begins at the highest bit.
    Nan {
        negative: bool,
        fraction: u64,
    },
}

fn read(bits: u64, dtype: DType) -> Number {
    let (e, f) = format(dtype);
    let negative = bits >> (e + f) & 1 == 1;
    let (biased, fraction) = (bits >> f & ((1 << e) - 1), bits & ((1 << f) - 1));
    let least = 2 - (1 << (e - 1)) - f as i32;
    match biased {
        b if b == (1 << e) - 1 && fraction == 0 => Number::Infinite { negative },
        b if b == (1 << e) - 1 => Number::Nan { negative, fraction: fraction << (64 - f) },
        0 => Number::Finite { negative, significand: fraction, exponent: least },
        b => Number::Finite { negative, significand: fraction | 1 << f, exponent: least + b as i32 - 1 },
    }
}

/// The nearest number of the format, ties to even; a NaN is quiet and keeps what fits of its fraction.
fn nearest(x: Number, dtype: DType) -> u64 {
    let (e, f) = format(dtype);
    let infinity = ((1u64 << e) - 1) << f;
    let (negative, magnitude) = match x {
        Number::Infinite { negative } => (negative, infinity),
        Number::Nan { negative, fraction } => (negative, infinity | fraction >> (64 - f) | 1 << (f - 1)),
        Number::Finite { negative, significand: 0, .. } => (negative, 0),
        Number::Finite { negative, significand, exponent } => {
            // In units of the smallest subnormal: significand · 2^shift, of which f + 1 bits are kept.
            let shift = exponent - (2 - (1 << (e - 1)) - f as i32);
            let length = 64 - significand.leading_zeros() as i32;
            let dropped = (length - (f as i32 + 1)).max(-shift);
            let kept = match dropped {
                ..=0 => significand << -dropped,
                1..=63 => {
                    let (kept, rest, half) =
                        (significand >> dropped, significand & ((1 << dropped) - 1), 1 << (dropped - 1));
                    kept + u64::from(rest > half || rest == half && kept & 1 == 1)
                }
                _ => 0,
            };
            // Of a normal number the leading one is added to the exponent; a carry makes it one more.
            let steps = (shift + dropped) as u64;
            (negative, ((steps << f) + kept).min(infinity))
        }
    };
    u64::from(negative) << (e + f) | magnitude
}

fn bytes_of(bits: &[u64], dtype: DType) -> Vec<u8> {
    bits.iter().flat_map(|b| b.to_le_bytes()[..dtype.size()].to_vec()).collect()
}

fn bits_of(bytes: &[u8], dtype: DType) -> Vec<u64> {
    let word = |c: &[u8]| c.iter().rev().fold(0, |word, b| word << 8 | u64::from(*b));
    bytes.chunks(dtype.size()).map(word).collect()
}

/// What the reference makes of elements, bf16 to f32 apart: bits are moved, a NaN stays as it is.
fn expected(bits: &[u64], from: DType, to: DType) -> (Vec<u64>, Broken) {
    let mut broken = Broken::default();
    let made = bits.iter().map(|&b| {
        let x = read(b, from);
        let y = match (from, to) {
            (DType::BF16, DType::F32) => b << 16,
            _ if from == to => b,
            _ => nearest(x, to),
        };
        let after = !matches!(read(y, to), Number::Finite { .. });
        broken.non_finite += u64::from(after);
        broken.overflowed += u64::from(after && matches!(x, Number::Finite { .. }));
        y
    });
    (made.collect(), broken)
}

/// All ways of converting that this machine has.
fn check(bits: &[u64], from: DType, to: DType) {
    let (want, broken) = expected(bits, from, to);
    let bytes = bytes_of(bits, from);
    let mut out = vec![0xaa; bits.len() * to.size()];
    assert_eq!(convert(from, &bytes, to, &mut out), broken, "{from} to {to}");
    same(bits, &bits_of(&out, to), &want, from, to);
    if from != to {
        out.fill(0xaa);
        assert_eq!(portable::convert(from, &bytes, to, &mut out), broken, "{from} to {to}, portable");
        same(bits, &bits_of(&out, to), &want, from, to);
    }
}

fn same(bits: &[u64], made: &[u64], want: &[u64], from: DType, to: DType) {
    assert_eq!(made.len(), want.len());
    if let Some(at) = (0..want.len()).find(|&i| made[i] != want[i]) {
        panic!("{from} {:#x} to {to}: found {:#x}, expected {:#x}", bits[at], made[at], want[at]);
    }
}

#[test]
fn the_reference_knows_the_formats() {
    let f32s = [1.0, -2.5, 65504.0, 65519.996, 65520.0, 5.96e-8, 2.98e-8, 2.99e-8, 6.1e-5, 1e-40, f32::MAX, f32::NAN];
    for x in f32s {
        let number = read(x.to_bits().into(), DType::F32);
        assert_eq!(nearest(number, DType::F32), u64::from(x.to_bits()), "{x}");
        assert_eq!(nearest(number, DType::F16), u64::from(half::f16::from_f32(x).to_bits()), "{x}");
        assert_eq!(nearest(number, DType::BF16), u64::from(half::bf16::from_f32(x).to_bits()), "{x}");
    }
}

#[test]
fn every_16_bit_number_converts_to_every_type() {
    let all: Vec<u64> = (0..1 << 16).collect();
    for from in [DType::BF16, DType::F16] {
        for to in FLOATS {
            check(&all, from, to);
        }
    }
}

/// Of every 16-bit number the neighbours of the middle to the next: ties, overflow, subnormals, zeros, both signs.
#[test]
fn f32_is_rounded_to_nearest_even() {
    for to in [DType::F16, DType::BF16] {
        let wide = |bits: u64| expected(&[bits], to, DType::F32).0[0];
        let infinity = nearest(Number::Infinite { negative: false }, to);
        let mut bits = Vec::new();
        for below in 0..infinity {
            // The middle to infinity is that to the number that would be next.
            let step = wide(below) - wide(below.saturating_sub(1));
            let above = if below + 1 == infinity { wide(below) + step } else { wide(below + 1) };
            // Subnormal numbers of f32 and bf16 are as far apart as their bits; those of f16 are normal in f32.
            let middle = match (f32::from_bits(wide(below) as u32), f32::from_bits(above as u32)) {
                (low, high) if to == DType::F16 => u64::from(((low + high) / 2.0).to_bits()),
                _ => u64::midpoint(wide(below), above),
            };
            bits.extend([wide(below), middle - 1, middle, middle + 1].into_iter().filter(|b| *b < 1 << 31));
        }
        bits.extend([0, 1, 2, 0x7f_ffff, 0x80_0000, 0x7f7f_ffff, 0x7f80_0000]);
        bits.extend([0x7f80_0001, 0x7fbf_ffff, 0x7fc0_0000, 0x7fff_ffff, 0x7f80_2000, 0x7f81_0000]);
        let negative: Vec<u64> = bits.iter().map(|b| b | 1 << 31).collect();
        bits.extend(negative);
        check(&bits, DType::F32, to);
    }
    // Between them, over the whole range.
    let scattered: Vec<u64> = (0..1u64 << 32).step_by(8191).collect();
    for to in FLOATS {
        check(&scattered, DType::F32, to);
    }
}

#[test]
fn slices_of_any_length_and_alignment_convert() {
    let bits: Vec<u64> = (0..1100).map(|i| 0x3c00 + i * 37 % 0x4000).collect();
    for (from, to) in FLOATS.into_iter().flat_map(|from| FLOATS.map(|to| (from, to))) {
        let bytes = bytes_of(&bits, from);
        for len in (0..40).chain([511, 512, 513, 1100]) {
            let mut shifted = vec![0];
            shifted.extend(&bytes[..len * from.size()]);
            let mut out = vec![0xaa; len * to.size() + 3];
            convert(from, &shifted[1..], to, &mut out[1..=len * to.size()]);
            let (want, _) = expected(&bits[..len], from, to);
            same(&bits, &bits_of(&out[1..=len * to.size()], to), &want, from, to);
            assert_eq!((out[0], out[len * to.size() + 1]), (0xaa, 0xaa), "a byte beside the result");
        }
    }
}

#[test]
fn f64_is_rounded_once() {
    for to in FLOATS {
        let mut values = vec![f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e300, 5e-324, 0.0, -0.0];
        values.extend([f64::MAX, f64::MIN_POSITIVE, 3.5e38, f64::from(f32::MAX).next_up()]);
        let last = if to == DType::F32 { 1u64 << 31 } else { 1 << 15 };
        for below in (0..last - 1).step_by(if to == DType::F32 { 65521 } else { 1 }) {
            let (low, high) = (read(below, to), read(below + 1, to));
            let (low, high) = (f64::from_bits(nearest(low, DType::F64)), f64::from_bits(nearest(high, DType::F64)));
            let middle = (low + high) / 2.0;
            values.extend([low, middle.next_down(), middle, middle.next_up(), -middle, -middle.next_up()]);
        }
        let bits: Vec<u64> = values.iter().map(|x| x.to_bits()).collect();
        let (want, broken) = expected(&bits, DType::F64, to);
        let mut out = vec![0; values.len() * to.size()];
        assert_eq!(from_f64(&values, to, &mut out), broken, "{to}");
        same(&bits, &bits_of(&out, to), &want, DType::F64, to);
        assert_eq!(portable::from_f64(&values, to, &mut out), broken, "{to}");
        same(&bits, &bits_of(&out, to), &want, DType::F64, to);
        for len in 0..30 {
            let mut some = vec![0xaa; len * to.size()];
            from_f64(&values[..len], to, &mut some);
            assert_eq!(some, out[..len * to.size()]);
        }
    }
}

#[test]
fn f64_holds_every_stored_float() {
    for from in FLOATS {
        let bits: Vec<u64> = match from {
            DType::F32 => (0..1u64 << 32).step_by(65521).collect(),
            _ => (0..1 << 16).collect(),
        };
        let bytes = bytes_of(&bits, from);
        let (mut some, mut portable) = (vec![0.0; bits.len()], vec![0.0; bits.len()]);
        to_f64(from, &bytes, &mut some);
        portable::to_f64(from, &bytes, &mut portable);
        for made in [some, portable] {
            let made: Vec<u64> = made.iter().map(|x| x.to_bits()).collect();
            same(&bits, &made, &expected(&bits, from, DType::F64).0, from, DType::F64);
        }
    }
}
