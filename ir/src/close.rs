//! Whether values agree with a reference, for tests of passes, backends and whole programs.
//!
//! A comparison fails on whatever could hide a difference: NaN and infinities, another shape, another number of values, another
//! name, and on nothing to compare. `f64::max` drops NaN and `zip` drops the longer list's end; neither occurs here.

use std::fmt;

use crate::Tensor;

/// How far a value may be from its reference: `|x − r| ≤ max(absolute, relative · max(floor, largest |r| of the tensor))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    relative: f64,
    floor: f64,
    absolute: f64,
    non_finite: bool,
}

impl Tolerance {
    /// Equal numbers; zeros of either sign are equal.
    pub const EXACT: Tolerance = Tolerance::absolute(0.0);

    /// A share of the reference's largest magnitude, or of `floor` if that is larger.
    #[must_use]
    pub const fn relative(relative: f64, floor: f64) -> Tolerance {
        Tolerance { relative, floor, absolute: 0.0, non_finite: false }
    }

    /// So much, whatever the reference.
    #[must_use]
    pub const fn absolute(absolute: f64) -> Tolerance {
        Tolerance { relative: 0.0, floor: 0.0, absolute, non_finite: false }
    }

    /// The reference may hold NaN and infinities: the same then stand at the same places. Without this they are a failure of the
    /// reference.
    #[must_use]
    pub const fn with_non_finite(self) -> Tolerance {
        Tolerance { non_finite: true, ..self }
    }
}

/// Why two sets of values do not agree: where, what was found, what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch(String);

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Mismatch {}

/// Compares numbers one by one.
///
/// # Errors
/// The first element that is not near its reference; unequal lengths; no elements at all.
pub fn compare_values(got: &[f64], reference: &[f64], tolerance: Tolerance) -> Result<(), Mismatch> {
    if got.len() != reference.len() {
        return Err(Mismatch(format!("found {} elements, expected {}", got.len(), reference.len())));
    }
    if reference.is_empty() {
        return Err(Mismatch("there is nothing to compare".into()));
    }
    let finite = reference.iter().filter(|r| r.is_finite());
    let scale = finite.fold(tolerance.floor, |scale, r| scale.max(r.abs()));
    let bar = tolerance.absolute.max(tolerance.relative * scale);
    for (i, (&x, &r)) in got.iter().zip(reference).enumerate() {
        if !r.is_finite() && !tolerance.non_finite {
            return Err(Mismatch(format!("element {i} of the reference is {r}")));
        }
        let near = match r.is_finite() {
            true => x.is_finite() && (x - r).abs() <= bar,
            false => x == r || (x.is_nan() && r.is_nan()),
        };
        if !near {
            return Err(Mismatch(format!(
                "element {i}: found {x:e}, expected {r:e}, off by {:e} where {bar:e} is allowed",
                (x - r).abs()
            )));
        }
    }
    Ok(())
}

/// Compares two tensors: the same shape, and each element near its reference. Dtypes may differ: a pass may change them.
///
/// # Errors
/// The shapes, or the first element that is not near its reference.
pub fn compare_tensors(got: &Tensor, reference: &Tensor, tolerance: Tolerance) -> Result<(), Mismatch> {
    if got.data.shape() != reference.data.shape() {
        return Err(Mismatch(format!("found shape {:?}, expected {:?}", got.data.shape(), reference.data.shape())));
    }
    let values = |t: &Tensor| t.data.iter().copied().collect::<Vec<f64>>();
    compare_values(&values(got), &values(reference), tolerance)
}

/// Compares named tensors: the same names in the same order, and each tensor near its reference.
///
/// # Errors
/// A name that is missing, added or elsewhere; the first tensor that is not near its reference; no tensors at all.
pub fn compare(got: &[(String, Tensor)], reference: &[(String, Tensor)], tolerance: Tolerance) -> Result<(), Mismatch> {
    let names = |all: &[(String, Tensor)]| all.iter().map(|(name, _)| name.clone()).collect::<Vec<String>>();
    if names(got) != names(reference) {
        return Err(Mismatch(format!("found {:?}, expected {:?}", names(got), names(reference))));
    }
    if reference.is_empty() {
        return Err(Mismatch("there is nothing to compare".into()));
    }
    for ((name, got), (_, reference)) in got.iter().zip(reference) {
        compare_tensors(got, reference, tolerance).map_err(|e| Mismatch(format!("`{name}`: {e}")))?;
    }
    Ok(())
}

