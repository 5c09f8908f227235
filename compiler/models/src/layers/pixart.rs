//! The conditioning of PixArt-α (arXiv 2310.00426), which other transformers have taken over: an embedding of the time with one projection to the
//! modulations of all blocks, a projection of text embeddings, and a mask of text tokens.

use s2dit_ir::ValueId;
use s2dit_ir::ops::Unary;

use super::builder::{BuildError, Built, Layers};
use super::dims::Dims;
use super::text::UNSEEN;
use crate::tensor::Specs;

impl Layers<'_> {
    /// `time_embed`: timestep `[1]` → (its embedding `[1, D]`, shifts, scales and gates of a block `[1, 6, D]`).
    pub(crate) fn single_time(&mut self, t: ValueId) -> Result<(ValueId, ValueId), BuildError> {
        let width = self.dims.width();
        self.within("time_embed", |m| {
            let embedded = m.within("emb", |m| {
                let e = m.sinusoid(t)?;
                m.within("timestep_embedder", |m| {
                    let y = m.linear("linear_1", e)?;
                    let y = m.b.unary(Unary::Silu, y)?;
                    m.linear("linear_2", y)
                })
            })?;
            let y = m.b.unary(Unary::Silu, embedded)?;
            let six = m.linear("linear", y)?;
            Ok((embedded, m.b.reshape(six, &[1, 6, width])?))
        })
    }

    /// `caption_projection`: text embeddings `[1, L, text_dim]` → `[1, L, D]`.
    pub(crate) fn caption(&mut self, text: ValueId) -> Built {
        self.within("caption_projection", |m| {
            let y = m.linear("linear_1", text)?;
            let y = m.b.unary(Unary::GeluTanh, y)?;
            m.linear("linear_2", y)
        })
    }

    /// A mask `[B, L]`, 1 where a token counts, as a bias of scores `[B, 1, 1, L]`: 0 there, −10000 elsewhere.
    pub(crate) fn text_bias(&mut self, mask: ValueId) -> Built {
        let batch = self.b.shape(mask)[0];
        let bias = self.b.add_scalar(mask, -1.0)?;
        let bias = self.b.mul_scalar(bias, UNSEEN)?;
        Ok(self.b.reshape(bias, &[batch, 1, 1, self.dims.text_len])?)
    }
}

impl Dims {
    /// The tensors of [`Layers::single_time`] and [`Layers::caption`].
    pub(crate) fn single_time_and_caption_specs(&self, list: &mut Specs) {
        let width = self.width();
        let time = "time_embed.emb.timestep_embedder";
        list.linear(&format!("{time}.linear_1"), width, self.freq_dim);
        list.linear(&format!("{time}.linear_2"), width, width);
        list.linear("time_embed.linear", 6 * width, width);
        list.linear("caption_projection.linear_1", width, self.text_dim);
        list.linear("caption_projection.linear_2", width, width);
    }
}
