//! `reshape`: the same elements in row-major order under another shape.

use ndarray::IxDyn;
use serde::{Deserialize, Serialize};

use super::{Cost, OpDef, OpError, TensorOp, arity, require};
use crate::{Tensor, TensorType};

/// - C1: `shape` has as many elements as the operand. No −1: shapes are static.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reshape {
    /// The new shape.
    pub shape: Vec<usize>,
}

impl OpDef for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }
    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 1..=1)?;
        let ty = TensorType::new(operands[0].dtype, self.shape.clone());
        require!(
            ty.elements() == operands[0].elements(),
            "{} has {} elements, {:?} has {}",
            operands[0],
            operands[0].elements(),
            self.shape,
            ty.elements()
        );
        Ok(ty)
    }
    fn cost(&self, _: &[&TensorType], _: &TensorType) -> Cost {
        Cost::default()
    }
}

impl TensorOp for Reshape {
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let data = operands[0].data.as_standard_layout().into_owned();
        let data = data.into_shape_with_order(IxDyn(&ty.shape)).map_err(|e| OpError::new(e.to_string()))?;
        Ok(Tensor { dtype: ty.dtype, data })
    }
}
