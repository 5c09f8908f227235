//! `compress`: a weight as a target stores it in few bits.

use serde::{Deserialize, Serialize};

use super::{Cost, OpDef, OpError, TensorOp, arity, require};
use crate::compress::{Feedback, Scheme, compress};
use crate::rounding::to_f16;
use crate::{DType, Tensor, TensorType};

/// The weight after it was compressed and decompressed: exactly the numbers that the target computes with.
///
/// Operands: the weight; the importance of each input channel, `[shape[1]]`; the factors of error feedback, `[inputs, block]`
/// with the product of `shape[1..]` for inputs ([`crate::compress::Feedback`]). All are constants; the last may be left out,
/// or the last two.
///
/// - C1: the weight is f16 or f32. C2: the scheme fits its shape ([`Scheme::runs`]). C3: importance is a float a channel.
/// - C4: factors are floats, a row an input, and their block divides the inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compress {
    /// Scheme by which the weight is stored.
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
        let (channels, inputs) = (ty.shape[1], ty.shape[1..].iter().product::<usize>());
        if let Some(importance) = operands.get(1) {
            require!(
                importance.dtype.is_float() && importance.shape == [channels],
                "operand 1 must be the importance of {channels} input channels, found {importance}"
            );
        }
        if let Some(factors) = operands.get(2) {
            let fits = matches!(factors.shape[..], [rows, block] if rows == inputs && block > 0 && inputs.is_multiple_of(block));
            require!(
                factors.dtype.is_float() && fits,
                "operand 2 must be factors [{inputs}, a part of it], found {factors}"
            );
        }
        Ok(ty.clone())
    }
    fn cost(&self, _: &[&TensorType], _: &TensorType) -> Cost {
        Cost::default()
    }
}

impl TensorOp for Compress {
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let elements: Vec<u16> = operands[0].data.iter().map(|x| to_f16(*x).to_bits()).collect();
        let importance: Option<Vec<f64>> = operands.get(1).map(|t| t.data.iter().copied().collect());
        let factors: Option<Vec<f32>> = operands.get(2).map(|t| t.data.iter().map(|x| *x as f32).collect());
        let feedback = factors
            .as_deref()
            .map(|factors| Feedback { factors, block: factors.len() / (ty.elements() / ty.shape[0]) });
        let stored = compress(self.scheme, &ty.shape, &elements, importance.as_deref(), feedback)?;
        Tensor::from_values(ty, stored.decompress(ty.dtype)).ok_or_else(|| OpError::new("codes of another number"))
    }
}
