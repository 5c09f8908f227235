//! SANA-Video behind the seam.

use std::sync::Arc;

use s2dit_ir::{Module, WeightSource};
use serde_json::Value;

use super::block::Form;
use super::causal::CausalSanaConfig;
use super::config::{FIELDS, SanaConfig};
use super::original;
use crate::layers::{Blocks, BuildError, Dims, Extras, QkNorm, check_values, step};
use crate::model::{Family, Joined, Layer, Model, Outline, PipelineField, PipelineFile, Renaming, Sampler, Streaming};
use crate::size::{Grid, LatentSize, Size};
use crate::tensor::TensorSpec;
use s2dit_files::problems::{Problem, Problems};

/// The family of SANA-Video.
#[derive(Debug)]
pub struct Sana;

const TINY: &str = "sana-tiny";
const PUBLISHED: &str = "sana-video-2b";

impl Family for Sana {
    fn name(&self) -> &'static str {
        "SANA-Video"
    }

    fn class(&self) -> &'static str {
        SanaConfig::CLASS_NAME
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
        vec![TINY, PUBLISHED]
    }

    fn preset(&self, name: &str) -> Option<Arc<dyn Model>> {
        // The published checkpoints write this ratio, which is not the default.
        let published = SanaConfig { mlp_ratio: 3.0, ..SanaConfig::defaults() };
        match name {
            PUBLISHED => Some(Arc::new(published)),
            TINY => Some(Arc::new(SanaConfig {
                in_channels: 4,
                out_channels: 4,
                num_attention_heads: 2,
                attention_head_dim: 24,
                num_layers: 3,
                caption_channels: 32,
                text_len: 8,
                ..published
            })),
            _ => None,
        }
    }

    fn fields(&self) -> &'static [&'static str] {
        FIELDS
    }

    fn sampler_fields(&self) -> &'static [&'static str] {
        &["sample_steps", "flow_shift"]
    }

    fn pipeline_fields(&self) -> &'static [PipelineField] {
        const FIELDS: &[PipelineField] = &[
            PipelineField { field: "text_len", kept: None, code: &[] },
            PipelineField { field: "sample_steps", kept: None, code: &[] },
            PipelineField {
                field: "flow_shift",
                kept: Some((PipelineFile::Scheduler, &["flow_shift", "shift"])),
                code: &[],
            },
        ];
        FIELDS
    }

    fn parse(&self, entries: Vec<(String, Value)>, place: &str) -> Result<Arc<dyn Model>, Problems> {
        Ok(Arc::new(SanaConfig::from_entries(entries, place)?))
    }
}

impl SanaConfig {
    /// ε of the last layer norm, and of the norms of queries, keys and the text: no fields of diffusers.
    const HEAD_EPS: f64 = 1e-6;
    const QK_EPS: f64 = 1e-5;

    /// The step as a class computes it.
    pub(super) fn build_as(&self, form: Form, weights: &dyn WeightSource, size: Size) -> Result<Module, BuildError> {
        self.grid(size)?;
        let latent = size.latent()?;
        let blocks = Blocks { path: "transformer_blocks", count: self.num_layers };
        step(self.dims(), weights, size.step()?, &[blocks], Extras::default(), |m, inputs, grid| {
            self.forward(m, inputs, latent, grid, form)
        })
    }

    pub(super) fn dims(&self) -> Dims {
        Dims {
            heads: self.num_attention_heads,
            head_dim: self.attention_head_dim,
            ffn_dim: self.ffn_dim(),
            text_len: self.text_len,
            text_dim: self.caption_channels,
            patch_size: self.patch_size,
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            freq_dim: SanaConfig::FREQ_DIM,
            rope_theta: SanaConfig::ROPE_THETA,
            qk_norm: QkNorm::AcrossHeads,
            eps: SanaConfig::HEAD_EPS,
            qk_eps: SanaConfig::QK_EPS,
        }
    }
}

impl Model for SanaConfig {
    fn family(&self) -> &'static dyn Family {
        &Sana
    }

    fn config(&self) -> Value {
        self.to_json_value()
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        super::tensors::tensors(self)
    }

    fn is_idle(&self, tensor: &str) -> bool {
        original::is_idle(tensor)
    }

    fn grid(&self, size: Size) -> Result<Grid, Problems> {
        let latent = size.latent()?;
        let grid = self.dims().grid(latent)?;
        Dims::check_sides(latent, grid, self.rope_max_seq_len)?;
        // The depthwise convolution has the values of both halves of the gate.
        check_values(latent, &[("the convolutions (tokens × 2·hidden width)", [grid.tokens(), 2 * self.ffn_dim()])])?;
        Ok(grid)
    }

    fn usual_size(&self, latent: LatentSize) -> Size {
        self.dims().nearest_latent_within(latent, self.rope_max_seq_len).into()
    }

    fn build(&self, weights: &dyn WeightSource, size: Size) -> Result<Module, BuildError> {
        self.build_as(Form::CLIP, weights, size)
    }

    fn outline(&self) -> Outline {
        Outline {
            width: self.hidden_size(),
            heads: self.num_attention_heads,
            head_dim: self.attention_head_dim,
            layers: vec![Layer { kind: "linear", blocks: 0..self.num_layers, stride: 1, stage: None }],
        }
    }

    fn sampler(&self) -> Result<Sampler, Problem> {
        Ok(Sampler::Euler { steps: self.sample_steps, shift: self.flow_shift })
    }

    fn streaming(&self) -> Result<Streaming, Problem> {
        Err(Problem {
            place: "_class_name".into(),
            found: format!("{} (a bidirectional model)", SanaConfig::CLASS_NAME),
            expected: format!(
                "an autoregressive model, which streams, such as {}; compile this one with --mode clip",
                CausalSanaConfig::CLASS_NAME
            ),
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
        for plain in [true, false] {
            let tiny = Sana.preset(TINY).unwrap();
            let (affine, bias) = (format!("norm_elementwise_affine={}", !plain), format!("attention_bias={plain}"));
            let tiny = crate::config::with_overrides(&*tiny, &[affine, bias]).unwrap();
            let latent = LatentSize { frames: 2, rows: 6, cols: 10 };
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
            let has = |part: &str| wanted.iter().any(|t| t.name.contains(part));
            assert_eq!((has("norm2"), has("attn1.to_q.bias"), has("attn2.to_q.bias")), (!plain, plain, true));
            let interface = &module.interface;
            assert_eq!((interface.milestones.len(), interface.role("text_mask")), (3, Some(&InputRole::TextMask)));
        }
    }

    /// As diffusers 0.42.1 counts the parameters of its class with the fields of the published checkpoint.
    #[test]
    fn the_preset_has_the_published_size() {
        let model = Sana.preset(PUBLISHED).unwrap();
        assert_eq!(model.tensors().iter().map(TensorSpec::elements).sum::<usize>(), 2_056_862_144);
    }

    #[test]
    fn a_grid_has_no_more_sides_than_angles() {
        let model = crate::config::with_overrides(&*Sana.preset(TINY).unwrap(), &["rope_max_seq_len=4"]).unwrap();
        let large = LatentSize { frames: 2, rows: 6, cols: 10 };
        let message = model.grid(large.into()).unwrap_err().to_string();
        assert!(message.contains("rope_max_seq_len"), "{message}");
        assert_eq!(model.usual_size(large), LatentSize { cols: 8, ..large }.into());
    }

    #[test]
    fn it_does_not_stream() {
        let model = Sana.preset(PUBLISHED).unwrap();
        assert!(model.streaming().unwrap_err().to_string().contains("--mode clip"));
    }
}
