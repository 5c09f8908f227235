//! `gather_nd`: slices at positions of several axes.

use ndarray::{ArrayD, IxDyn};
use serde::{Deserialize, Serialize};

use super::gather_along_axis::position;
use super::{Cost, OpDef, OpError, TensorOp, arity, require};
use crate::{DType, Tensor, TensorType};

/// `result[b…, i…] = x[b…, indices[b…, i…, :], …]`, with `batch` leading axes in common: ONNX's `GatherND`.
///
/// - C1: indices are i32 with `batch` extents of x in front and at most as many positions at the end as x has axes left.
/// - C2: every index is in `-extent..extent`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatherNd {
    /// Leading axes in common.
    pub batch: usize,
}

impl OpDef for GatherNd {
    fn name(&self) -> &'static str {
        "gather_nd"
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 2..=2)?;
        let (x, indices) = (operands[0], operands[1]);
        require!(indices.dtype == DType::I32, "indices must be i32, found {indices}");
        require!(
            indices.rank() > self.batch
                && x.rank() > self.batch
                && indices.shape[..self.batch] == x.shape[..self.batch],
            "{x} and the indices {indices} must have {} leading axes in common",
            self.batch
        );
        let depth = indices.shape[indices.rank() - 1];
        require!(self.batch + depth <= x.rank(), "indices {indices} name {depth} axes of {x}");
        let mut shape = indices.shape[..indices.rank() - 1].to_vec();
        shape.extend(&x.shape[self.batch + depth..]);
        Ok(TensorType::new(x.dtype, shape))
    }

    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops(0, &[operands[1], ty], ty)
    }
}

impl TensorOp for GatherNd {
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let (x, indices) = (&operands[0].data, &operands[1].data);
        let lead = indices.ndim() - 1;
        let depth = indices.shape()[lead];
        let mut data = ArrayD::zeros(IxDyn(&ty.shape));
        for (at, element) in data.indexed_iter_mut() {
            let at: Vec<usize> = (0..ty.rank()).map(|i| at[i]).collect();
            let mut from = at[..self.batch].to_vec();
            for k in 0..depth {
                let mut place = at[..lead].to_vec();
                place.push(k);
                from.push(position(indices[IxDyn(&place)], x.shape()[self.batch + k])?);
            }
            from.extend(&at[lead..]);
            *element = x[IxDyn(&from)];
        }
        Ok(Tensor { dtype: ty.dtype, data })
    }
}
