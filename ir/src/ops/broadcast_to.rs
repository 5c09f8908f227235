//! `broadcast_to`: repetition along axes of extent 1.

use ndarray::IxDyn;
use serde::{Deserialize, Serialize};

use super::{Cost, OpDef, OpError, TensorOp, arity, broadcast_shapes, require};
use crate::{Tensor, TensorType};

/// The operand repeated to `shape` by numpy's rules.
///
/// - C1: the operand broadcasts to exactly `shape`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BroadcastTo {
    /// The new shape.
    pub shape: Vec<usize>,
}

impl OpDef for BroadcastTo {
    fn name(&self) -> &'static str {
        "broadcast_to"
    }
    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 1..=1)?;
        let x = operands[0];
        require!(broadcast_shapes(&x.shape, &self.shape)? == self.shape, "{x} does not broadcast to {:?}", self.shape);
        Ok(TensorType::new(x.dtype, self.shape.clone()))
    }
    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops(0, operands, ty)
    }
}

impl TensorOp for BroadcastTo {
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let view = operands[0].data.broadcast(IxDyn(&ty.shape)).ok_or_else(|| OpError::new("does not broadcast"))?;
        Ok(Tensor { dtype: ty.dtype, data: view.to_owned() })
    }
}
