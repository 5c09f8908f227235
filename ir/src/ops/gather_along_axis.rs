//! `gather_along_axis`: each element names the position of one axis that it comes from.

use ndarray::{ArrayD, IxDyn};
use serde::{Deserialize, Serialize};

use super::{Cost, OpDef, OpError, TensorOp, arity, check_axis, require};
use crate::{DType, Tensor, TensorType};

/// `result[p] = x[p with p[axis] = indices[p]]`: `torch.gather`.
///
/// - C1: indices are i32 of x's rank, and no larger than x on the other axes. C2: every index is in `-extent..extent`; a negative one counts
///   from the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatherAlongAxis {
    /// The indexed axis.
    pub axis: usize,
}

/// The position that an index names on an axis.
pub(super) fn position(index: f64, extent: usize) -> Result<usize, OpError> {
    let at = if index < 0.0 { index + extent as f64 } else { index };
    require!(at >= 0.0 && at < extent as f64, "index {index} is out of range for an extent of {extent}");
    Ok(at as usize)
}

/// Indices beside x: `i32`, as many axes, no larger on the axes that are not indexed.
pub(super) fn along(x: &TensorType, indices: &TensorType, axis: usize) -> Result<(), OpError> {
    check_axis(axis, x.rank())?;
    require!(indices.dtype == DType::I32, "indices must be i32, found {indices}");
    let fits = |i: usize| i == axis || indices.shape[i] <= x.shape[i];
    require!(
        indices.rank() == x.rank() && (0..x.rank()).all(fits),
        "indices {indices} must fit into {x} but for axis {axis}"
    );
    Ok(())
}

impl OpDef for GatherAlongAxis {
    fn name(&self) -> &'static str {
        "gather_along_axis"
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 2..=2)?;
        along(operands[0], operands[1], self.axis)?;
        Ok(operands[1].with_dtype(operands[0].dtype))
    }

    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops(0, &[operands[1], ty], ty)
    }
}

impl TensorOp for GatherAlongAxis {
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let x = &operands[0].data;
        let mut data = ArrayD::zeros(IxDyn(&ty.shape));
        for (at, index) in operands[1].data.indexed_iter() {
            let mut from = at.clone();
            from[self.axis] = position(*index, x.shape()[self.axis])?;
            data[&at] = x[from];
        }
        Ok(Tensor { dtype: ty.dtype, data })
    }
}
