//! The configuration of a SANA-Video transformer: the fields that diffusers writes, and those that its pipeline knows.

use s2dit_runtime::sampler::euler_sigmas;
use serde_json::{Value, json};

use crate::fields::{Fields, LARGEST, MOST_BLOCKS, as_integer, check_shift, check_width};
use s2dit_files::json::compact;
use s2dit_files::problems::{Problems, quoted};

/// Every field, in the order they are written.
pub(super) const FIELDS: &[&str] = &[
    "in_channels",
    "out_channels",
    "num_attention_heads",
    "attention_head_dim",
    "num_layers",
    "num_cross_attention_heads",
    "cross_attention_head_dim",
    "cross_attention_dim",
    "caption_channels",
    "mlp_ratio",
    "dropout",
    "attention_bias",
    "sample_size",
    "patch_size",
    "norm_elementwise_affine",
    "norm_eps",
    "interpolation_scale",
    "guidance_embeds",
    "guidance_embeds_scale",
    "qk_norm",
    "rope_max_seq_len",
    "text_len",
    "sample_steps",
    "flow_shift",
];

/// Fields that say nothing of a step: diffusers' pipeline or a training reads them, or nothing does.
const UNUSED: [&str; 4] = ["dropout", "sample_size", "interpolation_scale", "guidance_embeds_scale"];

const QK_NORM: &str = "rms_norm_across_heads";

/// The configuration of a `SanaVideoTransformer3DModel`.
///
/// A field that a `config.json` leaves out has the default of diffusers. `text_len` \[300\], `sample_steps` \[50\] and `flow_shift` \[8\] are not
/// fields of diffusers' transformer: its pipeline and scheduler know them, and the values in brackets are those of `SanaVideoPipeline` and of the
/// published scheduler. A name that starts with `_` is metadata of the program that wrote the file.
#[derive(Clone, Debug, PartialEq)]
pub struct SanaConfig {
    /// Channels of the input latent.
    pub in_channels: usize,
    /// Channels of the velocity.
    pub out_channels: usize,
    /// Attention heads, of self-attention and of cross-attention.
    pub num_attention_heads: usize,
    /// Width of a head: even, at least 6.
    pub attention_head_dim: usize,
    /// Blocks.
    pub num_layers: usize,
    /// Width of the text embeddings.
    pub caption_channels: usize,
    /// Hidden width of the feed-forward layers, in widths of the model.
    pub mlp_ratio: f64,
    /// Whether queries, keys and values of self-attention have biases.
    pub attention_bias: bool,
    /// Patch (frames, rows, columns); the first is 1.
    pub patch_size: [usize; 3],
    /// Whether the norm before the feed-forward layers has a gain and a bias.
    pub norm_elementwise_affine: bool,
    /// The ε of the norms of a block.
    pub norm_eps: f64,
    /// Most frames, rows or columns of the token grid: RoPE has no more angles.
    pub rope_max_seq_len: usize,
    /// Text tokens, padding included.
    pub text_len: usize,
    /// Euler steps of the sampler.
    pub sample_steps: usize,
    /// Timestep shift of the sampler.
    pub flow_shift: f64,
}

impl SanaConfig {
    /// The diffusers class name.
    pub const CLASS_NAME: &str = "SanaVideoTransformer3DModel";
    /// Base of the RoPE frequencies, which is no field of diffusers.
    pub(super) const ROPE_THETA: f64 = 10000.0;
    /// Width of the sinusoidal time embedding, which is no field of diffusers.
    pub(super) const FREQ_DIM: usize = 256;

