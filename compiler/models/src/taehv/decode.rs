//! The layers of the decoder of a TAEHV: their tensors, and the forward pass.

use s2dit_ir::ValueId;
use s2dit_ir::ops::Unary;

use super::config::{LEVELS, TaehvConfig};
use crate::layers::Built;
use crate::layers::frames::{Frames, Kernel, Rows};
use crate::tensor::{Role, Specs, TensorSpec};

/// Blocks of a level that see the frame before.
const BLOCKS: usize = 3;
/// Layers of a level in the list of the decoder's layers: its blocks, the doubling of rows and columns, that of frames, and a convolution.
const LAYERS: usize = BLOCKS + 3;
/// Layers before the levels: the clamp, a convolution, its activation.
const BEFORE: usize = 3;
/// Latents are squeezed to −3 to 3.
const LARGEST: f64 = 3.0;

impl TaehvConfig {
    /// Module path of the last layer of level `i`, which ends it.
    pub(super) fn level_end(i: usize) -> String {
        format!("decoder.{}", BEFORE + LAYERS * i + LAYERS - 1)
    }

    fn last() -> usize {
        BEFORE + LAYERS * LEVELS + 1
    }

    /// Frames of a latent frame, if its level doubles them, as a number.
    fn times(&self, level: usize) -> usize {
        1 + usize::from(self.decoder_time_upscale[level])
    }

    /// Every tensor of the decoder, in the order of the forward pass.
    pub(super) fn specs(&self) -> Vec<TensorSpec> {
        let mut list = Specs::new("latent");
        list.conv("decoder.1", &[self.widths[0], self.latent_channels, 3, 3]);
        list.group("levels");
        for level in 0..LEVELS {
            let width = self.widths[level];
            let at = |layer: usize| format!("decoder.{}", BEFORE + LAYERS * level + layer);
            for block in 0..BLOCKS {
                list.conv(&format!("{}.conv.0", at(block)), &[width, 2 * width, 3, 3]);
                list.conv(&format!("{}.conv.2", at(block)), &[width, width, 3, 3]);
                list.conv(&format!("{}.conv.4", at(block)), &[width, width, 3, 3]);
            }
            let grow = [width * self.times(level), width, 1, 1];
            list.push(format!("{}.conv.weight", at(BLOCKS + 1)), &grow, Role::ConvWeight);
            let next = [self.widths[level + 1], width, 3, 3];
            list.push(format!("{}.weight", at(BLOCKS + 2)), &next, Role::ConvWeight);
        }
        list.group("output head");
        let pixels = 3 * self.patch_size * self.patch_size;
        list.conv(&format!("decoder.{}", Self::last()), &[pixels, self.widths[LEVELS], 3, 3]);
        list.finish()
    }

    /// From the frames of a latent `[F, C, h, w]` to pixels `[T, 3, H, W]` in −1 to 1.
    pub(super) fn forward(&self, m: &mut Frames<'_>, x: ValueId) -> Built {
        let x = m.b.mul_scalar(x, 1.0 / LARGEST)?;
        let x = m.b.unary(Unary::Tanh, x)?;
        let x = m.b.mul_scalar(x, LARGEST)?;
        m.within("decoder", |m| {
            let x = m.conv("1", x, Kernel::Plane, true)?;
            let mut x = m.b.unary(Unary::Relu, x)?;
            for level in 0..LEVELS {
                x = self.level(m, x, level)?;
                m.end_block(level, x);
            }
            let x = m.b.unary(Unary::Relu, x)?;
            // Pixels of 0 to 1 are mapped to −1 to 1 by the weights.
            let patch = self.patch_size;
            let rows = Rows { extents: &[3, patch, patch], order: &[1, 2, 0], then: (2.0, -1.0) };
            let x = m.conv_rows(&Self::last().to_string(), x, Kernel::Plane, true, Some(rows))?;
            let x = m.pixels(x, patch)?;
            m.clamped(x, -1.0, 1.0)
        })
    }

    fn level(&self, m: &mut Frames<'_>, x: ValueId, level: usize) -> Built {
        let at = |layer: usize| (BEFORE + LAYERS * level + layer).to_string();
        let mut x = x;
        for block in 0..BLOCKS {
            x = m.within(&at(block), |m| memory_block(m, x))?;
        }
        if self.decoder_space_upscale[level] {
            x = m.b.upsample(x, 2)?;
        }
        let times = self.times(level);
        x = m.within(&at(BLOCKS + 1), |m| {
            let y = m.conv("conv", x, Kernel::Plane, false)?;
            m.unstacked(y, times)
        })?;
        if level + 1 == LEVELS && m.dims.is_first {
            // No layer that follows sees another frame: the frames that are trimmed at the start of a video need not be finished.
            x = m.frames_after(x, self.temporal() - 1)?;
        }
        m.conv(&at(BLOCKS + 2), x, Kernel::Plane, false)
    }
}

/// A residual block of convolutions that see each frame and the one before it.
fn memory_block(m: &mut Frames<'_>, x: ValueId) -> Built {
    let frames = m.b.shape(x)[0];
    let whole = m.behind_past(x, 1)?;
    let past = m.b.slice(whole, 0, 0, frames)?;
    let y = m.b.concat(&[x, past], 1)?;
    let y = m.conv("conv.0", y, Kernel::Plane, true)?;
    let y = m.b.unary(Unary::Relu, y)?;
    let y = m.conv("conv.2", y, Kernel::Plane, true)?;
    let y = m.b.unary(Unary::Relu, y)?;
    let y = m.conv("conv.4", y, Kernel::Plane, true)?;
    let y = m.b.add(y, x)?;
    Ok(m.b.unary(Unary::Relu, y)?)
}
