//! LTX-Video, text to video (arXiv 2501.00103): diffusers' `LTXVideoTransformer3DModel` of 0.9.x. Every block has softmax attention at token
//! resolution; RoPE turns the whole width by coordinates in seconds and pixels, before heads are split.

mod block;
mod config;
mod embed;
mod family;
mod tensors;

pub use config::LtxConfig;
pub use family::Ltx;

use crate::layers::{Built, Inputs, Layers};
use crate::size::{Grid, LatentSize};

impl LtxConfig {
    /// The forward pass: latent, timestep `[1]`, text `[1, L, caption_channels]` and its mask to the velocity.
    fn forward(&self, m: &mut Layers<'_>, inputs: Inputs, latent: LatentSize, grid: Grid) -> Built {
        let mask = m.text_mask(inputs.text);
        let mut x = self.patches(m, inputs.latent, grid)?;
        let (embedded, time) = m.single_time(inputs.time)?;
        let text = m.caption(inputs.text)?;
        let conditions = block::Conditions { time, text, text_bias: m.text_bias(mask)?, rope: self.rope(m, grid)? };
        for i in 0..self.num_layers {
            x = self.block(m, i, x, conditions)?;
        }
        self.head(m, x, embedded, latent)
    }
}