    /// The hidden width.
    #[must_use]
    pub fn hidden_size(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// The hidden width of the feed-forward layers: `mlp_ratio` times that of the model, rounded down as Python's `int` does.
    #[must_use]
    pub fn ffn_dim(&self) -> usize {
        (self.mlp_ratio * self.hidden_size() as f64) as usize
    }

    /// The configuration that an empty `config.json` describes.
    pub(super) fn defaults() -> Self {
        SanaConfig {
            in_channels: 16,
            out_channels: 16,
            num_attention_heads: 20,
            attention_head_dim: 112,
            num_layers: 20,
            caption_channels: 2304,
            mlp_ratio: 2.5,
            attention_bias: false,
            patch_size: [1, 2, 2],
            norm_elementwise_affine: false,
            norm_eps: 1e-6,
            rope_max_seq_len: 1024,
            text_len: 300,
            sample_steps: 50,
            flow_shift: 8.0,
        }
    }

    pub(super) fn from_entries(entries: Vec<(String, Value)>, place: &str) -> Result<Self, Problems> {
        let mut fields = Fields::new(entries, FIELDS, place);
        for field in UNUSED {
            fields.remove(field);
        }
        let why = "no published SANA-Video has another";
        only(&mut fields, "qk_norm", &json!(QK_NORM), &format!("{}: {why}", quoted(QK_NORM)));
        only(&mut fields, "guidance_embeds", &json!(false), &format!("false: {why}"));
        let usual = SanaConfig::defaults();
        let in_channels = fields.size("in_channels", Some(usual.in_channels));
        let cross = [
            ("num_cross_attention_heads", fields.size("num_cross_attention_heads", Some(usual.num_attention_heads))),
            ("cross_attention_head_dim", fields.size("cross_attention_head_dim", Some(usual.attention_head_dim))),
            ("cross_attention_dim", fields.size("cross_attention_dim", Some(usual.hidden_size()))),
        ];
        let config = SanaConfig {
            in_channels,
            out_channels: out_channels(&mut fields, in_channels, usual.out_channels),
            num_attention_heads: fields.size("num_attention_heads", Some(usual.num_attention_heads)),
            attention_head_dim: fields.head_dim(Some(usual.attention_head_dim)),
            num_layers: fields.integer("num_layers", Some(usual.num_layers), 1..=MOST_BLOCKS),
            caption_channels: fields.size("caption_channels", Some(usual.caption_channels)),
            mlp_ratio: fields.positive("mlp_ratio", usual.mlp_ratio),
            attention_bias: fields.flag("attention_bias", usual.attention_bias),
            patch_size: fields.patch_size(Some(usual.patch_size)),
            norm_elementwise_affine: fields.flag("norm_elementwise_affine", usual.norm_elementwise_affine),
            norm_eps: fields.eps("norm_eps", usual.norm_eps),
            rope_max_seq_len: fields.size("rope_max_seq_len", Some(usual.rope_max_seq_len)),
            text_len: fields.size("text_len", Some(usual.text_len)),
            sample_steps: fields.integer("sample_steps", Some(usual.sample_steps), 1..=1000),
            flow_shift: fields.positive("flow_shift", usual.flow_shift),
        };
        fields.finish()?;
        check_width(config.hidden_size(), place)?;
        config.check_ffn_dim(place)?;
        config.check_cross(cross, place)?;
        check_shift(&euler_sigmas(config.sample_steps, config.flow_shift), config.flow_shift, place)?;
        Ok(config)
    }

    /// A feed-forward layer has a width, and one that every product of sizes holds.
    fn check_ffn_dim(&self, place: &str) -> Result<(), Problems> {
        if (1..=LARGEST).contains(&self.ffn_dim()) {
            return Ok(());
        }
        let expected = format!(
            "a number whose product with {} (num_attention_heads × attention_head_dim) is from 1 to {LARGEST}",
            self.hidden_size()
        );
        Err(Problems::one(format!("{place}: mlp_ratio"), format!("{:?}", self.mlp_ratio), expected))
    }

    /// Cross-attention has the heads of self-attention, and the text is projected to the hidden width before any block sees it.
    fn check_cross(&self, found: [(&str, usize); 3], place: &str) -> Result<(), Problems> {
        let mut problems = Problems::new();
        let expected = [
            (self.num_attention_heads, "num_attention_heads"),
            (self.attention_head_dim, "attention_head_dim"),
            (self.hidden_size(), "the hidden width (num_attention_heads × attention_head_dim)"),
        ];
        for ((field, found), (expected, of)) in found.into_iter().zip(expected) {
            if found != expected {
                problems.push(format!("{place}: {field}"), found.to_string(), format!("{expected}, {of}"));
            }
        }
        problems.into_result()
    }

    /// The configuration as a JSON value: always the same fields, in the same order.
    #[must_use]
    pub fn to_json_value(&self) -> Value {
        json!({
            "_class_name": Self::CLASS_NAME,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "num_attention_heads": self.num_attention_heads,
            "attention_head_dim": self.attention_head_dim,
            "num_layers": self.num_layers,
            "num_cross_attention_heads": self.num_attention_heads,
            "cross_attention_head_dim": self.attention_head_dim,
            "cross_attention_dim": self.hidden_size(),
            "caption_channels": self.caption_channels,
            "mlp_ratio": self.mlp_ratio,
            "dropout": 0.0,
            "attention_bias": self.attention_bias,
            "sample_size": 30,
            "patch_size": self.patch_size,
            "norm_elementwise_affine": self.norm_elementwise_affine,
            "norm_eps": self.norm_eps,
            "interpolation_scale": null,
            "guidance_embeds": false,
            "guidance_embeds_scale": 0.1,
            "qk_norm": QK_NORM,
            "rope_max_seq_len": self.rope_max_seq_len,
            "text_len": self.text_len,
            "sample_steps": self.sample_steps,
            "flow_shift": self.flow_shift,
        })
    }
}

/// Refuses every value of a field but one; `expected` says which, and why.
pub(super) fn only(fields: &mut Fields<'_>, field: &str, read: &Value, expected: &str) {
    if let Some(value) = fields.remove(field).filter(|value| value != read) {
        fields.problem(field, compact(&value), expected);
    }
}

/// The channels of the velocity; `null` stands for as many as the latent has.
fn out_channels(fields: &mut Fields<'_>, in_channels: usize, usual: usize) -> usize {
    const FIELD: &str = "out_channels";
    let range = 1..=LARGEST;
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

    fn parse(fields: &Value) -> Result<SanaConfig, Problems> {
        let entries = fields.as_object().unwrap().clone().into_iter().collect();
        SanaConfig::from_entries(entries, "config.json")
    }

    #[test]
    fn the_config_of_a_published_checkpoint_is_read() {
        // As diffusers' script for the conversion of SANA-Video 2B at 480p makes it.
        let published = json!({
            "_class_name": "SanaVideoTransformer3DModel", "_diffusers_version": "0.36.0.dev0", "attention_bias": false,
            "attention_head_dim": 112, "caption_channels": 2304, "cross_attention_dim": 2240, "cross_attention_head_dim": 112,
            "dropout": 0.0, "guidance_embeds": false, "guidance_embeds_scale": 0.1, "in_channels": 16,
            "interpolation_scale": null, "mlp_ratio": 3.0, "norm_elementwise_affine": false, "norm_eps": 1e-06,
            "num_attention_heads": 20, "num_cross_attention_heads": 20, "num_layers": 20, "out_channels": 16,
            "patch_size": [1, 2, 2], "qk_norm": "rms_norm_across_heads", "rope_max_seq_len": 1024, "sample_size": 30,
        });
        let config = parse(&published).unwrap();
        assert_eq!((config.hidden_size(), config.ffn_dim(), config.text_len), (2240, 6720, 300));
        assert_eq!(parse(&config.to_json_value()).unwrap(), config);
        let written: Vec<String> = config.to_json_value().as_object().unwrap().keys().skip(1).cloned().collect();
        assert_eq!(written, FIELDS);
    }

    #[test]
    fn what_diffusers_leaves_out_has_its_defaults() {
        assert_eq!(parse(&json!({})).unwrap(), SanaConfig::defaults());
        assert_eq!(parse(&json!({ "out_channels": null, "in_channels": 4 })).unwrap().out_channels, 4);
    }

    /// `int(2.3 * 66)` and `int(0.1 * 2240)` in Python, whose products are of float64 too.
    #[test]
    fn the_hidden_width_is_rounded_as_python_does() {
        let of = |mlp_ratio, num_attention_heads, attention_head_dim| {
            SanaConfig { mlp_ratio, num_attention_heads, attention_head_dim, ..SanaConfig::defaults() }.ffn_dim()
        };
        assert_eq!((of(2.3, 3, 22), of(0.1, 20, 112), of(2.5, 20, 112)), (151, 224, 5600));
    }

    #[test]
    fn what_is_not_read_is_refused_by_field() {
        for (field, value) in [
            ("patch_size", json!([2, 1, 1])),
            ("patch_size", json!(2)),
            ("qk_norm", json!("rms_norm")),
            ("qk_norm", json!(null)),
            ("guidance_embeds", json!(true)),
            ("cross_attention_dim", json!(1024)),
            ("cross_attention_dim", json!(null)),
            ("num_cross_attention_heads", json!(16)),
            ("cross_attention_head_dim", json!(64)),
            ("attention_head_dim", json!(111)),
            ("attention_bias", json!("yes")),
            ("norm_elementwise_affine", json!(1)),
            ("norm_eps", json!(2.0)),
            ("num_layers", json!(0)),
            ("out_channels", json!(0)),
            ("mlp_ratio", json!(0.0)),
            ("mlp_ratio", json!(1e-4)),
            ("mlp_ratio", json!(1e300)),
            ("rope_max_seq_len", json!(0)),
            ("flow_shift", json!(1e-17)),
            ("sample_steps", json!([1000])),
            ("text_dim", json!(2304)),
        ] {
            let message = parse(&json!({ field: value })).unwrap_err().to_string();
            assert!(message.contains(field), "{field}: {message}");
        }
    }
}
