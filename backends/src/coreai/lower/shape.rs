//! Ops that move elements: Reshape, Transpose, Concat, Slice, Pad, DepthToSpace, Upsample, BroadcastTo.

use anyhow::Result;
use s2dit_ir::ValueId;
use s2dit_ir::ops::{Concat, DepthToSpace, Pad, Slice, Upsample};

use super::super::block::tensor;
use super::super::op;
use super::super::program::{Attribute, Property, Value};
use super::Lowering;

/// The encoding of a mode of padding.
const PADDING_MODE: u64 = 17;
/// Every element of the border is a number.
const WITH_NUMBER: u64 = 1;

impl Lowering<'_> {
    pub(super) fn reshape(&mut self, v: ValueId, shape: &[usize]) -> Result<Value> {
        let x = self.operands(v)?[0];
        Ok(self.reshaped(x, shape))
    }

    pub(super) fn transpose(&mut self, v: ValueId, perm: &[usize]) -> Result<Value> {
        let x = self.operands(v)?[0];
        Ok(self.transposed(x, perm))
    }

    pub(super) fn concat(&mut self, v: ValueId, c: &Concat) -> Result<Value> {
        let operands = self.operands(v)?;
        let axis = self.si32(c.axis);
        let result = self.result(v);
        Ok(self.emit(op::CONCAT, &[vec![axis], operands].concat(), result))
    }

    pub(super) fn slice(&mut self, v: ValueId, s: &Slice) -> Result<Value> {
        let x = self.operands(v)?[0];
        if self.parts(x).0 == self.f.shape(v) {
            return Ok(x);
        }
        let (begin, end, stride) = (self.si32s(&s.begin), self.si32s(&s.end), self.si32s(&s.stride));
        let result = self.result(v);
        Ok(self.emit(op::SLICE, &[x, begin, end, stride], result))
    }

    pub(super) fn pad(&mut self, v: ValueId, p: &Pad) -> Result<Value> {
        let x = self.operands(v)?[0];
        Ok(self.padded(x, &p.before, &p.after, p.value))
    }

    /// A value with a border, if it is to have any.
    pub(super) fn padded(&mut self, x: Value, before: &[usize], after: &[usize], with: f64) -> Value {
        if before.iter().chain(after).all(|&n| n == 0) {
            return x;
        }
        let (own, element) = self.parts(x);
        let shape: Vec<usize> = own.iter().zip(before.iter().zip(after)).map(|(n, (b, a))| n + b + a).collect();
        let pads: Vec<usize> = before.iter().zip(after).flat_map(|(b, a)| [*b, *a]).collect();
        let pads = self.ui32s(&pads);
        let with = self.number(with, element);
        let mode = Property::Required(Attribute::Choice { code: PADDING_MODE, value: WITH_NUMBER });
        self.emit_whole(op::PAD, &[x, pads, with], tensor(&shape, element), vec![mode], None)
    }

    /// Channels `(i·b + j)·C + c` to pixels: `[N, b, b, C, H, W]` to `[N, C, H, b, W, b]`.
    pub(super) fn depth_to_space(&mut self, v: ValueId, d: &DepthToSpace) -> Result<Value> {
        let x = self.operands(v)?[0];
        let (own, b) = (self.parts(x).0, d.block);
        let x = self.reshaped(x, &[own[0], b, b, own[1] / (b * b), own[2], own[3]]);
        let x = self.transposed(x, &[0, 3, 4, 1, 5, 2]);
        Ok(self.reshaped(x, self.f.shape(v)))
    }

    /// Each pixel as often as the factor says, in both directions.
    pub(super) fn upsample(&mut self, v: ValueId, u: &Upsample) -> Result<Value> {
        let x = self.operands(v)?[0];
        let own = self.parts(x).0;
        let [n, c, h, w] = own[..] else { return Ok(x) };
        let x = self.reshaped(x, &[n, c, h, 1, w, 1]);
        let x = self.brought_to(x, &[n, c, h, u.factor, w, u.factor]);
        Ok(self.reshaped(x, self.f.shape(v)))
    }

    pub(super) fn broadcast_to(&mut self, v: ValueId, shape: &[usize]) -> Result<Value> {
        let x = self.operands(v)?[0];
        Ok(self.brought_to(x, shape))
    }

    /// A value repeated to a shape, if it has not that already.
    pub(super) fn brought_to(&mut self, x: Value, shape: &[usize]) -> Value {
        let (own, element) = self.parts(x);
        if own == shape {
            return x;
        }
        let wanted = self.ui32s(shape);
        self.emit(op::BROADCAST_TO, &[x, wanted], tensor(shape, element))
    }
}
