//! Wan behind the seam.

use std::sync::Arc;

use s2dit_ir::{Module, WeightSource};
use serde_json::Value;

use super::config::{FIELDS, WanConfig};
use super::original;
use crate::layers::{Blocks, BuildError, Dims, QkNorm, step};
use crate::model::{Family, Layer, Model, Outline, Renaming, Sampler, Streaming};
use crate::size::{Grid, LatentSize};
use crate::tensor::TensorSpec;
use s2dit_files::problems::{Problem, Problems};

/// The family of Wan 2.1.
#[derive(Debug)]
pub struct Wan;

impl Wan {
    /// The published text-to-video models, and one for tests: heads, head width, hidden width of the feed-forward layers, blocks.
    const PRESETS: [(&str, [usize; 4]); 3] =
        [("wan-tiny", [2, 24, 128, 3]), ("wan2.1-1.3b", [12, 128, 8960, 30]), ("wan2.1-14b", [40, 128, 13824, 40])];
}

impl Family for Wan {
    fn name(&self) -> &'static str {
        "Wan 2.1"
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
        Wan::PRESETS.map(|(name, _)| name).to_vec()
    }

    fn preset(&self, name: &str) -> Option<Arc<dyn Model>> {
        let (_, [heads, head_dim, ffn_dim, layers]) = Wan::PRESETS.into_iter().find(|(preset, _)| *preset == name)?;
        let published = WanConfig {
            patch_size: [1, 2, 2],
            num_attention_heads: heads,
            attention_head_dim: head_dim,
            in_channels: 16,
            out_channels: 16,
            text_dim: 4096,
            freq_dim: 256,
            ffn_dim,
            num_layers: layers,
            cross_attn_norm: true,
            eps: 1e-6,
            rope_max_seq_len: 1024,
            text_len: 512,
            sample_steps: 50,
            flow_shift: 5.0,
        };
        let tiny =
            || WanConfig { in_channels: 4, out_channels: 4, text_dim: 32, freq_dim: 32, text_len: 8, ..published };
        Some(Arc::new(if name == "wan-tiny" { tiny() } else { published }))
    }

    fn fields(&self) -> &'static [&'static str] {
        FIELDS
    }

    fn sampler_fields(&self) -> &'static [&'static str] {
        &["sample_steps", "flow_shift"]
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

    fn grid(&self, latent: LatentSize) -> Result<Grid, Problems> {
        let grid = self.dims().grid(latent)?;
        let longest = grid.frames.max(grid.rows).max(grid.cols);
        if longest > self.rope_max_seq_len {
            return Err(Problems::one(
                format!("latent {latent}"),
                format!("a grid of {grid} tokens"),
                format!("at most {} tokens on a side (rope_max_seq_len of config.json)", self.rope_max_seq_len),
            ));
        }
        Ok(grid)
    }

    fn nearest_latent(&self, wanted: LatentSize) -> LatentSize {
        let LatentSize { frames, rows, cols } = self.dims().nearest_latent(wanted);
        let [_, patch_rows, patch_cols] = self.patch_size;
        let most = self.rope_max_seq_len;
        LatentSize { frames: frames.min(most), rows: rows.min(most * patch_rows), cols: cols.min(most * patch_cols) }
    }

    fn build(&self, weights: &dyn WeightSource, latent: LatentSize) -> Result<Module, BuildError> {
        self.grid(latent)?;
        let blocks = Blocks { path: "blocks", count: self.num_layers };
        step(self.dims(), weights, latent, blocks, |m, inputs, grid| self.forward(m, inputs, latent, grid))
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
        for cross_attn_norm in [true, false] {
            let Some(tiny) = Wan.preset("wan-tiny") else { panic!("no preset") };
            let set = [format!("cross_attn_norm={cross_attn_norm}")];
            let tiny = crate::config::with_overrides(&*tiny, &set).unwrap();
            let latent = LatentSize { frames: 2, rows: 8, cols: 6 };
            let module = tiny.build(&SchemaWeights::new(&*tiny), latent).unwrap();
            verify::verify(&module).unwrap();
            let printed = text::print(&module);
            let read = text::parse(&printed).unwrap();
            assert_eq!((text::print(&read), &read.interface), (printed, &module.interface));
            let f = &module.functions[0];
            let used: HashSet<&str> = f.order().iter().filter_map(|&v| loaded_tensor(f, v)).collect();
            let wanted = tiny.tensors();
            assert_eq!(used.len(), wanted.len());
            assert!(wanted.iter().all(|t| used.contains(t.name.as_str())));
            assert_eq!(wanted.iter().any(|t| t.name.contains("norm2")), cross_attn_norm);
            assert_eq!(module.interface.milestones.len(), 3);
        }
    }

    #[test]
    fn presets_have_the_published_sizes() {
        for (name, millions) in [("wan2.1-1.3b", 1_418), ("wan2.1-14b", 14_288)] {
            let model = Wan.preset(name).unwrap();
            let parameters: usize = model.tensors().iter().map(TensorSpec::elements).sum();
            assert_eq!(parameters / 1_000_000, millions, "{name}: {parameters}");
        }
    }

    #[test]
    fn a_grid_beyond_the_tables_of_rope_is_refused() {
        let model = Wan.preset("wan2.1-1.3b").unwrap();
        let message = model.grid(LatentSize { frames: 1, rows: 2050, cols: 8 }).unwrap_err().to_string();
        assert!(message.contains("rope_max_seq_len"), "{message}");
        assert!(model.streaming().unwrap_err().to_string().contains("--mode clip"));
    }
}
