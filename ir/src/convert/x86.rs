//! Conversions eight elements at a time, with AVX2 and F16C.

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::*;

use super::broken::{Broken, INFINITY, overflow};
use crate::DType;

/// Proof that the processor has AVX2 and F16C.
#[derive(Clone, Copy)]
pub(super) struct Features(());

impl Features {
    /// The proof, if the processor has them.
    pub(super) fn detected() -> Option<Features> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c")).then_some(Features(()))
    }
}

/// [`DType`]s as constant parameters.
const BF16: u8 = 0;
const F16: u8 = 1;
const F32: u8 = 2;

/// Elements of a vector.
const LANES: usize = 8;
/// So many elements fit the 32-bit counters of a vector.
const COUNTED: usize = 1 << 30;

/// A kernel for each pair of types.
macro_rules! dispatch {
    ($dtype:expr, $name:ident, $kernel:expr) => {
        match $dtype {
            DType::BF16 => {
                const $name: u8 = BF16;
                $kernel
            }
            DType::F16 => {
                const $name: u8 = F16;
                $kernel
            }
            _ => {
                const $name: u8 = F32;
                $kernel
            }
        }
    };
}

/// See [`super::convert`].
pub(super) fn convert(_: Features, from: DType, bytes: &[u8], to: DType, out: &mut [u8]) -> Broken {
    let mut broken = Broken::default();
    for (bytes, out) in bytes.chunks(COUNTED * from.size()).zip(out.chunks_mut(COUNTED * to.size())) {
        // SAFETY: `Features` exists only where the processor has the instructions.
        broken += unsafe { dispatch!(from, FROM, dispatch!(to, TO, converted::<FROM, TO>(bytes, out, overflow(to)))) };
    }
    broken
}

/// See [`super::to_f64`].
pub(super) fn to_f64(_: Features, from: DType, bytes: &[u8], out: &mut [f64]) {
    // SAFETY: as above.
    unsafe { dispatch!(from, FROM, widened::<FROM>(bytes, out)) }
}

/// See [`super::from_f64`].
pub(super) fn from_f64(_: Features, values: &[f64], to: DType, out: &mut [u8]) -> Broken {
    let mut broken = Broken::default();
    for (values, out) in values.chunks(COUNTED).zip(out.chunks_mut(COUNTED * to.size())) {
        // SAFETY: as above.
        broken += unsafe { dispatch!(to, TO, rounded::<TO>(values, out, overflow(to))) };
    }
    broken
}

const fn size(ty: u8) -> usize {
    if ty == F32 { 4 } else { 2 }
}

#[target_feature(enable = "avx2,f16c")]
fn converted<const FROM: u8, const TO: u8>(bytes: &[u8], out: &mut [u8], overflow: u32) -> Broken {
    let mut counts = Counts::new(overflow);
    let (from, to) = (LANES * size(FROM), LANES * size(TO));
    let mut vectors = bytes.chunks_exact(from);
    let mut outs = out.chunks_exact_mut(to);
    for (bytes, out) in vectors.by_ref().zip(outs.by_ref()) {
        let x = load::<FROM>(bytes);
        counts.add(_mm256_castps_si256(x));
        store::<TO>(x, out);
    }
    // What is left is filled up with zeros, which count for nothing.
    let (rest, out) = (vectors.remainder(), outs.into_remainder());
    let (mut last, mut made) = ([0; 4 * LANES], [0; 4 * LANES]);
    last[..rest.len()].copy_from_slice(rest);
    let x = load::<FROM>(&last[..from]);
    counts.add(_mm256_castps_si256(x));
    store::<TO>(x, &mut made[..to]);
    out.copy_from_slice(&made[..out.len()]);
    let (before, after) = counts.sums();
    Broken { non_finite: after, overflowed: after - before }
}

#[target_feature(enable = "avx2,f16c")]
fn widened<const FROM: u8>(bytes: &[u8], out: &mut [f64]) {
    let from = LANES * size(FROM);
    let mut vectors = bytes.chunks_exact(from);
    let (outs, tail) = out.as_chunks_mut::<LANES>();
    for (bytes, out) in vectors.by_ref().zip(outs) {
        store_f64(load::<FROM>(bytes), out);
    }
    let mut last = [0; 4 * LANES];
    last[..vectors.remainder().len()].copy_from_slice(vectors.remainder());
    let mut made = [0.0; LANES];
    store_f64(load::<FROM>(&last[..from]), &mut made);
    tail.copy_from_slice(&made[..tail.len()]);
}

#[target_feature(enable = "avx2,f16c")]
fn rounded<const TO: u8>(values: &[f64], out: &mut [u8], overflow: u32) -> Broken {
    let mut counts = Counts::new(overflow);
    let (vectors, rest) = values.as_chunks::<LANES>();
    let mut outs = out.chunks_exact_mut(LANES * size(TO));
    let mut infinite = _mm256_setzero_si256();
    let mut vector = |values: &[f64; LANES], out: &mut [u8]| {
        // SAFETY: four of eight elements each.
        let (low, high) = unsafe { (_mm256_loadu_pd(values.as_ptr()), _mm256_loadu_pd(values.as_ptr().add(4))) };
        infinite = _mm256_sub_epi64(infinite, non_finite(low));
        infinite = _mm256_sub_epi64(infinite, non_finite(high));
        let x = match TO {
            F32 => _mm256_set_m128(_mm256_cvtpd_ps(high), _mm256_cvtpd_ps(low)),
            _ => _mm256_castsi256_ps(_mm256_set_m128i(to_odd(high), to_odd(low))),
        };
        counts.add(_mm256_castps_si256(x));
        store::<TO>(x, out);
    };
    for (values, out) in vectors.iter().zip(outs.by_ref()) {
        vector(values, out);
    }
    let (mut last, mut made) = ([0.0; LANES], [0; 4 * LANES]);
    last[..rest.len()].copy_from_slice(rest);
    vector(&last, &mut made[..LANES * size(TO)]);
    let out = outs.into_remainder();
    out.copy_from_slice(&made[..out.len()]);
    let mut before = [0u64; 4];
    // SAFETY: four numbers of 64 bits.
    unsafe { _mm256_storeu_si256(before.as_mut_ptr().cast(), infinite) };
    let (_, after) = counts.sums();
    Broken { non_finite: after, overflowed: after - before.iter().sum::<u64>() }
}

