//! `rope_table`: cosines or sines of the 3-D rotary embedding's angles.

use serde::{Deserialize, Serialize};

use super::{Cost, OpDef, OpError, TensorOp, arity, require};
use crate::{DType, Tensor, TensorType};

/// The function of the angle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RopePart {
    /// cos(angle)
    Cos,
    /// sin(angle)
    Sin,
}

/// Table `[F·h·w, d/2]` of cos or sin of `pos · θ^(−2i/d_axis)`, for tokens in (frame, row, column) order and the
/// pairs of the three axes one after the other (RoFormer, arXiv 2104.09864, in Wan 2.1's 3-D arrangement).
/// Angles are computed in float64.
///
/// - C1: every axis dimension is even. C2: the grid is not empty. C3: the result is f32.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RopeTable {
    /// cos or sin.
    pub part: RopePart,
    /// Frames, rows, columns.
    pub grid: [usize; 3],
    /// Head dimensions given to (time, height, width); they add up to d.
    pub axis_dims: [usize; 3],
    /// Base θ.
    pub theta: f64,
}

impl OpDef for RopeTable {
    fn name(&self) -> &'static str {
        "rope_table"
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 0..=0)?;
        require!(self.axis_dims.iter().all(|d| d % 2 == 0), "axis_dims must be even, found {:?}", self.axis_dims);
        require!(self.grid.iter().all(|&g| g > 0), "grid must not be empty, found {:?}", self.grid);
        require!(self.theta.is_finite() && self.theta > 0.0, "theta must be positive, found {}", self.theta);
        let tokens = self.grid.iter().product();
        let half = self.axis_dims.iter().sum::<usize>() / 2;
        Ok(TensorType::new(DType::F32, [tokens, half]))
    }

    fn cost(&self, _: &[&TensorType], _: &TensorType) -> Cost {
        Cost::default()
    }
}

impl TensorOp for RopeTable {
    fn eval(&self, _: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let [frames, rows, cols] = self.grid;
        let mut values = Vec::with_capacity(ty.elements());
        for f in 0..frames {
            for r in 0..rows {
                for c in 0..cols {
                    for (position, dim) in [f, r, c].into_iter().zip(self.axis_dims) {
                        for i in 0..dim / 2 {
                            let angle = position as f64 * self.theta.powf(-2.0 * i as f64 / dim as f64);
                            values.push(match self.part {
                                RopePart::Cos => angle.cos(),
                                RopePart::Sin => angle.sin(),
                            });
                        }
                    }
                }
            }
        }
        Tensor::from_values(ty, values).ok_or_else(|| OpError::new("rope table size"))
    }
}
