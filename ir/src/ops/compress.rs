//! `compress`: a weight as a target stores it in few bits.

use half::f16;
use serde::{Deserialize, Serialize};

use super::{Cost, OpDef, OpError, arity, require};
use crate::compress::{Scheme, compress};
use crate::{DType, Tensor, TensorType};

/// The weight after it was compressed and decompressed: exactly the numbers that the target computes with.
///
/// Operands: the weight, a constant; for palettes also the importance of each input channel, a constant `[shape[1]]`.
///
/// - C1: the weight is f16 or f32. C2: the scheme fits its shape ([`Scheme::runs`]). C3: only palettes take an importance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compress {
    /// How it is stored.
    pub scheme: Scheme,
}

impl OpDef for Compress {
    fn name(&self) -> &'static str {
        "compress"
    }
    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 1..=2)?;
        let ty = operands[0];
        require!(matches!(ty.dtype, DType::F16 | DType::F32), "operand 0 must be f16 or f32, found {ty}");
        self.scheme.runs(&ty.shape)?;
        if let Some(importance) = operands.get(1) {
            require!(matches!(self.scheme, Scheme::Palette { .. }), "scheme `{}` takes no importance", self.scheme);
            require!(
                importance.dtype.is_float() && importance.shape == [ty.shape[1]],
                "operand 1 must be the importance of {} input channels, found {importance}",
                ty.shape[1]
            );
        }
        Ok(ty.clone())
    }
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let elements: Vec<u16> = operands[0].data.iter().map(|x| f16::from_f64(*x).to_bits()).collect();
        let importance: Option<Vec<f64>> = operands.get(1).map(|t| t.data.iter().copied().collect());
        let stored = compress(self.scheme, &ty.shape, &elements, importance.as_deref())?;
        Tensor::from_values(ty, stored.decompress(ty.dtype)).ok_or_else(|| OpError::new("codes of another number"))
    }
    fn cost(&self, _: &[&TensorType], _: &TensorType) -> Cost {
        Cost::default()
    }
}
