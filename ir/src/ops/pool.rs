//! `max_pool`, `mean_pool`: windows over spatial axes.

use ndarray::{ArrayD, IxDyn, indices};
use serde::{Deserialize, Serialize};

use super::{Attrs, Cost, OpDef, OpError, TensorOp, arity, require};
use crate::{Tensor, TensorType};

/// The greatest element or the mean of each window of x `[N, C, *s]`. A border takes no part in a maximum and counts as zeros in a mean, which is
/// always a sum over the whole window's size.
///
/// - C1: 1–3 spatial axes and attributes of that length. C2: windows and strides ≥ 1; a border is smaller than the window.
/// - C3: the window fits into x with its border.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// The mean instead of the greatest element; it is the op's name in the text form.
    #[serde(skip)]
    pub mean: bool,
    /// Extents of the window.
    pub window: Vec<usize>,
    /// Step a spatial axis.
    pub strides: Vec<usize>,
    /// Border before each spatial axis.
    pub pad_before: Vec<usize>,
    /// Border after each spatial axis.
    pub pad_after: Vec<usize>,
}

impl OpDef for Pool {
    fn name(&self) -> &'static str {
        if self.mean { "mean_pool" } else { "max_pool" }
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 1..=1)?;
        let x = operands[0];
        require!((3..=5).contains(&x.rank()), "x must be [N, C, 1–3 spatial axes], found {x}");
        require!(x.dtype.is_float(), "x must be a float tensor, found {x}");
        let n = x.rank() - 2;
        let mut shape = x.shape[..2].to_vec();
        for (name, a) in [
            ("window", &self.window),
            ("strides", &self.strides),
            ("pad_before", &self.pad_before),
            ("pad_after", &self.pad_after),
        ] {
            require!(a.len() == n, "{name} must have {n} entries, found {a:?}");
        }
        for i in 0..n {
            let (window, stride, before, after) =
                (self.window[i], self.strides[i], self.pad_before[i], self.pad_after[i]);
            require!(window > 0 && stride > 0, "windows and strides must be positive, found {window} and {stride}");
            require!(before < window && after < window, "a border of {before} and {after} for a window of {window}");
            let padded = x.shape[i + 2] + before + after;
            require!(padded >= window, "the window is {window} but spatial axis {i} has {padded} with its border");
            shape.push((padded - window) / stride + 1);
        }
        Ok(TensorType::new(x.dtype, shape))
    }

    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops((self.window.iter().product::<usize>() * ty.elements()) as u64, operands, ty)
    }

    fn parse(name: &str, attrs: Attrs) -> Result<Self, OpError> {
        let op: Pool = serde_json::from_value(attrs.into()).map_err(|e| OpError::new(e.to_string()))?;
        Ok(Pool { mean: name == "mean_pool", ..op })
    }
}

impl TensorOp for Pool {
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let x = &operands[0].data;
        let size = self.window.iter().product::<usize>() as f64;
        let data = ArrayD::from_shape_fn(IxDyn(&ty.shape), |at| {
            let mut from = at.clone();
            let (mut sum, mut greatest) = (0.0, f64::NEG_INFINITY);
            for tap in indices(IxDyn(&self.window)) {
                let inside = (0..self.window.len()).all(|i| {
                    let position = at[i + 2] * self.strides[i] + tap[i];
                    from[i + 2] = position.wrapping_sub(self.pad_before[i]);
                    position >= self.pad_before[i] && from[i + 2] < x.shape()[i + 2]
                });
                if inside {
                    sum += x[&from];
                    greatest = greatest.max(x[&from]);
                }
            }
            if self.mean { sum / size } else { greatest }
        });
        Ok(Tensor { dtype: ty.dtype, data })
    }
}
