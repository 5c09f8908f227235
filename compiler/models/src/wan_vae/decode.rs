//! The forward pass of the decoder of Wan's autoencoders.

use s2dit_ir::ValueId;
use s2dit_ir::ops::Unary;

use super::config::{Level, Up, WanVaeConfig};
use crate::layers::frames::{Frames, Kernel, Rows};
use crate::layers::{BuildError, Built};

/// diffusers divides channels by their length, or by 1e-12 where they are shorter.
const SHORTEST: f64 = 1e-12;

impl WanVaeConfig {
    /// From the frames of a normalised latent `[F, C, h, w]` to pixels `[T, 3, H, W]` in −1 to 1.
    pub(super) fn forward(&self, m: &mut Frames<'_>, x: ValueId) -> Built {
        let (std, mean) = (m.vector(&self.latents_std)?, m.vector(&self.latents_mean)?);
        let x = m.per_channel(x, std, mean)?;
        let x = m.conv("post_quant_conv", x, Kernel::AfterZeros, true)?;
        m.within("decoder", |m| {
            let x = m.conv("conv_in", x, Kernel::AfterZeros, true)?;
            let mut x = m.within("mid_block", |m| {
                let x = m.within("resnets.0", |m| residual(m, x))?;
                let x = m.within("attentions.0", |m| attention(m, x))?;
                m.within("resnets.1", |m| residual(m, x))
            })?;
            for (i, level) in self.levels().into_iter().enumerate() {
                x = m.within(&format!("up_blocks.{i}"), |m| self.level(m, x, level))?;
                m.end_block(i, x);
            }
            let x = norm(m, "norm_out", x)?;
            let x = m.b.unary(Unary::Silu, x)?;
            // Columns of a patch before its rows.
            let patch = self.patch_size;
            let rows = Rows { extents: &[3, patch, patch], order: &[2, 1, 0], then: (1.0, 0.0) };
            let x = m.conv_rows("conv_out", x, Kernel::AfterZeros, true, (patch > 1).then_some(rows))?;
            let x = m.pixels(x, patch)?;
            m.clamped(x, -1.0, 1.0)
        })
    }

    fn level(&self, m: &mut Frames<'_>, input: ValueId, level: Level) -> Built {
        let mut x = input;
        for k in 0..=self.num_res_blocks {
            x = m.within(&format!("resnets.{k}"), |m| residual(m, x))?;
        }
        let Some(up) = level.up else { return Ok(x) };
        let upsampler = if self.is_residual { "upsampler" } else { "upsamplers.0" };
        let x = m.within(upsampler, |m| upsampled(m, x, up))?;
        let Some([repeats, share]) = level.shortcut().filter(|_| self.is_residual) else { return Ok(x) };
        let around = m.within("avg_shortcut", |m| {
            let y = m.repeated(input, repeats)?;
            let y = m.spread(y, level.times(), share)?;
            // The first frame of a video is not doubled.
            let extra = if m.dims.is_first { level.times() - 1 } else { 0 };
            m.frames_after(y, extra)
        })?;
        Ok(m.b.add(x, around)?)
    }
}

/// Channels of a length of √C, times a gain.
fn norm(m: &mut Frames<'_>, name: &str, x: ValueId) -> Built {
    let channels = m.b.shape(x)[1];
    m.within(name, |m| m.channel_norm(x, SHORTEST * SHORTEST / channels as f64, Some("gamma")))
}

fn residual(m: &mut Frames<'_>, x: ValueId) -> Built {
    let mut y = x;
    for (norm_name, conv) in [("norm1", "conv1"), ("norm2", "conv2")] {
        y = norm(m, norm_name, y)?;
        y = m.b.unary(Unary::Silu, y)?;
        y = m.conv(conv, y, Kernel::AfterZeros, true)?;
    }
    let around = match m.b.shape(x)[1] == m.b.shape(y)[1] {
        true => x,
        false => m.conv("conv_shortcut", x, Kernel::AfterZeros, true)?,
    };
    Ok(m.b.add(y, around)?)
}

/// Attention of one head among the pixels of each frame.
fn attention(m: &mut Frames<'_>, x: ValueId) -> Built {
    let shape = m.b.shape(x).to_vec();
    let [frames, channels, rows, cols] = shape[..] else {
        return Err(s2dit_ir::OpError::new("frames of another rank").into());
    };
    let y = norm(m, "norm", x)?;
    let y = m.conv("to_qkv", y, Kernel::Plane, true)?;
    let mut part = |i: usize| -> Result<ValueId, BuildError> {
        let part = m.b.slice(y, 1, i * channels, (i + 1) * channels)?;
        Ok(m.b.reshape(part, &[frames, 1, channels, rows * cols])?)
    };
    let (q, k, v) = (part(0)?, part(1)?, part(2)?);
    let q = m.b.mul_scalar(q, (channels as f64).powf(-0.5))?;
    let scores = m.b.t_matmul(q, k)?;
    let weights = m.b.softmax(scores, 3)?;
    let y = m.b.matmul_t(v, weights)?;
    let y = m.b.reshape(y, &shape)?;
    let y = m.conv("proj", y, Kernel::Plane, true)?;
    Ok(m.b.add(y, x)?)
}

/// Twice the rows and columns, and twice the frames, but for the first of a video.
fn upsampled(m: &mut Frames<'_>, x: ValueId, up: Up) -> Built {
    let x = match (up.time, m.dims.is_first) {
        (false, _) => x,
        (true, false) => doubled(m, x)?,
        (true, true) if m.b.shape(x)[0] == 1 => x,
        (true, true) => {
            let first = m.b.slice(x, 0, 0, 1)?;
            let others = m.frames_after(x, 1)?;
            let others = doubled(m, others)?;
            m.b.concat(&[first, others], 0)?
        }
    };
    let x = m.b.upsample(x, 2)?;
    m.conv("resample.1", x, Kernel::Plane, true)
}

/// Two frames of each. The second frame of a video sees zeros before it, and not the first, which was not doubled.
fn doubled(m: &mut Frames<'_>, x: ValueId) -> Built {
    let y = m.conv("time_conv", x, Kernel::AfterZeros, true)?;
    m.unstacked(y, 2)
}
