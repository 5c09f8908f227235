//! Softmax attention, rotation and feature maps on heads `(1, A, d, N)`.
//!
//! Scores are `(1, A, M, N)`, keys before queries, so that the softmax runs over an axis before the last.

use s2dit_ir::ops::{OpError, Rope, Sdpa, Unary};
use s2dit_ir::{Builder, Op, ValueId};

use super::projections::exchange;
use super::{HEADS, Rewriter, Stored};

/// Queries of one head that are looked at together.
const QUERIES: usize = 512;

/// `v·softmax(kᵀ·q + mask)` over the axis before the last.
fn attend(b: &mut Builder, q: ValueId, k: ValueId, v: ValueId, mask: Option<ValueId>) -> Result<ValueId, OpError> {
    let scores = b.t_matmul(k, q)?;
    let scores = match mask {
        Some(mask) => b.add(scores, mask)?,
        None => scores,
    };
    let axis = b.shape(scores).len() - 2;
    let weights = b.softmax(scores, axis)?;
    b.matmul(v, weights)
}

/// The same head by head, and [`QUERIES`] by [`QUERIES`]: scores are `(1, M, n)`, the softmax runs over the channels.
fn by_head(b: &mut Builder, q: ValueId, k: ValueId, v: ValueId, mask: Option<ValueId>) -> Result<ValueId, OpError> {
    let (&[batch, heads, _, tokens], &[_, _, width, _]) = (b.shape(q), b.shape(v)) else {
        return Err(OpError::new("heads of another rank"));
    };
    // Heads of all clips of a batch on one axis. A mask may have one for all, of the clips or of the heads.
    let of_mask = mask.map(|mask| [b.shape(mask)[0], b.shape(mask)[1]]);
    let flat = |b: &mut Builder, x: ValueId| {
        let [clips, heads, rows, columns] = b.shape(x)[..] else { return Err(OpError::new("heads of another rank")) };
        b.reshape(x, &[clips * heads, rows, columns])
    };
    let (q, k, v) = (flat(b, q)?, flat(b, k)?, flat(b, v)?);
    let mask = mask.map(|mask| flat(b, mask)).transpose()?;
    let mut outputs = Vec::with_capacity(batch * heads);
    for index in 0..batch * heads {
        let of_head = |b: &mut Builder, x: ValueId, index: usize| {
            if b.shape(x)[0] == 1 { Ok(x) } else { b.slice(x, 0, index, index + 1) }
        };
        let (q, k, v) = (of_head(b, q, index)?, of_head(b, k, index)?, of_head(b, v, index)?);
        let mask = match (mask, of_mask) {
            (Some(mask), Some([clips, own])) => {
                let (clip, head) = (index / heads % clips, index % heads % own);
                Some(of_head(b, mask, clip * own + head)?)
            }
            _ => None,
        };
        let mut parts = Vec::new();
        for first in (0..tokens).step_by(QUERIES) {
            let of_part = |b: &mut Builder, x: ValueId| match b.shape(x)[2] {
                1 => Ok(x),
                _ if tokens <= QUERIES => Ok(x),
                _ => b.slice(x, 2, first, tokens.min(first + QUERIES)),
            };
            let q = of_part(b, q)?;
            let mask = mask.map(|mask| of_part(b, mask)).transpose()?;
            parts.push(attend(b, q, k, v, mask)?);
        }
        outputs.push(if let [one] = parts[..] { one } else { b.concat(&parts, 2)? });
    }
    let all = if let [one] = outputs[..] { one } else { b.concat(&outputs, 0)? };
    b.reshape(all, &[batch, heads, width, tokens])
}

impl Rewriter<'_> {
    pub(super) fn sdpa(&mut self, v: ValueId, operands: &[ValueId], sdpa: &Sdpa) -> Result<Option<Stored>, OpError> {
        let (q, k, values) = (operands[0], operands[1], operands[2]);
        let heads = self.dims(q);
        let alike = |o: ValueId| self.dims(o).len() == 4 && self.dims(o)[..2] == heads[..2];
        let known = |o: ValueId| self.is_stored(o) || self.doubled.contains_key(&o);
        let fits = [q, k, values].iter().all(|o| alike(*o)) && [q, k].iter().any(|o| known(*o));
        if !fits {
            return Ok(None);
        }
        let mask = match operands.get(3) {
            Some(&mask) => Some(self.broadcastable(v, mask, &HEADS)?),
            None => None,
        };
        let scale = if self.scaled_queries.contains(&v) { 1.0 } else { sdpa.scale };
        let (q, k) = match (self.doubled.get(&q), self.doubled.get(&k)) {
            (Some(&q), Some(&k)) => (q, k),
            _ => (self.in_form(q, &HEADS)?, self.in_form(k, &HEADS)?),
        };
        let values = self.in_form(values, &HEADS)?;
        let per_head = self.options.per_head;
        let value = self.at(v, |b| {
            let q = if scale == 1.0 { q } else { b.mul_scalar(q, scale)? };
            if per_head { by_head(b, q, k, values, mask) } else { attend(b, q, k, values, mask) }
        })?;
        Ok(Some(Stored { value, order: HEADS.to_vec() }))
    }

    pub(super) fn rope(&mut self, v: ValueId, operands: &[ValueId], rope: &Rope) -> Result<Option<Stored>, OpError> {
        let (x, cos, sin) = (operands[0], operands[1], operands[2]);
        let (&[_, _, _, width], [_, _]) = (self.dims(x), self.dims(cos)) else { return Ok(None) };
        if !self.is_stored(x) || rope.axis != 3 {
            return Ok(None);
        }
        let table = self.table(cos, sin, rope.pairs, width)?;
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
