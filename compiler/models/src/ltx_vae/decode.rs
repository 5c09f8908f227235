//! The forward pass of the decoder of LTX-Video's autoencoders.

use s2dit_ir::ValueId;
use s2dit_ir::ops::Unary;

use super::config::{LtxVaeConfig, SINUSOIDS};
use super::levels::{Level, Up, VALUES};
use crate::layers::frames::{Frames, Kernel, Rows};
use crate::layers::{BuildError, Built};

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
            let timestep = self.decode_timestep.map(|timestep| self.sinusoids(m, timestep)).transpose()?;
            let mut x = self.conv(m, "conv_in", x, None)?;
            x = m.within("mid_block", |m| {
                let time = timestep.map(|timestep| embedded(m, timestep)).transpose()?;
                let mut x = x;
                for k in 0..self.decoder_layers_per_block.last().copied().unwrap_or_default() {
                    x = m.within(&format!("resnets.{k}"), |m| self.residual(m, x, None, time))?;
                }
                Ok(x)
            })?;
            for (i, level) in levels.iter().enumerate() {
                x = m.within(&format!("up_blocks.{i}"), |m| self.level(m, x, level, timestep))?;
                m.end_block(i, x);
            }
            let mut x = m.channel_norm(x, NORM_EPS, None)?;
            if let Some(timestep) = timestep {
                let time = embedded(m, timestep)?;
                let [shift, scale] = modulation(m, time)?;
                x = m.per_channel(x, scale, shift)?;
            }
            let x = m.b.unary(Unary::Silu, x)?;
            // Columns of a patch before its rows.
            let patch = self.patch_size;
            let rows = Rows { extents: &[3, patch, patch], order: &[2, 1, 0], then: (1.0, 0.0) };
            let x = self.conv(m, "conv_out", x, Some(rows))?;
            let x = m.pixels(x, patch)?;
            m.clamped(x, -1.0, 1.0)
        })
    }

    /// `[1, 256]`: cosines and sines of the timestep, as the checkpoint scales it.
    fn sinusoids(&self, m: &mut Frames<'_>, timestep: f64) -> Built {
        let half = SINUSOIDS / 2;
        let by = m.param("timestep_scale_multiplier")?;
        let by = m.b.reshape(by, &[1])?;
        let rates: Vec<f64> = (0..half).map(|i| timestep * 10000f64.powf(-(i as f64) / half as f64)).collect();
        let rates = m.vector(&rates)?;
        let angles = m.b.mul(rates, by)?;
        let cos = m.b.unary(Unary::Cos, angles)?;
        let sin = m.b.unary(Unary::Sin, angles)?;
        let both = m.b.concat(&[cos, sin], 0)?;
        Ok(m.b.reshape(both, &[1, SINUSOIDS])?)
    }

    fn level(&self, m: &mut Frames<'_>, x: ValueId, level: &Level, timestep: Option<ValueId>) -> Built {
        let mut x = x;
        if let Some([_, output]) = level.changes {
            x = m.within("conv_in", |m| self.residual(m, x, Some(output), None))?;
        }
        let time = timestep.map(|timestep| embedded(m, timestep)).transpose()?;
        if let Some(up) = level.up {
            x = m.within("upsamplers.0", |m| self.doubled(m, x, up))?;
        }
        for k in 0..level.blocks {
            x = m.within(&format!("resnets.{k}"), |m| self.residual(m, x, None, time))?;
        }
        Ok(x)
    }

    /// The convolution over time `name` of the current module.
    fn conv(&self, m: &mut Frames<'_>, name: &str, x: ValueId, rows: Option<Rows<'_>>) -> Built {
        let kernel = if self.decoder_causal { Kernel::AfterCopies } else { Kernel::Centred };
        m.within(name, |m| m.conv_rows("conv", x, kernel, true, rows))
    }

    /// A residual block; `to` is the number of channels that it makes, if it is another, and `time` the embedding of the timestep.
    fn residual(&self, m: &mut Frames<'_>, x: ValueId, to: Option<usize>, time: Option<ValueId>) -> Built {
        let mut y = x;
        let modulation = time.map(|time| modulation::<4>(m, time)).transpose()?;
        for (i, conv) in ["conv1", "conv2"].into_iter().enumerate() {
            y = m.channel_norm(y, NORM_EPS, None)?;
            if let Some([shift, scale]) = modulation.map(|all| [all[2 * i], all[2 * i + 1]]) {
                y = m.per_channel(y, scale, shift)?;
            }
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

/// The embedding of the timestep, `[1, N·C]`, of the current module. It follows from weights alone, and so is computed when they are stored.
fn embedded(m: &mut Frames<'_>, sinusoids: ValueId) -> Built {
    m.within("time_embedder.timestep_embedder", |m| {
        let y = m.linear("linear_1", sinusoids)?;
        let y = m.b.unary(Unary::Silu, y)?;
        m.linear("linear_2", y)
    })
}

/// The rows of the current module's `scale_shift_table`, with an embedding of the timestep added: shifts, and 1 + scales, by turns.
fn modulation<const N: usize>(m: &mut Frames<'_>, time: ValueId) -> Result<[ValueId; N], BuildError> {
    let table = m.param("scale_shift_table")?;
    let channels = m.b.shape(table)[1];
    let time = m.b.reshape(time, &[N, channels])?;
    let all = m.b.add(time, table)?;
    let mut rows = [all; N];
    for (i, row) in rows.iter_mut().enumerate() {
        let one = m.b.slice(all, 0, i, i + 1)?;
        let one = m.b.reshape(one, &[channels])?;
        *row = if i % 2 == 0 { one } else { m.b.add_scalar(one, 1.0)? };
    }
    Ok(rows)
}
