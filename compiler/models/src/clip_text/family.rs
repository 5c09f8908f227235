//! CLIP's text model behind the seam.

use std::sync::Arc;

use s2dit_ir::interface::InputRole;
use s2dit_ir::{DType, Module, TensorType, WeightSource};
use serde_json::Value;

use super::config::{ClipTextConfig, FIELDS};
use crate::layers::{Blocks, BuildError, TOKENS, check_text, component};
use crate::model::{Family, Layer, Model, Outline, Part};
use crate::size::{Grid, LatentSize, Size};
use crate::tensor::TensorSpec;
use s2dit_files::problems::Problems;

/// The family of CLIP's text models.
#[derive(Debug)]
pub struct ClipText;

impl ClipText {
    /// The text model of ViT-L/14, which S2DiT runs on the phone, and one for tests.
    const PRESETS: [&str; 2] = ["clip-tiny", "clip-vit-l"];
}

impl Family for ClipText {
    fn name(&self) -> &'static str {
        "CLIP"
    }

    fn part(&self) -> Part {
        Part::TextEncoder
    }

    fn class(&self) -> &'static str {
        ClipTextConfig::CLASS_NAME
    }

    fn presets(&self) -> Vec<&'static str> {
        ClipText::PRESETS.to_vec()
    }

    fn preset(&self, name: &str) -> Option<Arc<dyn Model>> {
        let vit_l = ClipTextConfig {
            hidden_size: 768,
            intermediate_size: 3072,
            num_attention_heads: 12,
            eos_token_id: ClipTextConfig::LARGEST_ID,
            ..ClipTextConfig::defaults()
        };
        match name {
            "clip-vit-l" => Some(Arc::new(vit_l)),
            "clip-tiny" => Some(Arc::new(ClipTextConfig {
                vocab_size: 96,
                hidden_size: 48,
                intermediate_size: 96,
                num_hidden_layers: 3,
                num_attention_heads: 3,
                max_position_embeddings: 16,
                eos_token_id: 95,
                ..vit_l
            })),
            _ => None,
        }
    }

    fn fields(&self) -> &'static [&'static str] {
        FIELDS
    }

    fn parse(&self, entries: Vec<(String, Value)>, place: &str) -> Result<Arc<dyn Model>, Problems> {
        Ok(Arc::new(ClipTextConfig::from_entries(entries, place)?))
    }
}

impl Model for ClipTextConfig {
    fn family(&self) -> &'static dyn Family {
        &ClipText
    }

    fn config(&self) -> Value {
        self.to_json_value()
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        super::tensors::tensors(self)
    }

    /// The numbers of places, which older versions of transformers saved.
    fn is_idle(&self, tensor: &str) -> bool {
        tensor.ends_with("embeddings.position_ids")
    }

    fn grid(&self, size: Size) -> Result<Grid, Problems> {
        check_text(size, self.max_position_embeddings, "max_position_embeddings of config.json")
    }

    fn usual_size(&self, _: LatentSize) -> Size {
        Size::Tokens(self.max_position_embeddings)
    }

    fn build(&self, weights: &dyn WeightSource, size: Size) -> Result<Module, BuildError> {
        let tokens = TensorType::new(DType::I32, [1, self.grid(size)?.tokens()]);
        let input = (TOKENS, InputRole::Tokens { vocabulary: self.vocab_size }, tokens);
        let blocks = Blocks { path: "encoder.layers", count: self.num_hidden_layers };
        component(weights, [input], &[blocks], |m, [tokens]| self.forward(m, tokens))
    }

    fn outline(&self) -> Outline {
        Outline {
            width: self.hidden_size,
            heads: self.num_attention_heads,
            head_dim: self.head_dim(),
            layers: vec![Layer { kind: "full", blocks: 0..self.num_hidden_layers, stride: 1, stage: None }],
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
        for eos in ["eos_token_id=2", "eos_token_id=95"] {
            let tiny = crate::config::with_overrides(&*ClipText.preset("clip-tiny").unwrap(), &[eos]).unwrap();
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
            let shapes: Vec<&[usize]> = f.results.iter().map(|(_, v)| f.shape(*v)).collect();
            assert_eq!(shapes, [&[1, 7, 48][..], &[1, 48]]);
            assert_eq!(module.interface.milestones.len(), 3);
        }
    }

    /// 123 million: the text model of ViT-L/14, 0.25 GB in fp16.
    #[test]
    fn the_preset_has_the_published_size() {
        let model = ClipText.preset("clip-vit-l").unwrap();
        assert_eq!(model.tensors().iter().map(TensorSpec::elements).sum::<usize>(), 123_060_480);
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        let model = ClipText.preset("clip-vit-l").unwrap();
        let message = |size| model.grid(size).unwrap_err().to_string();
        assert!(message(Size::Tokens(78)).contains("78, expected 1 to 77"), "{}", message(Size::Tokens(78)));
        assert!(message(Size::Tokens(0)).contains("max_position_embeddings"));
        assert!(message("3x4x4".parse().unwrap()).contains("--tokens"));
        assert!(model.sampler().unwrap_err().to_string().contains("text encoder"));
        assert!(model.streaming().is_err());
    }
}