/// [`compare`], as an assertion about `place`.
///
/// # Panics
/// If the values do not agree.
#[track_caller]
#[allow(clippy::panic, reason = "an assertion, which tests call")]
pub fn assert_close(
    place: impl fmt::Display,
    got: &[(String, Tensor)],
    reference: &[(String, Tensor)],
    tolerance: Tolerance,
) {
    if let Err(mismatch) = compare(got, reference, tolerance) {
        panic!("{place}: {mismatch}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, TensorType};

    const INF: f64 = f64::INFINITY;
    const NEAR: Tolerance = Tolerance::relative(0.1, 1.0);

    fn says(result: Result<(), Mismatch>, part: &str) {
        let message = result.expect_err(part).to_string();
        assert!(message.contains(part), "{message}");
    }

    #[test]
    fn numbers_are_near_relative_to_the_largest() {
        assert_eq!(compare_values(&[10.9, 0.9], &[10.0, 0.0], NEAR), Ok(()));
        says(compare_values(&[10.0, 1.1], &[10.0, 0.0], NEAR), "element 1: found 1.1e0, expected 0e0");
        says(compare_values(&[11.1, 0.0], &[10.0, 0.0], NEAR), "element 0");
        // Below the floor, the floor counts.
        assert_eq!(compare_values(&[0.09], &[0.0], NEAR), Ok(()));
        says(compare_values(&[0.11], &[0.0], NEAR), "element 0");
        assert_eq!(compare_values(&[-0.0, 3.0], &[0.0, 3.0], Tolerance::EXACT), Ok(()));
        says(compare_values(&[3.0 + 1e-15], &[3.0], Tolerance::EXACT), "element 0");
        assert_eq!(compare_values(&[100.5], &[100.0], Tolerance::absolute(0.5)), Ok(()));
        says(compare_values(&[100.6], &[100.0], Tolerance::absolute(0.5)), "where 5e-1 is allowed");
    }

    #[test]
    fn nan_and_infinities_are_never_near_a_number() {
        for bad in [f64::NAN, INF, -INF] {
            says(compare_values(&[1.0, bad], &[1.0, 2.0], NEAR), "element 1: found");
            says(compare_values(&[1.0, bad], &[1.0, 2.0], NEAR.with_non_finite()), "element 1: found");
            says(compare_values(&[1.0, 2.0], &[1.0, bad], NEAR), "element 1 of the reference is");
            says(compare_values(&[bad], &[bad], NEAR), "of the reference");
            says(compare_values(&[2.0], &[bad], NEAR.with_non_finite()), "element 0");
            assert_eq!(compare_values(&[bad, 1.05], &[bad, 1.0], NEAR.with_non_finite()), Ok(()));
        }
        says(compare_values(&[INF], &[-INF], NEAR.with_non_finite()), "element 0");
        says(compare_values(&[f64::NAN], &[INF], NEAR.with_non_finite()), "element 0");
        // An infinite reference does not widen the bar for the others.
        says(compare_values(&[INF, 2.0], &[INF, 1.0], NEAR.with_non_finite()), "element 1");
    }

    #[test]
    fn lengths_shapes_names_and_counts_must_agree() {
        says(compare_values(&[1.0], &[1.0, 2.0], NEAR), "found 1 elements, expected 2");
        says(compare_values(&[1.0, 2.0], &[1.0], NEAR), "found 2 elements, expected 1");
        says(compare_values(&[], &[], NEAR), "nothing to compare");
        let tensor = |shape: &[usize]| Tensor::splat(&TensorType::new(DType::F32, shape), 1.0);
        says(compare_tensors(&tensor(&[2, 3]), &tensor(&[3, 2]), NEAR), "found shape [2, 3], expected [3, 2]");
        let named = |names: &[&str]| names.iter().map(|n| (n.to_string(), tensor(&[2]))).collect::<Vec<_>>();
        assert_eq!(compare(&named(&["a", "b"]), &named(&["a", "b"]), NEAR), Ok(()));
        for other in [&["a"][..], &["a", "b", "c"], &["b", "a"], &["a", "c"], &[]] {
            says(compare(&named(other), &named(&["a", "b"]), NEAR), "expected [\"a\", \"b\"]");
        }
        says(compare(&[], &[], NEAR), "nothing to compare");
        let mut wrong = named(&["a", "b"]);
        wrong[1].1.data[1] = 2.0;
        says(compare(&wrong, &named(&["a", "b"]), NEAR), "`b`: element 1: found 2e0, expected 1e0");
    }

    #[test]
    #[should_panic(expected = "after cse: found [], expected [\"y\"]")]
    fn the_assertion_names_its_place() {
        let y = Tensor::splat(&TensorType::new(DType::F32, []), 1.0);
        assert_close("after cse", &[], &[("y".into(), y)], NEAR);
    }
}
