//! The configuration of the encoders of T5 and UMT5: the fields of transformers that their forward pass asks for, and one that pipelines know.

use serde_json::{Value, json};

use super::family::T5;
use crate::fields::{Fields, MOST_BLOCKS};
use crate::transformers::entries_of_encoder;
use s2dit_files::problems::Problems;

/// Every field, in the order they are written.
pub(super) const FIELDS: &[&str] = &[
    "vocab_size",
    "d_model",
    "d_kv",
    "d_ff",
    "num_layers",
    "num_heads",
    "relative_attention_num_buckets",
    "relative_attention_max_distance",
    "layer_norm_epsilon",
    "feed_forward_proj",
    "zero_padding",
];

/// Fields of the classes that do not change what an encoder computes: training, the decoder, and what follows from `feed_forward_proj`.
const TRAINING: &[&str] = &[
    "classifier_dropout",
    "dense_act_fn",
    "dropout_rate",
    "initializer_factor",
    "is_gated_act",
    "n_positions",
    "num_decoder_layers",
    "scalable_attention",
    "scale_decoder_outputs",
];

/// The kind of a feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedForward {
    /// `wo(gelu(wi_0·x)·(wi_1·x))` with the GELU by the hyperbolic tangent: T5 1.1 and UMT5.
    GatedGelu,
    /// `wo(relu(wi·x))`: T5 1.0.
    Relu,
}

impl FeedForward {
    const NAMES: [(&str, FeedForward); 2] = [("gated-gelu", FeedForward::GatedGelu), ("relu", FeedForward::Relu)];

    fn name(self) -> &'static str {
        match self {
            FeedForward::GatedGelu => "gated-gelu",
            FeedForward::Relu => "relu",
        }
    }
}

/// The configuration of a `T5EncoderModel` or a `UMT5EncoderModel`.
///
/// A field that a `config.json` leaves out has the default of transformers, which is another one for UMT5. `zero_padding` is no field of transformers: its default
/// is what the pipelines with the model do.
#[derive(Clone, Debug, PartialEq)]
pub struct T5Config {
    /// Which of the two models.
    pub kind: T5,
    /// Token ids.
    pub vocab_size: usize,
    /// The hidden width.
    pub d_model: usize,
    /// Width of a head.
    pub d_kv: usize,
    /// Width of the feed-forward layers.
    pub d_ff: usize,
    /// Blocks.
    pub num_layers: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Buckets of distances between tokens: even, at least 4, half of them for each direction.
    pub relative_attention_num_buckets: usize,
    /// Distances from here on share a bucket.
    pub relative_attention_max_distance: usize,
    /// The ε of the norms.
    pub layer_norm_epsilon: f64,
    /// The kind of the feed-forward layers.
    pub feed_forward_proj: FeedForward,
    /// Whether the text is 0 where it is padding: Wan's pipelines do that.
    pub zero_padding: bool,
}

impl T5Config {
    /// The configuration that an empty `config.json` of a class describes.
    pub(super) fn defaults(kind: T5) -> Self {
        let t5 = T5Config {
            kind,
            vocab_size: 32128,
            d_model: 512,
            d_kv: 64,
            d_ff: 2048,
            num_layers: 6,
            num_heads: 8,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            feed_forward_proj: FeedForward::Relu,
            zero_padding: false,
        };
        match kind {
            T5::Original => t5,
            T5::Multilingual => T5Config {
                vocab_size: 250_112,
                d_ff: 1024,
                num_layers: 8,
                num_heads: 6,
                feed_forward_proj: FeedForward::GatedGelu,
                zero_padding: true,
                ..t5
            },
        }
    }

    pub(super) fn from_entries(kind: T5, entries: Vec<(String, Value)>, place: &str) -> Result<Self, Problems> {
        let mut fields = Fields::new(entries_of_encoder(entries, FIELDS, TRAINING), FIELDS, place);
        if let Some(true) = fields.remove("is_decoder").as_ref().and_then(Value::as_bool) {
            fields.problem("is_decoder", "true", "false: an encoder of text");
        }
        let usual = T5Config::defaults(kind);
        let buckets = fields.integer(
            "relative_attention_num_buckets",
            Some(usual.relative_attention_num_buckets),
            4..=MOST_BUCKETS,
        );
        if !buckets.is_multiple_of(4) {
            let expected =
                "a multiple of 4: half of the buckets for each direction, half of these for single distances";
            fields.problem("relative_attention_num_buckets", buckets.to_string(), expected);
        }
        let config = T5Config {
            kind,
            vocab_size: fields.size("vocab_size", Some(usual.vocab_size)),
            d_model: fields.size("d_model", Some(usual.d_model)),
            d_kv: fields.size("d_kv", Some(usual.d_kv)),
            d_ff: fields.size("d_ff", Some(usual.d_ff)),
            num_layers: fields.integer("num_layers", Some(usual.num_layers), 1..=MOST_BLOCKS),
            num_heads: fields.size("num_heads", Some(usual.num_heads)),
            relative_attention_num_buckets: buckets,
            relative_attention_max_distance: fields
                .size("relative_attention_max_distance", Some(usual.relative_attention_max_distance)),
            layer_norm_epsilon: fields.eps("layer_norm_epsilon", usual.layer_norm_epsilon),
            feed_forward_proj: fields.choice("feed_forward_proj", usual.feed_forward_proj, &FeedForward::NAMES),
            zero_padding: fields.flag("zero_padding", usual.zero_padding),
        };
        let single = buckets / 4;
        if config.relative_attention_max_distance <= single {
            let found = config.relative_attention_max_distance.to_string();
            let expected = format!("more than {single}, the distances that have buckets of their own");
            fields.problem("relative_attention_max_distance", found, expected);
        }
        let width = config.num_heads.saturating_mul(config.d_kv);
        if width > crate::fields::LARGEST {
            fields.problem("num_heads × d_kv", width.to_string(), format!("at most {}", crate::fields::LARGEST));
        }
        fields.finish()?;
        Ok(config)
    }

