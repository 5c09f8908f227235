//! Into and out of the token streams: the latent, the vector that modulates, positions, head.

use s2dit_ir::ValueId;
use s2dit_ir::ops::{Conv, RopePart, RopeTable, Unary};

use super::config::OpenSoraConfig;
use crate::layers::{BuildError, Built, Inputs, Layers, Rope};
use crate::size::{Grid, LatentSize};

/// The model embeds a guidance of 1 as it embeds a time of 1, which is the timestep 1000.
const GUIDANCE_SCALE: f64 = 1000.0;

impl OpenSoraConfig {
    /// `[1, C, F, H, W]` → `[1, N, D]`, tokens in (frame, row, column) order. Where the model takes a condition, the latent is the noise, a mask and
    /// what is given, `2·C + 1` channels; the last two are embedded by a layer of their own.
    pub(super) fn patches(&self, m: &mut Layers<'_>, latent: ValueId, grid: Grid) -> Built {
        let channels = self.channels();
        if !self.cond_embed {
            return self.embedded(m, "img_in", latent, grid);
        }
        let noise = m.b.slice(latent, 1, 0, channels)?;
        let condition = m.b.slice(latent, 1, channels, 2 * channels + 1)?;
        let (x, y) = (self.embedded(m, "img_in", noise, grid)?, self.embedded(m, "cond_in", condition, grid)?);
        Ok(m.b.add(x, y)?)
    }

    /// The layer `name` on patches of `[1, C, F, H, W]`: a patch is a row of (channel, row, column), so that the layer is a convolution.
    fn embedded(&self, m: &mut Layers<'_>, name: &str, x: ValueId, grid: Grid) -> Built {
        let (width, patch) = (self.hidden_size, self.patch_size);
        let (batch, channels) = (m.b.shape(x)[0], m.b.shape(x)[1]);
        m.within(name, |m| {
            let (weight, bias) = (m.param("weight")?, m.param("bias")?);
            let weight = m.b.reshape(weight, &[width, channels, 1, patch, patch])?;
            let y = m.b.conv(Conv::with_strides(&[1, patch, patch]), x, weight, Some(bias))?;
            let y = m.b.reshape(y, &[batch, width, grid.tokens()])?;
            Ok(m.b.transpose(y, &[0, 2, 1])?)
        })
    }

    /// The sum of the embedded timestep, guidance and pooled text, behind the SiLU that every modulation begins with: `[1, D]`.
    pub(super) fn vector(&self, m: &mut Layers<'_>, inputs: Inputs) -> Built {
        let mut sum = m.within("time_in", |m| {
            let e = m.sinusoid(inputs.time)?;
            self.embedder(m, e)
        })?;
        if let Some(guidance) = inputs.guidance {
            let y = m.within("guidance_in", |m| {
                let scaled = m.b.mul_scalar(guidance, GUIDANCE_SCALE)?;
                let e = m.sinusoid(scaled)?;
                self.embedder(m, e)
            })?;
            sum = m.b.add(sum, y)?;
        }
        if let Some(pooled) = inputs.pooled {
            let y = m.within("vector_in", |m| self.embedder(m, pooled))?;
            sum = m.b.add(sum, y)?;
        }
        Ok(m.b.unary(Unary::Silu, sum)?)
    }

    fn embedder(&self, m: &mut Layers<'_>, x: ValueId) -> Built {
        let y = m.linear("in_layer", x)?;
        let y = m.b.unary(Unary::Silu, y)?;
        m.linear("out_layer", y)
    }

    /// RoPE tables `[L + N, d/2]`: every text token is at position 0 of all three axes.
    pub(super) fn rope(&self, m: &mut Layers<'_>, grid: Grid) -> Result<Rope, BuildError> {
        let half = self.head_dim() / 2;
        let mut table = |part| {
            let of = |grid| RopeTable { part, grid, axis_dims: self.axes_dim, theta: self.theta };
            m.within("pe_embedder", |m| {
                let still = m.b.op(of([1, 1, 1]), &[])?;
                let still = m.b.broadcast_to(still, &[self.text_len, half])?;
                let moving = m.b.op(of([grid.frames, grid.rows, grid.cols]), &[])?;
                Ok(m.b.concat(&[still, moving], 0)?)
            })
        };
        Ok(Rope { cos: table(RopePart::Cos)?, sin: table(RopePart::Sin)? })
    }

    /// `[1, N, D]` → velocity `[1, C, F, H, W]`. The rows and columns of the patches are moved beside those of the grid one at a time, with ranks of
    /// 4 and less.
    pub(super) fn head(
        &self,
        m: &mut Layers<'_>,
        x: ValueId,
        vector: ValueId,
        latent: LatentSize,
        grid: Grid,
    ) -> Built {
        let (channels, patch) = (self.channels(), self.patch_size);
        let y = m.within("final_layer", |m| {
            let rows = m.within("adaLN_modulation", |m| m.linear("1", vector))?;
            let batch = m.b.shape(rows)[0];
            let rows = m.b.reshape(rows, &[batch, 2, self.hidden_size])?;
            let (shift, scale) = (m.b.slice(rows, 1, 0, 1)?, m.b.slice(rows, 1, 1, 2)?);
            let x = m.modulated_norm(x, shift, scale)?;
            m.linear("linear", x)
        })?;
        let (batch, lines) = (m.b.shape(y)[0], grid.frames * grid.rows);
        let y = m.b.reshape(y, &[batch * lines, grid.cols, channels * patch, patch])?;
        let y = m.b.transpose(y, &[0, 2, 1, 3])?;
        let y = m.b.reshape(y, &[batch, lines, channels, patch * latent.cols])?;
        let y = m.b.transpose(y, &[0, 2, 1, 3])?;
        Ok(m.b.reshape(y, &[batch, channels, latent.frames, latent.rows, latent.cols])?)
    }
}
