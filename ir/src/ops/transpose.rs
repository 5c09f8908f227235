//! `transpose`: permutation of the axes.

use ndarray::IxDyn;
use serde::{Deserialize, Serialize};

use super::{Cost, OpDef, OpError, TensorOp, arity, require};
use crate::{Tensor, TensorType};

/// Result axis `i` is operand axis `perm[i]`.
///
/// - C1: `perm` is a permutation of the operand's axes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transpose {
    /// The permutation.
    pub perm: Vec<usize>,
}

impl OpDef for Transpose {
    fn name(&self) -> &'static str {
        "transpose"
    }
    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 1..=1)?;
        let x = operands[0];
        let mut sorted = self.perm.clone();
        sorted.sort_unstable();
        require!(
            sorted.iter().copied().eq(0..x.rank()),
            "perm {:?} must permute the {} axes of {x}",
            self.perm,
            x.rank()
        );
        Ok(TensorType::new(x.dtype, self.perm.iter().map(|&p| x.shape[p]).collect::<Vec<_>>()))
    }
    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops(0, operands, ty)
    }
}

impl TensorOp for Transpose {
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let view = operands[0].data.view().permuted_axes(IxDyn(&self.perm));
        Ok(Tensor { dtype: ty.dtype, data: view.as_standard_layout().into_owned() })
    }
}
