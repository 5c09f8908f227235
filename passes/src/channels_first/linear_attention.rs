//! Linear attention on heads `(1, A, d, N)`, all of it in fp16's range.
//!
//! Σ k̂ over thousands of tokens leaves fp16, the ratio does not: queries and keys are multiplied with the same power of two, near 1/√N, which
//! changes nothing but the size of numerator and normaliser (see [`super::projections::half_of`]). A stream keeps means; in fp16
//! they are two numbers, what fp16 holds of the mean and the rest, and a chunk moves them by *Fast2Sum* (T. J. Dekker, *A floating-point technique for
//! extending the available precision*, 1971): with t = low + new·(own − high − low), the new halves are h = high + t, rounded, and t −
//! (h − high), which is exact. Every op of it is one of fp16.

use s2dit_ir::ops::{Binary, Cast, LinearAttention, OpError, Unary};
use s2dit_ir::{DType, Op, ValueId};

use super::projections::half_of;
use super::{HEADS, Rewriter, Stored};

/// The smallest number that fp16 holds: what is added to a normaliser must not vanish.
const LEAST: f64 = 5.960_464_477_539_063e-8;
/// The smallest that it holds with all its bits, which an engine that takes smaller ones for zero holds too.
const LEAST_NORMAL: f64 = 6.103_515_625e-5;

