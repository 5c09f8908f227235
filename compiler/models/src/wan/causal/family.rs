//! Causal Wan behind the seam.

use std::sync::Arc;

use s2dit_ir::{Module, WeightSource};
use s2dit_runtime::stream::contract::StateWrite;
use serde_json::Value;

use super::config::{CausalWanConfig, FIELDS};
use crate::layers::BuildError;
use crate::model::{Family, Model, Outline, Renaming, Sampler, Streaming};
use crate::size::{Grid, LatentSize, Size};
use crate::tensor::TensorSpec;
use crate::wan::config::WanConfig;
use crate::wan::family::Wan;
use crate::wan::original;
use s2dit_files::problems::{Problem, Problems};

/// The family of Self-Forcing and CausVid.
#[derive(Debug)]
pub struct CausalWan;

impl CausalWan {
    /// The published model, and one for tests, with the Wan that each is made of.
    const PRESETS: [(&str, &str); 2] = [("self-forcing-tiny", "wan-tiny"), ("self-forcing-1.3b", "wan2.1-1.3b")];
}

impl Family for CausalWan {
    fn name(&self) -> &'static str {
        "Self-Forcing"
    }

    fn class(&self) -> &'static str {
        CausalWanConfig::CLASS_NAME
    }

    fn original(&self) -> &'static [Renaming] {
        original::RENAMING
    }

    fn presets(&self) -> Vec<&'static str> {
        CausalWan::PRESETS.map(|(name, _)| name).to_vec()
    }

    fn preset(&self, name: &str) -> Option<Arc<dyn Model>> {
        let (_, base) = CausalWan::PRESETS.into_iter().find(|(preset, _)| *preset == name)?;
        let Value::Object(network) = Wan.preset(base)?.config() else { return None };
        let wan = WanConfig::from_entries(network.into_iter().collect(), base).ok()?;
        Some(Arc::new(CausalWanConfig {
            wan,
            local_attn_size: None,
            sink_size: 0,
            num_frame_per_block: 3,
            denoising_step_list: vec![1000.0, 750.0, 500.0, 250.0],
            timestep_shift: 5.0,
        }))
    }

    fn fields(&self) -> &'static [&'static str] {
        FIELDS
    }

    fn sampler_fields(&self) -> &'static [&'static str] {
        &["denoising_step_list", "timestep_shift"]
    }

    fn parse(&self, entries: Vec<(String, Value)>, place: &str) -> Result<Arc<dyn Model>, Problems> {
        Ok(Arc::new(CausalWanConfig::from_entries(entries, place)?))
    }
}

impl Model for CausalWanConfig {
    fn family(&self) -> &'static dyn Family {
        &CausalWan
    }

    fn config(&self) -> Value {
        self.to_json_value()
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        self.wan.tensors()
    }

    fn grid(&self, size: Size) -> Result<Grid, Problems> {
        self.wan.grid(size)
    }

    fn usual_size(&self, latent: LatentSize) -> Size {
        self.wan.usual_size(latent)
    }

    fn build(&self, weights: &dyn WeightSource, size: Size) -> Result<Module, BuildError> {
        self.wan.build(weights, size)
    }

    fn outline(&self) -> Outline {
        self.wan.outline()
    }

    fn sampler(&self) -> Result<Sampler, Problem> {
        Ok(Sampler::fixed(self.sigmas()))
    }

    fn streaming(&self) -> Result<Streaming, Problem> {
        if self.wan.in_channels != self.wan.out_channels {
            return Err(Problem {
                place: "out_dim".into(),
                found: self.wan.out_channels.to_string(),
                expected: format!("{}, as in_dim: a stream feeds its own output back", self.wan.in_channels),
            });
        }
        Ok(Streaming {
            chunk_frames: self.num_frame_per_block,
            window_frames: self.window_frames(),
            sink_frames: self.sink_size,
            ahead: false,
            state_write: StateWrite::Commit,
        })
    }
}
