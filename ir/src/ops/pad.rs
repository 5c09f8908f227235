//! `pad`: a constant border.

use ndarray::{ArrayD, Axis, IxDyn, Slice as NdSlice};
use serde::{Deserialize, Serialize};

use super::{Cost, OpDef, OpError, TensorOp, arity, require};
use crate::{Tensor, TensorType};

/// `before[i]` and `after[i]` copies of `value` around axis `i`.
///
/// - C1: one entry an axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pad {
    /// Elements before each axis.
    pub before: Vec<usize>,
    /// Elements after each axis.
    pub after: Vec<usize>,
    /// The border's value.
    pub value: f64,
}

impl OpDef for Pad {
    fn name(&self) -> &'static str {
        "pad"
    }
    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 1..=1)?;
        let x = operands[0];
        require!(
            self.before.len() == x.rank() && self.after.len() == x.rank(),
            "before and after must have {} entries each",
            x.rank()
        );
        let shape: Vec<usize> = (0..x.rank()).map(|i| x.shape[i] + self.before[i] + self.after[i]).collect();
        Ok(TensorType::new(x.dtype, shape))
    }
    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops(0, operands, ty)
    }
}

impl TensorOp for Pad {
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let x = &operands[0].data;
        let mut data = ArrayD::from_elem(IxDyn(&ty.shape), self.value);
        let mut inner = data.view_mut();
        for i in 0..x.ndim() {
            let b = self.before[i] as isize;
            inner.slice_axis_inplace(Axis(i), NdSlice::new(b, Some(b + x.shape()[i] as isize), 1));
        }
        inner.assign(x);
        Ok(Tensor { dtype: ty.dtype, data })
    }
}
