//! Single blocks: attention and the feed-forward layer take the same tokens, and one layer leads out of both (arXiv 2302.05442).

use s2dit_ir::ValueId;
use s2dit_ir::ops::Unary;

use super::config::OpenSoraConfig;
use crate::layers::{BuildError, Built, Layers, Rope};

impl OpenSoraConfig {
    /// Single block `index`, `x [1, L + N, D]` → the same. Its milestone comes after those of the double blocks.
    pub(super) fn single_block(
        &self,
        m: &mut Layers<'_>,
        index: usize,
        x: ValueId,
        vector: ValueId,
        rope: Rope,
    ) -> Built {
        let x = m.within(&format!("single_blocks.{index}"), |m| {
            let [shift, scale, gate] = self.modulation(m, "modulation", vector)?;
            let u = m.within("pre_norm", |m| m.modulated_norm(x, shift, scale))?;
            let [q, k, v, hidden] = self.all_projections(m, u)?;
            let heads = self.normed_heads(m, [q, k, v])?;
            let seen = self.joint_attention(m, heads, rope)?;
            let hidden = m.b.unary(Unary::GeluTanh, hidden)?;
            let both = m.b.concat(&[seen, hidden], 2)?;
            let y = m.linear("linear2", both)?;
            let y = m.b.mul(gate, y)?;
            Ok(m.b.add(x, y)?)
        })?;
        m.end_block(self.depth + index, x);
        Ok(x)
    }

    /// Queries, keys and values `[1, L + N, D]`, and the hidden values of the feed-forward layer before its GELU.
    fn all_projections(&self, m: &mut Layers<'_>, u: ValueId) -> Result<[ValueId; 4], BuildError> {
        let width = self.hidden_size;
        if self.fused_qkv {
            let all = m.linear("linear1", u)?;
            return self.columns(m, all, [width, width, width, self.ffn_dim()]);
        }
        let (q, k) = (m.linear("q_proj", u)?, m.linear("k_proj", u)?);
        let rest = m.linear("v_mlp", u)?;
        let [v, hidden] = self.columns(m, rest, [width, self.ffn_dim()])?;
        Ok([q, k, v, hidden])
    }
}
