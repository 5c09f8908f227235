//! One transformer block: self-attention, cross-attention, feed-forward, modulated by the time.

use s2dit_ir::ValueId;
use s2dit_ir::ops::Unary;

use super::builder::{Built, Layers};

/// What a time makes of a block: shift, scale and gate, twice.
#[derive(Clone, Copy)]
pub(crate) enum Modulation {
    /// Of all tokens alike, `[1, 6, D]`.
    OfAll(ValueId),
    /// Of each token, six of `[1, N, D]`.
    OfEach([ValueId; 6]),
}

/// What every block is told beside its tokens.
#[derive(Clone, Copy)]
pub(crate) struct Conditions {
    /// The time projection.
    pub time: Modulation,
    /// The text `[1, L, D]`.
    pub text: ValueId,
    /// The image `[1, M, D]`, which cross-attention looks at beside the text.
    pub image: Option<ValueId>,
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
            let [shift1, scale1, gate1, shift2, scale2, gate2] = m.block_modulation(conditions.time)?;

            let u = m.modulated_norm(x, shift1, scale1)?;
            let y = self_attention(m, u)?;
            let y = m.b.mul(gate1, y)?;
            let x = m.b.add(x, y)?;

            let u = if conditions.cross_norm { m.affine_norm("norm2", x)? } else { x };
            let y = m.cross_attention(u, conditions.text, conditions.image)?;
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
        let eps = self.dims.eps;
        self.affine_norm_with(name, x, eps)
    }

    /// The same with an ε of its own.
    pub(crate) fn affine_norm_with(&mut self, name: &str, x: ValueId, eps: f64) -> Built {
        self.within(name, |m| {
            let (gain, bias) = (m.param("weight")?, m.param("bias")?);
            let axis = m.b.shape(x).len() - 1;
            Ok(m.b.layer_norm(x, &[axis], eps, Some((gain, bias)))?)
        })
    }
}
