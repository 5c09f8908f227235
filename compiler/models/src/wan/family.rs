//! Wan behind the seam.

use std::sync::Arc;

use s2dit_ir::{Module, WeightSource};
use serde_json::Value;

use super::config::{FIELDS, WanConfig};
use super::{original, presets};
use crate::layers::{Blocks, BuildError, Dims, Extras, QkNorm, check_values, step};
use crate::model::{Family, Layer, Model, Outline, PipelineField, PipelineFile, Renaming, Sampler, Streaming};
use crate::size::{Grid, LatentSize, Size};
use crate::tensor::TensorSpec;
use s2dit_files::problems::{Problem, Problems};

/// The family of Wan 2.1 and 2.2.
#[derive(Debug)]
pub struct Wan;

impl Family for Wan {
    fn name(&self) -> &'static str {
        "Wan"
    }

    fn class(&self) -> &'static str {
        WanConfig::CLASS_NAME
    }

    fn original_class(&self) -> Option<&'static str> {
        Some(original::CLASS_NAME)
    }

    fn original(&self) -> &'static [Renaming] {
        original::RENAMING
    }

    fn presets(&self) -> Vec<&'static str> {
        presets::NAMES.to_vec()
    }

    fn preset(&self, name: &str) -> Option<Arc<dyn Model>> {
        Some(Arc::new(presets::config(name)?))
    }

    fn fields(&self) -> &'static [&'static str] {
        FIELDS
    }

    fn sampler_fields(&self) -> &'static [&'static str] {
        &["sample_steps", "flow_shift"]
    }

    fn pipeline_fields(&self) -> &'static [PipelineField] {
        use PipelineFile::{Index, Scheduler};
        const FIELDS: &[PipelineField] = &[
            PipelineField { field: "expand_timesteps", kept: Some((Index, &["expand_timesteps"])), code: &[] },
            PipelineField { field: "text_len", kept: None, code: &[] },
            PipelineField { field: "sample_steps", kept: None, code: &[] },
            PipelineField { field: "flow_shift", kept: Some((Scheduler, &["flow_shift", "shift"])), code: &[] },
        ];
        FIELDS
    }

    fn parse(&self, entries: Vec<(String, Value)>, place: &str) -> Result<Arc<dyn Model>, Problems> {
        let config = match original::is_original(&entries) {
            true => original::config(entries, place),
            false => WanConfig::from_entries(entries, place),
        };
        Ok(Arc::new(config?))
    }
}

impl WanConfig {
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
            rope_theta: WanConfig::ROPE_THETA,
            qk_norm: QkNorm::AcrossHeads,
            eps: self.eps,
            qk_eps: self.eps,
        }
    }
}

