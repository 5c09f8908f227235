//! `cast`: change of element type.

use serde::{Deserialize, Serialize};

use super::{Cost, OpDef, OpError, TensorOp, arity};
use crate::{DType, Tensor, TensorType};

/// The operand rounded to another dtype (nearest, ties to even; integers truncate).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cast {
    /// Target dtype.
    pub dtype: DType,
}

impl OpDef for Cast {
    fn name(&self) -> &'static str {
        "cast"
    }
    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 1..=1)?;
        Ok(operands[0].with_dtype(self.dtype))
    }
    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops(0, operands, ty)
    }
}

impl TensorOp for Cast {
    fn eval(&self, operands: &[&Tensor], _: &TensorType) -> Result<Tensor, OpError> {
        Ok(Tensor { dtype: self.dtype, data: operands[0].data.mapv(|x| self.dtype.round(x)) })
    }
}