/// All ones where an element is NaN or infinite.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn non_finite(x: __m256d) -> __m256i {
    let magnitude = _mm256_andnot_pd(_mm256_set1_pd(-0.0), x);
    _mm256_castpd_si256(_mm256_cmp_pd::<_CMP_NLE_UQ>(magnitude, _mm256_set1_pd(f64::MAX)))
}

/// Four f32 rounded to odd: see [`crate::rounding::to_odd`].
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn to_odd(x: __m256d) -> __m128i {
    let near = _mm256_cvtpd_ps(x);
    let back = _mm256_cvtps_pd(near);
    let sign = _mm256_set1_pd(-0.0);
    let inexact = _mm256_cmp_pd::<_CMP_NEQ_OQ>(back, x);
    let above = _mm256_cmp_pd::<_CMP_GT_OQ>(_mm256_andnot_pd(sign, back), _mm256_andnot_pd(sign, x));
    let (inexact, above) = (halves(inexact), halves(above));
    // A mask is −1: added, it is the step toward zero.
    let toward_zero = _mm_add_epi32(_mm_castps_si128(near), above);
    _mm_or_si128(toward_zero, _mm_srli_epi32::<31>(inexact))
}

/// Four masks of 64 bits as masks of 32.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn halves(mask: __m256d) -> __m128i {
    let mask = _mm256_castpd_ps(mask);
    _mm_castps_si128(_mm_shuffle_ps::<0b10_00_10_00>(_mm256_castps256_ps128(mask), _mm256_extractf128_ps::<1>(mask)))
}

/// Eight elements as f32.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn load<const FROM: u8>(bytes: &[u8]) -> __m256 {
    assert!(bytes.len() == LANES * size(FROM));
    let at = bytes.as_ptr();
    // SAFETY: the slice has as many bytes as are loaded, of any alignment.
    unsafe {
        match FROM {
            BF16 => {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            }
            F16 => _mm256_cvtph_ps(_mm_loadu_si128(at.cast())),
            _ => _mm256_loadu_ps(at.cast()),
        }
    }
}

/// Eight f32 as elements.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn store<const TO: u8>(x: __m256, out: &mut [u8]) {
    assert!(out.len() == LANES * size(TO));
    let at = out.as_mut_ptr();
    // SAFETY: the slice has as many bytes as are stored, of any alignment.
    unsafe {
        match TO {
            BF16 => {
                let bits = _mm256_castps_si256(x);
                let upper = _mm256_srli_epi32::<16>(bits);
                let odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
                let carried = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
                let nearest = _mm256_srli_epi32::<16>(carried);
                let quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
                let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(x, x));
                let rounded = _mm256_blendv_epi8(nearest, quiet, nan);
                let packed = _mm256_packus_epi32(rounded, rounded);
                let packed = _mm256_permute4x64_epi64::<0b10_00>(packed);
                _mm_storeu_si128(at.cast(), _mm256_castsi256_si128(packed));
            }
            F16 => _mm_storeu_si128(at.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x)),
            _ => _mm256_storeu_ps(at.cast(), x),
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn store_f64(x: __m256, out: &mut [f64; LANES]) {
    // SAFETY: four of eight elements each.
    unsafe {
        _mm256_storeu_pd(out.as_mut_ptr(), _mm256_cvtps_pd(_mm256_castps256_ps128(x)));
        _mm256_storeu_pd(out.as_mut_ptr().add(4), _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(x)));
    }
}

/// Counts elements that are NaN or infinite, before and after a conversion.
struct Counts {
    overflow: __m256i,
    before: __m256i,
    after: __m256i,
}

impl Counts {
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn new(overflow: u32) -> Counts {
        let zero = _mm256_setzero_si256();
        Counts { overflow: _mm256_set1_epi32(overflow as i32 - 1), before: zero, after: zero }
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn add(&mut self, bits: __m256i) {
        let magnitude = _mm256_and_si256(bits, _mm256_set1_epi32(0x7fff_ffff));
        let infinite = _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(INFINITY as i32 - 1));
        self.before = _mm256_sub_epi32(self.before, infinite);
        self.after = _mm256_sub_epi32(self.after, _mm256_cmpgt_epi32(magnitude, self.overflow));
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn sums(self) -> (u64, u64) {
        (sum(self.before), sum(self.after))
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn sum(counts: __m256i) -> u64 {
    let mut each = [0u32; LANES];
    // SAFETY: eight numbers of 32 bits.
    unsafe { _mm256_storeu_si256(each.as_mut_ptr().cast(), counts) };
    each.iter().map(|n| u64::from(*n)).sum()
}
