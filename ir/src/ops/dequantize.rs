//! `dequantize`: int8 activations as floats.

use serde::{Deserialize, Serialize};

use super::quantize::check_scale;
use super::{Cost, OpDef, OpError, TensorOp, arity, require};
use crate::{DType, Tensor, TensorType};

/// `scale · q`, rounded to `dtype`: MIL's `dequantize` and ONNX's `DequantizeLinear` with one scale and no zero point.
///
/// - C1: the operand is i8. C2: `dtype` is f16 or f32, and the scale is finite and positive in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dequantize {
    /// Difference between two neighbouring integers.
    pub scale: f64,
    /// Dtype of the result.
    pub dtype: DType,
}

impl OpDef for Dequantize {
    fn name(&self) -> &'static str {
        "dequantize"
    }
    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 1..=1)?;
        require!(operands[0].dtype == DType::I8, "operand 0 must be i8, found {}", operands[0]);
        require!(matches!(self.dtype, DType::F16 | DType::F32), "`dtype` must be f16 or f32, found {}", self.dtype);
        check_scale(self.scale, self.dtype)?;
        Ok(operands[0].with_dtype(self.dtype))
    }
    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops(ty.elements() as u64, operands, ty)
    }
}

impl TensorOp for Dequantize {
    fn eval(&self, operands: &[&Tensor], _: &TensorType) -> Result<Tensor, OpError> {
        let scale = self.dtype.round(self.scale);
        Ok(Tensor { dtype: self.dtype, data: operands[0].data.mapv(|q| self.dtype.round(q * scale)) })
    }
}
