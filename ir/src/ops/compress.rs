//! `compress`: a weight as a target stores it in few bits.

use half::f16;
use serde::{Deserialize, Serialize};

use super::{Cost, OpDef, OpError, arity, require};
use crate::compress::{Feedback, Scheme, compress};
use crate::{DType, Tensor, TensorType};

/// The weight after it was compressed and decompressed: exactly the numbers that the target computes with.
///
/// Operands: the weight; the importance of each input channel, `[shape[1]]`; the factors of error feedback, `[shape[1], block]`
/// ([`crate::compress::Feedback`]). All are constants; the last may be left out, or the last two.
///
/// - C1: the weight is f16 or f32. C2: the scheme fits its shape ([`Scheme::runs`]). C3: importance and factors are floats with
///   a row an input channel. C4: the factors' block divides the input channels, and the weight's kernel has one position.
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
        arity(operands, 1..=3)?;
        let ty = operands[0];
        require!(matches!(ty.dtype, DType::F16 | DType::F32), "operand 0 must be f16 or f32, found {ty}");
        self.scheme.runs(&ty.shape)?;
        let inner = ty.shape[1];
        if let Some(importance) = operands.get(1) {
            require!(
                importance.dtype.is_float() && importance.shape == [inner],
                "operand 1 must be the importance of {inner} input channels, found {importance}"
            );
        }
        if let Some(factors) = operands.get(2) {
            let fits =
                matches!(factors.shape[..], [rows, block] if rows == inner && block > 0 && inner.is_multiple_of(block));
            require!(
                factors.dtype.is_float() && fits,
                "operand 2 must be factors [{inner}, a part of it], found {factors}"
            );
            require!(
                ty.shape[2..].iter().all(|n| *n == 1),
                "error feedback needs a kernel of one position, found a weight {ty}"
            );
        }
        Ok(ty.clone())
    }
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let elements: Vec<u16> = operands[0].data.iter().map(|x| f16::from_f64(*x).to_bits()).collect();
        let importance: Option<Vec<f64>> = operands.get(1).map(|t| t.data.iter().copied().collect());
        let factors: Option<Vec<f32>> = operands.get(2).map(|t| t.data.iter().map(|x| *x as f32).collect());
        let feedback = factors.as_deref().map(|factors| Feedback { factors, block: factors.len() / ty.shape[1] });
        let stored = compress(self.scheme, &ty.shape, &elements, importance.as_deref(), feedback)?;
        Tensor::from_values(ty, stored.decompress(ty.dtype)).ok_or_else(|| OpError::new("codes of another number"))
    }
    fn cost(&self, _: &[&TensorType], _: &TensorType) -> Cost {
        Cost::default()
    }
}
