//! `rms_norm`.

use serde::{Deserialize, Serialize};

use super::super::{Cost, OpDef, OpError, ReduceKind, Unary, arity, check_axis, require, same_float};
use super::{Composite, eval};
use crate::build::Built;
use crate::{Builder, Tensor, TensorType, ValueId};

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

    fn eval(&self, operands: &[&Tensor], _: &TensorType) -> Result<Tensor, OpError> {
        eval(self, operands)
    }

    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops(4 * ty.elements() as u64, operands, ty)
    }
}

impl Composite for RmsNorm {
    fn decompose(&self, b: &mut Builder, operands: &[ValueId]) -> Built {
        let x = operands[0];
        let square = b.unary(Unary::Square, x)?;
        let mean = b.reduce(ReduceKind::Mean, square, &[self.axis], true)?;
        let mean = b.add_scalar(mean, self.eps)?;
        let inverse = b.unary(Unary::Rsqrt, mean)?;
        let y = b.mul(x, inverse)?;
        let Some(&gain) = operands.get(1) else { return Ok(y) };
        let trailing = b.shape(x).len() - 1 - self.axis;
        if trailing == 0 {
            return b.mul(y, gain);
        }
        let mut shape = vec![1; trailing + 1];
        shape[0] = b.shape(x)[self.axis];
        let gain = b.reshape(gain, &shape)?;
        b.mul(y, gain)
    }
}
