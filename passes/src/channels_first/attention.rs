//! Softmax attention, rotation and feature maps on heads `(1, A, d, N)`.
//!
//! Scores are `(1, A, M, N)`, keys before queries, so that the softmax runs over an axis before the last.

use s2dit_ir::ops::{OpError, Rope, Sdpa, Unary};
use s2dit_ir::{Op, ValueId};

use super::projections::exchange;
use super::{HEADS, Rewriter, Stored};

impl Rewriter<'_> {
    pub(super) fn sdpa(&mut self, v: ValueId, operands: &[ValueId], sdpa: &Sdpa) -> Result<Option<Stored>, OpError> {
        let (q, k, values) = (operands[0], operands[1], operands[2]);
        let heads = self.dims(q);
        let alike = |o: ValueId| self.dims(o).len() == 4 && self.dims(o)[..2] == heads[..2];
        if !(alike(q) && alike(k) && alike(values)) || heads[0] != 1 || ![q, k].iter().any(|o| self.is_stored(*o)) {
            return Ok(None);
        }
        let mask = match operands.get(3) {
            Some(&mask) => Some(self.broadcastable(v, mask, &HEADS)?),
            None => None,
        };
        let scale = if self.scaled_queries.contains(&v) { 1.0 } else { sdpa.scale };
        let (q, k, values) = (self.in_form(q, &HEADS)?, self.in_form(k, &HEADS)?, self.in_form(values, &HEADS)?);
        let value = self.at(v, |b| {
            let q = if scale == 1.0 { q } else { b.mul_scalar(q, scale)? };
            let scores = b.t_matmul(k, q)?;
            let scores = match mask {
                Some(mask) => b.add(scores, mask)?,
                None => scores,
            };
            let weights = b.softmax(scores, 2)?;
            b.matmul(values, weights)
        })?;
        Ok(Some(Stored { value, order: HEADS.to_vec() }))
    }

    pub(super) fn rope(&mut self, v: ValueId, operands: &[ValueId], rope: &Rope) -> Result<Option<Stored>, OpError> {
        let (x, cos, sin) = (operands[0], operands[1], operands[2]);
        let (&[1, _, _, width], [_, _]) = (self.dims(x), self.dims(cos)) else { return Ok(None) };
        if !self.is_stored(x) || rope.axis != 3 {
            return Ok(None);
        }
        let table = self.table(cos, sin, rope.pairs)?;
        let matrix = self.literal(v, &[1, 1, width, 2 * width], exchange(width, rope.pairs))?;
        let y = self.in_form(x, &HEADS)?;
        let value = self.at(v, |b| {
            let twice = b.concat(&[y, y], 2)?;
            let both = b.mul(twice, table)?;
            b.matmul(matrix, both)
        })?;
        if let Some(&factor) = self.scaled.get(&x) {
            self.scaled.insert(v, factor);
        }
        Ok(Some(Stored { value, order: HEADS.to_vec() }))
    }

    pub(super) fn feature_map(&mut self, v: ValueId, operands: &[ValueId]) -> Result<Option<Stored>, OpError> {
        let (x, weight, bias) = (operands[0], operands[1], operands[2]);
        let rank_four = [x, weight, bias].iter().all(|&o| self.dims(o).len() == 4);
        if !self.is_stored(x) || !rank_four || matches!(self.old.op(x), Op::Input(_)) {
            return Ok(None);
        }
        let y = self.in_form(x, &HEADS)?;
        let weight = self.plain(weight)?;
        let bias = self.in_form(bias, &HEADS)?;
        let value = self.at(v, |b| {
            let y = b.matmul(weight, y)?;
            let y = b.add(y, bias)?;
            b.unary(Unary::Softplus, y)
        })?;
        Ok(Some(Stored { value, order: HEADS.to_vec() }))
    }
}
