//! Wan 2.1 and 2.2, text and image to video (arXiv 2503.20314): diffusers' `WanTransformer3DModel`. Every block has softmax attention at
//! token resolution.

mod causal;
mod config;
mod family;
mod image;
mod original;
mod presets;
mod tensors;

pub use causal::{CausalWan, CausalWanConfig};
pub use config::WanConfig;
pub use family::Wan;
pub use image::Image;

use crate::layers::{Built, Conditions, Inputs, Layers};
use crate::size::{Grid, LatentSize};

impl WanConfig {
    /// The forward pass: latent, timestep `[1]` or `[1, N]`, text `[1, L, text_dim]` and perhaps an image `[1, M, image_dim]` to the velocity.
    fn forward(&self, m: &mut Layers<'_>, inputs: Inputs, latent: LatentSize, grid: Grid) -> Built {
        let mut x = m.patch_embedding(inputs.latent, grid)?;
        let (temb, time) = if self.expand_timesteps { m.time_per_token(inputs.time)? } else { m.time(inputs.time)? };
        let text = m.text(inputs.text)?;
        let positions = self.image.is_some_and(|image| image.positions.is_some());
        let image = inputs.image.map(|image| m.image(image, positions)).transpose()?;
        let conditions = Conditions { time, text, image, cross_norm: self.cross_attn_norm };
        let rope = m.rope(grid)?;
        for i in 0..self.num_layers {
            x = m.block(i, x, conditions, |m, u| m.self_attention(u, rope))?;
        }
        m.head(x, temb, latent, grid)
    }
}
