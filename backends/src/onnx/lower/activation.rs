//! Activations as int8: `QuantizeLinear` and `DequantizeLinear` with one scale.

use s2dit_ir::ops::{Dequantize, Quantize};
use s2dit_ir::{DType, TensorType, ValueId};

use anyhow::Result;

use super::Lowering;

impl Lowering<'_> {
    pub(super) fn quantize(&mut self, v: ValueId, q: &Quantize) -> Result<()> {
        let x = self.f.operands(v)[0];
        self.with_scale(v, "QuantizeLinear", x, q.scale)
    }

    pub(super) fn dequantize(&mut self, v: ValueId, d: &Dequantize) -> Result<()> {
        self.with_scale(v, "DequantizeLinear", v, d.scale)
    }

    /// The scale is the number that the dtype of `float` holds. Without a zero point the integers would be unsigned.
    fn with_scale(&mut self, v: ValueId, op: &str, float: ValueId, scale: f64) -> Result<()> {
        let mut inputs = self.operands(v)?;
        let scale = self.f.dtype(float).round(scale);
        inputs.push(self.filled(scale, &TensorType::new(self.dtype(float), [])));
        inputs.push(self.filled(0.0, &TensorType::new(DType::I8, [])));
        self.emit(v, op, &inputs, vec![]);
        Ok(())
    }
}
