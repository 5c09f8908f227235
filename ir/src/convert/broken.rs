//! Elements that a conversion breaks: how they are counted, and where they begin.

use std::ops::AddAssign;

use crate::DType;

/// What was seen while elements were converted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Broken {
    /// NaN or infinite elements in the result.
    pub non_finite: u64,
    /// Of these, elements that were finite before: the result's type cannot hold them.
    pub overflowed: u64,
}

impl AddAssign for Broken {
    fn add_assign(&mut self, other: Broken) {
        self.non_finite += other.non_finite;
        self.overflowed += other.overflowed;
    }
}

/// The smallest f32, as bits without the sign, that rounds to infinity in this type: the middle between the largest number and
/// the next power of two, as ties go to even.
pub(super) const fn overflow(to: DType) -> u32 {
    match to {
        DType::F16 => 0x477f_f000,
        DType::BF16 => 0x7f7f_8000,
        _ => INFINITY,
    }
}

/// Infinity, as f32 bits.
pub(super) const INFINITY: u32 = 0x7f80_0000;
