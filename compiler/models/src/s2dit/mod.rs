//! S2DiT (arXiv 2601.12719): the clip graph, which denoises a whole clip in one step.
//!
//! Shapes in comments: D hidden size, A heads, d = D/A, N tokens of the grid (frames F, rows h, columns w), L text tokens.

mod attention;
mod block;
pub mod config;
mod embed;
mod lcha;
mod rope;
pub mod schema;
mod stage;

use s2dit_ir::ops::OpError;
use s2dit_ir::{Builder, DType, Function, Module, TensorType, ValueId, WeightSource};

use config::{BlockKind, Grid, LatentSize, S2ditConfig};
use s2dit_files::problems::Problems;

/// A graph that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The latent size does not fit the model.
    #[error(transparent)]
    Latent(#[from] Problems),
    /// The checkpoint lacks a tensor; validate it against the schema first.
    #[error("tensor `{0}`: not in the checkpoint")]
    MissingTensor(String),
    /// An op's constraint does not hold: a defect of this compiler, or a checkpoint that was not validated.
    #[error("cannot build the graph: {0}")]
    Op(#[from] OpError),
}

type Imported = Result<ValueId, ImportError>;

/// The clip step as one function `main`: `latent [1,C,F,H,W]`, `timestep [1]`, `text [1,L,text_dim]` to
/// `velocity [1,C,F,H,W]`, all f32. The output of block `i` is the value `block{i}`, `[1, N, D]`.
///
/// # Errors
/// A latent that the patch does not divide; a tensor that the checkpoint lacks.
pub fn clip(config: &S2ditConfig, weights: &dyn WeightSource, latent: LatentSize) -> Result<Module, ImportError> {
    let grid = config.grid(latent)?;
    let mut f = Function::new("main");
    let f32 = |shape: &[usize]| TensorType::new(DType::F32, shape);
    let x = f.add_param("latent", f32(&[1, config.in_channels, latent.frames, latent.rows, latent.cols]));
    let t = f.add_param("timestep", f32(&[1]));
    let text = f.add_param("text", f32(&[1, config.text_len, config.text_dim]));

    let mut m = Importer { config, weights, b: Builder::new(&mut f) };
    let velocity = m.forward(x, t, text, latent, grid)?;
    f.set_name(velocity, "velocity");
    f.results.push(("velocity".into(), velocity));
    f.remove_dead();
    Ok(Module::single(f))
}

struct Importer<'a> {
    config: &'a S2ditConfig,
    weights: &'a dyn WeightSource,
    b: Builder<'a>,
}

impl Importer<'_> {
    fn forward(&mut self, x: ValueId, t: ValueId, text: ValueId, latent: LatentSize, grid: Grid) -> Imported {
        let mut x = self.patch_embedding(x, grid)?;
        let (temb, tproj) = self.time(t)?;
        let text = self.text(text)?;

        let stages = self.config.stages();
        let rope_high = self.rope(grid)?;
        // The grid of a model without SSA need not have a multiple of the stride on a side.
        let strided = match stages.as_slice() {
            [] => None,
            [..] => {
                let low = grid.strided(self.config.ssa_stride);
                Some((self.rope(low)?, low))
            }
        };
        let mut entered = x;
        for (i, kind) in self.config.layout.clone().into_iter().enumerate() {
            if let Some(stage) = stages.iter().position(|s| s.start == i) {
                entered = x;
                x = self.stage_down(x, stage, grid)?;
            }
            let (rope, block_grid) = strided.filter(|_| kind == BlockKind::Ssa).unwrap_or((rope_high, grid));
            x = self.block(i, kind, x, tproj, text, rope, block_grid)?;
            self.b.f.set_name(x, &format!("block{i}"));
            if let Some(stage) = stages.iter().position(|s| s.end == i + 1) {
                let ends_the_network = i + 1 == self.config.layout.len();
                x = self.stage_up(x, (!ends_the_network).then_some(entered), stage, grid)?;
            }
        }
        self.head(x, temb, latent, grid)
    }

    /// Runs `body` with `name` appended to the provenance path.
    fn within<T>(
        &mut self,
        name: &str,
        body: impl FnOnce(&mut Self) -> Result<T, ImportError>,
    ) -> Result<T, ImportError> {
        self.b.enter(name);
        let out = body(self);
        self.b.leave();
        out
    }

    /// The checkpoint tensor `name` of the current module, in f32.
    fn param(&mut self, name: &str) -> Imported {
        let scope = self.b.scope();
        let full = if scope.is_empty() { name.to_string() } else { format!("{scope}.{name}") };
        let ty = self.weights.ty(&full).ok_or(ImportError::MissingTensor(full.clone()))?;
        let stored = self.b.load(&full, &ty)?;
        Ok(self.b.cast(stored, DType::F32)?)
    }

    /// The linear layer `name` of the current module.
    fn linear(&mut self, name: &str, x: ValueId) -> Imported {
        self.within(name, |m| {
            let (w, b) = (m.param("weight")?, m.param("bias")?);
            Ok(m.b.linear(x, w, Some(b))?)
        })
    }

    /// LayerNorm over the last axis, without affine parameters.
    fn layer_norm(&mut self, x: ValueId) -> Imported {
        let axis = self.b.shape(x).len() - 1;
        Ok(self.b.layer_norm(x, &[axis], self.config.eps, None)?)
    }

    /// `LN(x)·(1 + scale) + shift`
    fn modulated_norm(&mut self, x: ValueId, shift: ValueId, scale: ValueId) -> Imported {
        let norm = self.layer_norm(x)?;
        let scale = self.b.add_scalar(scale, 1.0)?;
        let scaled = self.b.mul(norm, scale)?;
        Ok(self.b.add(scaled, shift)?)
    }
}

#[cfg(test)]
mod tests {
    use s2dit_ir::{text, verify};

    use super::*;
    use crate::SchemaWeights;
    use crate::s2dit::config::Preset;

    fn tiny() -> (S2ditConfig, LatentSize) {
        (Preset::Tiny.config(), LatentSize { frames: 3, rows: 8, cols: 8 })
    }

    #[test]
    fn the_clip_graph_is_valid_and_its_text_reads_back() {
        let (config, latent) = tiny();
        let module = clip(&config, &SchemaWeights::new(&config), latent).unwrap();
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
        let module = clip(&config, &SchemaWeights::new(&config), latent).unwrap();
        let f = &module.functions[0];
        assert!(f.order().iter().all(|&v| f.ty(v).rank() <= 5));
    }

    #[test]
    fn every_tensor_of_the_schema_is_used() {
        let (config, latent) = tiny();
        let module = clip(&config, &SchemaWeights::new(&config), latent).unwrap();
        let f = &module.functions[0];
        let used: std::collections::HashSet<&str> =
            f.order().iter().filter_map(|&v| s2dit_ir::weights::loaded_tensor(f, v)).collect();
        for t in schema::expected_tensors(&config) {
            assert!(used.contains(t.name.as_str()), "{} is not used", t.name);
        }
    }
}
