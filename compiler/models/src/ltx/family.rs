//! LTX-Video behind the seam.

use std::sync::Arc;

use s2dit_ir::{Module, WeightSource};
use serde_json::Value;

use super::config::{FIELDS, LtxConfig};
use crate::layers::{Blocks, BuildError, Dims, Extras, QkNorm, step};
use crate::model::{Family, Layer, Model, Outline, PipelineField, Renaming, Sampler, Streaming};
use crate::size::{Grid, LatentSize, Size};
use crate::tensor::TensorSpec;
use s2dit_files::problems::{Problem, Problems};

/// The family of LTX-Video 0.9.x.
#[derive(Debug)]
pub struct Ltx;

impl Ltx {
    /// The published models, and one for tests: heads, head width, blocks.
    const PRESETS: [(&str, [usize; 3]); 3] =
        [("ltx-tiny", [2, 24, 3]), ("ltx-video-2b", [32, 64, 28]), ("ltx-video-13b", [32, 128, 48])];
}

impl Family for Ltx {
    fn name(&self) -> &'static str {
        "LTX-Video"
    }

    fn class(&self) -> &'static str {
        LtxConfig::CLASS_NAME
    }

    /// Files of the authors, and adapters that were trained with their code.
    fn original(&self) -> &'static [Renaming] {
        super::tensors::ORIGINAL
    }

    fn presets(&self) -> Vec<&'static str> {
        Ltx::PRESETS.map(|(name, _)| name).to_vec()
    }

    fn preset(&self, name: &str) -> Option<Arc<dyn Model>> {
        let (_, [heads, head_dim, layers]) = Ltx::PRESETS.into_iter().find(|(preset, _)| *preset == name)?;
        let published = LtxConfig {
            num_attention_heads: heads,
            attention_head_dim: head_dim,
            num_layers: layers,
            ..LtxConfig::defaults()
        };
        let tiny = || LtxConfig { in_channels: 8, out_channels: 8, caption_channels: 32, text_len: 8, ..published };
        Some(Arc::new(if name == "ltx-tiny" { tiny() } else { published }))
    }

    fn fields(&self) -> &'static [&'static str] {
        FIELDS
    }

    fn sampler_fields(&self) -> &'static [&'static str] {
        &["sample_steps", "flow_shift"]
    }

    fn pipeline_fields(&self) -> &'static [PipelineField] {
        const FIELDS: &[PipelineField] = &[
            PipelineField { field: "text_len", kept: None, code: &[("LTXPipeline", "128")] },
            PipelineField { field: "frame_rate", kept: None, code: &[] },
            PipelineField { field: "causal_temporal_positioning", kept: None, code: &[("LTXPipeline", "false")] },
        ];
        FIELDS
    }

    fn parse(&self, entries: Vec<(String, Value)>, place: &str) -> Result<Arc<dyn Model>, Problems> {
        Ok(Arc::new(LtxConfig::from_entries(entries, place)?))
    }
}

impl LtxConfig {
    /// ε of the last layer norm, and of the norms of queries and keys: no fields of diffusers.
    const HEAD_EPS: f64 = 1e-6;
    const QK_EPS: f64 = 1e-5;

    pub(super) fn dims(&self) -> Dims {
        Dims {
            heads: self.num_attention_heads,
            head_dim: self.attention_head_dim,
            ffn_dim: 4 * self.hidden_size(),
            text_len: self.text_len,
            text_dim: self.caption_channels,
            patch_size: [1, 1, 1],
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            freq_dim: LtxConfig::FREQ_DIM,
            rope_theta: LtxConfig::ROPE_THETA,
            qk_norm: QkNorm::AcrossHeads,
            eps: LtxConfig::HEAD_EPS,
            qk_eps: LtxConfig::QK_EPS,
        }
    }
}

impl Model for LtxConfig {
    fn family(&self) -> &'static dyn Family {
        &Ltx
    }

    fn config(&self) -> Value {
        self.to_json_value()
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        super::tensors::tensors(self)
    }

    fn grid(&self, size: Size) -> Result<Grid, Problems> {
        self.dims().grid(size.latent()?)
    }

    fn usual_size(&self, latent: LatentSize) -> Size {
        self.dims().nearest_latent(latent).into()
    }

    fn build(&self, weights: &dyn WeightSource, size: Size) -> Result<Module, BuildError> {
        let latent = size.latent()?;
        let blocks = Blocks { path: "transformer_blocks", count: self.num_layers };
        step(self.dims(), weights, size.step()?, &[blocks], Extras::default(), |m, inputs, grid| {
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

    fn temporal_scale(&self) -> usize {
        8
    }

    fn streaming(&self) -> Result<Streaming, Problem> {
        Err(Problem {
            place: "_class_name".into(),
            found: format!("{} (a bidirectional model)", LtxConfig::CLASS_NAME),
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
        for plain in [true, false] {
            let Some(tiny) = Ltx.preset("ltx-tiny") else { panic!("no preset") };
            let (affine, bias) = (format!("norm_elementwise_affine={}", !plain), format!("attention_bias={plain}"));
            let tiny = crate::config::with_overrides(&*tiny, &[affine, bias]).unwrap();
            let latent = LatentSize { frames: 2, rows: 3, cols: 5 };
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
            assert_eq!((has("norm1"), has("to_q.bias"), has("to_out.0.bias")), (!plain, plain, true));
            let interface = &module.interface;
            assert_eq!((interface.milestones.len(), interface.role("text_mask")), (3, Some(&InputRole::TextMask)));
        }
    }

    /// 1.9 billion (arXiv 2501.00103) and 13 billion (0.9.7).
    #[test]
    fn presets_have_the_published_sizes() {
        for (name, parameters) in [("ltx-video-2b", 1_923_385_472), ("ltx-video-13b", 13_042_569_344)] {
            let model = Ltx.preset(name).unwrap();
            assert_eq!(model.tensors().iter().map(TensorSpec::elements).sum::<usize>(), parameters, "{name}");
        }
    }

    /// The table of diffusers' own conversion; a name has one of its segments at most.
    #[test]
    fn original_names_are_those_of_diffusers() {
        let name_of = |original: &str| Ltx.original().iter().find_map(|renaming| renaming.applied(original));
        for (original, name) in [
            ("patchify_proj.bias", "proj_in.bias"),
            ("adaln_single.emb.timestep_embedder.linear_1.weight", "time_embed.emb.timestep_embedder.linear_1.weight"),
            ("adaln_single.linear.bias", "time_embed.linear.bias"),
            ("transformer_blocks.27.attn1.q_norm.weight", "transformer_blocks.27.attn1.norm_q.weight"),
            ("transformer_blocks.0.attn2.k_norm.weight", "transformer_blocks.0.attn2.norm_k.weight"),
        ] {
            assert_eq!(name_of(original).as_deref(), Some(name));
            let tensors = Ltx.preset("ltx-video-2b").unwrap().tensors();
            assert!(tensors.iter().any(|tensor| tensor.name == name), "{name}");
        }
        assert_eq!(name_of("transformer_blocks.0.ff.net.2.weight"), None);
    }

    #[test]
    fn it_does_not_stream() {
        let model = Ltx.preset("ltx-video-2b").unwrap();
        assert!(model.streaming().unwrap_err().to_string().contains("--mode clip"));
    }
}
