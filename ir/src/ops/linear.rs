//! `linear`: a fully connected layer.

use ndarray::{ArrayD, Ix2, IxDyn};
use serde::{Deserialize, Serialize};

use super::{Cost, OpDef, OpError, TensorOp, arity, require, same_float};
use crate::{Tensor, TensorType};

/// `y = x·Wᵀ + b` with x `[…, in]`, W `[out, in]`, b `[out]` (optional): `torch.nn.functional.linear`.
///
/// - C1: W has rank 2. C2: x's last extent is `in`. C3: b is `[out]`. C4: one float dtype.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {}

impl OpDef for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 2..=3)?;
        same_float(operands)?;
        let (x, w) = (operands[0], operands[1]);
        require!(w.rank() == 2, "the weight must be [out, in], found {w}");
        require!(x.shape.last() == Some(&w.shape[1]), "the last extent of {x} must be the weight's {}", w.shape[1]);
        if let Some(b) = operands.get(2) {
            require!(b.shape == [w.shape[0]], "the bias must be [{}], found {b}", w.shape[0]);
        }
        let mut shape = x.shape.clone();
        shape[x.rank() - 1] = w.shape[0];
        Ok(TensorType::new(x.dtype, shape))
    }

    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops(2 * (operands[1].shape[1] * ty.elements()) as u64, operands, ty)
    }
}

impl TensorOp for Linear {
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let bad = |e: ndarray::ShapeError| OpError::new(e.to_string());
        let w = operands[1].data.view().into_dimensionality::<Ix2>().map_err(bad)?;
        let inner = w.ncols();
        let rows = operands[0].data.len() / inner.max(1);
        let x = operands[0].data.as_standard_layout().into_owned().into_shape_with_order((rows, inner)).map_err(bad)?;
        let mut y = x.dot(&w.t());
        if let Some(b) = operands.get(2) {
            y += &b.data;
        }
        let data: ArrayD<f64> =
            y.as_standard_layout().into_owned().into_shape_with_order(IxDyn(&ty.shape)).map_err(bad)?;
        Ok(Tensor { dtype: ty.dtype, data })
    }
}