impl Rewriter<'_> {
    pub(super) fn linear_attention(
        &mut self,
        v: ValueId,
        operands: &[ValueId],
        attention: &LinearAttention,
    ) -> Result<Option<Stored>, OpError> {
        if self.dims(v).len() != 4 || !operands.iter().any(|&o| self.is_stored(o)) {
            return Ok(None);
        }
        let tokens = self.dims(operands[1])[2];
        let factor = half_of(tokens);
        let mut forms = Vec::with_capacity(5);
        for (i, &o) in operands.iter().enumerate() {
            let value = self.in_form(o, &HEADS)?;
            let has = self.scaled.get(&o).copied().unwrap_or(1.0);
            // Values are what is averaged: only queries and keys are scaled.
            let wants = if i == 2 { 1.0 } else { factor };
            forms.push(if has == wants { value } else { self.at(o, |b| b.mul_scalar(value, wants / has))? });
        }
        let [q, k, values] = forms[..3] else { return Ok(None) };
        let (q_norm, k_norm) = if let [_, _, _, q, k] = forms[..] { (q, k) } else { (q, k) };
        let (eps, least) = self.normaliser_limits(operands, attention, factor * factor);
        let ones = self.literal(v, &[1, 1, 1, tokens], vec![1.0; tokens])?;
        let value = self.at(v, |b| {
            let sum = b.matmul_t(k, values)?;
            let norm = b.matmul_t(ones, k_norm)?;
            let numerator = b.t_matmul(sum, q)?;
            let mut normaliser = b.matmul(norm, q_norm)?;
            if eps != 0.0 {
                normaliser = b.add_scalar(normaliser, eps)?;
            }
            if least != 0.0 {
                let least = b.scalar_like(normaliser, least)?;
                normaliser = b.op(Binary::Maximum, &[normaliser, least])?;
            }
            b.div(numerator, normaliser)
        })?;
        Ok(Some(Stored { value, order: HEADS.to_vec() }))
    }

    /// What is added to a normaliser that was multiplied with `scale`, and the least that it may be. A query whose positive part is zero has the
    /// normaliser zero, and a numerator of zero: if fp16 cannot hold what the model adds, a least normaliser takes its place, which leaves every
    /// larger one as it is.
    fn normaliser_limits(&self, operands: &[ValueId], attention: &LinearAttention, scale: f64) -> (f64, f64) {
        let (eps, least) = (attention.eps * scale, attention.least * scale);
        let query = operands.get(3).unwrap_or(&operands[0]);
        if eps < LEAST && matches!(self.old.op(*query), Op::Unary(Unary::Relu)) {
            return (0.0, least.max(LEAST_NORMAL));
        }
        (eps.max(LEAST), least)
    }

    pub(super) fn linear_attention_step(
        &mut self,
        v: ValueId,
        operands: &[ValueId],
    ) -> Result<Option<Stored>, OpError> {
        let (q, sum, norm, eps) = (operands[0], operands[1], operands[2], operands[3]);
        let q_norm = operands.get(4).copied().unwrap_or(q);
        let may_be_zero = matches!(self.old.op(q_norm), Op::Unary(Unary::Relu));
        if self.dims(v).len() != 4 || !self.is_stored(q) {
            return Ok(None);
        }
        let (q, q_norm) = (self.in_form(q, &HEADS)?, self.in_form(q_norm, &HEADS)?);
        let (sum, norm, eps) = (self.plain(sum)?, self.plain(norm)?, self.plain(eps)?);
        let value = self.at(v, |b| {
            let numerator = b.t_matmul(sum, q)?;
            let normaliser = b.matmul(norm, q_norm)?;
            let mut normaliser = b.add(normaliser, eps)?;
            if may_be_zero {
                // What the model adds shrinks with every chunk, and may be nothing in fp16: see `normaliser_limits`.
                let least = b.scalar_like(normaliser, LEAST_NORMAL)?;
                normaliser = b.op(Binary::Maximum, &[normaliser, least])?;
            }
            b.div(numerator, normaliser)
        })?;
        Ok(Some(Stored { value, order: HEADS.to_vec() }))
    }

    /// `past·state + new·own`, own the mean over the chunk's tokens. The result is as the state is: `[1, A, d, e]` or `[1, A, 1, d]`.
    pub(super) fn running_mean(&mut self, v: ValueId, operands: &[ValueId]) -> Result<Option<Stored>, OpError> {
        let [k, ref values @ .., state, past, new] = *operands else { return Ok(None) };
        if self.dims(k).len() != 4 || !self.is_stored(k) {
            return Ok(None);
        }
        let tokens = self.dims(k)[2];
        let factor = self.scaled.get(&k).copied().unwrap_or(1.0);
        let keys = self.in_form(k, &HEADS)?;
        let own = match *values {
            [values] => {
                let values = self.in_form(values, &HEADS)?;
                self.at(v, |b| b.matmul_t(keys, values))?
            }
            _ => {
                let ones = self.literal(v, &[1, 1, 1, tokens], vec![1.0; tokens])?;
                self.at(v, |b| b.matmul_t(ones, keys))?
            }
        };
        let share = self.share(new, 1.0 / (tokens as f64 * factor))?;
        let (past, new) = (self.plain(past)?, self.plain(new)?);
        let mean = 1.0 / (tokens as f64 * factor);
        let value = match self.halves(v, state) {
            None => {
                let state = self.plain(state)?;
                self.at(v, |b| {
                    let own = b.mul(own, share)?;
                    let state = b.mul(state, past)?;
                    b.add(state, own)
                })?
            }
            Some(Halves { high, written: None, .. }) => {
                // Only read: what the low half adds is below the high half's last bit.
                let high = self.plain(high)?;
                self.at(v, |b| {
                    let high = b.cast(high, DType::F32)?;
                    let own = b.mul(own, share)?;
                    let high = b.mul(high, past)?;
                    b.add(high, own)
                })?
            }
            Some(Halves { high, low, written: Some((high_out, low_out)) }) => {
                let (high, low) = (self.plain(high)?, self.plain(low)?);
                let (sum, high_new, low_new) = self.at(v, |b| {
                    let (high, low) = (b.cast(high, DType::F32)?, b.cast(low, DType::F32)?);
                    let own = b.mul_scalar(own, mean)?;
                    let off = b.sub(own, high)?;
                    let off = b.sub(off, low)?;
                    let step = b.mul(off, new)?;
                    let step = b.add(low, step)?;
                    let sum = b.add(high, step)?;
                    let taken = b.sub(sum, high)?;
                    let rest = b.sub(step, taken)?;
                    Ok((sum, b.cast(sum, DType::F16)?, b.cast(rest, DType::F16)?))
                })?;
                self.plain.insert(high_out, high_new);
                self.plain.insert(low_out, low_new);
                sum
            }
        };
        self.plain.insert(v, value);
        Ok(None)
    }

    /// `new` times the factor that makes a sum a mean, once a function.
    fn share(&mut self, new: ValueId, mean: f64) -> Result<ValueId, OpError> {
        let key = (new, vec![mean.to_bits() as usize]);
        if let Some(&share) = self.made.get(&key) {
            return Ok(share);
        }
        let value = self.plain(new)?;
        let share = self.at(new, |b| b.mul_scalar(value, mean))?;
        self.made.insert(key, share);
        Ok(share)
    }

    /// A state in two halves of fp16: `cast(high) + cast(low)`; and the halves that the mean `v` is written as.
    fn halves(&self, v: ValueId, state: ValueId) -> Option<Halves> {
        let f = self.old;
        let Op::Binary(Binary::Add) = f.op(state) else { return None };
        let half = |o: ValueId| match f.op(o) {
            Op::Cast(Cast { dtype: DType::F32 }) => {
                let inner = f.operands(o)[0];
                (matches!(f.op(inner), Op::State(_)) && f.dtype(inner) == DType::F16).then_some(inner)
            }
            _ => None,
        };
        let [high, low] = f.operands(state)[..] else { return None };
        let (high, low) = (half(high)?, half(low)?);
        let written = f.users(v).into_iter().find_map(|(rounded, _)| {
            let Op::Cast(Cast { dtype: DType::F16 }) = f.op(rounded) else { return None };
            let (widened, _) = f.users(rounded).into_iter().find(|(u, _)| matches!(f.op(*u), Op::Cast(_)))?;
            let (rest, _) = f
                .users(widened)
                .into_iter()
                .find(|(u, at)| *at == 1 && matches!(f.op(*u), Op::Binary(Binary::Sub)) && f.operands(*u)[0] == v)?;
            let (low, _) = f.users(rest).into_iter().find(|(u, _)| matches!(f.op(*u), Op::Cast(_)))?;
            Some((rounded, low))
        });
        Some(Halves { high, low, written })
    }
}

struct Halves {
    high: ValueId,
    low: ValueId,
    /// The values that are written back, in the function that does.
    written: Option<(ValueId, ValueId)>,
}
