//! The configuration of an LTX-Video transformer: the fields that diffusers writes, and those that its pipeline knows.

use s2dit_runtime::sampler::euler_sigmas;
use serde_json::{Value, json};

use crate::fields::{Fields, MOST_BLOCKS, as_integer, check_shift, check_width};
use s2dit_files::json::compact;
use s2dit_files::problems::{Problems, quoted};

/// Every field, in the order they are written.
pub(super) const FIELDS: &[&str] = &[
    "in_channels",
    "out_channels",
    "patch_size",
    "patch_size_t",
    "num_attention_heads",
    "attention_head_dim",
    "cross_attention_dim",
    "num_layers",
    "activation_fn",
    "qk_norm",
    "norm_elementwise_affine",
    "norm_eps",
    "caption_channels",
    "attention_bias",
    "attention_out_bias",
    "text_len",
    "frame_rate",
    "causal_temporal_positioning",
    "sample_steps",
    "flow_shift",
];

const ACTIVATION: &str = "gelu-approximate";
const QK_NORM: &str = "rms_norm_across_heads";

/// The configuration of a `LTXVideoTransformer3DModel`.
///
/// A field that a `config.json` leaves out has the default of diffusers. `text_len` \[256\], `frame_rate` \[25\],
/// `causal_temporal_positioning` \[true\], `sample_steps` \[50\] and `flow_shift` \[7.77\] are not fields of diffusers: its pipeline and
/// scheduler know them, and the values in brackets are those of its `LTXConditionPipeline`; the shift is e^2.05, that of the scheduler at
/// 4096 tokens. A name that starts with `_` is metadata of the program that wrote the file.
#[derive(Clone, Debug, PartialEq)]
pub struct LtxConfig {
    /// Channels of the input latent.
    pub in_channels: usize,
    /// Channels of the velocity.
    pub out_channels: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Width of a head: even, at least 6.
    pub attention_head_dim: usize,
    /// Blocks.
    pub num_layers: usize,
    /// Whether the norms of a block have gains.
    pub norm_elementwise_affine: bool,
    /// The ε of the norms of a block.
    pub norm_eps: f64,
    /// Width of the text embeddings.
    pub caption_channels: usize,
    /// Whether queries, keys and values have biases.
    pub attention_bias: bool,
    /// Whether the projection out of attention has a bias.
    pub attention_out_bias: bool,
    /// Text tokens, padding included.
    pub text_len: usize,
    /// Frames of the video in a second.
    pub frame_rate: f64,
    /// Whether the first latent frame is at the time of one frame of the video, those after it of eight: 0.9.5 and later.
    pub causal_temporal_positioning: bool,
    /// Euler steps of the sampler.
    pub sample_steps: usize,
    /// Timestep shift of the sampler.
    pub flow_shift: f64,
}

impl LtxConfig {
    /// The diffusers class name.
    pub const CLASS_NAME: &str = "LTXVideoTransformer3DModel";
    /// Ratio of the highest frequency of RoPE to the lowest, which is no field of diffusers.
    pub(super) const ROPE_THETA: f64 = 10000.0;
    /// Width of the sinusoidal time embedding, which is no field of diffusers.
    pub(super) const FREQ_DIM: usize = 256;

