//! Ops that move elements: Reshape, Transpose, Concat, Slice, Pad, DepthToSpace, Resize, Gather, BroadcastTo.

use anyhow::Result;
use s2dit_ir::ops::{Concat, DepthToSpace, Gather, Pad, Slice};
use s2dit_ir::{TensorType, ValueId};

use super::{Lowering, int, ints, string};

impl Lowering<'_> {
    pub(super) fn reshape(&mut self, v: ValueId, shape: &[usize]) -> Result<()> {
        let x = self.operands(v)?;
        let shape = self.ints(shape);
        self.emit(v, "Reshape", &[x[0].clone(), shape], vec![]);
        Ok(())
    }

    pub(super) fn transpose(&mut self, v: ValueId, perm: &[usize]) -> Result<()> {
        let x = self.operands(v)?;
        self.emit(v, "Transpose", &x, vec![ints("perm", perm.iter().copied())]);
        Ok(())
    }

    pub(super) fn concat(&mut self, v: ValueId, c: &Concat) -> Result<()> {
        let x = self.operands(v)?;
        self.emit(v, "Concat", &x, vec![int("axis", c.axis as i64)]);
        Ok(())
    }

    /// Only the axes that are cut are named.
    pub(super) fn slice(&mut self, v: ValueId, s: &Slice) -> Result<()> {
        let operand = self.f.operands(v)[0];
        let x = self.operands(v)?;
        let shape = self.f.shape(operand).to_vec();
        let cut = |i: &usize| s.begin[*i] != 0 || s.end[*i] != shape[*i] || s.stride[*i] != 1;
        let axes: Vec<usize> = (0..shape.len()).filter(cut).collect();
        if axes.is_empty() {
            self.emit(v, "Identity", &x, vec![]);
            return Ok(());
        }
        let pick = |values: &[usize]| axes.iter().map(|&a| values[a]).collect::<Vec<_>>();
        let (begin, end, stride) = (self.ints(&pick(&s.begin)), self.ints(&pick(&s.end)), self.ints(&pick(&s.stride)));
        let axes = self.ints(&axes);
        self.emit(v, "Slice", &[x[0].clone(), begin, end, axes, stride], vec![]);
        Ok(())
    }

    pub(super) fn pad(&mut self, v: ValueId, p: &Pad) -> Result<()> {
        let x = self.operands(v)?;
        let pads: Vec<usize> = p.before.iter().chain(&p.after).copied().collect();
        let pads = self.ints(&pads);
        let value = self.filled(p.value, &TensorType::new(self.f.dtype(v), []));
        self.emit(v, "Pad", &[x[0].clone(), pads, value], vec![string("mode", "constant")]);
        Ok(())
    }

    pub(super) fn depth_to_space(&mut self, v: ValueId, d: &DepthToSpace) -> Result<()> {
        let x = self.operands(v)?;
        self.emit(v, "DepthToSpace", &x, vec![int("blocksize", d.block as i64), string("mode", "DCR")]);
        Ok(())
    }

    /// The sides are asked for, because scales would be rounded.
    pub(super) fn upsample(&mut self, v: ValueId) -> Result<()> {
        let x = self.operands(v)?;
        let sides = self.ints(self.f.shape(v));
        let attributes = vec![
            string("mode", "nearest"),
            string("coordinate_transformation_mode", "asymmetric"),
            string("nearest_mode", "floor"),
        ];
        self.emit(v, "Resize", &[x[0].clone(), String::new(), String::new(), sides], attributes);
        Ok(())
    }

    pub(super) fn gather(&mut self, v: ValueId, g: &Gather) -> Result<()> {
        let x = self.operands(v)?;
        self.emit(v, "Gather", &x, vec![int("axis", g.axis as i64)]);
        Ok(())
    }

    pub(super) fn broadcast_to(&mut self, v: ValueId, shape: &[usize]) -> Result<()> {
        let x = self.operands(v)?;
        let shape = self.ints(shape);
        self.emit(v, "Expand", &[x[0].clone(), shape], vec![]);
        Ok(())
    }
}
