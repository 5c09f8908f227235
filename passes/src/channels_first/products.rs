//! Products with weights: 1×1 convolutions.

use s2dit_ir::ops::{Conv, Matmul, OpError};
use s2dit_ir::{Builder, Op, ValueId};

use super::form::natural;
use super::{Rewriter, Stored, TOKENS};

/// A 1×1 convolution.
fn pointwise() -> Conv {
    Conv { strides: vec![1, 1], pad_before: vec![0, 0], pad_after: vec![0, 0], dilations: vec![1, 1], groups: 1 }
}

/// `x·Wᵀ + b` of x `(B, K, H, N)` and W `[out, K]`.
pub(super) fn product(b: &mut Builder, x: ValueId, weight: ValueId, bias: Option<ValueId>) -> Result<ValueId, OpError> {
    let mut shape = b.shape(weight).to_vec();
    shape.extend([1, 1]);
    let weight = b.reshape(weight, &shape)?;
    b.conv(pointwise(), x, weight, bias)
}

impl Rewriter<'_> {
    pub(super) fn linear(&mut self, v: ValueId, operands: &[ValueId]) -> Result<Option<Stored>, OpError> {
        let (x, weight, bias) = (operands[0], operands[1], operands.get(2).copied());
        let order = match self.dims(x) {
            [_, _, _] => TOKENS.to_vec(),
            [_, _] => natural(2),
            _ => return Ok(None),
        };
        let by_weights = !self.is_const(x) && self.is_const(weight) && bias.is_none_or(|b| self.is_const(b));
        if !by_weights {
            return Ok(None);
        }
        let x = self.in_form(x, &order)?;
        let weight = self.plain(weight)?;
        let bias = bias.map(|b| self.plain(b)).transpose()?;
        if self.cut(v, x, weight, bias)? {
            return Ok(None);
        }
        let value = self.at(v, |b| product(b, x, weight, bias))?;
        Ok(Some(Stored { value, order }))
    }

    /// A row of a constant table, chosen by weights `[1, K]`.
    pub(super) fn row(
        &mut self,
        v: ValueId,
        operands: &[ValueId],
        product_op: &Matmul,
    ) -> Result<Option<Stored>, OpError> {
        let (x, table) = (operands[0], operands[1]);
        let plain = !product_op.transpose_x && !product_op.transpose_y;
        let ([1, _], [_, _]) = (self.dims(x), self.dims(table)) else { return Ok(None) };
        if !plain || self.is_const(x) || !self.is_const(table) {
            return Ok(None);
        }
        let order = natural(2);
        let x = self.in_form(x, &order)?;
        let table = self.plain(table)?;
        let value = self.at(v, |b| {
            let weight = b.transpose(table, &[1, 0])?;
            product(b, x, weight, None)
        })?;
        Ok(Some(Stored { value, order }))
    }

    /// The sum of two products is one product of the inputs side by side.
    pub(super) fn joined_products(&mut self, v: ValueId, operands: &[ValueId]) -> Result<Option<Stored>, OpError> {
        if self.options.apart || !matches!(self.old.op(v), Op::Binary(s2dit_ir::ops::Binary::Add)) {
            return Ok(None);
        }
        let mut parts = Vec::new();
        for &o in operands {
            let sole = self.old.only_use(o).is_some();
            let parameters = self.old.operands(o);
            let (Op::Linear(_), true, [_, _, _]) = (self.old.op(o), sole, self.dims(o)) else { return Ok(None) };
            if !parameters[1..].iter().all(|&p| self.is_const(p)) || self.dims(o) != self.dims(v) {
                return Ok(None);
            }
            parts.push(parameters);
        }
        // Side by side they are read and written once more.
        let beside: usize = parts.iter().map(|part| self.old.ty(part[0]).elements()).sum();
        if self.options.working_set.is_some_and(|most| 4 * beside > most) {
            return Ok(None);
        }
        let (mut inputs, mut weights, mut biases) = (Vec::new(), Vec::new(), Vec::new());
        for part in &parts {
            inputs.push(self.in_form(part[0], &TOKENS)?);
            weights.push(self.plain(part[1])?);
            biases.extend(part.get(2).map(|&b| self.plain(b)).transpose()?);
        }
        let value = self.at(v, |b| {
            let x = b.concat(&inputs, 1)?;
            let weight = b.concat(&weights, 1)?;
            let bias = match biases[..] {
                [one, two] => Some(b.add(one, two)?),
                [one] => Some(one),
                _ => None,
            };
            product(b, x, weight, bias)
        })?;
        Ok(Some(Stored { value, order: TOKENS.to_vec() }))
    }
}
