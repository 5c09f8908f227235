//! Double blocks: video and text have modulations, projections and feed-forward layers of their own; attention sees both.

use s2dit_ir::ValueId;
use s2dit_ir::ops::Unary;

use super::config::OpenSoraConfig;
use crate::layers::{BuildError, Built, Layers, Rope};

/// Video or text on its way through a block.
struct Side {
    /// First part of the names of its modules: `img` or `txt`.
    name: &'static str,
    /// The tokens `[1, N, D]`.
    tokens: ValueId,
    /// Shift, scale and gate of attention and of the feed-forward layer, `[1, 1, D]` each.
    modulation: [ValueId; 6],
    /// Queries, keys and values `[1, A, N, d]`.
    heads: [ValueId; 3],
}

impl OpenSoraConfig {
    /// Double block `index`, video `[1, N, D]` and text `[1, L, D]`. The milestone is the video.
    pub(super) fn double_block(
        &self,
        m: &mut Layers<'_>,
        index: usize,
        [video, text]: [ValueId; 2],
        vector: ValueId,
        rope: Rope,
    ) -> Result<[ValueId; 2], BuildError> {
        let [video, text] = m.within(&format!("double_blocks.{index}"), |m| {
            let video = self.side(m, "img", video, vector)?;
            let text = self.side(m, "txt", text, vector)?;
            let mut heads = video.heads;
            for (both, text) in heads.iter_mut().zip(text.heads) {
                *both = m.b.concat(&[text, *both], 2)?;
            }
            let seen = self.joint_attention(m, heads, rope)?;
            let all = m.b.shape(seen)[1];
            let seen_by_text = m.b.slice(seen, 1, 0, self.text_len)?;
            let seen_by_video = m.b.slice(seen, 1, self.text_len, all)?;
            Ok([self.rest(m, &video, seen_by_video)?, self.rest(m, &text, seen_by_text)?])
        })?;
        m.end_block(index, video);
        Ok([video, text])
    }

    /// Video or text up to attention.
    fn side(
        &self,
        m: &mut Layers<'_>,
        name: &'static str,
        tokens: ValueId,
        vector: ValueId,
    ) -> Result<Side, BuildError> {
        let modulation: [ValueId; 6] = self.modulation(m, &format!("{name}_mod"), vector)?;
        let [shift, scale, ..] = modulation;
        let u = m.within(&format!("{name}_norm1"), |m| m.modulated_norm(tokens, shift, scale))?;
        let heads = m.within(&format!("{name}_attn"), |m| {
            let projected = if self.fused_qkv {
                let all = m.linear_of("qkv", u, self.qkv_bias)?;
                self.columns(m, all, [self.hidden_size; 3])?
            } else {
                let mut one = |name| m.linear_of(name, u, self.qkv_bias);
                [one("q_proj")?, one("k_proj")?, one("v_proj")?]
            };
            self.normed_heads(m, projected)
        })?;
        Ok(Side { name, tokens, modulation, heads })
    }

    /// Video or text from what attention saw for it, `[1, N, D]`, to the end of the block.
    fn rest(&self, m: &mut Layers<'_>, side: &Side, seen: ValueId) -> Built {
        let Side { name, tokens, modulation: [_, _, gate1, shift2, scale2, gate2], .. } = *side;
        let y = m.within(&format!("{name}_attn"), |m| m.linear("proj", seen))?;
        let y = m.b.mul(gate1, y)?;
        let x = m.b.add(tokens, y)?;
        let u = m.within(&format!("{name}_norm2"), |m| m.modulated_norm(x, shift2, scale2))?;
        let y = m.within(&format!("{name}_mlp"), |m| {
            let y = m.linear("0", u)?;
            let y = m.b.unary(Unary::GeluTanh, y)?;
            m.linear("2", y)
        })?;
        let y = m.b.mul(gate2, y)?;
        Ok(m.b.add(x, y)?)
    }
}
