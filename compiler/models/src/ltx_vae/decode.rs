//! The forward pass of the decoder of LTX-Video's autoencoders.

use s2dit_ir::ValueId;
use s2dit_ir::ops::Unary;

use super::config::LtxVaeConfig;
use super::levels::{Level, Up, VALUES};
use crate::layers::Built;
use crate::layers::frames::{Frames, Kernel, Rows};

/// The ε of RMS norms, which is no field of diffusers.
const NORM_EPS: f64 = 1e-8;

impl LtxVaeConfig {
    /// From the frames of a normalised latent `[F, C, h, w]` to pixels `[T, 3, H, W]` in −1 to 1.
    pub(super) fn forward(&self, m: &mut Frames<'_>, x: ValueId, levels: &[Level]) -> Built {
        let std = m.param("latents_std")?;
        let std = m.b.mul_scalar(std, 1.0 / self.scaling_factor)?;
        let mean = m.param("latents_mean")?;
        let x = m.per_channel(x, std, mean)?;
        m.within("decoder", |m| {
            let mut x = self.conv(m, "conv_in", x, None)?;
            for k in 0..self.decoder_layers_per_block.last().copied().unwrap_or_default() {
                x = m.within(&format!("mid_block.resnets.{k}"), |m| self.residual(m, x, None))?;
            }
            for (i, level) in levels.iter().enumerate() {
                x = m.within(&format!("up_blocks.{i}"), |m| self.level(m, x, level))?;
                m.end_block(i, x);
            }
            let x = m.channel_norm(x, NORM_EPS, None)?;
            let x = m.b.unary(Unary::Silu, x)?;
            // Columns of a patch before its rows.
            let patch = self.patch_size;
            let rows = Rows { extents: &[3, patch, patch], order: &[2, 1, 0], then: (1.0, 0.0) };
            let x = self.conv(m, "conv_out", x, Some(rows))?;
            let x = m.pixels(x, patch)?;
            m.clamped(x, -1.0, 1.0)
        })
    }

    fn level(&self, m: &mut Frames<'_>, x: ValueId, level: &Level) -> Built {
        let mut x = x;
        if let Some([_, output]) = level.changes {
            x = m.within("conv_in", |m| self.residual(m, x, Some(output)))?;
        }
        if let Some(up) = level.up {
            x = m.within("upsamplers.0", |m| self.doubled(m, x, up))?;
        }
        for k in 0..level.blocks {
            x = m.within(&format!("resnets.{k}"), |m| self.residual(m, x, None))?;
        }
        Ok(x)
    }

    /// The convolution over time `name` of the current module.
    fn conv(&self, m: &mut Frames<'_>, name: &str, x: ValueId, rows: Option<Rows<'_>>) -> Built {
        let kernel = if self.decoder_causal { Kernel::AfterCopies } else { Kernel::Centred };
        m.within(name, |m| m.conv_rows("conv", x, kernel, true, rows))
    }

    /// A residual block; `to` is the number of channels that it makes, if it is another.
    fn residual(&self, m: &mut Frames<'_>, x: ValueId, to: Option<usize>) -> Built {
        let mut y = x;
        for conv in ["conv1", "conv2"] {
            y = m.channel_norm(y, NORM_EPS, None)?;
            y = m.b.unary(Unary::Silu, y)?;
            y = self.conv(m, conv, y, None)?;
        }
        let around = match to {
            None => x,
            Some(_) => {
                let normed = m.within("norm3", |m| {
                    let (gain, bias) = (m.param("weight")?, m.param("bias")?);
                    Ok(m.b.layer_norm(x, &[1], self.resnet_norm_eps, Some((gain, bias)))?)
                })?;
                self.conv(m, "conv_shortcut", normed, None)?
            }
        };
        Ok(m.b.add(y, around)?)
    }

    /// Twice the frames but one, rows and columns: channels become frames and pixels.
    fn doubled(&self, m: &mut Frames<'_>, x: ValueId, up: Up) -> Built {
        let output = up.input / up.factor;
        let rows = Rows { extents: &[output, 2, 2, 2], order: &[1, 2, 3, 0], then: (1.0, 0.0) };
        let y = self.conv(m, "conv", x, Some(rows))?;
        let y = m.unstacked(y, 2)?;
        let y = m.pixels(y, 2)?;
        let y = m.frames_after(y, 1)?;
        if !up.residual {
            return Ok(y);
        }
        let around = m.spread(x, 2, VALUES)?;
        let around = m.frames_after(around, 1)?;
        // All channels one behind the other, as often as the factor leaves out.
        let copies = vec![around; VALUES / up.factor];
        let around = if copies.len() == 1 { around } else { m.b.concat(&copies, 1)? };
        Ok(m.b.add(y, around)?)
    }
}
