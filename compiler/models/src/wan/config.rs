//! The configuration of a Wan 2.1 transformer: the fields that diffusers writes, and three that its pipeline knows.

use s2dit_runtime::stream::sampler::euler_sigmas;
use serde_json::{Value, json};

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
    "text_len",
    "sample_steps",
    "flow_shift",
];

/// The configuration of a `WanTransformer3DModel` that makes video from text.
///
/// A field that a `config.json` leaves out has the default of diffusers. `text_len` \[512\], `sample_steps` \[50\] and `flow_shift`
/// \[5.0\] are not fields of diffusers: its pipeline and scheduler know them, and the values in brackets are those of Wan's own
/// `generate.py`. A name that starts with `_` is metadata of the program that wrote the file.
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
    /// Most frames, rows or columns of the token grid: RoPE has no more angles.
    pub rope_max_seq_len: usize,
    /// Text tokens, zeros after the prompt included.
    pub text_len: usize,
    /// Euler steps of the sampler.
    pub sample_steps: usize,
    /// Timestep shift of the sampler.
    pub flow_shift: f64,
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
        for field in ["image_dim", "added_kv_proj_dim", "pos_embed_seq_len"] {
            text_to_video_only(&mut fields, field);
        }
        qk_norm(&mut fields);
        let in_channels = fields.size("in_channels", Some(16));
        let config = WanConfig {
            patch_size: fields.patch_size(Some([1, 2, 2])),
            num_attention_heads: fields.size("num_attention_heads", Some(40)),
            attention_head_dim: fields.head_dim(Some(128)),
            in_channels,
            out_channels: out_channels(&mut fields, in_channels),
            text_dim: fields.size("text_dim", Some(4096)),
            freq_dim: fields.freq_dim(),
            ffn_dim: fields.size("ffn_dim", Some(13824)),
            num_layers: fields.integer("num_layers", Some(40), 1..=MOST_BLOCKS),
            cross_attn_norm: fields.flag("cross_attn_norm", true),
            eps: fields.eps("eps", 1e-6),
            rope_max_seq_len: fields.size("rope_max_seq_len", Some(1024)),
            text_len: fields.size("text_len", Some(512)),
            sample_steps: fields.integer("sample_steps", Some(50), 1..=1000),
            flow_shift: fields.positive("flow_shift", 5.0),
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
            "image_dim": null,
            "added_kv_proj_dim": null,
            "rope_max_seq_len": self.rope_max_seq_len,
            "pos_embed_seq_len": null,
            "text_len": self.text_len,
            "sample_steps": self.sample_steps,
            "flow_shift": self.flow_shift,
        })
    }
}

/// Refuses a field that only models of image to video have.
fn text_to_video_only(fields: &mut Fields<'_>, field: &str) {
    if let Some(value) = fields.remove(field).filter(|value| !value.is_null()) {
        fields.problem(field, compact(&value), "null: Wan's image to video is not read yet, only its text to video");
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
    fn other_kinds_of_wan_are_refused_by_field() {
        for (field, value) in
            [("image_dim", json!(1280)), ("added_kv_proj_dim", json!(5120)), ("pos_embed_seq_len", json!(514))]
        {
            let message = parse(&json!({ field: value })).unwrap_err().to_string();
            assert!(message.contains(field) && message.contains("image to video"), "{message}");
        }
        for (field, value) in [
            ("qk_norm", json!("layer_norm")),
            ("patch_size", json!([2, 2, 2])),
            ("attention_head_dim", json!(127)),
            ("cross_attn_norm", json!("yes")),
            ("num_layers", json!(0)),
            ("flow_shift", json!(1e-17)),
            ("flow_shift", json!(1e300)),
            ("sample_steps", json!(100_000)),
            ("layout", json!(["full"])),
        ] {
            let message = parse(&json!({ field: value })).unwrap_err().to_string();
            assert!(message.contains(field), "{field}: {message}");
        }
    }
}
