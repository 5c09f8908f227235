//! `quantize`: activations as int8.

use serde::{Deserialize, Serialize};

use super::{Cost, OpDef, OpError, TensorOp, arity, require};
use crate::{DType, Tensor, TensorType};

/// `clip(round(x / scale), −128, 127)` as i8, ties to even: MIL's `quantize` and ONNX's `QuantizeLinear` with one scale and no
/// zero point.
///
/// - C1: the operand is f16 or f32. C2: the scale is finite, and positive in the operand's dtype.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantize {
    /// Difference between two neighbouring integers.
    pub scale: f64,
}

impl OpDef for Quantize {
    fn name(&self) -> &'static str {
        "quantize"
    }
    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 1..=1)?;
        require!(
            matches!(operands[0].dtype, DType::F16 | DType::F32),
            "operand 0 must be f16 or f32, found {}",
            operands[0]
        );
        check_scale(self.scale, operands[0].dtype)?;
        Ok(operands[0].with_dtype(DType::I8))
    }
    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops(2 * ty.elements() as u64, operands, ty)
    }
}

impl TensorOp for Quantize {
    fn eval(&self, operands: &[&Tensor], _: &TensorType) -> Result<Tensor, OpError> {
        let scale = operands[0].dtype.round(self.scale);
        let data = operands[0].data.mapv(|x| DType::I8.round((x / scale).round_ties_even()));
        Ok(Tensor { dtype: DType::I8, data })
    }
}

/// Refuses scales that the dtype does not hold.
pub(super) fn check_scale(scale: f64, dtype: DType) -> Result<(), OpError> {
    let held = dtype.round(scale);
    require!(held.is_finite() && held > 0.0, "`scale` must be positive and finite in {dtype}, found {scale}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Dequantize, Op};
    use super::*;

    #[test]
    fn numbers_go_to_the_nearest_step_and_stop_at_the_last() {
        let ty = TensorType::new(DType::F32, [8]);
        let x = Tensor::from_values(&ty, vec![0.0, 0.24, 0.25, 0.75, -0.75, 63.4, 1e9, -f64::INFINITY]).unwrap();
        let op = Quantize { scale: 0.5 };
        let integers = op.infer(&[&ty], None).unwrap();
        let q = op.eval(&[&x], &integers).unwrap();
        assert_eq!(q.data.iter().copied().collect::<Vec<_>>(), [0.0, 0.0, 0.0, 2.0, -2.0, 127.0, 127.0, -128.0]);
        let back = Dequantize { scale: 0.5, dtype: DType::F16 };
        let floats = back.infer(&[&integers], None).unwrap();
        let y = back.eval(&[&q], &floats).unwrap();
        assert_eq!(y.data.iter().copied().collect::<Vec<_>>(), [0.0, 0.0, 0.0, 1.0, -1.0, 63.5, 63.5, -64.0]);
    }

    #[test]
    fn what_is_no_scale_is_refused() {
        let (half, whole) = (TensorType::new(DType::F16, [2]), TensorType::new(DType::F32, [2]));
        for scale in [0.0, -1.0, f64::INFINITY, f64::NAN] {
            assert!(Op::from(Quantize { scale }).infer(&[&whole], None).is_err());
        }
        let small = Quantize { scale: 1e-9 };
        assert!(small.infer(&[&whole], None).is_ok() && small.infer(&[&half], None).is_err());
        let integers = whole.with_dtype(DType::I8);
        assert!(Quantize { scale: 1.0 }.infer(&[&integers], None).is_err());
        assert!(Dequantize { scale: 1.0, dtype: DType::F32 }.infer(&[&whole], None).is_err());
        assert!(Dequantize { scale: 1.0, dtype: DType::I32 }.infer(&[&integers], None).is_err());
    }
}
