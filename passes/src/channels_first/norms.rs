//! The forms of an RMS norm, `x / √(mean(x²) + eps)` (Zhang & Sennrich, arXiv 1910.07467).
//!
//! *Doubled*: the layer norm of values beside their negatives, whose mean is zero. It is one op of the engine's own, and no square is stored in fp16,
//! where it would overflow from 256 on. It reads and writes twice the values.
//!
//! *Length*: `x` divided by its length, which one op takes, `reduce_l2_norm`. What is added to the mean square is added as one more element,
//! √(n·eps), so that nothing is squared on the way:
//!
//! ```text
//! %n = reduce_l2_norm(%x) {axes = [1]}               : f32[1, 1, 1, N]
//! %h = reduce_l2_norm(concat(%n, √(n·eps)))          : f32[1, 1, 1, N]     √(‖x‖² + n·eps)
//! %y = div(%x, %h)                                     times √n, which goes into the gain
//! ```
//! A rotation's tables take the division along: they are a head wide, and all heads share them.

use s2dit_ir::ops::{LayerNorm, OpError, ReduceKind};
use s2dit_ir::{Builder, DType, TensorType, ValueId};

/// `√(Σx² + n·eps)` over `axes`, n the number of elements there: what `x` is divided with, up to √n.
pub(super) fn length(b: &mut Builder, x: ValueId, axes: &[usize], eps: f64) -> Result<ValueId, OpError> {
    let Some(&axis) = axes.last() else { return Err(OpError::new("a norm over no axes")) };
    let root = root_of(b, x, axes);
    let length = b.reduce(ReduceKind::L2Norm, x, axes, true)?;
    if eps == 0.0 {
        return Ok(length);
    }
    let ty = TensorType::new(DType::F32, b.shape(length));
    let elements = ty.elements();
    let least = b.literal(&ty, vec![root * eps.sqrt(); elements])?;
    let both = b.concat(&[length, least], axis)?;
    b.reduce(ReduceKind::L2Norm, both, &[axis], true)
}

/// `√n`, n the number of elements along `axes`.
pub(super) fn root_of(b: &Builder, x: ValueId, axes: &[usize]) -> f64 {
    (axes.iter().map(|&axis| b.shape(x)[axis]).product::<usize>() as f64).sqrt()
}

/// `x / √(mean(x²) + eps)` over some axes, the last of which is the one that is doubled.
pub(super) fn doubled(b: &mut Builder, x: ValueId, axes: &[usize], eps: f64) -> Result<ValueId, OpError> {
    let Some(&along) = axes.last() else { return Err(OpError::new("a norm over no axes")) };
    let half = b.shape(x)[along];
    let both = doubled_and_negated(b, x, axes, eps)?;
    b.slice(both, along, 0, half)
}

/// `[y −y]` along the last of `axes`, `y = x / √(mean(x²) + eps)`: the layer norm of values beside their negatives, whose mean is
/// zero. It is one op of the engine's own, and no square is stored in fp16, where it would overflow from 256 on.
///
/// A head's values and their negatives are one exact product `[1 −1]ᵀ·x`; a wider axis is negated and joined, in two ops.
pub(super) fn doubled_and_negated(b: &mut Builder, x: ValueId, axes: &[usize], eps: f64) -> Result<ValueId, OpError> {
    let Some(&along) = axes.last() else { return Err(OpError::new("a norm over no axes")) };
    let width = b.shape(x)[along];
    let both = if along == 2 && b.shape(x).len() == 4 && width <= WIDEST_HEAD {
        let signs = TensorType::new(DType::F32, [1, 1, 2 * width, width]);
        let signs = b.literal(&signs, beside_negative(width))?;
        b.matmul(signs, x)?
    } else {
        let negated = b.mul_scalar(x, -1.0)?;
        b.concat(&[x, negated], along)?
    };
    b.op(LayerNorm { axes: axes.to_vec(), eps }, &[both])
}

/// Up to here a product with ones and zeros is cheaper than reading and writing the values once more.
const WIDEST_HEAD: usize = 256;

/// `[1 −1]ᵀ`, `[2·width, width]`.
fn beside_negative(width: usize) -> Vec<f64> {
    let mut matrix = vec![0.0; 2 * width * width];
    for i in 0..width {
        matrix[i * width + i] = 1.0;
        matrix[(width + i) * width + i] = -1.0;
    }
    matrix
}
