//! `concat`: tensors one after the other along an axis.

use ndarray::Axis;
use serde::{Deserialize, Serialize};

use super::{Cost, OpDef, OpError, TensorOp, check_axis, require};
use crate::{Tensor, TensorType};

/// - C1: one or more operands. C2: one dtype and rank. C3: extents agree except along `axis`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Concat {
    /// The axis along which the operands follow each other.
    pub axis: usize,
}

impl OpDef for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }
    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        require!(!operands.is_empty(), "takes one or more operands");
        let first = operands[0];
        check_axis(self.axis, first.rank())?;
        let mut ty = first.clone();
        for t in &operands[1..] {
            let same = t.dtype == first.dtype
                && t.rank() == first.rank()
                && (0..t.rank()).all(|i| i == self.axis || t.shape[i] == first.shape[i]);
            require!(same, "{t} cannot follow {first} along axis {}", self.axis);
            ty.shape[self.axis] += t.shape[self.axis];
        }
        Ok(ty)
    }
    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops(0, operands, ty)
    }
}

impl TensorOp for Concat {
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let views: Vec<_> = operands.iter().map(|t| t.data.view()).collect();
        let data = ndarray::concatenate(Axis(self.axis), &views).map_err(|e| OpError::new(e.to_string()))?;
        let data = if data.is_standard_layout() { data } else { data.as_standard_layout().into_owned() };
        Ok(Tensor { dtype: ty.dtype, data })
    }
}
