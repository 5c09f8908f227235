//! T5 and UMT5 behind the seam.

use std::sync::Arc;

use s2dit_ir::interface::InputRole;
use s2dit_ir::{DType, Module, TensorType, WeightSource};
use serde_json::Value;

use super::config::{FIELDS, FeedForward, T5Config};
use crate::layers::{Blocks, BuildError, TEXT_MASK, TOKENS, check_text, component};
use crate::model::{Family, Layer, Model, Outline, Part};
use crate::size::{Grid, LatentSize, Size};
use crate::tensor::TensorSpec;
use s2dit_files::problems::Problems;

/// The families of T5's encoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum T5 {
    /// T5 1.0 and 1.1: the first block has the bias of positions for all.
    Original,
    /// UMT5: each block has its own.
    Multilingual,
}

impl T5 {
    pub(super) const fn class_name(self) -> &'static str {
        match self {
            T5::Original => "T5EncoderModel",
            T5::Multilingual => "UMT5EncoderModel",
        }
    }

    pub(super) const fn model_type(self) -> &'static str {
        match self {
            T5::Original => "t5",
            T5::Multilingual => "umt5",
        }
    }

    /// The encoders of this kind that pipelines run, and one for tests: name, token ids.
    const fn presets(self) -> [(&'static str, usize); 2] {
        match self {
            T5::Original => [("t5-tiny", 96), ("t5-xxl", 32128)],
            T5::Multilingual => [("umt5-tiny", 96), ("umt5-xxl", 256_384)],
        }
    }
}

impl Family for T5 {
    fn name(&self) -> &'static str {
        match self {
            T5::Original => "T5",
            T5::Multilingual => "UMT5",
        }
    }

    fn part(&self) -> Part {
        Part::TextEncoder
    }

    fn class(&self) -> &'static str {
        self.class_name()
    }

    fn presets(&self) -> Vec<&'static str> {
        T5::presets(*self).map(|(name, _)| name).to_vec()
    }

    fn preset(&self, name: &str) -> Option<Arc<dyn Model>> {
        let (_, vocab_size) = T5::presets(*self).into_iter().find(|(preset, _)| *preset == name)?;
        let xxl = T5Config {
            vocab_size,
            d_model: 4096,
            d_ff: 10240,
            num_layers: 24,
            num_heads: 64,
            feed_forward_proj: FeedForward::GatedGelu,
            ..T5Config::defaults(*self)
        };
        let tiny = || T5Config { d_model: 48, d_kv: 16, d_ff: 96, num_layers: 3, num_heads: 4, ..xxl.clone() };
        Some(Arc::new(if name.ends_with("tiny") { tiny() } else { xxl }))
    }

    fn fields(&self) -> &'static [&'static str] {
        FIELDS
    }

    fn parse(&self, entries: Vec<(String, Value)>, place: &str) -> Result<Arc<dyn Model>, Problems> {
        Ok(Arc::new(T5Config::from_entries(*self, entries, place)?))
    }
}

/// The longest text: the bias of positions has the square of it.
const LONGEST: usize = 4096;
/// Tokens that a pipeline with the model pads a text to: Wan's.
const USUAL: usize = 512;

impl Model for T5Config {
    fn family(&self) -> &'static dyn Family {
        match self.kind {
            T5::Original => &T5::Original,
            T5::Multilingual => &T5::Multilingual,
        }
    }

    fn config(&self) -> Value {
        self.to_json_value()
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        super::tensors::tensors(self)
    }

    /// The token embedding once more, as checkpoints of older versions of transformers have it; and the rest of a model with a decoder.
    fn is_idle(&self, tensor: &str) -> bool {
        tensor == "encoder.embed_tokens.weight" || tensor.starts_with("decoder.") || tensor == "lm_head.weight"
    }

    fn grid(&self, size: Size) -> Result<Grid, Problems> {
        check_text(size, LONGEST, "the bias of positions has the square of it")
    }

    fn usual_size(&self, _: LatentSize) -> Size {
        Size::Tokens(USUAL)
    }

    fn build(&self, weights: &dyn WeightSource, size: Size) -> Result<Module, BuildError> {
        let length = self.grid(size)?.tokens();
        let ty = |dtype| TensorType::new(dtype, [1, length]);
        let tokens = (TOKENS, InputRole::Tokens { vocabulary: self.vocab_size }, ty(DType::I32));
        let mask = (TEXT_MASK, InputRole::TextMask, ty(DType::F32));
        let blocks = Blocks { path: "encoder.block", count: self.num_layers };
        component(weights, [tokens, mask], &[blocks], |m, [tokens, mask]| self.forward(m, tokens, mask))
    }

    fn outline(&self) -> Outline {
        Outline {
            width: self.d_model,
            heads: self.num_heads,
            head_dim: self.d_kv,
            layers: vec![Layer { kind: "full", blocks: 0..self.num_layers, stride: 1, stage: None }],
        }
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
        for (kind, name) in [(T5::Original, "t5-tiny"), (T5::Multilingual, "umt5-tiny")] {
            for proj in ["feed_forward_proj=gated-gelu", "feed_forward_proj=relu"] {
                let value = proj.replace("=gated-gelu", "=\"gated-gelu\"");
                let tiny = crate::config::with_overrides(&*kind.preset(name).unwrap(), &[value]).unwrap();
                let module = tiny.build(&SchemaWeights::new(&*tiny), Size::Tokens(7)).unwrap();
                verify::verify(&module).unwrap();
                let printed = text::print(&module);
                let read = text::parse(&printed).unwrap();
                assert_eq!((text::print(&read), &read.interface), (printed, &module.interface));
                let f = &module.functions[0];
                let used: HashSet<&str> = f.order().iter().filter_map(|&v| loaded_tensor(f, v)).collect();
                let wanted = tiny.tensors();
                assert_eq!(used.len(), wanted.len());
                assert!(wanted.iter().all(|t| used.contains(t.name.as_str())));
                let biases = wanted.iter().filter(|t| t.name.contains("relative_attention_bias")).count();
                assert_eq!(biases, if kind == T5::Original { 1 } else { 3 });
                assert_eq!((f.shape(f.results[0].1), module.interface.milestones.len()), (&[1, 7, 48][..], 3));
            }
        }
    }

    /// 4.76 and 5.68 billion: the encoders of T5 1.1 XXL and of UMT5 XXL.
    #[test]
    fn presets_have_the_published_sizes() {
        for (kind, name, parameters) in
            [(T5::Original, "t5-xxl", 4_762_310_656), (T5::Multilingual, "umt5-xxl", 5_680_910_336)]
        {
            let model = kind.preset(name).unwrap();
            assert_eq!(model.tensors().iter().map(TensorSpec::elements).sum::<usize>(), parameters, "{name}");
            let module = model.build(&SchemaWeights::new(&*model), Size::Tokens(512)).unwrap();
            assert_eq!(module.functions[0].shape(module.functions[0].results[0].1), [1, 512, 4096]);
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        let model = T5::Multilingual.preset("umt5-xxl").unwrap();
        assert!(model.grid(Size::Tokens(5000)).unwrap_err().to_string().contains("5000, expected 1 to 4096"));
        assert!(model.grid("3x4x4".parse().unwrap()).unwrap_err().to_string().contains("--tokens"));
    }
}
