//! `softmax`.

use ndarray::Axis;
use serde::{Deserialize, Serialize};

use super::{Cost, OpDef, OpError, TensorOp, arity, check_axis, same_float};
use crate::{Tensor, TensorType};

/// `exp(x − max) / Σ exp(x − max)` over one axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Softmax {
    /// The axis that sums to one.
    pub axis: usize,
}

impl OpDef for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }
    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 1..=1)?;
        same_float(operands)?;
        check_axis(self.axis, operands[0].rank())?;
        Ok(operands[0].clone())
    }
    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops(8 * ty.elements() as u64, operands, ty)
    }
}

impl TensorOp for Softmax {
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let mut data = operands[0].data.clone();
        for mut lane in data.lanes_mut(Axis(self.axis)) {
            let max = lane.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            lane.mapv_inplace(|x| (x - max).exp());
            let sum = lane.sum();
            lane /= sum;
        }
        Ok(Tensor { dtype: ty.dtype, data })
    }
}
