//! Softmax attention, and what it shares with linear attention: heads and query/key norms.

use s2dit_ir::ValueId;

use super::builder::{Built, Layers};
use super::dims::QkNorm;
use super::rope::Rope;

impl Layers<'_> {
    /// `attn1`: softmax self-attention with RoPE.
    pub(crate) fn self_attention(&mut self, u: ValueId, rope: Rope) -> Built {
        self.within("attn1", |m| {
            let q = m.query_or_key("to_q", "norm_q", u)?;
            let k = m.query_or_key("to_k", "norm_k", u)?;
            let v = m.value("to_v", u)?;
            let (q, k) = (m.rotate(q, rope)?, m.rotate(k, rope)?);
            let y = m.softmax_attention(q, k, v, None)?;
            m.linear("to_out.0", y)
        })
    }

    /// `attn2`: softmax attention from the tokens to the text, without RoPE. What the same queries find in an image is added, by keys
    /// and values of its own (IP-Adapter, arXiv 2308.06721).
    pub(crate) fn cross_attention(&mut self, x: ValueId, text: ValueId, image: Option<ValueId>) -> Built {
        self.within("attn2", |m| {
            let q = m.query_or_key("to_q", "norm_q", x)?;
            let k = m.query_or_key("to_k", "norm_k", text)?;
            let v = m.value("to_v", text)?;
            let mut y = m.softmax_attention(q, k, v, None)?;
            if let Some(image) = image {
                let k = m.query_or_key("add_k_proj", "norm_added_k", image)?;
                let v = m.value("add_v_proj", image)?;
                let seen = m.softmax_attention(q, k, v, None)?;
                y = m.b.add(y, seen)?;
            }
            m.linear("to_out.0", y)
        })
    }

    /// `softmax(q·kᵀ/√d + bias)·v` on `[B, A, N, d]`, heads merged: `[B, N, D]`. A bias broadcasts to `[1, A, N, M]` for M keys.
    pub(crate) fn softmax_attention(&mut self, q: ValueId, k: ValueId, v: ValueId, bias: Option<ValueId>) -> Built {
        let scores = self.b.matmul_t(q, k)?;
        let mut scores = self.b.mul_scalar(scores, (self.dims.head_dim as f64).powf(-0.5))?;
        if let Some(bias) = bias {
            scores = self.b.add(scores, bias)?;
        }
        let weights = self.b.softmax(scores, 3)?;
        let y = self.b.matmul(weights, v)?;
        self.merge_heads(y)
    }

    /// Projection, RMS norm, heads: `[B, N, D]` → `[B, A, N, d]`.
    pub(crate) fn query_or_key(&mut self, projection: &str, norm: &str, x: ValueId) -> Built {
        let y = self.linear(projection, x)?;
        match self.dims.qk_norm {
            QkNorm::AcrossHeads => {
                let y = self.rms_norm(norm, y)?;
                self.heads(y)
            }
            QkNorm::PerHead => {
                let y = self.split_heads(y)?;
                let y = self.rms_norm(norm, y)?;
                Ok(self.b.transpose(y, &[0, 2, 1, 3])?)
            }
        }
    }

    /// Projection, heads: `[B, N, D]` → `[B, A, N, d]`.
    pub(crate) fn value(&mut self, projection: &str, x: ValueId) -> Built {
        let v = self.linear(projection, x)?;
        self.heads(v)
    }

    /// `[B, N, D]` → `[B, A, N, d]`
    pub(crate) fn heads(&mut self, x: ValueId) -> Built {
        let x = self.split_heads(x)?;
        Ok(self.b.transpose(x, &[0, 2, 1, 3])?)
    }

    /// `[B, N, D]` → `[B, N, A, d]`
    pub(crate) fn split_heads(&mut self, x: ValueId) -> Built {
        let (batch, tokens) = (self.b.shape(x)[0], self.b.shape(x)[1]);
        Ok(self.b.reshape(x, &[batch, tokens, self.dims.heads, self.dims.head_dim])?)
    }

    /// `[B, A, N, d]` → `[B, N, D]`
    pub(crate) fn merge_heads(&mut self, x: ValueId) -> Built {
        let (batch, tokens) = (self.b.shape(x)[0], self.b.shape(x)[2]);
        let x = self.b.transpose(x, &[0, 2, 1, 3])?;
        Ok(self.b.reshape(x, &[batch, tokens, self.dims.width()])?)
    }

    /// The RMS norm `name` of queries or keys, with its gain.
    pub(crate) fn rms_norm(&mut self, name: &str, x: ValueId) -> Built {
        self.rms_norm_with(name, x, self.dims.qk_eps)
    }

    /// [`Layers::rms_norm`] with an ε of its own.
    pub(crate) fn rms_norm_with(&mut self, name: &str, x: ValueId, eps: f64) -> Built {
        self.within(name, |m| {
            let gain = m.param("weight")?;
            let y = m.root_mean_square_norm(x, eps)?;
            Ok(m.b.mul(y, gain)?)
        })
    }
}
