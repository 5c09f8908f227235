//! `gather`: chosen positions of one axis.

use ndarray::Axis;
use serde::{Deserialize, Serialize};

use super::gather_along_axis::position;
use super::{Cost, OpDef, OpError, TensorOp, arity, check_axis, require};
use crate::{DType, Tensor, TensorType};

/// `result[…, j, …] = x[…, indices[j], …]` along `axis`, with indices `i32[n]`: `torch.index_select`.
///
/// - C1: indices are a rank-1 i32 tensor. C2: every index is in `-extent..extent`; a negative one counts from the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gather {
    /// The indexed axis.
    pub axis: usize,
}

impl OpDef for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }
    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 2..=2)?;
        let (x, indices) = (operands[0], operands[1]);
        check_axis(self.axis, x.rank())?;
        require!(indices.rank() == 1 && indices.dtype == DType::I32, "indices must be i32[n], found {indices}");
        let mut shape = x.shape.clone();
        shape[self.axis] = indices.shape[0];
        Ok(TensorType::new(x.dtype, shape))
    }
    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops(0, &[operands[1], ty], ty)
    }
}

impl TensorOp for Gather {
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let extent = operands[0].data.shape()[self.axis];
        let indices: Vec<usize> = operands[1].data.iter().map(|&i| position(i, extent)).collect::<Result<_, _>>()?;
        let data = operands[0].data.select(Axis(self.axis), &indices);
        Ok(Tensor { dtype: ty.dtype, data: data.as_standard_layout().into_owned() })
    }
}
