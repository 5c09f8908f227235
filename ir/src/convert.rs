//! Slices of floats from one type to another: rounded once, to nearest with ties to even, and broken values counted in the
//! same sweep.
//!
//! Processors with AVX2 and F16C are found at run time and convert eight elements at a time (`x86.rs`); others take the
//! loops of `portable.rs`. Both give the same bits, NaN included: a NaN keeps its sign and the upper bits of its payload and becomes a
//! quiet one, except where bf16 is widened, which moves bits only.

mod broken;
mod portable;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::DType;
pub use broken::Broken;

/// A type that is read or written: bf16, f16 or f32.
const fn is_stored_float(dtype: DType) -> bool {
    matches!(dtype, DType::BF16 | DType::F16 | DType::F32)
}

/// Whether [`convert`] has this pair: bf16, f16 and f32, to each other.
#[must_use]
pub const fn converts(from: DType, to: DType) -> bool {
    is_stored_float(from) && is_stored_float(to)
}

/// Converts little-endian elements, of any alignment.
///
/// # Panics
/// A pair that [`converts`] does not know, or slices of different numbers of elements.
pub fn convert(from: DType, bytes: &[u8], to: DType, out: &mut [u8]) -> Broken {
    assert!(converts(from, to), "no conversion from {from} to {to}");
    assert_eq!(bytes.len() / from.size(), out.len() / to.size(), "slices of different lengths");
    if from == to {
        out.copy_from_slice(bytes);
        return Broken { non_finite: non_finite(bytes, from), overflowed: 0 };
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(features) = x86::Features::detected() {
        return x86::convert(features, from, bytes, to, out);
    }
    portable::convert(from, bytes, to, out)
}

/// Little-endian elements of bf16, f16 or f32, of any alignment, as f32.
///
/// # Panics
/// Another type, or slices of different numbers of elements.
pub fn to_f32(from: DType, bytes: &[u8], out: &mut [f32]) {
    if cfg!(target_endian = "little") {
        convert(from, bytes, DType::F32, bytemuck::cast_slice_mut(out));
    } else {
        portable::decode(from, bytes, out);
    }
}

/// Little-endian elements of bf16, f16 or f32, of any alignment, as f64: exact.
///
/// # Panics
/// Another type, or slices of different numbers of elements.
pub fn to_f64(from: DType, bytes: &[u8], out: &mut [f64]) {
    assert!(is_stored_float(from), "no conversion from {from}");
    assert_eq!(bytes.len() / from.size(), out.len(), "slices of different lengths");
    #[cfg(target_arch = "x86_64")]
    if let Some(features) = x86::Features::detected() {
        return x86::to_f64(features, from, bytes, out);
    }
    portable::to_f64(from, bytes, out);
}

/// Rounds to little-endian elements of bf16, f16 or f32.
///
/// # Panics
/// Another type, or slices of different numbers of elements.
pub fn from_f64(values: &[f64], to: DType, out: &mut [u8]) -> Broken {
    assert!(is_stored_float(to), "no conversion to {to}");
    assert_eq!(values.len(), out.len() / to.size(), "slices of different lengths");
    #[cfg(target_arch = "x86_64")]
    if let Some(features) = x86::Features::detected() {
        return x86::from_f64(features, values, to, out);
    }
    portable::from_f64(values, to, out)
}

/// NaN and infinite ones among little-endian elements of any type: those whose exponent is all ones.
#[must_use]
pub fn non_finite(bytes: &[u8], dtype: DType) -> u64 {
    let mask: u16 = match dtype {
        DType::F16 => 0x7c00,
        DType::BF16 => 0x7f80,
        DType::F32 => {
            let count = |words: &[[u8; 4]]| {
                words.iter().map(|b| u32::from(u32::from_le_bytes(*b) & 0x7f80_0000 == 0x7f80_0000)).sum::<u32>()
            };
            return bytes.as_chunks::<4>().0.chunks(4096).map(count).map(u64::from).sum();
        }
        DType::F64 => {
            let words = bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b));
            return words.map(|x| u64::from(!x.is_finite())).sum();
        }
        _ => return 0,
    };
    let count = |pairs: &[[u8; 2]]| pairs.iter().map(|b| u16::from(u16::from_le_bytes(*b) & mask == mask)).sum::<u16>();
    bytes.as_chunks::<2>().0.chunks(4096).map(count).map(u64::from).sum()
}
