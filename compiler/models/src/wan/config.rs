//! The configuration of a Wan transformer: the fields that diffusers writes, and four that its pipeline knows.

use s2dit_runtime::sampler::euler_sigmas;
use serde_json::{Value, json};

use super::Image;
use crate::fields::{Fields, MOST_BLOCKS, as_integer, check_shift, check_width};
use s2dit_files::json::compact;
use s2dit_files::problems::{Problems, quoted};

/// Every field, in the order they are written.
pub(super) const FIELDS: &[&str] = &[
    "patch_size",
    "num_attention_heads",
    "attention_head_dim",
    "in_channels",
    "out_channels",
    "text_dim",
    "freq_dim",
    "ffn_dim",
    "num_layers",
    "cross_attn_norm",
    "qk_norm",
    "eps",
    "image_dim",
    "added_kv_proj_dim",
    "rope_max_seq_len",
    "pos_embed_seq_len",
    "expand_timesteps",
    "text_len",
    "sample_steps",
    "flow_shift",
];

/// The configuration of a `WanTransformer3DModel` that makes video from text, or from text and an image.
///
/// A field that a `config.json` leaves out has the default of diffusers. `expand_timesteps` \[false\], `text_len` \[512\], `sample_steps`
/// \[50\] and `flow_shift` \[5.0\] are not fields of diffusers' transformer: its pipeline and scheduler know them, and the values in
/// brackets are those of Wan's own `generate.py`. A name that starts with `_` is metadata of the program that wrote the file.
#[derive(Clone, Debug, PartialEq)]
pub struct WanConfig {
    /// Patch (frames, rows, columns); the first is 1.
    pub patch_size: [usize; 3],
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Width of a head: even, at least 6.
    pub attention_head_dim: usize,
    /// Channels of the input latent.
    pub in_channels: usize,
    /// Channels of the velocity.
    pub out_channels: usize,
    /// Width of the text embeddings.
    pub text_dim: usize,
    /// Width of the sinusoidal time embedding, even.
    pub freq_dim: usize,
    /// Hidden width of the feed-forward layers.
    pub ffn_dim: usize,
    /// Blocks.
    pub num_layers: usize,
    /// Whether there is a norm before cross-attention.
    pub cross_attn_norm: bool,
    /// The ε of every norm.
    pub eps: f64,
    /// The embeddings of an image that it takes: `image_dim`, `added_kv_proj_dim` and `pos_embed_seq_len`.
    pub image: Option<Image>,
    /// Most frames, rows or columns of the token grid: RoPE has no more angles.
    pub rope_max_seq_len: usize,
    /// Whether there is a timestep for each token, as Wan 2.2 TI2V has it, and not one for all.
    pub expand_timesteps: bool,
    /// Text tokens, zeros after the prompt included.
    pub text_len: usize,
    /// Euler steps of the sampler.
    pub sample_steps: usize,
    /// Timestep shift of the sampler.
    pub flow_shift: f64,
}

impl Default for WanConfig {
    /// The defaults of diffusers, which are those of Wan 2.1 T2V-14B.
    fn default() -> Self {
        WanConfig {
            patch_size: [1, 2, 2],
            num_attention_heads: 40,
            attention_head_dim: 128,
            in_channels: 16,
            out_channels: 16,
            text_dim: 4096,
            freq_dim: 256,
            ffn_dim: 13824,
            num_layers: 40,
            cross_attn_norm: true,
            eps: 1e-6,
            image: None,
            rope_max_seq_len: 1024,
            expand_timesteps: false,
            text_len: 512,
            sample_steps: 50,
            flow_shift: 5.0,
        }
    }
}

impl WanConfig {
    /// The diffusers class name.
    pub const CLASS_NAME: &str = "WanTransformer3DModel";
    /// Base of the RoPE frequencies, which is no field of diffusers.
    pub(super) const ROPE_THETA: f64 = 10000.0;

