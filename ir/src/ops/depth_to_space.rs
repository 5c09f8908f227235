//! `depth_to_space`: channels become pixels.

use ndarray::IxDyn;
use serde::{Deserialize, Serialize};

use super::{Cost, OpDef, OpError, TensorOp, arity, require};
use crate::{Tensor, TensorType};

/// `y[n, c, h·b + i, w·b + j] = x[n, (i·b + j)·C + c, h, w]` with b = block: MIL's `depth_to_space`, TensorFlow's, and ONNX's `DepthToSpace` in
/// mode DCR. (PyTorch's `pixel_shuffle` has the channel slowest instead.) Operand x `[N, b²·C, H, W]`; the result is `[N, C, H·b, W·b]`.
///
/// - C1: rank 4. C2: block ≥ 1, its square divides the channels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DepthToSpace {
    /// Number of pixels that a pixel becomes, in each direction.
    pub block: usize,
}

impl OpDef for DepthToSpace {
    fn name(&self) -> &'static str {
        "depth_to_space"
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 1..=1)?;
        let &[n, c, h, w] = &operands[0].shape[..] else {
            return Err(OpError::new(format!("takes [N, C, H, W], found {}", operands[0])));
        };
        let s = self.block;
        let square = s.checked_mul(s).unwrap_or(0);
        require!(square > 0 && c.is_multiple_of(square), "{c} channels are not a multiple of the block {s} squared");
        Ok(TensorType::new(operands[0].dtype, [n, c / square, h * s, w * s]))
    }

    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops(0, operands, ty)
    }
}

impl TensorOp for DepthToSpace {
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let (x, s) = (&operands[0].data, self.block);
        let &[n, c, h, w] = x.shape() else { return Err(OpError::new("takes [N, C, H, W]")) };
        let data = x
            .as_standard_layout()
            .into_shape_with_order(IxDyn(&[n, s, s, c / (s * s), h, w]))
            .map_err(|e| OpError::new(e.to_string()))?
            .permuted_axes(IxDyn(&[0, 3, 4, 1, 5, 2]))
            .as_standard_layout()
            .into_shape_with_order(IxDyn(&ty.shape))
            .map_err(|e| OpError::new(e.to_string()))?
            .into_owned();
        Ok(Tensor { dtype: ty.dtype, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    /// ONNX's first example of mode DCR has one channel, where it does not differ from PyTorch's order; this one has two.
    #[test]
    fn the_channel_is_the_fastest() {
        let ty = TensorType::new(DType::F32, [1, 8, 1, 1]);
        let data = ndarray::Array::range(0.0, 8.0, 1.0).into_shape_with_order(IxDyn(&ty.shape)).unwrap();
        let op = DepthToSpace { block: 2 };
        let to = op.infer(&[&ty], None).unwrap();
        let y = op.eval(&[&Tensor { dtype: DType::F32, data }], &to).unwrap();
        assert_eq!(y.data.shape(), [1, 2, 2, 2]);
        assert_eq!(y.data.iter().copied().collect::<Vec<_>>(), [0.0, 2.0, 4.0, 6.0, 1.0, 3.0, 5.0, 7.0]);
        assert!(op.infer(&[&TensorType::new(DType::F32, [1, 6, 1, 2])], None).is_err());
    }
}
