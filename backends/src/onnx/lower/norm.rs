//! LayerNorm, Softmax, Reduce.

use anyhow::Result;
use s2dit_ir::ops::{LayerNorm, Reduce, ReduceKind, Softmax};
use s2dit_ir::{TensorType, ValueId};

use super::{Lowering, float, int};

impl Lowering<'_> {
    pub(super) fn layer_norm(&mut self, v: ValueId, n: &LayerNorm) -> Result<()> {
        let mut x = self.operands(v)?;
        let ty = self.f.ty(v);
        let first = n.axes[0];
        let trailing = n.axes.iter().copied().eq(first..ty.rank());
        if trailing {
            if x.len() == 1 {
                // ONNX has no form without a scale.
                x.push(self.filled(1.0, &TensorType::new(ty.dtype, &ty.shape[first..])));
            }
            self.emit(v, "LayerNormalization", &x, vec![int("axis", first as i64), float("epsilon", n.eps)]);
            return Ok(());
        }
        let axes = self.ints(&n.axes);
        let mean = self.step("ReduceMean", &[x[0].clone(), axes.clone()], vec![int("keepdims", 1)]);
        let centred = self.step("Sub", &[x[0].clone(), mean], vec![]);
        let square = self.step("Mul", &[centred.clone(), centred.clone()], vec![]);
        let variance = self.step("ReduceMean", &[square, axes], vec![int("keepdims", 1)]);
        let eps = self.filled(n.eps, &TensorType::new(ty.dtype, []));
        let variance = self.step("Add", &[variance, eps], vec![]);
        let deviation = self.step("Sqrt", &[variance], vec![]);
        if x.len() == 1 {
            self.emit(v, "Div", &[centred, deviation], vec![]);
            return Ok(());
        }
        let norm = self.step("Div", &[centred, deviation], vec![]);
        let wide: Vec<usize> = (0..ty.rank()).map(|i| if n.axes.contains(&i) { ty.shape[i] } else { 1 }).collect();
        let wide = self.ints(&wide);
        let gamma = self.step("Reshape", &[x[1].clone(), wide.clone()], vec![]);
        let beta = self.step("Reshape", &[x[2].clone(), wide], vec![]);
        let scaled = self.step("Mul", &[norm, gamma], vec![]);
        self.emit(v, "Add", &[scaled, beta], vec![]);
        Ok(())
    }

    pub(super) fn softmax(&mut self, v: ValueId, s: &Softmax) -> Result<()> {
        let x = self.operands(v)?;
        self.emit(v, "Softmax", &x, vec![int("axis", s.axis as i64)]);
        Ok(())
    }

    pub(super) fn reduce(&mut self, v: ValueId, r: &Reduce) -> Result<()> {
        let x = self.operands(v)?;
        let op = match r.kind {
            ReduceKind::Sum => "ReduceSum",
            ReduceKind::Mean => "ReduceMean",
            ReduceKind::Max => "ReduceMax",
            ReduceKind::Min => "ReduceMin",
            ReduceKind::Prod => "ReduceProd",
            ReduceKind::L2Norm => "ReduceL2",
        };
        let axes = self.ints(&r.axes);
        self.emit(v, op, &[x[0].clone(), axes], vec![int("keepdims", i64::from(r.keep_dims))]);
        Ok(())
    }
}
