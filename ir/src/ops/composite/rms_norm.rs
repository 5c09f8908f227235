//! `rms_norm`.

use serde::{Deserialize, Serialize};

use super::super::{Cost, OpDef, OpError, arity, check_axis, require, same_float};
use crate::TensorType;

/// `x · 1/√(mean(x²) + eps) · gain`, the mean over `axis` (Zhang & Sennrich, arXiv 1910.07467). Operands x and, optionally,
/// gain `[x.shape[axis]]`.
///
/// - C1: axis in range. C2: gain is `[x.shape[axis]]`. C3: one float dtype.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RmsNorm {
    /// The axis that is normalised.
    pub axis: usize,
    /// Added to the mean of squares.
    pub eps: f64,
}

impl OpDef for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 1..=2)?;
        same_float(operands)?;
        let x = operands[0];
        check_axis(self.axis, x.rank())?;
        if let Some(gain) = operands.get(1) {
            require!(gain.shape == [x.shape[self.axis]], "gain must be [{}], found {gain}", x.shape[self.axis]);
        }
        Ok(x.clone())
    }

    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops(4 * ty.elements() as u64, operands, ty)
    }
}
