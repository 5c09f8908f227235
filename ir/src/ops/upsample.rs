//! `upsample`: each pixel becomes a square of its copies.

use ndarray::Axis;
use serde::{Deserialize, Serialize};

use super::{Cost, OpDef, OpError, TensorOp, arity, require};
use crate::{Tensor, TensorType};

/// `y[n, c, h, w] = x[n, c, ⌊h/f⌋, ⌊w/f⌋]` with f = factor: PyTorch's `Upsample` in modes `nearest` and `nearest-exact` with a whole factor, MIL's
/// `upsample_nearest_neighbor`, ONNX's `Resize` in mode `nearest`. Operand x `[N, C, H, W]`; the result is `[N, C, H·f, W·f]`.
///
/// - C1: rank 4. C2: factor ≥ 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upsample {
    /// Number of copies of a pixel, in each direction.
    pub factor: usize,
}

impl OpDef for Upsample {
    fn name(&self) -> &'static str {
        "upsample"
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 1..=1)?;
        let &[n, c, h, w] = &operands[0].shape[..] else {
            return Err(OpError::new(format!("takes [N, C, H, W], found {}", operands[0])));
        };
        let sides = h.checked_mul(self.factor).zip(w.checked_mul(self.factor));
        let Some((rows, cols)) = sides else {
            return Err(OpError::new(format!("{h}×{w} pixels times {} are too many", self.factor)));
        };
        require!(self.factor > 0, "the factor must be positive, found {}", self.factor);
        Ok(TensorType::new(operands[0].dtype, [n, c, rows, cols]))
    }

    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops(0, operands, ty)
    }
}

impl TensorOp for Upsample {
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let x = &operands[0].data;
        let copies = |extent: usize| (0..extent).map(|i| i / self.factor).collect::<Vec<_>>();
        let data = x.select(Axis(2), &copies(ty.shape[2])).select(Axis(3), &copies(ty.shape[3]));
        Ok(Tensor { dtype: ty.dtype, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    #[test]
    fn a_pixel_becomes_a_square() {
        let ty = TensorType::new(DType::F32, [1, 2, 1, 2]);
        let x = Tensor::from_values(&ty, vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        let op = Upsample { factor: 2 };
        let to = op.infer(&[&ty], None).unwrap();
        let y = op.eval(&[&x], &to).unwrap();
        assert_eq!(y.data.shape(), [1, 2, 2, 4]);
        let row = |a: f64, b: f64| [a, a, b, b, a, a, b, b];
        assert_eq!(y.data.iter().copied().collect::<Vec<_>>(), [row(1.0, 2.0), row(3.0, 4.0)].concat());
        assert!(Upsample { factor: 0 }.infer(&[&ty], None).is_err());
        assert!(Upsample { factor: usize::MAX }.infer(&[&ty], None).is_err());
        assert!(op.infer(&[&TensorType::new(DType::F32, [2, 1, 2])], None).is_err());
    }
}
