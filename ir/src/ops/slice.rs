//! `slice`: a strided box of a tensor.

use ndarray::{Axis, Slice as NdSlice};
use serde::{Deserialize, Serialize};

use super::{Cost, OpDef, OpError, TensorOp, arity, require};
use crate::{Tensor, TensorType};

/// Elements `begin[i], begin[i] + stride[i], … < end[i]` of every axis.
///
/// - C1: one entry an axis. C2: `begin < end ≤ extent`. C3: `stride ≥ 1`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slice {
    /// First index of each axis.
    pub begin: Vec<usize>,
    /// Index after the last one, of each axis.
    pub end: Vec<usize>,
    /// Step of each axis.
    pub stride: Vec<usize>,
}

impl Slice {
    /// The range `begin..end` of one axis and the whole of the others.
    pub fn axis(shape: &[usize], axis: usize, begin: usize, end: usize) -> Self {
        let mut s = Slice { begin: vec![0; shape.len()], end: shape.to_vec(), stride: vec![1; shape.len()] };
        s.begin[axis] = begin;
        s.end[axis] = end;
        s
    }
}

impl OpDef for Slice {
    fn name(&self) -> &'static str {
        "slice"
    }
    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 1..=1)?;
        let x = operands[0];
        let n = x.rank();
        require!(
            self.begin.len() == n && self.end.len() == n && self.stride.len() == n,
            "begin, end and stride must have {n} entries each"
        );
        let mut shape = Vec::with_capacity(n);
        for i in 0..n {
            let (b, e, s) = (self.begin[i], self.end[i], self.stride[i]);
            require!(b < e && e <= x.shape[i] && s > 0, "axis {i}: {b}..{e} step {s} is not a range of {x}");
            shape.push((e - b).div_ceil(s));
        }
        Ok(TensorType::new(x.dtype, shape))
    }
    fn cost(&self, _: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops(0, &[ty], ty)
    }
}

impl TensorOp for Slice {
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let mut view = operands[0].data.view();
        for i in 0..self.begin.len() {
            view.slice_axis_inplace(
                Axis(i),
                NdSlice::new(self.begin[i] as isize, Some(self.end[i] as isize), self.stride[i] as isize),
            );
        }
        Ok(Tensor { dtype: ty.dtype, data: view.as_standard_layout().into_owned() })
    }
}