    /// The configuration as a JSON value: always the same fields, in the same order.
    #[must_use]
    pub fn to_json_value(&self) -> Value {
        json!({
            "architectures": [self.kind.class_name()],
            "model_type": self.kind.model_type(),
            "vocab_size": self.vocab_size,
            "d_model": self.d_model,
            "d_kv": self.d_kv,
            "d_ff": self.d_ff,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "relative_attention_num_buckets": self.relative_attention_num_buckets,
            "relative_attention_max_distance": self.relative_attention_max_distance,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "feed_forward_proj": self.feed_forward_proj.name(),
            "zero_padding": self.zero_padding,
        })
    }
}

/// Far more buckets than any model has.
const MOST_BUCKETS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(kind: T5, fields: &Value) -> Result<T5Config, Problems> {
        let entries = fields.as_object().unwrap().clone().into_iter().collect();
        T5Config::from_entries(kind, entries, "config.json")
    }

    #[test]
    fn the_configs_of_published_text_encoders_are_read() {
        // Those of Wan's and LTX-Video's pipelines, as transformers 4.48 and 4.40 wrote them.
        let umt5 = json!({
            "_name_or_path": "google/umt5-xxl", "architectures": ["UMT5EncoderModel"], "classifier_dropout": 0.0, "d_ff": 10240,
            "d_kv": 64, "d_model": 4096, "decoder_start_token_id": 0, "dense_act_fn": "gelu_new", "dropout_rate": 0.1,
            "eos_token_id": 1, "feed_forward_proj": "gated-gelu", "initializer_factor": 1.0, "is_encoder_decoder": true,
            "is_gated_act": true, "layer_norm_epsilon": 1e-06, "model_type": "umt5", "num_decoder_layers": 24,
            "num_heads": 64, "num_layers": 24, "output_past": true, "pad_token_id": 0,
            "relative_attention_max_distance": 128, "relative_attention_num_buckets": 32, "scalable_attention": true,
            "tie_word_embeddings": false, "tokenizer_class": "T5Tokenizer", "torch_dtype": "bfloat16",
            "transformers_version": "4.48.0", "use_cache": true, "vocab_size": 256_384,
        });
        let config = parse(T5::Multilingual, &umt5).unwrap();
        assert_eq!((config.vocab_size, config.d_ff, config.zero_padding), (256_384, 10240, true));
        let t5 = json!({
            "architectures": ["T5EncoderModel"], "classifier_dropout": 0.0, "d_ff": 10240, "d_kv": 64, "d_model": 4096,
            "feed_forward_proj": "gated-gelu", "is_encoder_decoder": true, "model_type": "t5", "num_decoder_layers": 24,
            "num_heads": 64, "num_layers": 24, "output_past": true, "vocab_size": 32128,
        });
        let config = parse(T5::Original, &t5).unwrap();
        assert_eq!((config.num_layers, config.zero_padding), (24, false));
        for kind in [T5::Original, T5::Multilingual] {
            let usual = T5Config::defaults(kind);
            assert_eq!(parse(kind, &json!({})).unwrap(), usual);
            assert_eq!(parse(kind, &usual.to_json_value()).unwrap(), usual);
            let written: Vec<String> = usual.to_json_value().as_object().unwrap().keys().skip(2).cloned().collect();
            assert_eq!(written, FIELDS);
        }
    }

    #[test]
    fn what_is_not_read_is_refused_by_field() {
        for (field, value) in [
            ("feed_forward_proj", json!("gated-silu")),
            ("relative_attention_num_buckets", json!(30)),
            ("relative_attention_max_distance", json!(8)),
            ("num_layers", json!(0)),
            ("is_decoder", json!(true)),
            ("zero_padding", json!(1)),
            ("num_heads × d_kv", json!(1)),
            ("d_modle", json!(1)),
        ] {
            let problem = parse(T5::Original, &json!({ field: value })).unwrap_err().to_string();
            assert!(problem.contains(&format!("config.json: {field}")), "{problem}");
        }
    }
}
