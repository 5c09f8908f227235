//! Open-Sora 2.0 (arXiv 2503.09642): the `MMDiTModel` of its own repository. Double blocks have weights for the video and for the text,
//! which attend to both together; single blocks have the tokens of both side by side, text first.

mod attention;
mod config;
mod double;
mod embed;
mod family;
mod single;
mod tensors;

pub use config::OpenSoraConfig;
pub use family::OpenSora;

use crate::layers::{Built, Inputs, Layers};
use crate::size::{Grid, LatentSize};

impl OpenSoraConfig {
    /// The forward pass: latent, timestep `[1]`, text `[1, L, context_in_dim]`, its pooled embedding and the strength of guidance to the velocity.
    fn forward(&self, m: &mut Layers<'_>, inputs: Inputs, latent: LatentSize, grid: Grid) -> Built {
        let mut video = self.patches(m, inputs.latent, grid)?;
        let vector = self.vector(m, inputs)?;
        let mut text = m.linear("txt_in", inputs.text)?;
        let rope = self.rope(m, grid)?;
        for i in 0..self.depth {
            [video, text] = self.double_block(m, i, [video, text], vector, rope)?;
        }
        let mut both = m.b.concat(&[text, video], 1)?;
        for i in 0..self.depth_single_blocks {
            both = self.single_block(m, i, both, vector, rope)?;
        }
        let video = m.b.slice(both, 1, self.text_len, self.text_len + grid.tokens())?;
        self.head(m, video, vector, latent, grid)
    }
}
