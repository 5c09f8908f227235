//! Convolution and pooling.

use serde::{Deserialize, Serialize};

use super::{Look, Place, constexprs};
use crate::coreml::lint::constant::ints;
use crate::coreml::lint::program::Op;

fn is_convolution(op: &Op) -> bool {
    ["conv", "conv_transpose"].contains(&op.ty)
}

/// Convolutions have at most `max` spatial axes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spatial {
    max: usize,
}

impl Look for Spatial {
    fn op(&self, at: &Place, op: &Op) -> Option<String> {
        let x = at.function.input(op, "x").filter(|_| is_convolution(op))?;
        let spatial = x.shape.len().saturating_sub(2);
        (spatial > self.max).then(|| format!("{spatial} spatial axes: x is {}", x.ty()))
    }
}

/// No dilated convolution.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dilation {}

impl Look for Dilation {
    fn op(&self, at: &Place, op: &Op) -> Option<String> {
        let dilations = ints(at.function, op, "dilations").filter(|_| is_convolution(op))?;
        dilations.iter().any(|d| *d != 1).then(|| format!("dilations {dilations:?}"))
    }
}

/// Kernels of convolutions have no side above `max`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    max: u64,
}

impl Look for Kernel {
    fn op(&self, at: &Place, op: &Op) -> Option<String> {
        let kernel = at.function.input(op, "weight").filter(|_| is_convolution(op))?.extents()?;
        let sides = kernel.get(2..)?;
        sides.iter().any(|side| *side > self.max).then(|| format!("a kernel of {sides:?}"))
    }
}

/// Strides of convolutions have no prime factors but `factors`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stride {
    factors: Vec<i64>,
}

impl Look for Stride {
    fn op(&self, at: &Place, op: &Op) -> Option<String> {
        let strides = ints(at.function, op, "strides").filter(|_| is_convolution(op))?;
        let rest = |stride: i64| {
            self.factors.iter().filter(|f| **f > 1).fold(stride, |mut s, f| {
                while s != 0 && s % f == 0 {
                    s /= f;
                }
                s
            })
        };
        strides.iter().any(|s| rest(*s) != 1).then(|| format!("strides {strides:?}"))
    }
}

/// Strides of convolutions with a lookup table for a kernel are at most `max`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PalettizedStride {
    max: i64,
}

impl Look for PalettizedStride {
    fn op(&self, at: &Place, op: &Op) -> Option<String> {
        if !is_convolution(op) || constexprs(at, op, "constexpr_lut_to_dense").is_empty() {
            return None;
        }
        let strides = ints(at.function, op, "strides")?;
        strides.iter().any(|s| *s > self.max).then(|| format!("a palettized kernel with strides {strides:?}"))
    }
}

/// Pooling windows have no side above `max`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolKernel {
    max: i64,
}

impl Look for PoolKernel {
    fn op(&self, at: &Place, op: &Op) -> Option<String> {
        let sides = ints(at.function, op, "kernel_sizes").filter(|_| op.ty.ends_with("_pool"))?;
        sides.iter().any(|s| *s > self.max).then(|| format!("a window of {sides:?}"))
    }
}
