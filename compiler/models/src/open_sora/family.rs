//! Open-Sora behind the seam.

use std::sync::Arc;

use s2dit_ir::{Module, WeightSource};
use serde_json::Value;

use super::config::{FIELDS, OpenSoraConfig};
use crate::layers::{Blocks, BuildError, Dims, Extras, QkNorm, check_values, step};
use crate::model::{Family, Layer, Model, Outline, Sampler, Streaming};
use crate::size::{Grid, LatentSize, Size};
use crate::tensor::TensorSpec;
use s2dit_files::problems::{Problem, Problems};

/// The family of Open-Sora 2.0.
#[derive(Debug)]
pub struct OpenSora;

const TINY: &str = "open-sora-tiny";
const PUBLISHED: &str = "open-sora-2-11b";

impl Family for OpenSora {
    fn name(&self) -> &'static str {
        "Open-Sora"
    }

    fn class(&self) -> &'static str {
        OpenSoraConfig::CLASS_NAME
    }

    fn presets(&self) -> Vec<&'static str> {
        vec![TINY, PUBLISHED]
    }

    fn preset(&self, name: &str) -> Option<Arc<dyn Model>> {
        let published = OpenSoraConfig::published();
        match name {
            TINY => Some(Arc::new(OpenSoraConfig {
                in_channels: 16,
                vec_in_dim: 24,
                context_in_dim: 32,
                hidden_size: 48,
                num_heads: 2,
                depth: 2,
                depth_single_blocks: 2,
                axes_dim: [4, 10, 10],
                text_len: 8,
                ..published
            })),
            PUBLISHED => Some(Arc::new(published)),
            _ => None,
        }
    }

    fn fields(&self) -> &'static [&'static str] {
        FIELDS
    }

    fn sampler_fields(&self) -> &'static [&'static str] {
        &["sample_steps", "flow_shift"]
    }

    fn parse(&self, entries: Vec<(String, Value)>, place: &str) -> Result<Arc<dyn Model>, Problems> {
        Ok(Arc::new(OpenSoraConfig::from_entries(entries, place)?))
    }
}

impl OpenSoraConfig {
    fn dims(&self) -> Dims {
        let channels = self.channels();
        Dims {
            heads: self.num_heads,
            head_dim: self.head_dim(),
            ffn_dim: self.ffn_dim(),
            text_len: self.text_len,
            text_dim: self.context_in_dim,
            patch_size: [1, self.patch_size, self.patch_size],
            in_channels: if self.cond_embed { 2 * channels + 1 } else { channels },
            out_channels: channels,
            freq_dim: OpenSoraConfig::FREQ_DIM,
            rope_theta: self.theta,
            qk_norm: QkNorm::PerHead,
            eps: OpenSoraConfig::EPS,
            qk_eps: OpenSoraConfig::EPS,
        }
    }

    fn blocks(&self) -> [Blocks; 2] {
        [
            Blocks { path: "double_blocks", count: self.depth },
            Blocks { path: "single_blocks", count: self.depth_single_blocks },
        ]
    }
}

impl Model for OpenSoraConfig {
    fn family(&self) -> &'static dyn Family {
        &OpenSora
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
        let both = self.text_len + grid.tokens();
        check_values(
            latent,
            &[("text and video (tokens × feed-forward width)", [both, self.hidden_size + self.ffn_dim()])],
        )?;
        Ok(grid)
    }

    fn usual_size(&self, latent: LatentSize) -> Size {
        self.dims().nearest_latent(latent).into()
    }

    fn build(&self, weights: &dyn WeightSource, size: Size) -> Result<Module, BuildError> {
        self.grid(size)?;
        let latent = size.latent()?;
        let extras = Extras { pooled: Some(self.vec_in_dim), guidance: self.guidance_embed, ..Extras::default() };
        step(self.dims(), weights, size.step()?, &self.blocks(), extras, |m, inputs, grid| {
            self.forward(m, inputs, latent, grid)
        })
    }

    fn outline(&self) -> Outline {
        let all = self.depth + self.depth_single_blocks;
        let layer = |kind, blocks| Layer { kind, blocks, stride: 1, stage: None };
        Outline {
            width: self.hidden_size,
            heads: self.num_heads,
            head_dim: self.head_dim(),
            layers: vec![layer("double", 0..self.depth), layer("single", self.depth..all)],
        }
    }

    fn sampler(&self) -> Result<Sampler, Problem> {
        Ok(Sampler::Euler { steps: self.sample_steps, shift: self.flow_shift })
    }

    fn streaming(&self) -> Result<Streaming, Problem> {
        Err(Problem {
            place: "_class_name".into(),
            found: format!("{} (a bidirectional model)", OpenSoraConfig::CLASS_NAME),
            expected: "an autoregressive model, which streams; compile this one with --mode clip".into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use s2dit_ir::interface::InputRole;
    use s2dit_ir::{text, verify, weights::loaded_tensor};

    use super::*;
    use crate::SchemaWeights;

    #[test]
    fn the_graph_is_valid_uses_every_tensor_and_its_text_reads_back() {
        for other in [true, false] {
            let tiny = OpenSora.preset(TINY).unwrap();
            let set = |field: &str, value: bool| format!("{field}={value}");
            let changes = [
                set("guidance_embed", other),
                set("fused_qkv", other),
                set("cond_embed", !other),
                set("use_liger_rope", !other),
                set("qkv_bias", !other),
            ];
            let tiny = crate::config::with_overrides(&*tiny, &changes).unwrap();
            let latent = LatentSize { frames: 3, rows: 6, cols: 10 };
            let module = tiny.build(&SchemaWeights::new(&*tiny), latent.into()).unwrap();
            verify::verify(&module).unwrap();
            let printed = text::print(&module);
            let read = text::parse(&printed).unwrap();
            assert_eq!((text::print(&read), &read.interface), (printed, &module.interface));
            let f = &module.functions[0];
            let used: HashSet<&str> = f.order().iter().filter_map(|&v| loaded_tensor(f, v)).collect();
            let wanted = tiny.tensors();
            assert_eq!(used.len(), wanted.len());
            assert!(wanted.iter().all(|t| used.contains(t.name.as_str())));
            let interface = &module.interface;
            assert_eq!(interface.pooled(), Some("pooled"));
            assert_eq!(interface.guidance(), other.then_some("guidance"));
            assert_eq!(interface.role("pooled"), Some(&InputRole::Pooled));
            let scopes: Vec<&str> = interface.milestones.iter().map(|m| m.scope.as_str()).collect();
            assert_eq!(scopes, ["double_blocks.0", "double_blocks.1", "single_blocks.0", "single_blocks.1"]);
            let latent = f.by_name("latent").unwrap();
            assert_eq!(f.shape(latent)[1], if other { 4 } else { 9 });
        }
    }

    /// What the project's own class has with the configuration of 256px.py.
    #[test]
    fn the_preset_has_the_published_size() {
        let tensors = OpenSora.preset(PUBLISHED).unwrap().tensors();
        assert_eq!(tensors.iter().map(TensorSpec::elements).sum::<usize>(), 11_891_390_528);
        assert_eq!(tensors.len(), 1082);
    }

    #[test]
    fn it_does_not_stream() {
        let model = OpenSora.preset(PUBLISHED).unwrap();
        assert!(model.streaming().unwrap_err().to_string().contains("--mode clip"));
    }
}
