//! The configuration of CLIP's text model: the fields of transformers that its forward pass asks for.

use serde_json::{Value, json};

use crate::fields::{Fields, MOST_BLOCKS};
use crate::transformers::entries_of_encoder;
use s2dit_files::json::compact;
use s2dit_files::problems::Problems;

/// Every field, in the order they are written.
pub(super) const FIELDS: &[&str] = &[
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "hidden_act",
    "layer_norm_eps",
    "eos_token_id",
];

/// Fields of the class that do not change what it computes.
const TRAINING: &[&str] =
    &["attention_dropout", "dropout", "initializer_factor", "initializer_range", "projection_dim"];

/// The activation of the feed-forward layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x·sigmoid(1.702·x)`
    QuickGelu,
    /// GELU by the error function.
    Gelu,
}

impl Activation {
    const NAMES: [(&str, Activation); 2] = [("quick_gelu", Activation::QuickGelu), ("gelu", Activation::Gelu)];

    fn name(self) -> &'static str {
        match self {
            Activation::QuickGelu => "quick_gelu",
            Activation::Gelu => "gelu",
        }
    }
}

/// The configuration of a `CLIPTextModel`.
///
/// A field that a `config.json` leaves out has the default of transformers.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipTextConfig {
    /// Token ids.
    pub vocab_size: usize,
    /// The hidden width.
    pub hidden_size: usize,
    /// Width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// The longest text, in tokens.
    pub max_position_embeddings: usize,
    /// The activation of the feed-forward layers.
    pub hidden_act: Activation,
    /// The ε of the norms.
    pub layer_norm_eps: f64,
    /// The id of the token that ends a text. Configurations of before transformers 4.31 say 2, which is wrong: of these the largest id of
    /// a text counts as its end.
    pub eos_token_id: usize,
}

impl ClipTextConfig {
    /// The class of transformers.
    pub const CLASS_NAME: &str = "CLIPTextModel";
    /// An [`ClipTextConfig::eos_token_id`] that stands for the largest id of a text.
    pub const LARGEST_ID: usize = 2;

    /// Width of a head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// The configuration that an empty `config.json` describes.
    pub(super) fn defaults() -> Self {
        ClipTextConfig {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            eos_token_id: 49407,
        }
    }

    pub(super) fn from_entries(entries: Vec<(String, Value)>, place: &str) -> Result<Self, Problems> {
        let mut fields = Fields::new(entries_of_encoder(entries, FIELDS, TRAINING), FIELDS, place);
        if let Some(true) = fields.remove("is_decoder").as_ref().and_then(Value::as_bool) {
            fields.problem("is_decoder", "true", "false: an encoder of text");
        }
        let usual = ClipTextConfig::defaults();
        let config = ClipTextConfig {
            vocab_size: fields.size("vocab_size", Some(usual.vocab_size)),
            hidden_size: fields.size("hidden_size", Some(usual.hidden_size)),
            intermediate_size: fields.size("intermediate_size", Some(usual.intermediate_size)),
            num_hidden_layers: fields.integer("num_hidden_layers", Some(usual.num_hidden_layers), 1..=MOST_BLOCKS),
            num_attention_heads: fields.size("num_attention_heads", Some(usual.num_attention_heads)),
            max_position_embeddings: fields.integer(
                "max_position_embeddings",
                Some(usual.max_position_embeddings),
                1..=LONGEST,
            ),
            hidden_act: fields.choice("hidden_act", usual.hidden_act, &Activation::NAMES),
            layer_norm_eps: fields.eps("layer_norm_eps", usual.layer_norm_eps),
            eos_token_id: eos(&mut fields, usual.eos_token_id),
        };
        if !config.hidden_size.is_multiple_of(config.num_attention_heads) {
            fields.problem(
                "hidden_size",
                config.hidden_size.to_string(),
                format!("a multiple of the {} attention heads", config.num_attention_heads),
            );
        }
        fields.finish()?;
        Ok(config)
    }

    /// The configuration as a JSON value: always the same fields, in the same order.
    #[must_use]
    pub fn to_json_value(&self) -> Value {
        json!({
            "architectures": [Self::CLASS_NAME],
            "model_type": "clip_text_model",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "max_position_embeddings": self.max_position_embeddings,
            "hidden_act": self.hidden_act.name(),
            "layer_norm_eps": self.layer_norm_eps,
            "eos_token_id": self.eos_token_id,
        })
    }
}

/// The longest text of any configuration that is read: the scores of its attention are the square of it.
const LONGEST: usize = 4096;

/// The id of the token that ends a text: one, or a list of one.
fn eos(fields: &mut Fields<'_>, usual: usize) -> usize {
    const FIELD: &str = "eos_token_id";
    let value = match fields.remove(FIELD) {
        None => return usual,
        Some(Value::Array(list)) if list.len() == 1 => list[0].clone(),
        Some(value) => value,
    };
    value.as_u64().and_then(|id| usize::try_from(id).ok()).filter(|id| *id <= i32::MAX as usize).unwrap_or_else(|| {
        fields.problem(FIELD, compact(&value), format!("a token id, such as {usual}"));
        usual
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(fields: &Value) -> Result<ClipTextConfig, Problems> {
        let entries = fields.as_object().unwrap().clone().into_iter().collect();
        ClipTextConfig::from_entries(entries, "config.json")
    }

    #[test]
    fn the_config_of_a_published_text_encoder_is_read() {
        // The text encoder of a pipeline, as transformers 4.21 wrote it.
        let published = json!({
            "_name_or_path": "openai/clip-vit-large-patch14", "architectures": ["CLIPTextModel"], "attention_dropout": 0.0,
            "bos_token_id": 0, "dropout": 0.0, "eos_token_id": 2, "hidden_act": "quick_gelu", "hidden_size": 768,
            "initializer_factor": 1.0, "initializer_range": 0.02, "intermediate_size": 3072, "layer_norm_eps": 1e-05,
            "max_position_embeddings": 77, "model_type": "clip_text_model", "num_attention_heads": 12,
            "num_hidden_layers": 12, "pad_token_id": 1, "projection_dim": 768, "torch_dtype": "float32",
            "transformers_version": "4.21.0.dev0", "vocab_size": 49408,
        });
        let config = parse(&published).unwrap();
        assert_eq!(
            (config.head_dim(), config.eos_token_id, config.num_hidden_layers),
            (64, ClipTextConfig::LARGEST_ID, 12)
        );
        assert_eq!(parse(&config.to_json_value()).unwrap(), config);
        let written: Vec<String> = config.to_json_value().as_object().unwrap().keys().skip(2).cloned().collect();
        assert_eq!(written, FIELDS);
        assert_eq!(parse(&json!({})).unwrap(), ClipTextConfig::defaults());
        assert_eq!(parse(&json!({ "eos_token_id": [7] })).unwrap().eos_token_id, 7);
    }

    #[test]
    fn what_is_not_read_is_refused_by_field() {
        for (field, value) in [
            ("hidden_act", json!("relu")),
            ("hidden_size", json!(100)),
            ("num_attention_heads", json!(0)),
            ("max_position_embeddings", json!(1 << 20)),
            ("eos_token_id", json!([1, 2])),
            ("eos_token_id", json!(null)),
            ("is_decoder", json!(true)),
            ("layer_norm_eps", json!(-1e-5)),
            ("text_config", json!({})),
        ] {
            let problem = parse(&json!({ field: value })).unwrap_err().to_string();
            assert!(problem.contains(&format!("config.json: {field}")), "{problem}");
        }
    }
}