impl Model for WanConfig {
    fn family(&self) -> &'static dyn Family {
        &Wan
    }

    fn config(&self) -> Value {
        self.to_json_value()
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        super::tensors::tensors(self)
    }

    /// diffusers ignores the queries' norm that releases before 0.36 kept for images.
    fn is_idle(&self, tensor: &str) -> bool {
        self.image.is_some() && tensor.ends_with(".norm_added_q.weight")
    }

    fn grid(&self, size: Size) -> Result<Grid, Problems> {
        let latent = size.latent()?;
        let grid = self.dims().grid(latent)?;
        Dims::check_sides(latent, grid, self.rope_max_seq_len)?;
        let tokens = grid.tokens();
        let image = self.image.map(|image| image.tokens()).unwrap_or_default();
        let mut largest = vec![
            ("the image (image tokens × image_dim)", [image, self.image.map(|image| image.dim).unwrap_or_default()]),
            ("the image's keys (image tokens × width)", [image, self.hidden_size()]),
        ];
        if self.expand_timesteps {
            largest.push(("the modulations (tokens × 6·width)", [tokens, 6 * self.hidden_size()]));
        }
        check_values(latent, &largest)?;
        Ok(grid)
    }

    fn usual_size(&self, latent: LatentSize) -> Size {
        self.dims().nearest_latent_within(latent, self.rope_max_seq_len).into()
    }

    fn build(&self, weights: &dyn WeightSource, size: Size) -> Result<Module, BuildError> {
        self.grid(size)?;
        let latent = size.latent()?;
        let image = self.image.map(|image| [image.tokens(), image.dim]);
        let extras = Extras { time_per_token: self.expand_timesteps, image, ..Extras::default() };
        let blocks = Blocks { path: "blocks", count: self.num_layers };
        step(self.dims(), weights, size.step()?, &[blocks], extras, |m, inputs, grid| {
            self.forward(m, inputs, latent, grid)
        })
    }

    fn outline(&self) -> Outline {
        Outline {
            width: self.hidden_size(),
            heads: self.num_attention_heads,
            head_dim: self.attention_head_dim,
            layers: vec![Layer { kind: "full", blocks: 0..self.num_layers, stride: 1, stage: None }],
        }
    }

    fn sampler(&self) -> Result<Sampler, Problem> {
        Ok(Sampler::Euler { steps: self.sample_steps, shift: self.flow_shift })
    }

    fn streaming(&self) -> Result<Streaming, Problem> {
        Err(Problem {
            place: "_class_name".into(),
            found: format!("{} (a bidirectional model)", WanConfig::CLASS_NAME),
            expected: "an autoregressive model, which streams; compile this one with --mode clip".into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use s2dit_ir::{text, verify, weights::loaded_tensor};

    use super::*;
    use crate::SchemaWeights;

    #[test]
    fn the_graph_is_valid_uses_every_tensor_and_its_text_reads_back() {
        for (preset, set) in [
            ("wan-tiny", "cross_attn_norm=true"),
            ("wan-tiny", "cross_attn_norm=false"),
            ("wan-tiny", "expand_timesteps=true"),
            ("wan-tiny-i2v", "cross_attn_norm=true"),
            ("wan-tiny-i2v", "pos_embed_seq_len=10"),
        ] {
            let Some(tiny) = Wan.preset(preset) else { panic!("no preset") };
            let tiny = crate::config::with_overrides(&*tiny, &[set]).unwrap();
            let latent = LatentSize { frames: 2, rows: 8, cols: 6 };
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
            let norms = wanted.iter().any(|t| t.name.starts_with("blocks") && t.name.contains("norm2"));
            assert_eq!(norms, !set.contains("false"));
            assert_eq!(module.interface.milestones.len(), 3);
        }
    }

    #[test]
    fn image_and_time_of_each_token_are_inputs() {
        let latent = LatentSize { frames: 2, rows: 8, cols: 6 };
        let inputs = |preset: &str, set: &str| -> Vec<(String, Vec<usize>)> {
            let tiny = crate::config::with_overrides(&*Wan.preset(preset).unwrap(), &[set]).unwrap();
            let module = tiny.build(&SchemaWeights::new(&*tiny), latent.into()).unwrap();
            let f = &module.functions[0];
            f.params().iter().map(|&p| (f.node(p).name.as_deref().unwrap().to_owned(), f.shape(p).to_vec())).collect()
        };
        let image = inputs("wan-tiny-i2v", "eps=1e-6");
        assert_eq!(image[0], ("latent".to_owned(), vec![1, 9, 2, 8, 6]));
        assert_eq!(image[3], ("image".to_owned(), vec![1, 257, 20]));
        assert_eq!(inputs("wan-tiny", "expand_timesteps=true")[1], ("timestep".to_owned(), vec![1, 24]));
    }

    #[test]
    fn presets_have_the_published_sizes() {
        for (name, millions) in [
            ("wan2.1-1.3b", 1_418),
            ("wan2.1-14b", 14_288),
            ("wan2.1-i2v-14b", 16_394),
            ("wan2.2-ti2v-5b", 4_999),
            ("wan2.2-t2v-a14b", 14_288),
        ] {
            let model = Wan.preset(name).unwrap();
            let parameters: usize = model.tensors().iter().map(TensorSpec::elements).sum();
            assert_eq!(parameters / 1_000_000, millions, "{name}: {parameters}");
        }
    }

    #[test]
    fn a_grid_beyond_the_tables_of_rope_is_refused() {
        let model = Wan.preset("wan2.1-1.3b").unwrap();
        let message = model.grid(LatentSize { frames: 1, rows: 2050, cols: 8 }.into()).unwrap_err().to_string();
        assert!(message.contains("rope_max_seq_len"), "{message}");
        assert!(model.streaming().unwrap_err().to_string().contains("--mode clip"));
    }
}
