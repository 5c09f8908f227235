//! `select`: one of two elements, by a condition.

use ndarray::{ArrayD, IxDyn, Zip};
use serde::{Deserialize, Serialize};

use super::{OpDef, OpError, TensorOp, arity, broadcast_shapes, require};
use crate::{DType, Tensor, TensorType};

/// `cond ? a : b`, elementwise, with numpy broadcasting of all three: `torch.where`.
///
/// - C1: the condition is bool. C2: a and b have one dtype.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Select {}

impl OpDef for Select {
    fn name(&self) -> &'static str {
        "select"
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 3..=3)?;
        let (cond, a, b) = (operands[0], operands[1], operands[2]);
        require!(cond.dtype == DType::Bool, "the condition must be bool, found {cond}");
        require!(a.dtype == b.dtype, "both choices must have one dtype, found {a} and {b}");
        let shape = broadcast_shapes(&broadcast_shapes(&cond.shape, &a.shape)?, &b.shape)?;
        Ok(TensorType::new(a.dtype, shape))
    }
}

impl TensorOp for Select {
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let wide = |t: &Tensor| -> Result<ArrayD<f64>, OpError> {
            let view = t.data.broadcast(IxDyn(&ty.shape));
            Ok(view.ok_or_else(|| OpError::new("operands do not broadcast"))?.to_owned())
        };
        let (cond, mut data, b) = (wide(operands[0])?, wide(operands[1])?, wide(operands[2])?);
        Zip::from(&mut data).and(&cond).and(&b).for_each(|a, &cond, &b| {
            if cond == 0.0 {
                *a = b;
            }
        });
        Ok(Tensor { dtype: ty.dtype, data })
    }
}
