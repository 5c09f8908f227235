//! Functions of single elements, and norms.

use std::collections::BTreeSet;

use s2dit_ir::ops::{Binary, LayerNorm, OpError, RmsNorm};
use s2dit_ir::{Builder, DType, Op, TensorType, Use, ValueId};

use super::form::Form;
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
        let value = self.at(v, |b| {
            let y = normalised(b, x, &[axis], norm.eps)?;
            let Some(gain) = gain else { return Ok(y) };
            let mut shape = vec![1; form.shape.len()];
            shape[axis] = form.shape[axis];
            let gain = b.reshape(gain, &shape)?;
            b.mul(y, gain)
        })?;
        Ok(Some(Stored { value, order: stored.order }))
    }
}

/// `x / √(mean(x²) + eps)` over some axes (Zhang & Sennrich, arXiv 1910.07467), the last of which is the one that is doubled.
pub(super) fn normalised(b: &mut Builder, x: ValueId, axes: &[usize], eps: f64) -> Result<ValueId, OpError> {
    let Some(&along) = axes.last() else { return Err(OpError::new("a norm over no axes")) };
    let half = b.shape(x)[along];
    let both = normalised_and_negated(b, x, axes, eps)?;
    b.slice(both, along, 0, half)
}

/// `[y −y]` along the last of `axes`, `y = x / √(mean(x²) + eps)`: the layer norm of values beside their negatives, whose mean is
/// zero. It is one op of the engine's own, and no square is stored in fp16, where it would overflow from 256 on.
///
/// A head's values and their negatives are one exact product `[1 −1]ᵀ·x`; a wider axis is negated and joined, in two ops.
pub(super) fn normalised_and_negated(
    b: &mut Builder,
    x: ValueId,
    axes: &[usize],
    eps: f64,
) -> Result<ValueId, OpError> {
    let Some(&along) = axes.last() else { return Err(OpError::new("a norm over no axes")) };
    let width = b.shape(x)[along];
    let both = if along == 2 && b.shape(x).len() == 4 && width <= WIDEST_HEAD {
        let signs = TensorType::new(DType::F32, [1, 1, 2 * width, width]);
        let signs = b.literal(&signs, beside_negative(width))?;
        b.matmul(signs, x)?
    } else {
        let negated = b.mul_scalar(x, -1.0)?;
        b.concat(&[x, negated], along)?
    };
    b.op(LayerNorm { axes: axes.to_vec(), eps }, &[both])
}

/// Up to here a product with ones and zeros is cheaper than reading and writing the values once more.
const WIDEST_HEAD: usize = 256;

/// `[1 −1]ᵀ`, `[2·width, width]`.
fn beside_negative(width: usize) -> Vec<f64> {
    let mut matrix = vec![0.0; 2 * width * width];
    for i in 0..width {
        matrix[i * width + i] = 1.0;
        matrix[(width + i) * width + i] = -1.0;
    }
    matrix
}
