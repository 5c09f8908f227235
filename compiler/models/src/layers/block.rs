//! One transformer block: self-attention, cross-attention, feed-forward, modulated by the time.

use s2dit_ir::ValueId;
use s2dit_ir::ops::Unary;

use super::builder::{Built, Layers};

/// What every block is told beside its tokens.
#[derive(Clone, Copy)]
pub(crate) struct Conditions {
    /// The time projection `[1, 6, D]`: shift, scale and gate, twice.
    pub time: ValueId,
    /// The text `[1, L, D]`.
    pub text: ValueId,
    /// Whether the norm before cross-attention, `norm2`, is there.
    pub cross_norm: bool,
}

impl Layers<'_> {
    /// Block `index`, `x [1, N, D]` → `[1, N, D]`, named `block{index}`. `self_attention` is its `attn1`.
    pub(crate) fn block(
        &mut self,
        index: usize,
        x: ValueId,
        conditions: Conditions,
        self_attention: impl FnOnce(&mut Self, ValueId) -> Built,
    ) -> Built {
        let x = self.within(&format!("blocks.{index}"), |m| {
            let table = m.param("scale_shift_table")?;
            let modulation = m.b.add(table, conditions.time)?;
            let mut part = |i| m.b.slice(modulation, 1, i, i + 1);
            let (shift1, scale1, gate1) = (part(0)?, part(1)?, part(2)?);
            let (shift2, scale2, gate2) = (part(3)?, part(4)?, part(5)?);

            let u = m.modulated_norm(x, shift1, scale1)?;
            let y = self_attention(m, u)?;
            let y = m.b.mul(gate1, y)?;
            let x = m.b.add(x, y)?;

            let u = if conditions.cross_norm { m.affine_norm("norm2", x)? } else { x };
            let y = m.cross_attention(u, conditions.text)?;
            let x = m.b.add(x, y)?;

            let u = m.modulated_norm(x, shift2, scale2)?;
            let y = m.within("ffn", |m| {
                let y = m.linear("net.0.proj", u)?;
                let y = m.b.unary(Unary::GeluTanh, y)?;
                m.linear("net.2", y)
            })?;
            let y = m.b.mul(gate2, y)?;
            Ok(m.b.add(x, y)?)
        })?;
        self.end_block(index, x);
        Ok(x)
    }

    /// The LayerNorm `name` over the last axis, with gain and bias.
    fn affine_norm(&mut self, name: &str, x: ValueId) -> Built {
        self.within(name, |m| {
            let (gain, bias) = (m.param("weight")?, m.param("bias")?);
            let axis = m.b.shape(x).len() - 1;
            Ok(m.b.layer_norm(x, &[axis], m.dims.eps, Some((gain, bias)))?)
        })
    }
}
