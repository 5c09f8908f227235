//! `layer_norm`: normalisation to zero mean and unit variance.

use ndarray::{ArrayD, Axis, IxDyn};
use serde::{Deserialize, Serialize};

use super::{Cost, OpDef, OpError, TensorOp, arity, check_axes, require, same_float};
use crate::{Tensor, TensorType};

/// `(x − mean)/√(var + eps)·gamma + beta` over `axes`, with the biased variance (Ba et al., arXiv 1607.06450). gamma and beta
/// are optional and have the extents of `axes`.
///
/// - C1: axes ascending, not empty. C2: gamma and beta (both or neither) have shape `x.shape[axes]`. C3: one float dtype.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerNorm {
    /// Axes that are normalised together.
    pub axes: Vec<usize>,
    /// Added to the variance.
    pub eps: f64,
}

impl OpDef for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 1..=3)?;
        require!(operands.len() != 2, "takes gamma and beta together");
        same_float(operands)?;
        let x = operands[0];
        require!(!self.axes.is_empty(), "axes must not be empty");
        check_axes(&self.axes, x.rank())?;
        let extents: Vec<usize> = self.axes.iter().map(|&a| x.shape[a]).collect();
        for t in &operands[1..] {
            require!(t.shape == extents, "gamma and beta must be {extents:?}, found {t}");
        }
        Ok(x.clone())
    }

    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops(8 * ty.elements() as u64, operands, ty)
    }
}

impl TensorOp for LayerNorm {
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let x = &operands[0].data;
        let count: usize = self.axes.iter().map(|&a| x.shape()[a]).product();
        let mean_keep = |v: &ArrayD<f64>| {
            self.axes.iter().fold(v.clone(), |v, &a| v.sum_axis(Axis(a)).insert_axis(Axis(a))) / count as f64
        };
        let centred = x - &mean_keep(x);
        let variance = mean_keep(&(&centred * &centred));
        let mut data = centred / variance.mapv(|v| (v + self.eps).sqrt());
        if let [_, gamma, beta] = operands {
            let mut shape = vec![1; x.ndim()];
            for &a in &self.axes {
                shape[a] = x.shape()[a];
            }
            let wide = |t: &Tensor| {
                t.data
                    .as_standard_layout()
                    .into_owned()
                    .into_shape_with_order(IxDyn(&shape))
                    .map_err(|e| OpError::new(e.to_string()))
            };
            data = data * wide(gamma)? + wide(beta)?;
        }
        Ok(Tensor { dtype: ty.dtype, data })
    }
}
