//! Conversions for any processor, through f32 a piece at a time. fp16 takes `half`'s slice conversions, which know the
//! instructions of 64-bit Arm.

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use super::broken::{Broken, INFINITY, overflow};
use crate::DType;
use crate::rounding::to_odd;

/// Elements of a piece, which stay in the innermost cache.
const PIECE: usize = 512;

/// See [`super::convert`].
pub(super) fn convert(from: DType, bytes: &[u8], to: DType, out: &mut [u8]) -> Broken {
    let mut broken = Broken::default();
    let mut wide = [0f32; PIECE];
    for (bytes, out) in bytes.chunks(PIECE * from.size()).zip(out.chunks_mut(PIECE * to.size())) {
        let wide = &mut wide[..bytes.len() / from.size()];
        decode(from, bytes, wide);
        let before = at_least(wide, INFINITY);
        let after = at_least(wide, overflow(to));
        encode(wide, to, out);
        broken += Broken { non_finite: after, overflowed: after - before };
    }
    broken
}

/// See [`super::to_f64`].
pub(super) fn to_f64(from: DType, bytes: &[u8], out: &mut [f64]) {
    let mut wide = [0f32; PIECE];
    for (bytes, out) in bytes.chunks(PIECE * from.size()).zip(out.chunks_mut(PIECE)) {
        let wide = &mut wide[..out.len()];
        decode(from, bytes, wide);
        for (o, x) in out.iter_mut().zip(&*wide) {
            *o = f64::from(*x);
        }
    }
}

/// See [`super::from_f64`].
pub(super) fn from_f64(values: &[f64], to: DType, out: &mut [u8]) -> Broken {
    let mut broken = Broken::default();
    let mut near = [0f32; PIECE];
    for (values, out) in values.chunks(PIECE).zip(out.chunks_mut(PIECE * to.size())) {
        let near = &mut near[..values.len()];
        for (o, x) in near.iter_mut().zip(values) {
            *o = if to == DType::F32 { *x as f32 } else { to_odd(*x) };
        }
        let before: u64 = values.iter().map(|x| u64::from(!x.is_finite())).sum();
        let after = at_least(near, overflow(to));
        encode(near, to, out);
        broken += Broken { non_finite: after, overflowed: after - before };
    }
    broken
}

/// Elements to f32.
pub(super) fn decode(from: DType, bytes: &[u8], out: &mut [f32]) {
    match from {
        DType::F32 => {
            for (o, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *o = f32::from_le_bytes(*b);
            }
        }
        DType::BF16 => {
            for (o, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *o = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
            }
        }
        _ => {
            let mut bits = [0u16; PIECE];
            for (bytes, out) in bytes.chunks(2 * PIECE).zip(out.chunks_mut(PIECE)) {
                let bits = &mut bits[..out.len()];
                for (o, b) in bits.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *o = u16::from_le_bytes(*b);
                }
                bits.reinterpret_cast::<f16>().convert_to_f32_slice(out);
            }
        }
    }
}

/// At most [`PIECE`] f32 to elements.
fn encode(values: &[f32], to: DType, out: &mut [u8]) {
    match to {
        DType::F32 => {
            for (o, x) in out.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                *o = x.to_le_bytes();
            }
        }
        DType::BF16 => {
            for (o, x) in out.as_chunks_mut::<2>().0.iter_mut().zip(values) {
                *o = nearest_bf16(*x).to_le_bytes();
            }
        }
        _ => {
            let mut bits = [0u16; PIECE];
            let bits = &mut bits[..values.len()];
            bits.reinterpret_cast_mut::<f16>().convert_from_f32_slice(values);
            for (o, b) in out.as_chunks_mut::<2>().0.iter_mut().zip(bits) {
                *o = b.to_le_bytes();
            }
        }
    }
}

/// The nearest bf16, ties to even, without a branch: compilers make vectors of it.
fn nearest_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let upper = bits >> 16;
    let nearest = bits.wrapping_add(0x7fff + (upper & 1)) >> 16;
    let quiet = upper | 0x40;
    (if x.is_nan() { quiet } else { nearest }) as u16
}

/// Elements whose bits without the sign are at least these.
fn at_least(values: &[f32], least: u32) -> u64 {
    values.iter().map(|x| u32::from(x.to_bits() & 0x7fff_ffff >= least)).sum::<u32>().into()
}
