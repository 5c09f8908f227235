//! Composites that ONNX has: RmsNorm, Rope, Modulate.

use std::collections::HashSet;

use anyhow::{Result, ensure};
use s2dit_ir::ops::{LayerNorm, Op, RmsNorm, Rope, RopePairs};
use s2dit_ir::{Function, TensorType, ValueId};

use super::{Lowering, float, int};

/// Norms that become part of the modulation that alone reads them.
pub(super) fn modulated_norms(f: &Function, order: &[ValueId]) -> HashSet<ValueId> {
    order.iter().filter_map(|&v| modulated_norm(f, v)).collect()
}

/// The `layer_norm` without affine parameters that `v` modulates, if scale and shift are one number a channel: then
/// they are what `LayerNormalization` calls Scale and B.
fn modulated_norm(f: &Function, v: ValueId) -> Option<ValueId> {
    let Op::Modulate(_) = f.op(v) else { return None };
    let [x, scale, shift] = f.operands(v)[..] else { return None };
    let Op::LayerNorm(LayerNorm { axes, .. }) = f.op(x) else { return None };
    let rank = f.ty(x).rank();
    let width = *f.shape(x).last()?;
    let a_channel = |p: ValueId| f.ty(p).elements() == width && f.shape(p).last() == Some(&width);
    let only = f.only_use(x).is_some() && f.node(x).name.is_none();
    (f.operands(x).len() == 1 && axes[..] == [rank - 1] && a_channel(scale) && a_channel(shift) && only).then_some(x)
}

impl Lowering<'_> {
    /// As PyTorch's exporters write it: ONNX Runtime makes one op of exactly this.
    pub(super) fn rms_norm(&mut self, v: ValueId, n: &RmsNorm) -> Result<()> {
        ensure!(n.axis + 1 == self.f.ty(v).rank(), "a norm over another axis than the last");
        let x = self.operands(v)?;
        let scalar = TensorType::new(self.f.dtype(v), []);
        let (two, eps, axes) = (self.filled(2.0, &scalar), self.filled(n.eps, &scalar), self.ints(&[n.axis]));
        let square = self.step("Pow", &[x[0].clone(), two], vec![]);
        let mean = self.step("ReduceMean", &[square, axes], vec![int("keepdims", 1)]);
        let mean = self.step("Add", &[mean, eps], vec![]);
        let root = self.step("Sqrt", &[mean], vec![]);
        match x.get(1) {
            Some(gain) => {
                let normed = self.step("Div", &[x[0].clone(), root], vec![]);
                self.emit(v, "Mul", &[normed, gain.clone()], vec![]);
            }
            None => self.emit(v, "Div", &[x[0].clone(), root], vec![]),
        }
        Ok(())
    }

    /// `RotaryEmbedding`, of opset 23.
    pub(super) fn rope(&mut self, v: ValueId, r: &Rope) -> Result<()> {
        let x = self.operands(v)?;
        let table = self.f.ty(self.f.operands(v)[1]).clone();
        ensure!(
            r.axis == 3 && self.f.ty(v).rank() == 4 && table.rank() == 2,
            "positions of another shape than ONNX takes"
        );
        let wanted = self.ints(&[1, table.shape[0], table.shape[1]]);
        let mut cos = self.shared_step("Reshape", &[x[1].clone(), wanted.clone()]);
        let mut sin = self.shared_step("Reshape", &[x[2].clone(), wanted]);
        let batch = self.f.shape(v)[0];
        if batch > 1 {
            let of_each = self.ints(&[batch, table.shape[0], table.shape[1]]);
            cos = self.shared_step("Expand", &[cos, of_each.clone()]);
            sin = self.shared_step("Expand", &[sin, of_each]);
        }
        let interleaved = i64::from(r.pairs == RopePairs::Interleaved);
        self.opset = 23;
        self.emit(v, "RotaryEmbedding", &[x[0].clone(), cos, sin], vec![int("interleaved", interleaved)]);
        Ok(())
    }

    pub(super) fn modulate(&mut self, v: ValueId) -> Result<()> {
        let one = self.filled(1.0, &TensorType::new(self.f.dtype(v), []));
        let operands = self.f.operands(v);
        if let Some(norm) = modulated_norm(self.f, v) {
            let Op::LayerNorm(n) = self.f.op(norm) else { return Ok(()) };
            let (axis, eps) = (n.axes[0], n.eps);
            let source = self.stored(self.f.operands(norm)[0])?;
            let width = self.ints(&[self.f.ty(norm).shape[axis]]);
            let (scale, shift) = (self.stored(operands[1])?, self.stored(operands[2])?);
            let scale = self.step("Add", &[scale, one], vec![]);
            let scale = self.step("Reshape", &[scale, width.clone()], vec![]);
            let shift = self.step("Reshape", &[shift, width], vec![]);
            let attributes = vec![int("axis", axis as i64), float("epsilon", eps)];
            self.emit(v, "LayerNormalization", &[source, scale, shift], attributes);
            return Ok(());
        }
        let x = self.operands(v)?;
        let scale = self.step("Add", &[x[1].clone(), one], vec![]);
        let scaled = self.step("Mul", &[x[0].clone(), scale], vec![]);
        self.emit(v, "Add", &[scaled, x[2].clone()], vec![]);
        Ok(())
    }

    /// A step that others with the same operands use too.
    fn shared_step(&mut self, op_type: &str, inputs: &[String]) -> String {
        let key = format!("{op_type} {inputs:?}");
        if let Some(name) = self.by_key.get(&key) {
            return name.clone();
        }
        let name = self.step(op_type, inputs, vec![]);
        self.by_key.insert(key, name.clone());
        name
    }
}
