//! Matmul, Linear, Conv.

use anyhow::Result;
use s2dit_ir::ValueId;
use s2dit_ir::ops::{Conv, Matmul};

use super::{Lowering, int, ints};

impl Lowering<'_> {
    pub(super) fn matmul(&mut self, v: ValueId, m: &Matmul) -> Result<()> {
        let operands = self.f.operands(v);
        let mut x = self.operands(v)?;
        for (i, transpose) in [m.transpose_x, m.transpose_y].into_iter().enumerate() {
            if transpose {
                let rank = self.f.ty(operands[i]).rank();
                let perm = (0..rank - 2).chain([rank - 1, rank - 2]);
                x[i] = self.step("Transpose", &[x[i].clone()], vec![ints("perm", perm)]);
            }
        }
        self.emit(v, "MatMul", &x, vec![]);
        Ok(())
    }

    /// `Gemm` takes a matrix: the leading axes of x are flattened and restored.
    pub(super) fn linear(&mut self, v: ValueId) -> Result<()> {
        let operands = self.f.operands(v);
        let mut x = self.operands(v)?;
        let transposed = || vec![int("transB", 1)];
        let shape = self.f.shape(v).to_vec();
        if shape.len() == 2 {
            self.emit(v, "Gemm", &x, transposed());
            return Ok(());
        }
        let inner = self.f.shape(operands[1])[1];
        let rows = self.f.ty(operands[0]).elements() / inner;
        let flat = self.ints(&[rows, inner]);
        x[0] = self.step("Reshape", &[x[0].clone(), flat], vec![]);
        let y = self.step("Gemm", &x, transposed());
        let shape = self.ints(&shape);
        self.emit(v, "Reshape", &[y, shape], vec![]);
        Ok(())
    }

    pub(super) fn conv(&mut self, v: ValueId, c: &Conv) -> Result<()> {
        let operands = self.f.operands(v);
        let x = self.operands(v)?;
        let kernel = self.f.shape(operands[1])[2..].to_vec();
        let attributes = vec![
            ints("dilations", c.dilations.iter().copied()),
            int("group", c.groups as i64),
            ints("kernel_shape", kernel),
            ints("pads", c.pad_before.iter().chain(&c.pad_after).copied()),
            ints("strides", c.strides.iter().copied()),
        ];
        self.emit(v, "Conv", &x, attributes);
        Ok(())
    }
}
