//! `sort_indices`: where the largest or smallest elements of an axis are.

use ndarray::{ArrayD, Axis, IxDyn};
use serde::{Deserialize, Serialize};

use super::{OpDef, OpError, TensorOp, arity, check_axis, require};
use crate::{DType, Tensor, TensorType};

/// Positions (`i32`) of the first `count` elements of `axis` in sorted order; of equal elements the first comes first.
///
/// - C1: `count` is at most the extent of the axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SortIndices {
    /// The sorted axis.
    pub axis: usize,
    /// Number of positions.
    pub count: usize,
    /// From the largest element down.
    pub descending: bool,
}

impl OpDef for SortIndices {
    fn name(&self) -> &'static str {
        "sort_indices"
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 1..=1)?;
        let x = operands[0];
        check_axis(self.axis, x.rank())?;
        require!(self.count <= x.shape[self.axis], "{} of the {} elements of an axis", self.count, x.shape[self.axis]);
        let mut shape = x.shape.clone();
        shape[self.axis] = self.count;
        Ok(TensorType::new(DType::I32, shape))
    }
}

impl TensorOp for SortIndices {
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let mut data = ArrayD::zeros(IxDyn(&ty.shape));
        let lanes = operands[0].data.lanes(Axis(self.axis)).into_iter();
        for (lane, mut out) in lanes.zip(data.lanes_mut(Axis(self.axis))) {
            let mut order: Vec<usize> = (0..lane.len()).collect();
            // The sort is stable.
            order.sort_by(|&i, &j| {
                let ascending = lane[i].total_cmp(&lane[j]);
                if self.descending { ascending.reverse() } else { ascending }
            });
            out.iter_mut().zip(order).for_each(|(o, i)| *o = i as f64);
        }
        Ok(Tensor { dtype: ty.dtype, data })
    }
}
