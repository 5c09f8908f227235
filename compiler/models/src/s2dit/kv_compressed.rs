//! Softmax attention of all tokens over fewer keys and values.

use s2dit_ir::ValueId;
use s2dit_ir::ops::Conv;

use super::config::S2ditConfig;
use crate::layers::{Built, Layers, Rope};
use crate::size::Grid;

impl S2ditConfig {
    /// `attn1` of a `kv_compressed` block: behind norm and RoPE, keys and values go through one depthwise convolution of each frame, whose
    /// kernel is its stride (PixArt-Σ, arXiv 2403.04692, §3.3).
    pub(super) fn kv_compressed(&self, m: &mut Layers<'_>, u: ValueId, rope: Rope, grid: Grid) -> Built {
        m.within("attn1", |m| {
            let q = m.query_or_key("to_q", "norm_q", u)?;
            let k = m.query_or_key("to_k", "norm_k", u)?;
            let v = m.value("to_v", u)?;
            let (q, k) = (m.rotate(q, rope)?, m.rotate(k, rope)?);
            let (k, v) = (self.compressed(m, k, grid)?, self.compressed(m, v, grid)?);
            let y = m.softmax_attention(q, k, v, None)?;
            m.linear("to_out.0", y)
        })
    }

    /// `[B, A, N, d]` → `[B, A, N/s², d]`
    fn compressed(&self, m: &mut Layers<'_>, x: ValueId, grid: Grid) -> Built {
        let (width, stride) = (m.dims.width(), self.kv_stride);
        let x = m.merge_heads(x)?;
        let y = m.within("kv_conv", |m| {
            let (w, b) = (m.param("weight")?, m.param("bias")?);
            m.each_clip(x, |m, x| {
                let x = m.b.reshape(x, &[grid.frames, grid.rows, grid.cols, width])?;
                let x = m.b.transpose(x, &[0, 3, 1, 2])?;
                let conv = Conv { groups: width, ..Conv::with_strides(&[stride, stride]) };
                let y = m.b.conv(conv, x, w, Some(b))?;
                let y = m.b.transpose(y, &[0, 2, 3, 1])?;
                Ok(m.b.reshape(y, &[1, grid.tokens() / (stride * stride), width])?)
            })
        })?;
        m.heads(y)
    }
}
