//! CLIP's text model (arXiv 2103.00020): transformers' `CLIPTextModel`. A transformer whose tokens see those before them; the embedding of the
//! token that ends the text stands for the whole text.

mod config;
mod family;
mod pooled;
mod tensors;

pub use config::{Activation, ClipTextConfig};
pub use family::ClipText;

use s2dit_ir::ValueId;
use s2dit_ir::interface::OutputRole;
use s2dit_ir::ops::Unary;

use crate::layers::{BuildError, Built, Layers, Made};

impl ClipTextConfig {
    /// The forward pass: tokens `[1, L]` to the text `[1, L, D]` and the embedding of all of it `[1, D]`.
    fn forward(&self, m: &mut Layers<'_, ()>, tokens: ValueId) -> Result<Vec<Made>, BuildError> {
        let length = m.b.shape(tokens)[1];
        let mut x = self.embeddings(m, tokens, length)?;
        let unseen = m.causal_bias(length)?;
        for index in 0..self.num_hidden_layers {
            x = m.within(&format!("encoder.layers.{index}"), |m| self.block(m, x, unseen))?;
            m.end_block(index, x);
        }
        let text = m.affine_layer_norm("final_layer_norm", x, self.layer_norm_eps)?;
        let pooled = m.within("pooled", |m| self.pooled(m, tokens, text))?;
        Ok(vec![("text", OutputRole::Text, text), ("pooled", OutputRole::Pooled, pooled)])
    }

    /// Embeddings of tokens and of their places.
    fn embeddings(&self, m: &mut Layers<'_, ()>, tokens: ValueId, length: usize) -> Built {
        m.within("embeddings", |m| {
            let x = m.embedding("token_embedding", tokens)?;
            let places = m.within("position_embedding", |m| {
                let table = m.param("weight")?;
                let rows = m.b.slice(table, 0, 0, length)?;
                Ok(m.b.reshape(rows, &[1, length, self.hidden_size])?)
            })?;
            Ok(m.b.add(x, places)?)
        })
    }

    /// A block, `x [1, L, D]` → `[1, L, D]`.
    fn block(&self, m: &mut Layers<'_, ()>, x: ValueId, unseen: ValueId) -> Built {
        let u = m.affine_layer_norm("layer_norm1", x, self.layer_norm_eps)?;
        let y = m.within("self_attn", |m| {
            let mut project = |name| {
                let y = m.linear(name, u)?;
                m.heads_of(y, self.num_attention_heads)
            };
            let heads = [project("q_proj")?, project("k_proj")?, project("v_proj")?];
            let y = m.biased_attention(heads, (self.head_dim() as f64).powf(-0.5), unseen)?;
            m.linear("out_proj", y)
        })?;
        let x = m.b.add(x, y)?;
        let u = m.affine_layer_norm("layer_norm2", x, self.layer_norm_eps)?;
        let y = m.within("mlp", |m| {
            let y = m.linear("fc1", u)?;
            let y = self.activated(m, y)?;
            m.linear("fc2", y)
        })?;
        Ok(m.b.add(x, y)?)
    }

    fn activated(&self, m: &mut Layers<'_, ()>, x: ValueId) -> Built {
        match self.hidden_act {
            Activation::Gelu => Ok(m.b.unary(Unary::Gelu, x)?),
            Activation::QuickGelu => m.within("activation", |m| {
                let gate = m.b.mul_scalar(x, 1.702)?;
                let gate = m.b.unary(Unary::Sigmoid, gate)?;
                Ok(m.b.mul(x, gate)?)
            }),
        }
    }
}
