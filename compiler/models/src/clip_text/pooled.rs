//! The embedding of the whole text: that of the token that ends it.

use s2dit_ir::ops::{Binary, ReduceKind, Unary};
use s2dit_ir::{DType, TensorType, ValueId};

use super::config::ClipTextConfig;
use crate::layers::{Built, Layers};

impl ClipTextConfig {
    /// Tokens `[1, L]` and the text `[1, L, D]` → the row `[1, D]` of the first token that is an end, or of the first token if none is.
    ///
    /// Written as a product with a row of one 1: ends are counted before each token, and the end without one before it is the first.
    pub(super) fn pooled(&self, m: &mut Layers<'_, ()>, tokens: ValueId, text: ValueId) -> Built {
        let (length, width) = (m.b.shape(tokens)[1], self.hidden_size);
        let is_end = self.ends(m, tokens)?;
        let place = |i: usize| i as f64;
        let from = m.b.literal(&TensorType::new(DType::F32, [length, 1]), (0..length).map(place).collect())?;
        let to = m.b.literal(&TensorType::new(DType::F32, [1, length]), (0..length).map(place).collect())?;
        let after = m.b.sub(to, from)?;
        let after = m.b.unary(Unary::Relu, after)?;
        let one = m.b.scalar_like(after, 1.0)?;
        let after = m.b.binary(Binary::Minimum, after, one)?;
        let before = m.b.matmul(is_end, after)?;
        let first = m.b.sub(is_end, before)?;
        let first = m.b.unary(Unary::Relu, first)?;
        let first = self.or_the_first_token(m, is_end, first)?;
        let first = m.b.reshape(first, &[1, 1, length])?;
        let row = m.b.matmul(first, text)?;
        Ok(m.b.reshape(row, &[1, width])?)
    }

    /// 1 at tokens that end the text and 0 elsewhere, `[1, L]`.
    fn ends(&self, m: &mut Layers<'_, ()>, tokens: ValueId) -> Built {
        let distance = if self.eos_token_id == ClipTextConfig::LARGEST_ID {
            let largest = m.b.reduce(ReduceKind::Max, tokens, &[1], true)?;
            m.b.sub(largest, tokens)?
        } else {
            let end = m.b.scalar_like(tokens, self.eos_token_id as f64)?;
            let distance = m.b.sub(tokens, end)?;
            m.b.unary(Unary::Abs, distance)?
        };
        let one = m.b.scalar_like(distance, 1.0)?;
        let is_other = m.b.binary(Binary::Minimum, distance, one)?;
        let is_other = m.b.cast(is_other, DType::F32)?;
        let one = m.b.scalar_like(is_other, 1.0)?;
        Ok(m.b.sub(one, is_other)?)
    }

    /// The row `first`, or `[1, 0, 0, …]` if no token is an end. The largest id is always there.
    fn or_the_first_token(&self, m: &mut Layers<'_, ()>, is_end: ValueId, first: ValueId) -> Built {
        if self.eos_token_id == ClipTextConfig::LARGEST_ID {
            return Ok(first);
        }
        let length = m.b.shape(first)[1];
        let any = m.b.reduce(ReduceKind::Max, is_end, &[1], true)?;
        let one = m.b.scalar_like(any, 1.0)?;
        let none = m.b.sub(one, any)?;
        let start = (0..length).map(|i| f64::from(u8::from(i == 0))).collect();
        let start = m.b.literal(&TensorType::new(DType::F32, [1, length]), start)?;
        let start = m.b.mul(start, none)?;
        Ok(m.b.add(first, start)?)
    }
}
