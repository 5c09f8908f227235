//! Activations as int8: Quantize, Dequantize.

use anyhow::Result;
use s2dit_ir::ValueId;
use s2dit_ir::ops::{Dequantize, Quantize};

use super::super::block::tensor;
use super::super::op;
use super::super::program::{Element, Value};
use super::Lowering;

impl Lowering<'_> {
    /// `clip(round(x / scale), −128, 127)` in ops that every system knows.
    pub(super) fn quantize(&mut self, v: ValueId, q: &Quantize) -> Result<Value> {
        let x = self.operands(v)?[0];
        let (shape, element) = self.parts(x);
        let [scale, low, high] = [q.scale, -128.0, 127.0].map(|n| self.number(n, element));
        let x = self.combined(op::BROADCASTING_DIVIDE, x, scale);
        let x = self.same(op::ROUND, x);
        let x = self.combined(op::BROADCASTING_MAXIMUM, x, low);
        let x = self.combined(op::BROADCASTING_MINIMUM, x, high);
        Ok(self.emit(op::CAST, &[x], tensor(&shape, Element::Si8)))
    }

    pub(super) fn dequantize(&mut self, v: ValueId, d: &Dequantize) -> Result<Value> {
        let x = self.operands(v)?[0];
        let result = self.result(v);
        let x = self.emit(op::CAST, &[x], result);
        let scale = self.number(d.scale, self.parts(x).1);
        Ok(self.combined(op::BROADCASTING_MUL, x, scale))
    }
}
