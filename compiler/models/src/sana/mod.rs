//! SANA-Video, text to video (arXiv 2509.24695): diffusers' `SanaVideoTransformer3DModel`. Every block has linear attention at token resolution
//! and a feed-forward network with convolutions over rows, columns and frames. [`CausalSana`] is LongSANA, which streams.

mod block;
mod causal;
mod config;
mod family;
mod original;
mod tensors;

pub use causal::{CausalSana, CausalSanaConfig};
pub use config::SanaConfig;
pub use family::Sana;

use crate::layers::{Built, Inputs, Layers, Modulation};
use crate::size::{Grid, LatentSize};

impl SanaConfig {
    /// The forward pass: latent, timestep `[1]`, text `[1, L, caption_channels]` and its mask to the velocity.
    fn forward(&self, m: &mut Layers<'_>, inputs: Inputs, latent: LatentSize, grid: Grid, form: block::Form) -> Built {
        let mask = m.text_mask(inputs.text);
        let mut x = m.patch_embedding(inputs.latent, grid)?;
        let (embedded, time) = m.single_time(inputs.time)?;
        let text = m.caption(inputs.text)?;
        let text = m.rms_norm("caption_norm", text)?;
        let conditions = block::Conditions {
            time: Modulation::OfAll(time),
            text,
            text_bias: m.text_bias(mask)?,
            rope: m.rope(grid)?,
            grid,
            form,
        };
        for i in 0..self.num_layers {
            x = self.block(m, i, x, conditions)?;
        }
        m.head(x, embedded, latent, grid)
    }
}
