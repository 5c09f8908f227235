//! One block: self-attention, cross-attention to the text, feed-forward, modulated by the time.

use s2dit_ir::ValueId;
use s2dit_ir::ops::Unary;

use super::config::LtxConfig;
use crate::layers::{Built, Layers, Rope};

/// What every block is told beside its tokens.
#[derive(Clone, Copy)]
pub(super) struct Conditions {
    /// Shift, scale and gate, twice: `[1, 6, D]`.
    pub time: ValueId,
    /// The text `[1, L, D]`.
    pub text: ValueId,
    /// What is added to the scores of text tokens, `[1, 1, 1, L]`.
    pub text_bias: ValueId,
    /// Tables of the whole width.
    pub rope: Rope,
}

impl LtxConfig {
    /// Block `index`, `x [1, N, D]` → `[1, N, D]`. Cross-attention takes the stream as it is, without a norm.
    pub(super) fn block(&self, m: &mut Layers<'_>, index: usize, x: ValueId, conditions: Conditions) -> Built {
        let width = self.hidden_size();
        let x = m.within(&format!("transformer_blocks.{index}"), |m| {
            let table = m.param("scale_shift_table")?;
            let table = m.b.reshape(table, &[1, 6, width])?;
            let modulation = m.b.add(table, conditions.time)?;
            let mut part = |i| m.b.slice(modulation, 1, i, i + 1);
            let (shift1, scale1, gate1) = (part(0)?, part(1)?, part(2)?);
            let (shift2, scale2, gate2) = (part(3)?, part(4)?, part(5)?);

            let u = self.norm(m, "norm1", x)?;
            let u = m.modulated(u, shift1, scale1)?;
            let y = self.attention(m, "attn1", u, u, Some(conditions.rope), None)?;
            let y = m.b.mul(y, gate1)?;
            let x = m.b.add(x, y)?;

            let y = self.attention(m, "attn2", x, conditions.text, None, Some(conditions.text_bias))?;
            let x = m.b.add(x, y)?;

            let u = self.norm(m, "norm2", x)?;
            let u = m.modulated(u, shift2, scale2)?;
            let y = m.within("ff", |m| {
                let y = m.linear("net.0.proj", u)?;
                let y = m.b.unary(Unary::GeluTanh, y)?;
                m.linear("net.2", y)
            })?;
            let y = m.b.mul(y, gate2)?;
            Ok(m.b.add(x, y)?)
        })?;
        m.end_block(index, x);
        Ok(x)
    }

    /// The RMS norm `name` of tokens, which has a gain in few models.
    fn norm(&self, m: &mut Layers<'_>, name: &str, x: ValueId) -> Built {
        m.within(name, |m| {
            let y = m.root_mean_square_norm(x, self.norm_eps)?;
            if !self.norm_elementwise_affine {
                return Ok(y);
            }
            let gain = m.param("weight")?;
            Ok(m.b.mul(y, gain)?)
        })
    }

    /// Softmax attention `name` from tokens `x` to tokens `to`. Norms and RoPE run over the whole width, before heads are split.
    fn attention(
        &self,
        m: &mut Layers<'_>,
        name: &str,
        x: ValueId,
        to: ValueId,
        rope: Option<Rope>,
        bias: Option<ValueId>,
    ) -> Built {
        m.within(name, |m| {
            let mut query_or_key = |projection, norm, x| {
                let y = m.linear_of(projection, x, self.attention_bias)?;
                let y = m.rms_norm(norm, y)?;
                let y = if let Some(rope) = rope { m.rotate(y, rope)? } else { y };
                m.heads(y)
            };
            let q = query_or_key("to_q", "norm_q", x)?;
            let k = query_or_key("to_k", "norm_k", to)?;
            let v = m.linear_of("to_v", to, self.attention_bias)?;
            let v = m.heads(v)?;
            let y = m.softmax_attention(q, k, v, bias)?;
            m.linear_of("to_out.0", y, self.attention_out_bias)
        })
    }
}
