//! Into and out of the token stream: patches, text, head.

use s2dit_ir::ValueId;
use s2dit_ir::ops::{Conv, Unary};

use super::builder::{Built, Layers};
use crate::size::{Grid, LatentSize};

impl Layers<'_> {
    /// `[B, C, F, H, W]` → `[B, N, D]`, tokens in (frame, row, column) order.
    pub(crate) fn patch_embedding(&mut self, x: ValueId, grid: Grid) -> Built {
        let batch = self.b.shape(x)[0];
        self.within("patch_embedding", |m| {
            let (w, b) = (m.param("weight")?, m.param("bias")?);
            let y = m.b.conv(Conv::with_strides(&m.dims.patch_size), x, w, Some(b))?;
            let y = m.b.reshape(y, &[batch, m.dims.width(), grid.tokens()])?;
            Ok(m.b.transpose(y, &[0, 2, 1])?)
        })
    }

    /// Text embeddings `[B, L, text_dim]` → `[B, L, D]`.
    pub(crate) fn text(&mut self, text: ValueId) -> Built {
        self.within("condition_embedder", |m| {
            m.within("text_embedder", |m| {
                let y = m.linear("linear_1", text)?;
                let y = m.b.unary(Unary::GeluTanh, y)?;
                m.linear("linear_2", y)
            })
        })
    }

    /// `[B, N, D]` → velocity `[B, C, F, H, W]`; `temb` is `[1, D]`, or `[1, N, D]` of a time for each token. Unpatchify is written with ranks of 4 and less: the row and column of
    /// the patch are moved beside those of the grid one at a time.
    pub(crate) fn head(&mut self, x: ValueId, temb: ValueId, latent: LatentSize, grid: Grid) -> Built {
        let [shift, scale] = self.head_modulation(temb)?;
        let x = self.modulated_norm(x, shift, scale)?;
        let y = self.linear("proj_out", x)?;

        let c = self.dims.out_channels;
        let [_, ph, pw] = self.dims.patch_size;
        let batch = self.b.shape(x)[0];
        let y = self.b.reshape(y, &[batch * grid.frames * grid.rows, grid.cols, ph, pw * c])?;
        let y = self.b.transpose(y, &[0, 2, 1, 3])?;
        let y = self.b.reshape(y, &[batch, grid.frames * latent.rows, latent.cols, c])?;
        let y = self.b.transpose(y, &[0, 3, 1, 2])?;
        Ok(self.b.reshape(y, &[batch, c, latent.frames, latent.rows, latent.cols])?)
    }
}
