//! Wan 2.1, text to video (arXiv 2503.20314): diffusers' `WanTransformer3DModel`. Every block has softmax attention at token resolution.

mod causal;
mod config;
mod family;
mod original;
mod tensors;

use s2dit_ir::ValueId;

pub use causal::{CausalWan, CausalWanConfig};
pub use config::WanConfig;
pub use family::Wan;

use crate::layers::{Built, Conditions, Layers};
use crate::size::{Grid, LatentSize};

impl WanConfig {
    /// The forward pass: latent, timestep `[1]` and text `[1, L, text_dim]` to the velocity.
    fn forward(&self, m: &mut Layers<'_>, [x, t, text]: [ValueId; 3], latent: LatentSize, grid: Grid) -> Built {
        let mut x = m.patch_embedding(x, grid)?;
        let (temb, time) = m.time(t)?;
        let text = m.text(text)?;
        let conditions = Conditions { time, text, cross_norm: self.cross_attn_norm };
        let rope = m.rope(grid)?;
        for i in 0..self.num_layers {
            x = m.block(i, x, conditions, |m, u| m.self_attention(u, rope))?;
        }
        m.head(x, temb, latent, grid)
    }
}
