//! S2DiT (arXiv 2601.12719): LCHA and SSA blocks in a sandwich, from a configuration to the graph of a step.

pub mod config;
mod family;
mod kv_compressed;
mod lcha;
mod stage;
mod tensors;

use config::{BlockKind, S2ditConfig};

use crate::layers::{BuildError, Built, Conditions, Inputs, Layers};
use crate::size::{Grid, LatentSize};

pub use family::S2dit;

impl S2ditConfig {
    /// The forward pass: latent, timestep `[1]` and text `[1, L, text_dim]` to the velocity.
    fn forward(&self, m: &mut Layers<'_>, inputs: Inputs, latent: LatentSize, grid: Grid) -> Built {
        let mut x = m.patch_embedding(inputs.latent, grid)?;
        let (temb, time) = m.time(inputs.time)?;
        let text = m.text(inputs.text)?;
        let conditions = Conditions { time, text, image: None, cross_norm: true };

        let stages = self.stages();
        let rope_high = m.rope(grid)?;
        let rope_linear =
            if self.linear_head_dim.is_some() { self.in_linear_heads(m, |m| m.rope(grid))? } else { rope_high };
        // The grid of a model without SSA need not have a multiple of the stride on a side.
        let strided = match stages.as_slice() {
            [] => None,
            [..] => {
                let low = grid.strided(self.ssa_stride);
                Some(m.rope(low)?)
            }
        };
        let mut entered = x;
        for (i, &kind) in self.layout.iter().enumerate() {
            if let Some(stage) = stages.iter().position(|s| s.start == i) {
                entered = x;
                x = self.stage_down(m, x, stage, grid)?;
            }
            let rope = strided.filter(|_| kind == BlockKind::Ssa).unwrap_or(rope_high);
            x = m.block(i, x, conditions, |m, u| match kind {
                BlockKind::Lcha | BlockKind::Linear | BlockKind::Local => self.lcha(m, u, rope_linear, grid, kind),
                BlockKind::Ssa | BlockKind::Full => m.self_attention(u, rope),
                BlockKind::KvCompressed => self.kv_compressed(m, u, rope, grid),
            })?;
            if let Some(stage) = stages.iter().position(|s| s.end == i + 1) {
                let ends_the_network = i + 1 == self.layout.len();
                x = self.stage_up(m, x, (!ends_the_network).then_some(entered), stage, grid)?;
            }
        }
        m.head(x, temb, latent, grid)
    }
}

impl S2ditConfig {
    /// Layers inside which heads are those of linear attention.
    fn in_linear_heads<'a, T>(
        &self,
        m: &mut Layers<'a>,
        body: impl FnOnce(&mut Layers<'a>) -> Result<T, BuildError>,
    ) -> Result<T, BuildError> {
        let whole = std::mem::replace(&mut m.dims, self.linear_dims());
        let made = body(m);
        m.dims = whole;
        made
    }
}

#[cfg(test)]
mod tests {
    use s2dit_ir::{text, verify};

    use super::*;
    use crate::SchemaWeights;
    use crate::model::Model;
    use crate::s2dit::config::Preset;
    use crate::size::LatentSize;

    fn tiny() -> (S2ditConfig, LatentSize) {
        (Preset::Tiny.config(), LatentSize { frames: 3, rows: 8, cols: 8 })
    }

    #[test]
    fn the_clip_graph_is_valid_and_its_text_reads_back() {
        let (config, latent) = tiny();
        let module = config.build(&SchemaWeights::new(&config), latent.into()).unwrap();
        verify::verify(&module).unwrap();
        let printed = text::print(&module);
        let parsed = text::parse(&printed).unwrap();
        verify::verify(&parsed).unwrap();
        assert_eq!(text::print(&parsed), printed);
        let f = &module.functions[0];
        assert_eq!(f.shape(f.results[0].1), [1, 4, 3, 8, 8]);
        let blocks: Vec<_> = (0..4).map(|i| f.shape(f.by_name(&format!("block{i}")).unwrap())[1]).collect();
        assert_eq!(blocks, [48, 12, 12, 48]);
    }

    #[test]
    fn no_value_has_more_than_five_dimensions() {
        let (config, latent) = tiny();
        let module = config.build(&SchemaWeights::new(&config), latent.into()).unwrap();
        let f = &module.functions[0];
        assert!(f.order().iter().all(|&v| f.ty(v).rank() <= 5));
    }

    #[test]
    fn every_tensor_of_the_schema_is_used() {
        let (config, latent) = tiny();
        let module = config.build(&SchemaWeights::new(&config), latent.into()).unwrap();
        let f = &module.functions[0];
        let used: std::collections::HashSet<&str> =
            f.order().iter().filter_map(|&v| s2dit_ir::weights::loaded_tensor(f, v)).collect();
        for t in config.tensors() {
            assert!(used.contains(t.name.as_str()), "{} is not used", t.name);
        }
    }
}
