//! `fractional_rope_table`: cosines or sines of a 3-D rotary embedding's angles at coordinates that are no whole numbers.

use std::f64::consts::FRAC_PI_2;

use serde::{Deserialize, Serialize};

use super::{Cost, OpDef, OpError, RopePart, TensorOp, arity, require};
use crate::{DType, Tensor, TensorType};

/// Table `[F·h·w, unrotated + 3·frequencies]` of cos or sin of `π/2 · θ^(i/(n − 1)) · (2p − 1)`, `i` from 0 to below n = `frequencies`, for
/// tokens in (frame, row, column) order. In a row come first `unrotated` angles of 0, then for each `i` the angles of frame, row and
/// column (LTX-Video, arXiv 2501.00103, as diffusers' `LTXVideoRotaryPosEmbed` arranges them). Angles are computed in float64.
///
/// - C1: no axis is empty and coordinates are finite. C2: there are frequencies, and θ is positive. C3: the result is f32.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FractionalRopeTable {
    /// cos or sin.
    pub part: RopePart,
    /// The coordinates p of the frames, of the rows and of the columns, as fractions of the longest that the model was trained for.
    pub coordinates: [Vec<f64>; 3],
    /// Frequencies of an axis, n.
    pub frequencies: usize,
    /// Angles at the start of a row that are 0.
    pub unrotated: usize,
    /// Base θ, the ratio of the highest frequency to the lowest.
    pub theta: f64,
}

impl FractionalRopeTable {
    /// `π/2 · θ^(i/(n − 1))` of every `i`; a single frequency is the lowest.
    fn frequencies(&self) -> impl Iterator<Item = f64> {
        let last = self.frequencies.saturating_sub(1).max(1) as f64;
        (0..self.frequencies).map(move |i| FRAC_PI_2 * self.theta.powf(i as f64 / last))
    }
}

impl OpDef for FractionalRopeTable {
    fn name(&self) -> &'static str {
        "fractional_rope_table"
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 0..=0)?;
        for axis in &self.coordinates {
            require!(!axis.is_empty(), "an axis must have coordinates, found none");
            require!(axis.iter().all(|p| p.is_finite()), "coordinates must be finite, found {axis:?}");
        }
        require!(self.frequencies > 0, "frequencies must be 1 at least, found 0");
        require!(self.theta.is_finite() && self.theta > 0.0, "theta must be positive, found {}", self.theta);
        let tokens = self.coordinates.iter().map(Vec::len).try_fold(1usize, usize::checked_mul);
        let angles = self.frequencies.checked_mul(3).and_then(|angles| angles.checked_add(self.unrotated));
        match (tokens, angles) {
            (Some(tokens), Some(angles)) => Ok(TensorType::new(DType::F32, [tokens, angles])),
            _ => Err(OpError::new("the table would have more elements than can be counted")),
        }
    }

    fn cost(&self, _: &[&TensorType], _: &TensorType) -> Cost {
        Cost::default()
    }
}

impl TensorOp for FractionalRopeTable {
    fn eval(&self, _: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let of = |angle: f64| match self.part {
            RopePart::Cos => angle.cos(),
            RopePart::Sin => angle.sin(),
        };
        // Tokens of one row have the same angles but for the column's: each angle is computed once.
        let frequencies: Vec<f64> = self.frequencies().collect();
        let [frames, rows, cols] = self.coordinates.each_ref().map(|axis| {
            let at = |p: &f64| frequencies.iter().map(|w| of(w * (2.0 * p - 1.0))).collect::<Vec<f64>>();
            axis.iter().map(at).collect::<Vec<_>>()
        });
        let mut values = Vec::with_capacity(ty.elements());
        for frame in &frames {
            for row in &rows {
                for col in &cols {
                    values.extend(std::iter::repeat_n(of(0.0), self.unrotated));
                    for i in 0..self.frequencies {
                        values.extend([frame[i], row[i], col[i]]);
                    }
                }
            }
        }
        Tensor::from_values(ty, values).ok_or_else(|| OpError::new("fractional_rope_table size"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(part: RopePart) -> FractionalRopeTable {
        let coordinates = [vec![0.0, 0.25], vec![0.5], vec![0.125, 0.75, 1.0]];
        FractionalRopeTable { part, coordinates, frequencies: 2, unrotated: 1, theta: 100.0 }
    }

    #[test]
    fn angles_are_those_of_the_formula() {
        for (part, of) in [(RopePart::Cos, f64::cos as fn(f64) -> f64), (RopePart::Sin, f64::sin)] {
            let op = table(part);
            let ty = op.infer(&[], None).unwrap();
            assert_eq!(ty.shape, [6, 7]);
            let values = op.eval(&[], &ty).unwrap();
            // Frame 1, column 1: after the angle of 0 the lowest frequency of each axis, then the highest.
            let row =
                [0.0, -0.25, 0.0, 0.25, -25.0, 0.0, 25.0].map(|quarters: f64| of(quarters * std::f64::consts::PI));
            for (i, expected) in row.into_iter().enumerate() {
                let found = values.data[[4, i]];
                assert!((found - expected).abs() < 1e-12, "{i}: {found} and {expected}");
            }
        }
    }

    #[test]
    fn what_is_no_table_is_refused() {
        let refused = |change: fn(&mut FractionalRopeTable)| {
            let mut op = table(RopePart::Cos);
            change(&mut op);
            op.infer(&[], None).unwrap_err().to_string()
        };
        assert!(refused(|op| op.coordinates[1].clear()).contains("found none"));
        assert!(refused(|op| op.coordinates[2][0] = f64::NAN).contains("finite"));
        assert!(refused(|op| op.frequencies = 0).contains("frequencies"));
        assert!(refused(|op| op.frequencies = usize::MAX).contains("counted"));
        assert!(refused(|op| op.theta = 0.0).contains("theta"));
    }
}