    /// The hidden width.
    #[must_use]
    pub fn hidden_size(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    pub(super) fn from_entries(entries: Vec<(String, Value)>, place: &str) -> Result<Self, Problems> {
        let mut fields = Fields::new(entries, FIELDS, place);
        qk_norm(&mut fields);
        let or = WanConfig::default();
        let num_attention_heads = fields.size("num_attention_heads", Some(or.num_attention_heads));
        let attention_head_dim = fields.head_dim(Some(or.attention_head_dim));
        let in_channels = fields.size("in_channels", Some(or.in_channels));
        let config = WanConfig {
            patch_size: fields.patch_size(Some(or.patch_size)),
            num_attention_heads,
            attention_head_dim,
            in_channels,
            out_channels: out_channels(&mut fields, in_channels),
            text_dim: fields.size("text_dim", Some(or.text_dim)),
            freq_dim: fields.freq_dim(),
            ffn_dim: fields.size("ffn_dim", Some(or.ffn_dim)),
            num_layers: fields.integer("num_layers", Some(or.num_layers), 1..=MOST_BLOCKS),
            cross_attn_norm: fields.flag("cross_attn_norm", or.cross_attn_norm),
            eps: fields.eps("eps", or.eps),
            image: Image::read(&mut fields, num_attention_heads * attention_head_dim),
            rope_max_seq_len: fields.size("rope_max_seq_len", Some(or.rope_max_seq_len)),
            expand_timesteps: fields.flag("expand_timesteps", or.expand_timesteps),
            text_len: fields.size("text_len", Some(or.text_len)),
            sample_steps: fields.integer("sample_steps", Some(or.sample_steps), 1..=1000),
            flow_shift: fields.positive("flow_shift", or.flow_shift),
        };
        fields.finish()?;
        check_width(config.hidden_size(), place)?;
        check_shift(&euler_sigmas(config.sample_steps, config.flow_shift), config.flow_shift, place)?;
        Ok(config)
    }

    /// The configuration as a JSON value: always the same fields, in the same order.
    #[must_use]
    pub fn to_json_value(&self) -> Value {
        json!({
            "_class_name": Self::CLASS_NAME,
            "patch_size": self.patch_size,
            "num_attention_heads": self.num_attention_heads,
            "attention_head_dim": self.attention_head_dim,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "text_dim": self.text_dim,
            "freq_dim": self.freq_dim,
            "ffn_dim": self.ffn_dim,
            "num_layers": self.num_layers,
            "cross_attn_norm": self.cross_attn_norm,
            "qk_norm": "rms_norm_across_heads",
            "eps": self.eps,
            "image_dim": self.image.map(|image| image.dim),
            "added_kv_proj_dim": self.image.map(|_| self.hidden_size()),
            "rope_max_seq_len": self.rope_max_seq_len,
            "pos_embed_seq_len": self.image.and_then(|image| image.positions),
            "expand_timesteps": self.expand_timesteps,
            "text_len": self.text_len,
            "sample_steps": self.sample_steps,
            "flow_shift": self.flow_shift,
        })
    }
}

/// Checks the norm of queries and keys. diffusers applies one across heads whatever the field says, `null` too.
fn qk_norm(fields: &mut Fields<'_>) {
    const FIELD: &str = "qk_norm";
    const ACROSS: &str = "rms_norm_across_heads";
    if let Some(value) = fields.remove(FIELD).filter(|value| !value.is_null() && *value != ACROSS) {
        fields.problem(FIELD, compact(&value), format!("{} or null", quoted(ACROSS)));
    }
}

/// The channels of the velocity; `null` stands for as many as the latent has.
fn out_channels(fields: &mut Fields<'_>, in_channels: usize) -> usize {
    const FIELD: &str = "out_channels";
    let range = 1..=crate::fields::LARGEST;
    match fields.remove(FIELD) {
        None => 16,
        Some(Value::Null) => in_channels,
        Some(value) => as_integer(&value, &range).unwrap_or_else(|| {
            fields.problem(FIELD, compact(&value), format!("null or an integer from 1 to {}", range.end()));
            1
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(fields: &Value) -> Result<WanConfig, Problems> {
        let entries = fields.as_object().unwrap().clone().into_iter().collect();
        WanConfig::from_entries(entries, "config.json")
    }

    #[test]
    fn the_config_of_a_published_checkpoint_is_read() {
        // As diffusers wrote it for Wan2.1-T2V-1.3B.
        let published = json!({
            "_class_name": "WanTransformer3DModel", "_diffusers_version": "0.33.0.dev0", "added_kv_proj_dim": null,
            "attention_head_dim": 128, "cross_attn_norm": true, "eps": 1e-06, "ffn_dim": 8960, "freq_dim": 256,
            "image_dim": null, "in_channels": 16, "num_attention_heads": 12, "num_layers": 30, "out_channels": 16,
            "patch_size": [1, 2, 2], "qk_norm": "rms_norm_across_heads", "rope_max_seq_len": 1024, "text_dim": 4096,
        });
        let config = parse(&published).unwrap();
        assert_eq!((config.hidden_size(), config.num_layers, config.text_len), (1536, 30, 512));
        assert_eq!(parse(&config.to_json_value()).unwrap(), config);
        let written: Vec<String> = config.to_json_value().as_object().unwrap().keys().skip(1).cloned().collect();
        assert_eq!(written, FIELDS);
    }

    #[test]
    fn what_diffusers_leaves_out_has_its_defaults() {
        let config = parse(&json!({})).unwrap();
        assert_eq!((config.num_attention_heads, config.num_layers, config.ffn_dim), (40, 40, 13824));
        assert_eq!(parse(&json!({ "out_channels": null, "in_channels": 4 })).unwrap().out_channels, 4);
    }

    #[test]
    fn an_image_has_its_fields_together() {
        let image = json!({ "image_dim": 1280, "added_kv_proj_dim": 5120, "in_channels": 36 });
        let config = parse(&image).unwrap();
        assert_eq!(config.image.map(|image| (image.dim, image.tokens())), Some((1280, 257)));
        let mut both = image.clone();
        both["pos_embed_seq_len"] = json!(514);
        let config = parse(&both).unwrap();
        assert_eq!(config.image.map(|image| image.tokens()), Some(514));
        assert_eq!(parse(&config.to_json_value()).unwrap(), config);
        for (fields, field, expected) in [
            (json!({ "image_dim": 1280 }), "added_kv_proj_dim", "5120, the hidden width"),
            (json!({ "added_kv_proj_dim": 5120 }), "image_dim", "such as 1280"),
            (json!({ "image_dim": 1280, "added_kv_proj_dim": 1280 }), "added_kv_proj_dim", "5120"),
            (json!({ "pos_embed_seq_len": 514 }), "pos_embed_seq_len", "image_dim and added_kv_proj_dim beside it"),
            (json!({ "image_dim": 0, "added_kv_proj_dim": 5120 }), "image_dim", "null or an integer"),
        ] {
            let message = parse(&fields).unwrap_err().to_string();
            assert!(message.contains(&format!("{field}: found")) && message.contains(expected), "{message}");
        }
    }

    #[test]
    fn other_kinds_of_wan_are_refused_by_field() {
        for (field, value) in [
            ("qk_norm", json!("layer_norm")),
            ("patch_size", json!([2, 2, 2])),
            ("attention_head_dim", json!(127)),
            ("cross_attn_norm", json!("yes")),
            ("num_layers", json!(0)),
            ("flow_shift", json!(1e-17)),
            ("flow_shift", json!(1e300)),
            ("sample_steps", json!(100_000)),
            ("expand_timesteps", json!(1)),
            ("layout", json!(["full"])),
        ] {
            let message = parse(&json!({ field: value })).unwrap_err().to_string();
            assert!(message.contains(field), "{field}: {message}");
        }
    }
}
