//! S2DiT behind the seam.

use std::sync::Arc;

use s2dit_ir::{Module, WeightSource};
use serde_json::Value;

use super::config::{BlockKind, Preset, S2ditConfig, SampleSteps};
use crate::layers::{Blocks, BuildError, Dims, Extras, step};
use crate::model::{Family, Layer, Model, Outline, Sampler, Streaming};
use crate::size::{Grid, LatentSize, Size};
use crate::tensor::TensorSpec;
use s2dit_files::problems::{Problem, Problems};

/// The family of S2DiT.
#[derive(Debug)]
pub struct S2dit;

impl Family for S2dit {
    fn name(&self) -> &'static str {
        "S2DiT"
    }

    fn class(&self) -> &'static str {
        S2ditConfig::CLASS_NAME
    }

    fn presets(&self) -> Vec<&'static str> {
        Preset::ALL.map(Preset::name).to_vec()
    }

    fn preset(&self, name: &str) -> Option<Arc<dyn Model>> {
        let preset = Preset::ALL.into_iter().find(|preset| preset.name() == name)?;
        Some(Arc::new(preset.config()))
    }

    fn fields(&self) -> &'static [&'static str] {
        super::config::FIELDS
    }

    fn sampler_fields(&self) -> &'static [&'static str] {
        &["sample_steps", "flow_shift"]
    }

    fn parse(&self, entries: Vec<(String, Value)>, place: &str) -> Result<Arc<dyn Model>, Problems> {
        Ok(Arc::new(S2ditConfig::from_entries(entries, place)?))
    }
}

impl S2ditConfig {
    pub(super) fn dims(&self) -> Dims {
        Dims {
            heads: self.num_attention_heads,
            head_dim: self.attention_head_dim,
            ffn_dim: self.ffn_dim,
            text_len: self.text_len,
            text_dim: self.text_dim,
            patch_size: self.patch_size,
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            freq_dim: self.freq_dim,
            rope_theta: self.rope_theta,
            qk_norm: self.qk_norm,
            eps: self.eps,
            qk_eps: self.eps,
        }
    }
}

impl S2ditConfig {
    /// The same where heads are those of linear attention.
    pub(super) fn linear_dims(&self) -> Dims {
        let head_dim = self.linear_head_dim.unwrap_or(self.attention_head_dim);
        Dims { heads: self.hidden_size() / head_dim, head_dim, ..self.dims() }
    }
}

impl Model for S2ditConfig {
    fn family(&self) -> &'static dyn Family {
        &S2dit
    }

    fn config(&self) -> Value {
        self.to_json_value()
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        super::tensors::tensors(self)
    }

    fn grid(&self, size: Size) -> Result<Grid, Problems> {
        let latent = size.latent()?;
        let grid = self.dims().grid(latent)?;
        let kv = self.layout.contains(&BlockKind::KvCompressed);
        for (axis, side) in [("rows", grid.rows), ("columns", grid.cols)] {
            if kv && !side.is_multiple_of(self.kv_stride) {
                let expected =
                    format!("a multiple of kv_stride {}: blocks of kind kv_compressed join so many", self.kv_stride);
                return Err(Problems::one(format!("latent {latent}"), format!("{side} {axis} of tokens"), expected));
            }
        }
        Ok(grid)
    }

    fn usual_size(&self, latent: LatentSize) -> Size {
        let kv = if self.layout.contains(&BlockKind::KvCompressed) { self.kv_stride } else { 1 };
        let [_, rows, cols] = self.patch_size;
        let dims = Dims { patch_size: [1, rows * kv, cols * kv], ..self.dims() };
        dims.nearest_latent(latent).into()
    }

    fn build(&self, weights: &dyn WeightSource, size: Size) -> Result<Module, BuildError> {
        let latent = size.latent()?;
        let blocks = Blocks { path: "blocks", count: self.layout.len() };
        step(self.dims(), weights, size.step()?, &[blocks], Extras::default(), |m, inputs, grid| {
            self.forward(m, inputs, latent, grid)
        })
    }

    fn outline(&self) -> Outline {
        let stages = self.stages();
        let layer = |run: super::config::Run| Layer {
            kind: run.kind.name(),
            stride: if run.kind == BlockKind::Ssa { self.ssa_stride } else { 1 },
            stage: stages.iter().position(|stage| *stage == run.blocks),
            blocks: run.blocks,
        };
        Outline {
            width: self.hidden_size(),
            heads: self.num_attention_heads,
            head_dim: self.attention_head_dim,
            layers: self.runs().into_iter().map(layer).collect(),
        }
    }

    fn sampler(&self) -> Result<Sampler, Problem> {
        Ok(match self.sample_steps {
            SampleSteps::Timesteps(_) => Sampler::fixed(self.sigmas()),
            SampleSteps::Count(steps) => Sampler::Euler { steps, shift: self.flow_shift },
        })
    }

    fn streaming(&self) -> Result<Streaming, Problem> {
        let problem = |place: &str, found: String, expected: String| Problem { place: place.into(), found, expected };
        let Some(chunk_frames) = self.chunk_frames else {
            return Err(problem(
                "chunk_frames",
                "null (a bidirectional checkpoint)".into(),
                "a number of frames: only autoregressive checkpoints stream; compile it with --mode clip".into(),
            ));
        };
        if self.in_channels != self.out_channels {
            return Err(problem(
                "out_channels",
                self.out_channels.to_string(),
                format!("{}, as in_channels: a stream feeds its own output back", self.in_channels),
            ));
        }
        if let SampleSteps::Count(steps) = self.sample_steps {
            return Err(problem(
                "sample_steps",
                format!("{steps} (a count)"),
                "a list of timesteps: the sampler of a streaming checkpoint".into(),
            ));
        }
        Ok(Streaming {
            chunk_frames,
            window_frames: self.window_frames,
            sink_frames: self.sink_frames,
            ahead: false,
            state_write: self.state_write,
        })
    }
}
