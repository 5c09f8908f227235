//! Causal SANA-Video behind the seam.

use std::sync::Arc;

use s2dit_ir::{Module, WeightSource};
use s2dit_runtime::stream::contract::StateWrite;
use serde_json::Value;

use super::super::block::Form;
use super::super::config::SanaConfig;
use super::super::family::Sana;
use super::super::original;
use super::config::{CausalSanaConfig, FIELDS};
use crate::layers::BuildError;
use crate::model::{Family, Joined, Model, Outline, PipelineField, PipelineFile, Renaming, Sampler, Streaming};
use crate::size::{Grid, LatentSize, Size};
use crate::tensor::TensorSpec;
use s2dit_files::problems::{Problem, Problems};

/// The family of LongSANA.
#[derive(Debug)]
pub struct CausalSana;

impl CausalSana {
    /// The published model, and one for tests, with the SANA-Video that each is made of.
    const PRESETS: [(&str, &str); 2] = [("longsana-tiny", "sana-tiny"), ("longsana-2b", "sana-video-2b")];
}

impl Family for CausalSana {
    fn name(&self) -> &'static str {
        "LongSANA"
    }

    fn class(&self) -> &'static str {
        CausalSanaConfig::CLASS_NAME
    }

    fn original(&self) -> &'static [Renaming] {
        original::RENAMING
    }

    fn original_blocks(&self) -> Option<Renaming> {
        Some(original::BLOCKS)
    }

    fn joined(&self) -> &'static [Joined] {
        original::JOINED
    }

    fn presets(&self) -> Vec<&'static str> {
        CausalSana::PRESETS.map(|(name, _)| name).to_vec()
    }

    fn preset(&self, name: &str) -> Option<Arc<dyn Model>> {
        let (_, base) = CausalSana::PRESETS.into_iter().find(|(preset, _)| *preset == name)?;
        let Value::Object(network) = Sana.preset(base)?.config() else { return None };
        let sana = SanaConfig::from_entries(network.into_iter().collect(), base).ok()?;
        let published = CausalSanaConfig::of(sana);
        Some(Arc::new(match name {
            "longsana-tiny" => CausalSanaConfig { num_frame_per_block: 3, ..published },
            _ => published,
        }))
    }

    fn fields(&self) -> &'static [&'static str] {
        FIELDS
    }

    fn sampler_fields(&self) -> &'static [&'static str] {
        &["denoising_step_list", "flow_shift"]
    }

    fn pipeline_fields(&self) -> &'static [PipelineField] {
        const FIELDS: &[PipelineField] = &[
            PipelineField { field: "text_len", kept: None, code: &[] },
            PipelineField {
                field: "num_frame_per_block",
                kept: Some((PipelineFile::Index, &["base_chunk_frames"])),
                code: &[],
            },
            PipelineField {
                field: "num_cached_blocks",
                kept: Some((PipelineFile::Index, &["num_cached_blocks"])),
                code: &[],
            },
            PipelineField { field: "denoising_step_list", kept: None, code: &[] },
            // The folder's scheduler is not the one that makes chunks.
            PipelineField { field: "flow_shift", kept: None, code: &[] },
        ];
        FIELDS
    }

    fn parse(&self, entries: Vec<(String, Value)>, place: &str) -> Result<Arc<dyn Model>, Problems> {
        Ok(Arc::new(CausalSanaConfig::from_entries(entries, place)?))
    }
}

impl Model for CausalSanaConfig {
    fn family(&self) -> &'static dyn Family {
        &CausalSana
    }

    fn config(&self) -> Value {
        self.to_json_value()
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        self.sana.tensors()
    }

    fn is_idle(&self, tensor: &str) -> bool {
        original::is_idle(tensor)
    }

    fn grid(&self, size: Size) -> Result<Grid, Problems> {
        self.sana.grid(size)
    }

    fn usual_size(&self, latent: LatentSize) -> Size {
        self.sana.usual_size(latent)
    }

    fn build(&self, weights: &dyn WeightSource, size: Size) -> Result<Module, BuildError> {
        self.sana.build_as(Form::CHUNK, weights, size)
    }

    fn outline(&self) -> Outline {
        self.sana.outline()
    }

    fn sampler(&self) -> Result<Sampler, Problem> {
        let timesteps = self.denoising_step_list.iter().map(|&t| t as f64).collect();
        Ok(Sampler::Fixed { sigmas: self.sigmas(), timesteps })
    }

    fn streaming(&self) -> Result<Streaming, Problem> {
        let SanaConfig { in_channels, out_channels, .. } = self.sana;
        if in_channels != out_channels {
            return Err(Problem {
                place: "out_channels".into(),
                found: out_channels.to_string(),
                expected: format!("{in_channels}, as in_channels: a stream feeds its own output back"),
            });
        }
        Ok(Streaming {
            chunk_frames: self.num_frame_per_block,
            window_frames: 0,
            sink_frames: 0,
            ahead: true,
            state_write: StateWrite::Commit,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use s2dit_ir::{verify, weights::loaded_tensor};

    use super::*;
    use crate::SchemaWeights;

    #[test]
    fn the_graph_of_a_chunk_is_valid_and_uses_every_tensor() {
        let tiny = CausalSana.preset("longsana-tiny").unwrap();
        for frames in [1, 3] {
            let latent = LatentSize { frames, rows: 6, cols: 10 };
            let module = tiny.build(&SchemaWeights::new(&*tiny), latent.into()).unwrap();
            verify::verify(&module).unwrap();
            let f = &module.functions[0];
            let used: HashSet<&str> = f.order().iter().filter_map(|&v| loaded_tensor(f, v)).collect();
            assert!(tiny.tensors().iter().all(|t| used.contains(t.name.as_str())));
        }
    }

    #[test]
    fn a_stream_makes_what_it_takes() {
        let streams = CausalSana.preset("longsana-2b").unwrap();
        assert_eq!(streams.streaming().unwrap().chunk_frames, 10);
        let other = crate::config::with_overrides(&*streams, &["out_channels=32"]).unwrap();
        let message = other.streaming().unwrap_err().to_string();
        assert!(message.contains("out_channels: found 32"), "{message}");
    }
}
