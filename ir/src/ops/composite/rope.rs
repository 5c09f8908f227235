//! `rope`: rotary position embedding.

use serde::{Deserialize, Serialize};

use super::super::{Cost, OpDef, OpError, arity, check_axis, require, same_float};
use super::fits;
use crate::TensorType;

/// The pairing of elements that are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RopePairs {
    /// (0,1), (2,3), …
    Interleaved,
    /// (0, d/2), (1, d/2 + 1), …
    Halves,
}

/// Rotates pairs `(a, b)` of x along `axis`, d long, by the angles of cos and sin:
/// `(a·cos − b·sin, a·sin + b·cos)` (RoFormer, arXiv 2104.09864). Operands x, cos, sin; the tables broadcast to x with `axis` halved.
///
/// - C1: axis in range, its extent even. C2: cos and sin have one shape that broadcasts to the halved x. C3: one float dtype.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rope {
    /// The axis of the head's width.
    pub axis: usize,
    /// Pairing of the elements.
    pub pairs: RopePairs,
}

impl OpDef for Rope {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 3..=3)?;
        same_float(operands)?;
        let (x, cos, sin) = (operands[0], operands[1], operands[2]);
        check_axis(self.axis, x.rank())?;
        let dim = x.shape[self.axis];
        require!(dim.is_multiple_of(2), "the extent of axis {} must be even, found {x}", self.axis);
        let mut half = x.shape.clone();
        half[self.axis] = dim / 2;
        require!(cos.shape == sin.shape, "cos and sin must have one shape, found {cos} and {sin}");
        fits("cos and sin", cos, &half)?;
        Ok(x.clone())
    }

    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops(3 * ty.elements() as u64, operands, ty)
    }
}
