//! Ops over whole axes.

use anyhow::Result;
use s2dit_ir::ValueId;
use s2dit_ir::ops::{LayerNorm, Reduce, ReduceKind, Softmax};

use super::{FLOATS, Lowering, NUMBERS, named};

impl Lowering<'_> {
    pub(super) fn layer_norm(&mut self, v: ValueId, op: &LayerNorm) -> Result<()> {
        self.takes(v, FLOATS)?;
        let f = self.f;
        let operands = f.operands(v);
        let constant_affine = operands[1..].iter().all(|o| self.constant.contains(o));
        let names = self.operands(v)?;
        let mut inputs = vec![
            ("x", named(&names[0])),
            ("axes", self.ints(v, "axes", &op.axes)?),
            ("epsilon", self.epsilon(v, op.eps)?),
        ];
        if operands.len() < 3 {
            return self.emit(v, "layer_norm", inputs);
        }
        if constant_affine {
            inputs.extend([("gamma", named(&names[1])), ("beta", named(&names[2]))]);
            return self.emit(v, "layer_norm", inputs);
        }
        // MIL's gamma and beta are constants: computed ones are applied by hand.
        let (dtype, shape) = (f.dtype(v), f.shape(v));
        let mut wide = vec![1; shape.len()];
        for &a in &op.axes {
            wide[a] = shape[a];
        }
        let extents = f.shape(operands[1]);
        let norm = self.step(v, "layer_norm", dtype, shape, inputs)?;
        let gamma = self.reshaped(v, &names[1], extents, &wide, "gamma_shape")?;
        let scaled = self.step(v, "mul", dtype, shape, vec![("x", named(&norm)), ("y", named(&gamma))])?;
        let beta = self.reshaped(v, &names[2], extents, &wide, "beta_shape")?;
        self.emit(v, "add", vec![("x", named(&scaled)), ("y", named(&beta))])
    }

    pub(super) fn softmax(&mut self, v: ValueId, op: &Softmax) -> Result<()> {
        self.takes(v, FLOATS)?;
        let x = self.operands(v)?.remove(0);
        let axis = self.int(v, "axis", op.axis)?;
        self.emit(v, "softmax", vec![("x", named(&x)), ("axis", axis)])
    }

    pub(super) fn reduce(&mut self, v: ValueId, op: &Reduce) -> Result<()> {
        self.takes(v, if matches!(op.kind, ReduceKind::Mean | ReduceKind::L2Norm) { FLOATS } else { NUMBERS })?;
        let mil = match op.kind {
            ReduceKind::Sum => "reduce_sum",
            ReduceKind::Mean => "reduce_mean",
            ReduceKind::Max => "reduce_max",
            ReduceKind::Min => "reduce_min",
            ReduceKind::Prod => "reduce_prod",
            ReduceKind::L2Norm => "reduce_l2_norm",
        };
        let x = self.operands(v)?.remove(0);
        let axes = self.ints(v, "axes", &op.axes)?;
        let keep_dims = self.bool(v, "keep_dims", op.keep_dims);
        self.emit(v, mil, vec![("x", named(&x)), ("axes", axes), ("keep_dims", keep_dims)])
    }
}
