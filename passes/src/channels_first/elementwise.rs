//! Functions of single elements, and norms.

use std::collections::BTreeSet;

use s2dit_ir::ops::{Binary, LayerNorm, OpError, RmsNorm};
use s2dit_ir::{Op, Use, ValueId};

use super::form::Form;
use super::norms::{doubled, length, root_of};
use super::options::Norms;
use super::{Rewriter, Stored, TOKENS};

impl Rewriter<'_> {
    pub(super) fn unary(&mut self, v: ValueId, x: ValueId) -> Result<Option<Stored>, OpError> {
        let Some(stored) = self.stored.get(&x).cloned() else { return Ok(None) };
        let value = self.in_form(x, &stored.order)?;
        let op = self.old.op(v).clone();
        let value = self.at(v, |b| b.op(op, &[value]))?;
        Ok(Some(Stored { value, order: stored.order }))
    }

    pub(super) fn binary(&mut self, v: ValueId, operands: &[ValueId]) -> Result<Option<Stored>, OpError> {
        let Some(order) = self.shared_order(v, operands) else { return Ok(None) };
        let mut values = Vec::with_capacity(2);
        for &o in operands {
            values.push(self.broadcastable(v, o, &order)?);
        }
        if let Op::Binary(Binary::Add) = self.old.op(v) {
            self.add_ones(v, operands, &mut values)?;
        }
        let op = self.old.op(v).clone();
        // What is multiplied with a constant keeps the factor that it has already.
        if let (Op::Binary(Binary::Mul), [x, mask]) = (&op, operands)
            && let (Some(&factor), true) = (self.scaled.get(x), self.is_const(*mask))
        {
            self.scaled.insert(v, factor);
        }
        let value = self.at(v, |b| b.op(op, &values))?;
        Ok(Some(Stored { value, order }))
    }

    /// The order of the largest operand that has the result's rank and a new layout.
    fn shared_order(&self, v: ValueId, operands: &[ValueId]) -> Option<Vec<usize>> {
        let rank = self.dims(v).len();
        let candidates = operands.iter().filter(|&&o| self.dims(o).len() == rank);
        let largest = candidates.filter(|o| self.is_stored(**o)).max_by_key(|&&o| self.old.ty(o).elements())?;
        Some(self.stored[largest].order.clone())
    }

    /// An operand in the form of a result whose axes are in `order`; axes that it lacks are ones.
    pub(super) fn broadcastable(&mut self, v: ValueId, o: ValueId, order: &[usize]) -> Result<ValueId, OpError> {
        let (dims, rank) = (self.dims(o), self.dims(v).len());
        if dims.is_empty() || (self.old.ty(o).elements() == 1 && dims.len() < rank) {
            return self.plain(o);
        }
        let lead = rank - dims.len();
        let mut full = vec![1; lead];
        full.extend(dims);
        let shape = Form::of(&full, order).shape;
        let own: Vec<usize> = order.iter().filter(|&&a| a >= lead).map(|a| a - lead).collect();
        self.ordered(o, &own, &shape)
    }

    /// `x·(1 + scale) + shift`
    pub(super) fn modulate(&mut self, v: ValueId, operands: &[ValueId]) -> Result<Option<Stored>, OpError> {
        let [x, scale, shift] = *operands else { return Ok(None) };
        let order = match self.stored.get(&x) {
            Some(stored) => stored.order.clone(),
            // Tokens that come back from an old layout: the scale may hold its one already, which the op would add again.
            None if self.dims(x).len() == TOKENS.len() => TOKENS.to_vec(),
            None => return Ok(None),
        };
        let value = self.in_form(x, &order)?;
        let factor = self.broadcastable(v, scale, &order)?;
        let offset = self.broadcastable(v, shift, &order)?;
        let has_one = self.plus_one.contains(&scale);
        let value = self.at(v, |b| {
            let factor = if has_one { factor } else { b.add_scalar(factor, 1.0)? };
            let y = b.mul(value, factor)?;
            b.add(y, offset)
        })?;
        Ok(Some(Stored { value, order }))
    }

    /// Where a constant table is added, rows that are only scales of `modulate` take the one of `1 + scale` from it.
    fn add_ones(&mut self, v: ValueId, operands: &[ValueId], values: &mut [ValueId]) -> Result<(), OpError> {
        let Some(table) = operands.iter().position(|o| self.is_const(*o)) else { return Ok(()) };
        let &[1, rows, _] = self.dims(v) else { return Ok(()) };
        let with = values[table];
        if self.dims(operands[table]).len() != 3 || self.g.shape(with)[0] != rows {
            return Ok(());
        }
        if let Some(ones) = self.ones(v)? {
            values[table] = self.at(v, |b| {
                let ones = b.reshape(ones, &[rows, 1, 1, 1])?;
                b.add(with, ones)
            })?;
        }
        Ok(())
    }

    /// Ones for the rows `[1, rows, 1, 1]` of a sum with a table that are scales, if there are any; the slices that take them are
    /// noted.
    pub(super) fn ones(&mut self, v: ValueId) -> Result<Option<ValueId>, OpError> {
        let &[1, rows, _] = self.dims(v) else { return Ok(None) };
        let mut scales = BTreeSet::new();
        let (mut found, mut others) = (Vec::new(), Vec::new());
        for read in self.old.uses(v) {
            let Use::Operand { user, .. } = read else { return Ok(None) };
            let Op::Slice(slice) = self.old.op(user) else { return Ok(None) };
            let scales_one = |u: &Use| match *u {
                Use::Operand { user, position: 1 } => matches!(self.old.op(user), Op::Modulate(_)),
                _ => false,
            };
            let uses = self.old.uses(user);
            let is_scale = !uses.is_empty() && uses.iter().all(scales_one);
            let row = slice.begin[1];
            if is_scale && slice.end[1] == row + 1 {
                scales.insert(row);
                found.push(user);
            } else {
                others.push(row..slice.end[1]);
            }
        }
        let shared = others.iter().any(|range| scales.iter().any(|row| range.contains(row)));
        if shared || scales.is_empty() {
            return Ok(None);
        }
        let ones = (0..rows).map(|row| f64::from(u8::from(scales.contains(&row)))).collect();
        self.plus_one.extend(found);
        self.literal(v, &[1, rows, 1, 1], ones).map(Some)
    }

    pub(super) fn layer_norm(
        &mut self,
        v: ValueId,
        operands: &[ValueId],
        norm: &LayerNorm,
    ) -> Result<Option<Stored>, OpError> {
        let Some(stored) = self.stored.get(&operands[0]).cloned() else { return Ok(None) };
        let form = Form::of(self.dims(v), &stored.order);
        let Some(axes) = norm.axes.iter().map(|&a| form.axis[a]).collect::<Option<Vec<_>>>() else { return Ok(None) };
        if axes.len() != 1 {
            return Ok(None);
        }
        let mut values = vec![self.in_form(operands[0], &stored.order)?];
        for &o in &operands[1..] {
            values.push(self.plain(o)?);
        }
        let value = self.at(v, |b| b.op(LayerNorm { axes, eps: norm.eps }, &values))?;
        Ok(Some(Stored { value, order: stored.order }))
    }

    pub(super) fn rms_norm(
        &mut self,
        v: ValueId,
        operands: &[ValueId],
        norm: &RmsNorm,
    ) -> Result<Option<Stored>, OpError> {
        let Some(stored) = self.stored.get(&operands[0]).cloned() else { return Ok(None) };
        let form = Form::of(self.dims(v), &stored.order);
        let Some(axis) = form.axis[norm.axis] else { return Ok(None) };
        let x = self.in_form(operands[0], &stored.order)?;
        let gain = operands.get(1).map(|&gain| self.plain(gain)).transpose()?;
        let norms = self.options.norms;
        let value = self.at(v, |b| {
            let y = match norms {
                Norms::Doubled => doubled(b, x, &[axis], norm.eps)?,
                Norms::Length => {
                    let length = length(b, x, &[axis], norm.eps)?;
                    let length = b.mul_scalar(length, 1.0 / root_of(b, x, &[axis]))?;
                    b.div(x, length)?
                }
            };
            let Some(gain) = gain else { return Ok(y) };
            let mut shape = vec![1; form.shape.len()];
            shape[axis] = form.shape[axis];
            let gain = b.reshape(gain, &shape)?;
            b.mul(y, gain)
        })?;
        Ok(Some(Stored { value, order: stored.order }))
    }
}
