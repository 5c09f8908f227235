//! Positions that are values: Gather, GatherAlongAxis, GatherNd.

use anyhow::{Result, ensure};
use s2dit_ir::ValueId;
use s2dit_ir::ops::{Gather, GatherAlongAxis, GatherNd};

use super::super::block::tensor;
use super::super::op;
use super::super::program::Value;
use super::Lowering;

impl Lowering<'_> {
    /// The op takes positions of the first axes: another axis is brought to the front, and back.
    pub(super) fn gather(&mut self, v: ValueId, g: &Gather) -> Result<Value> {
        let operands = self.operands(v)?;
        let (mut own, element) = self.parts(operands[0]);
        let count = self.parts(operands[1]).0.first().copied().unwrap_or(1);
        let rank = own.len();
        let mut x = operands[0];
        if g.axis > 0 {
            let perm: Vec<usize> = [g.axis].into_iter().chain((0..rank).filter(|i| *i != g.axis)).collect();
            x = self.transposed(x, &perm);
            own = perm.iter().map(|&i| own[i]).collect();
        }
        let positions = self.reshaped(operands[1], &[count, 1]);
        own[0] = count;
        let y = self.emit(op::GATHER_ND, &[x, positions], tensor(&own, element));
        if g.axis == 0 {
            return Ok(y);
        }
        let back: Vec<usize> = (1..=g.axis).chain([0]).chain(g.axis + 1..rank).collect();
        Ok(self.transposed(y, &back))
    }

    pub(super) fn gather_along_axis(&mut self, v: ValueId, g: &GatherAlongAxis) -> Result<Value> {
        let operands = self.operands(v)?;
        let (own, wanted) = (self.parts(operands[0]).0, self.parts(operands[1]).0);
        let equal = (0..own.len()).all(|i| i == g.axis || own[i] == wanted[i]);
        ensure!(equal, "positions that leave out elements of other axes: {wanted:?} for {own:?}");
        let axis = self.si32(g.axis);
        let result = self.result(v);
        Ok(self.emit(op::GATHER_ALONG_AXIS, &[operands[0], operands[1], axis], result))
    }

    pub(super) fn gather_nd(&mut self, v: ValueId, g: &GatherNd) -> Result<Value> {
        ensure!(g.batch == 0, "gathering with {} leading axes in common is not written for Core AI yet", g.batch);
        let operands = self.operands(v)?;
        let result = self.result(v);
        Ok(self.emit(op::GATHER_ND, &operands, result))
    }
}
