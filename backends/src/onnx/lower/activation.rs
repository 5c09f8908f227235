//! Activations as int8: `QuantizeLinear` and `DequantizeLinear` with one scale.

use anyhow::Result;
use s2dit_ir::ops::{Dequantize, Quantize};
use s2dit_ir::{DType, TensorType, ValueId};

use super::{Lowering, int};
use crate::onnx::proto::data_type;

impl Lowering<'_> {
    /// The attribute says that the integers are signed. A zero point would say so too, but ONNX Runtime 1.31 makes it
    /// unsigned where it moves the op over a reshape, and then refuses the model.
    pub(super) fn quantize(&mut self, v: ValueId, q: &Quantize) -> Result<()> {
        let x = self.f.operands(v)[0];
        let inputs = self.with_scale(v, x, q.scale)?;
        self.emit(v, "QuantizeLinear", &inputs, vec![int("output_dtype", i64::from(data_type(DType::I8)))]);
        Ok(())
    }

    pub(super) fn dequantize(&mut self, v: ValueId, d: &Dequantize) -> Result<()> {
        let inputs = self.with_scale(v, v, d.scale)?;
        self.emit(v, "DequantizeLinear", &inputs, vec![]);
        Ok(())
    }

    /// The operand, and the scale as the number that the dtype of `float` holds.
    fn with_scale(&mut self, v: ValueId, float: ValueId, scale: f64) -> Result<Vec<String>> {
        let mut inputs = self.operands(v)?;
        let scale = self.f.dtype(float).round(scale);
        inputs.push(self.filled(scale, &TensorType::new(self.f.dtype(float), [])));
        Ok(inputs)
    }
}
