//! Activations as int8: `quantize` and `dequantize` with one scale. Zero points are left out, which is zero.

use anyhow::Result;
use s2dit_ir::ops::{Dequantize, Quantize};
use s2dit_ir::{DType, Tensor, TensorType, ValueId};

use super::{FLOATS, Lowering, named};
use crate::coreml::proto::Argument;

impl Lowering<'_> {
    pub(super) fn quantize(&mut self, v: ValueId, q: &Quantize) -> Result<()> {
        let x = self.f.operands(v)[0];
        self.takes(x, FLOATS)?;
        let scale = self.scale(v, self.f.dtype(x), q.scale)?;
        let dtype = self.string(v, "output_dtype", "int8");
        let x = self.value(x)?;
        self.emit(v, "quantize", vec![("input", named(&x)), ("scale", scale), ("output_dtype", dtype)])
    }

    pub(super) fn dequantize(&mut self, v: ValueId, d: &Dequantize) -> Result<()> {
        self.takes(v, FLOATS)?;
        let scale = self.scale(v, d.dtype, d.scale)?;
        let x = self.operands(v)?;
        self.emit(v, "dequantize", vec![("input", named(&x[0])), ("scale", scale)])
    }

    /// A scale of the dtype of the floats beside it.
    fn scale(&mut self, v: ValueId, dtype: DType, scale: f64) -> Result<Argument> {
        let bytes = Tensor::splat(&TensorType::new(dtype, []), scale).to_le_bytes();
        let value = self.out.blobs.made(dtype, &[], bytes)?;
        Ok(self.param(v, "scale", value))
    }
}
