//! `matmul`: batched matrix product.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array3, ArrayView2, ArrayViewMut2, Axis, CowArray, Ix3, IxDyn};
use serde::{Deserialize, Serialize};

use super::{Cost, OpDef, OpError, TensorOp, arity, broadcast_shapes, require, same_float};
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

/// The product of two matrices, written to `out`, which is zeros. A matrix that chooses, turns or scales (one weight folded into another) is
/// mostly zeros: only what is not zero is multiplied, if that changes nothing: zero times infinity is no zero.
fn product(a: &ArrayView2<'_, f64>, b: &ArrayView2<'_, f64>, out: &mut ArrayViewMut2<'_, f64>) {
    /// One element in so many at most is not zero.
    const SPARSE: usize = 16;
    let count = b.iter().filter(|x| **x != 0.0).count();
    if count * SPARSE > b.len() || !a.iter().all(|x| x.is_finite()) {
        general_mat_mul(1.0, a, b, 0.0, out);
        return;
    }
    let there: Vec<(usize, usize, f64)> =
        b.indexed_iter().filter(|(_, x)| **x != 0.0).map(|((k, n), x)| (k, n, *x)).collect();
    for (x, mut y) in a.outer_iter().zip(out.outer_iter_mut()) {
        there.iter().for_each(|&(k, n, factor)| y[n] += x[k] * factor);
    }
}

/// A tensor as `[matrices, rows, columns]`; what does not broadcast is not copied.
fn matrices<'a>(t: &'a Tensor, batch: &[usize]) -> Result<CowArray<'a, f64, Ix3>, OpError> {
    let s = t.data.shape();
    let [rows, columns] = [s[s.len() - 2], s[s.len() - 1]];
    let flat = (batch.iter().product::<usize>(), rows, columns);
    if let Ok(whole) = t.data.view().into_shape_with_order(flat) {
        return Ok(whole.into());
    }
    let full = [batch, &[rows, columns]].concat();
    let view = t.data.broadcast(IxDyn(&full)).ok_or_else(|| OpError::new("operands do not broadcast"))?;
    Ok(view.to_owned().into_shape_with_order(flat).map_err(|e| OpError::new(e.to_string()))?.into())
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

    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        let (_, k) = Self::dims(&operands[0].shape, self.transpose_x);
        Cost::with_flops(2 * (k * ty.elements()) as u64, operands, ty)
    }
}

impl TensorOp for Matmul {
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let batch = &ty.shape[..ty.rank() - 2];
        let (x, y) = (matrices(operands[0], batch)?, matrices(operands[1], batch)?);
        let (m, n) = (ty.shape[ty.rank() - 2], ty.shape[ty.rank() - 1]);
        let mut out = Array3::zeros((x.len_of(Axis(0)), m, n));
        for ((a, b), mut out) in x.outer_iter().zip(y.outer_iter()).zip(out.outer_iter_mut()) {
            let a = if self.transpose_x { a.reversed_axes() } else { a };
            let b = if self.transpose_y { b.reversed_axes() } else { b };
            product(&a, &b, &mut out);
        }
        Tensor::from_values(ty, out.into_raw_vec_and_offset().0).ok_or_else(|| OpError::new("matmul result size"))
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    fn product(a: &Array2<f64>, b: &Array2<f64>) -> Array2<f64> {
        let mut out = Array2::zeros((a.nrows(), b.ncols()));
        super::product(&a.view(), &b.view(), &mut out.view_mut());
        out
    }

    #[test]
    fn mostly_zeros_or_not_the_product_is_the_same() {
        let a = Array2::from_shape_fn((3, 40), |(i, k)| ((i * 40 + k) as f64 * 0.618).sin());
        // A turn of every second column, a column of two, and one of none.
        let mut b = Array2::zeros((40, 20));
        (0..19).for_each(|n| b[[2 * n, n]] = 0.5 - n as f64);
        b[[1, 3]] = 2.0;
        let off = (product(&a, &b) - a.dot(&b)).mapv(f64::abs);
        assert!(off.iter().all(|x| *x <= 1e-15), "{off}");
        let dense = b.mapv(|x: f64| x + 1.0);
        assert_eq!(product(&a, &dense), a.dot(&dense));
        let mut broken = a.clone();
        broken[[1, 7]] = f64::INFINITY;
        let found = product(&broken, &b);
        assert!(found.row(1).iter().all(|x| x.is_nan()) && found.row(0).iter().all(|x| x.is_finite()), "{found}");
    }
}
