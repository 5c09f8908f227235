//! Ranges: what an estimate says in place of one number that would look like a measurement.

use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul};

use serde::{Deserialize, Serialize};

/// A quantity that is known to lie somewhere: `low ≤ likely ≤ high`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// The smallest value that what is known allows.
    pub low: f64,
    /// The value that an estimate takes if it must take one.
    pub likely: f64,
    /// The largest value that what is known allows.
    pub high: f64,
}

impl Range {
    /// A range without width.
    #[must_use]
    pub const fn exactly(x: f64) -> Range {
        Range { low: x, likely: x, high: x }
    }

    /// The range of a value that falls as this one rises, such as a rate of a time.
    #[must_use]
    pub fn falling(self, f: impl Fn(f64) -> f64) -> Range {
        Range { low: f(self.high), likely: f(self.likely), high: f(self.low) }
    }

    /// Whether a number lies in it.
    #[must_use]
    pub fn contains(self, x: f64) -> bool {
        (self.low..=self.high).contains(&x)
    }
}

impl Add for Range {
    type Output = Range;
    fn add(self, other: Range) -> Range {
        Range { low: self.low + other.low, likely: self.likely + other.likely, high: self.high + other.high }
    }
}

impl AddAssign for Range {
    fn add_assign(&mut self, other: Range) {
        *self = *self + other;
    }
}

impl Mul<f64> for Range {
    type Output = Range;
    fn mul(self, by: f64) -> Range {
        Range { low: self.low * by, likely: self.likely * by, high: self.high * by }
    }
}

impl Sum for Range {
    fn sum<I: Iterator<Item = Range>>(items: I) -> Range {
        items.fold(Range::default(), Add::add)
    }
}