    /// The hidden width.
    #[must_use]
    pub fn hidden_size(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// The configuration that an empty `config.json` describes: the 2B model.
    pub(super) fn defaults() -> Self {
        LtxConfig {
            in_channels: 128,
            out_channels: 128,
            num_attention_heads: 32,
            attention_head_dim: 64,
            num_layers: 28,
            norm_elementwise_affine: false,
            norm_eps: 1e-6,
            caption_channels: 4096,
            attention_bias: true,
            attention_out_bias: true,
            text_len: 256,
            frame_rate: 25.0,
            causal_temporal_positioning: true,
            sample_steps: 50,
            flow_shift: 7.77,
        }
    }

    pub(super) fn from_entries(entries: Vec<(String, Value)>, place: &str) -> Result<Self, Problems> {
        let mut fields = Fields::new(entries, FIELDS, place);
        for field in ["patch_size", "patch_size_t"] {
            only(&mut fields, field, &json!(1));
        }
        only(&mut fields, "activation_fn", &json!(ACTIVATION));
        only(&mut fields, "qk_norm", &json!(QK_NORM));
        let usual = LtxConfig::defaults();
        let in_channels = fields.size("in_channels", Some(usual.in_channels));
        let text_width = fields.size("cross_attention_dim", Some(usual.hidden_size()));
        let config = LtxConfig {
            in_channels,
            out_channels: out_channels(&mut fields, in_channels, usual.out_channels),
            num_attention_heads: fields.size("num_attention_heads", Some(usual.num_attention_heads)),
            attention_head_dim: fields.head_dim(Some(usual.attention_head_dim)),
            num_layers: fields.integer("num_layers", Some(usual.num_layers), 1..=MOST_BLOCKS),
            norm_elementwise_affine: fields.flag("norm_elementwise_affine", usual.norm_elementwise_affine),
            norm_eps: fields.eps("norm_eps", usual.norm_eps),
            caption_channels: fields.size("caption_channels", Some(usual.caption_channels)),
            attention_bias: fields.flag("attention_bias", usual.attention_bias),
            attention_out_bias: fields.flag("attention_out_bias", usual.attention_out_bias),
            text_len: fields.size("text_len", Some(usual.text_len)),
            frame_rate: fields.positive("frame_rate", usual.frame_rate),
            causal_temporal_positioning: fields.flag("causal_temporal_positioning", usual.causal_temporal_positioning),
            sample_steps: fields.integer("sample_steps", Some(usual.sample_steps), 1..=1000),
            flow_shift: fields.positive("flow_shift", usual.flow_shift),
        };
        fields.finish()?;
        check_width(config.hidden_size(), place)?;
        config.check_text_width(text_width, place)?;
        check_rate(config.frame_rate, place)?;
        check_shift(&euler_sigmas(config.sample_steps, config.flow_shift), config.flow_shift, place)?;
        Ok(config)
    }

    /// The text is projected to the hidden width before any block sees it.
    fn check_text_width(&self, found: usize, place: &str) -> Result<(), Problems> {
        let width = self.hidden_size();
        if found == width {
            return Ok(());
        }
        let expected = format!("{width}, the hidden width (num_attention_heads × attention_head_dim)");
        Err(Problems::one(format!("{place}: cross_attention_dim"), found.to_string(), expected))
    }

    /// The configuration as a JSON value: always the same fields, in the same order.
    #[must_use]
    pub fn to_json_value(&self) -> Value {
        json!({
            "_class_name": Self::CLASS_NAME,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "patch_size": 1,
            "patch_size_t": 1,
            "num_attention_heads": self.num_attention_heads,
            "attention_head_dim": self.attention_head_dim,
            "cross_attention_dim": self.hidden_size(),
            "num_layers": self.num_layers,
            "activation_fn": ACTIVATION,
            "qk_norm": QK_NORM,
            "norm_elementwise_affine": self.norm_elementwise_affine,
            "norm_eps": self.norm_eps,
            "caption_channels": self.caption_channels,
            "attention_bias": self.attention_bias,
            "attention_out_bias": self.attention_out_bias,
            "text_len": self.text_len,
            "frame_rate": self.frame_rate,
            "causal_temporal_positioning": self.causal_temporal_positioning,
            "sample_steps": self.sample_steps,
            "flow_shift": self.flow_shift,
        })
    }
}

/// Refuses every value of a field but one.
fn only(fields: &mut Fields<'_>, field: &str, read: &Value) {
    if let Some(value) = fields.remove(field).filter(|value| value != read) {
        let read = read.as_str().map_or_else(|| read.to_string(), quoted);
        fields.problem(field, compact(&value), format!("{read}: LTX-Video has no other"));
    }
}

/// Checks that coordinates in time are numbers that fp32 tells apart.
fn check_rate(rate: f64, place: &str) -> Result<(), Problems> {
    if (0.1..=1000.0).contains(&rate) {
        return Ok(());
    }
    Err(Problems::one(format!("{place}: frame_rate"), rate.to_string(), "0.1 to 1000 frames a second"))
}

/// The channels of the velocity; `null` stands for as many as the latent has.
fn out_channels(fields: &mut Fields<'_>, in_channels: usize, usual: usize) -> usize {
    const FIELD: &str = "out_channels";
    let range = 1..=crate::fields::LARGEST;
    match fields.remove(FIELD) {
        None => usual,
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

    fn parse(fields: &Value) -> Result<LtxConfig, Problems> {
        let entries = fields.as_object().unwrap().clone().into_iter().collect();
        LtxConfig::from_entries(entries, "config.json")
    }

    #[test]
    fn the_config_of_a_published_checkpoint_is_read() {
        // As diffusers wrote it for LTX-Video-0.9.7-dev.
        let published = json!({
            "_class_name": "LTXVideoTransformer3DModel", "_diffusers_version": "0.34.0.dev0",
            "activation_fn": "gelu-approximate", "attention_bias": true, "attention_head_dim": 128,
            "attention_out_bias": true, "caption_channels": 4096, "cross_attention_dim": 4096, "in_channels": 128,
            "norm_elementwise_affine": false, "norm_eps": 1e-06, "num_attention_heads": 32, "num_layers": 48,
            "out_channels": 128, "patch_size": 1, "patch_size_t": 1, "qk_norm": "rms_norm_across_heads",
        });
        let config = parse(&published).unwrap();
        assert_eq!((config.hidden_size(), config.num_layers, config.text_len), (4096, 48, 256));
        assert_eq!(parse(&config.to_json_value()).unwrap(), config);
        let written: Vec<String> = config.to_json_value().as_object().unwrap().keys().skip(1).cloned().collect();
        assert_eq!(written, FIELDS);
    }

    #[test]
    fn what_diffusers_leaves_out_has_its_defaults() {
        assert_eq!(parse(&json!({})).unwrap(), LtxConfig::defaults());
        assert_eq!(parse(&json!({ "out_channels": null, "in_channels": 4 })).unwrap().out_channels, 4);
    }

    #[test]
    fn what_is_not_read_is_refused_by_field() {
        for (field, value) in [
            ("patch_size", json!(2)),
            ("patch_size_t", json!(2)),
            ("activation_fn", json!("geglu")),
            ("qk_norm", json!("rms_norm")),
            ("qk_norm", json!(null)),
            ("cross_attention_dim", json!(1024)),
            ("attention_head_dim", json!(65)),
            ("attention_bias", json!("yes")),
            ("norm_elementwise_affine", json!(1)),
            ("norm_eps", json!(2.0)),
            ("num_layers", json!(0)),
            ("out_channels", json!(0)),
            ("frame_rate", json!(0.0)),
            ("frame_rate", json!(1e300)),
            ("flow_shift", json!(1e-17)),
            ("sample_steps", json!([1000])),
            ("text_dim", json!(4096)),
        ] {
            let message = parse(&json!({ field: value })).unwrap_err().to_string();
            assert!(message.contains(field), "{field}: {message}");
        }
    }
}
