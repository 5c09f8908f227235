//! `matmul`: batched matrix product.

use ndarray::{ArrayD, Ix2, IxDyn};
use serde::{Deserialize, Serialize};

use super::{Cost, OpDef, OpError, arity, broadcast_shapes, require, same_float};
use crate::{Tensor, TensorType};

/// `x·y` over the last two axes; the leading axes broadcast as in numpy.
///
/// - C1: both ranks ≥ 2. C2: one float dtype. C3: inner extents agree after the transpositions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matmul {
    /// Swap the last two axes of x first.
    pub transpose_x: bool,
    /// Swap the last two axes of y first.
    pub transpose_y: bool,
}

impl Matmul {
    /// (m, k) of x or (k, n) of y after the transposition.
    fn dims(shape: &[usize], transpose: bool) -> (usize, usize) {
        let (a, b) = (shape[shape.len() - 2], shape[shape.len() - 1]);
        if transpose { (b, a) } else { (a, b) }
    }
}

impl OpDef for Matmul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 2..=2)?;
        let (x, y) = (operands[0], operands[1]);
        require!(x.rank() >= 2 && y.rank() >= 2, "operands must have rank 2 or more, found {x} and {y}");
        same_float(operands)?;
        let (m, k) = Self::dims(&x.shape, self.transpose_x);
        let (k2, n) = Self::dims(&y.shape, self.transpose_y);
        require!(k == k2, "inner extents differ: {k} of {x} and {k2} of {y}");
        let mut shape = broadcast_shapes(&x.shape[..x.rank() - 2], &y.shape[..y.rank() - 2])?;
        shape.extend([m, n]);
        Ok(TensorType::new(x.dtype, shape))
    }

    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let batch = &ty.shape[..ty.rank() - 2];
        let expand = |t: &Tensor| -> Result<ArrayD<f64>, OpError> {
            let s = t.data.shape();
            let mut full = batch.to_vec();
            full.extend(&s[s.len() - 2..]);
            let view = t.data.broadcast(IxDyn(&full)).ok_or_else(|| OpError::new("operands do not broadcast"))?;
            let flat = [batch.iter().product(), s[s.len() - 2], s[s.len() - 1]];
            view.to_owned().into_shape_with_order(IxDyn(&flat)).map_err(|e| OpError::new(e.to_string()))
        };
        let (x, y) = (expand(operands[0])?, expand(operands[1])?);
        let mut out = Vec::with_capacity(ty.elements());
        for (a, b) in x.outer_iter().zip(y.outer_iter()) {
            let bad = |e: ndarray::ShapeError| OpError::new(e.to_string());
            let a = a.into_dimensionality::<Ix2>().map_err(bad)?;
            let b = b.into_dimensionality::<Ix2>().map_err(bad)?;
            let a = if self.transpose_x { a.reversed_axes() } else { a };
            let b = if self.transpose_y { b.reversed_axes() } else { b };
            out.extend(a.dot(&b).iter());
        }
        Tensor::from_values(ty, out).ok_or_else(|| OpError::new("matmul result size"))
    }

    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        let (_, k) = Self::dims(&operands[0].shape, self.transpose_x);
        Cost::with_flops(2 * (k * ty.elements()) as u64, operands, ty)
    }
}
