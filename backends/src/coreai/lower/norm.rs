//! LayerNorm, Softmax, Reduce.

use anyhow::Result;
use s2dit_ir::ValueId;
use s2dit_ir::ops::{LayerNorm, Reduce, ReduceKind, Softmax};

use super::super::block::tensor;
use super::super::program::Value;
use super::super::{body, op};
use super::Lowering;

impl Lowering<'_> {
    /// A layer norm in its place, op by op.
    pub(super) fn plain_layer_norm(&mut self, v: ValueId, n: &LayerNorm) -> Result<Value> {
        let operands = self.f.operands(v);
        let x = self.value(operands[0])?;
        let (own, element) = self.parts(x);
        let mean = self.reduced(op::REDUCE_MEAN, x, &n.axes);
        let centred = self.combined(op::BROADCASTING_SUB, x, mean);
        let square = self.combined(op::BROADCASTING_MUL, centred, centred);
        let variance = self.reduced(op::REDUCE_MEAN, square, &n.axes);
        let eps = self.number(n.eps, element);
        let variance = self.combined(op::BROADCASTING_ADD, variance, eps);
        let factor = self.same(op::RSQRT, variance);
        let mut y = self.combined(op::BROADCASTING_MUL, centred, factor);
        if let [_, gain, shift] = operands[..] {
            let extent = |i: usize| if n.axes.contains(&i) { own[i] } else { 1 };
            let shape: Vec<usize> = (0..own.len()).map(extent).collect();
            let (gain, shift) = (self.value_as(gain, &shape)?, self.value_as(shift, &shape)?);
            y = self.combined(op::BROADCASTING_MUL, y, gain);
            y = self.combined(op::BROADCASTING_ADD, y, shift);
        }
        Ok(y)
    }

    pub(super) fn softmax(&mut self, v: ValueId, s: &Softmax) -> Result<Value> {
        let x = self.operands(v)?[0];
        let axis = self.si32(s.axis);
        let ty = self.block.ty(x).clone();
        let region = body::softmax(self.block.argument(x), self.block.argument(axis), &self.block.file);
        Ok(self.emit_whole(op::SOFTMAX, &[x, axis], ty, Vec::new(), Some(region)))
    }

    pub(super) fn reduce(&mut self, v: ValueId, r: &Reduce) -> Result<Value> {
        let x = self.operands(v)?[0];
        let name = match r.kind {
            ReduceKind::Sum => op::REDUCE_SUM,
            ReduceKind::Mean => op::REDUCE_MEAN,
            ReduceKind::Max => op::REDUCE_MAX,
            ReduceKind::Min => op::REDUCE_MIN,
            ReduceKind::Prod => op::REDUCE_PRODUCT,
            ReduceKind::L2Norm => {
                let squares = self.combined(op::BROADCASTING_MUL, x, x);
                let sum = self.reduced(op::REDUCE_SUM, squares, &r.axes);
                let y = self.same(op::SQRT, sum);
                return Ok(self.reshaped(y, self.f.shape(v)));
            }
        };
        let y = self.reduced(name, x, &r.axes);
        Ok(self.reshaped(y, self.f.shape(v)))
    }

    /// Elements combined along axes, which stay with extent 1.
    pub(super) fn reduced(&mut self, name: &'static str, x: Value, axes: &[usize]) -> Value {
        let (mut shape, element) = self.parts(x);
        for &axis in axes {
            shape[axis] = 1;
        }
        let axes = self.si32s(axes);
        let (ty, of_axes, file) = (self.block.argument(x), self.block.argument(axes), &self.block.file);
        let region = match name {
            op::REDUCE_MEAN => body::reduce_mean(ty, of_axes, file),
            _ => body::reduce(name, ty, of_axes, file),
        };
        self.emit_whole(name, &[x, axes], tensor(&shape, element), Vec::new(), Some(region))
    }
}
