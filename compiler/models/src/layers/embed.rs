//! Into and out of the token stream: patches, time, text, head.

use s2dit_ir::ops::{Conv, Unary};
use s2dit_ir::{DType, TensorType, ValueId};

use super::builder::{BuildError, Built, Layers};
use crate::size::{Grid, LatentSize};

impl Layers<'_> {
    /// `[1, C, F, H, W]` → `[1, N, D]`, tokens in (frame, row, column) order.
    pub(crate) fn patch_embedding(&mut self, x: ValueId, grid: Grid) -> Built {
        self.within("patch_embedding", |m| {
            let (w, b) = (m.param("weight")?, m.param("bias")?);
            let y = m.b.conv(Conv::with_strides(&m.dims.patch_size), x, w, Some(b))?;
            let y = m.b.reshape(y, &[1, m.dims.width(), grid.tokens()])?;
            Ok(m.b.transpose(y, &[0, 2, 1])?)
        })
    }

    /// Timestep `[1]` → (`temb [1, D]`, `tproj [1, 6, D]`).
    pub(crate) fn time(&mut self, t: ValueId) -> Result<(ValueId, ValueId), BuildError> {
        let width = self.dims.width();
        self.within("condition_embedder", |m| {
            let e = m.sinusoid(t)?;
            let temb = m.within("time_embedder", |m| {
                let y = m.linear("linear_1", e)?;
                let y = m.b.unary(Unary::Silu, y)?;
                m.linear("linear_2", y)
            })?;
            let y = m.b.unary(Unary::Silu, temb)?;
            let tproj = m.linear("time_proj", y)?;
            Ok((temb, m.b.reshape(tproj, &[1, 6, width])?))
        })
    }

    /// `concat(cos(t·ω), sin(t·ω))`, `ωᵢ = 10000^(−i/(freq_dim/2))` (diffusers' `Timesteps` with `flip_sin_to_cos`).
    pub(crate) fn sinusoid(&mut self, t: ValueId) -> Built {
        let half = self.dims.freq_dim / 2;
        let omega = (0..half).map(|i| 10000f64.powf(-(i as f64) / half as f64)).collect();
        let t = self.b.reshape(t, &[1, 1])?;
        let omega = self.b.literal(&TensorType::new(DType::F32, [1, half]), omega)?;
        let angle = self.b.mul(t, omega)?;
        let cos = self.b.unary(Unary::Cos, angle)?;
        let sin = self.b.unary(Unary::Sin, angle)?;
        Ok(self.b.concat(&[cos, sin], 1)?)
    }

    /// Text embeddings `[1, L, text_dim]` → `[1, L, D]`.
    pub(crate) fn text(&mut self, text: ValueId) -> Built {
        self.within("condition_embedder", |m| {
            m.within("text_embedder", |m| {
                let y = m.linear("linear_1", text)?;
                let y = m.b.unary(Unary::GeluTanh, y)?;
                m.linear("linear_2", y)
            })
        })
    }

    /// `[1, N, D]` → velocity `[1, C, F, H, W]`. Unpatchify is written with ranks of 4 and less: the row and column of
    /// the patch are moved beside those of the grid one at a time.
    pub(crate) fn head(&mut self, x: ValueId, temb: ValueId, latent: LatentSize, grid: Grid) -> Built {
        let width = self.dims.width();
        let table = self.param("scale_shift_table")?;
        let temb = self.b.reshape(temb, &[1, 1, width])?;
        let m = self.b.add(table, temb)?;
        let shift = self.b.slice(m, 1, 0, 1)?;
        let scale = self.b.slice(m, 1, 1, 2)?;
        let x = self.modulated_norm(x, shift, scale)?;
        let y = self.linear("proj_out", x)?;

        let c = self.dims.out_channels;
        let [_, ph, pw] = self.dims.patch_size;
        let y = self.b.reshape(y, &[grid.frames * grid.rows, grid.cols, ph, pw * c])?;
        let y = self.b.transpose(y, &[0, 2, 1, 3])?;
        let y = self.b.reshape(y, &[grid.frames, latent.rows, latent.cols, c])?;
        let y = self.b.transpose(y, &[3, 0, 1, 2])?;
        Ok(self.b.reshape(y, &[1, c, latent.frames, latent.rows, latent.cols])?)
    }
}
