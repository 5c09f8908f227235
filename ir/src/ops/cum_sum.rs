//! `cum_sum`: running sums.

use ndarray::Axis;
use serde::{Deserialize, Serialize};

use super::{OpDef, OpError, TensorOp, arity, check_axis};
use crate::{Tensor, TensorType};

/// Sums of all elements up to each one along `axis`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CumSum {
    /// The axis that is summed along.
    pub axis: usize,
    /// Leave the element itself out: the first sum is 0.
    pub exclusive: bool,
    /// From the last element to the first.
    pub reverse: bool,
}

impl OpDef for CumSum {
    fn name(&self) -> &'static str {
        "cum_sum"
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 1..=1)?;
        check_axis(self.axis, operands[0].rank())?;
        Ok(operands[0].clone())
    }
}

impl TensorOp for CumSum {
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let mut data = operands[0].data.clone();
        for mut lane in data.lanes_mut(Axis(self.axis)) {
            let n = lane.len();
            let mut sum = 0.0;
            for i in 0..n {
                let at = if self.reverse { n - 1 - i } else { i };
                let before = sum;
                sum += lane[at];
                lane[at] = if self.exclusive { before } else { sum };
            }
        }
        Ok(Tensor { dtype: ty.dtype, data })
    }
}
