//! The configuration of an Open-Sora transformer: the fields of the project's `MMDiTConfig`, and those that its sampling knows.

use s2dit_runtime::sampler::euler_sigmas;
use serde_json::{Value, json};

use crate::fields::{Fields, LARGEST, MOST_BLOCKS, check_shift};
use s2dit_files::problems::Problems;

/// Every field, in the order they are written.
pub(super) const FIELDS: &[&str] = &[
    "in_channels",
    "vec_in_dim",
    "context_in_dim",
    "hidden_size",
    "mlp_ratio",
    "num_heads",
    "depth",
    "depth_single_blocks",
    "axes_dim",
    "theta",
    "qkv_bias",
    "guidance_embed",
    "cond_embed",
    "fused_qkv",
    "use_liger_rope",
    "patch_size",
    "text_len",
    "sample_steps",
    "flow_shift",
];

/// The configuration of an Open-Sora `MMDiTModel`.
///
/// A field that a `config.json` leaves out has the default of `MMDiTConfig`, where there is one, and else the value of Open-Sora 2.0.
/// `text_len` \[512\], `sample_steps` \[50\] and `flow_shift` \[5.73\] are not fields of the project: its sampling knows them. The shift is that of 33 latent
/// frames at the project's 256 pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenSoraConfig {
    /// Values of a patch of the noise: its channels times the square of `patch_size`.
    pub in_channels: usize,
    /// Width of the pooled embedding of the text.
    pub vec_in_dim: usize,
    /// Width of the text embeddings.
    pub context_in_dim: usize,
    /// The hidden width.
    pub hidden_size: usize,
    /// Hidden width of the feed-forward layers as a multiple of `hidden_size`.
    pub mlp_ratio: f64,
    /// Attention heads.
    pub num_heads: usize,
    /// Double blocks.
    pub depth: usize,
    /// Single blocks.
    pub depth_single_blocks: usize,
    /// Widths that RoPE turns by frame, row and column: even, and together those of a head.
    pub axes_dim: [usize; 3],
    /// Base of the RoPE frequencies.
    pub theta: f64,
    /// Whether queries, keys and values of the double blocks have biases.
    pub qkv_bias: bool,
    /// Whether it takes the strength of a distilled guidance.
    pub guidance_embed: bool,
    /// Whether it takes a condition beside the noise: a mask, and what is given of the latent.
    pub cond_embed: bool,
    /// Whether the projections of attention are stored as one.
    pub fused_qkv: bool,
    /// Whether RoPE turns the two halves of a head, or pairs of neighbours.
    pub use_liger_rope: bool,
    /// Rows and columns of a patch.
    pub patch_size: usize,
    /// Text tokens, padding included.
    pub text_len: usize,
    /// Euler steps of the sampler.
    pub sample_steps: usize,
    /// Timestep shift of the sampler.
    pub flow_shift: f64,
}

impl OpenSoraConfig {
    /// The `_class_name`: the project's `MMDiTModel`, which is too common a name.
    pub const CLASS_NAME: &str = "OpenSoraMMDiTModel";
    /// Width of the sinusoids, which is no field.
    pub(super) const FREQ_DIM: usize = 256;
    /// The ε of every norm, which is no field.
    pub(super) const EPS: f64 = 1e-6;

    /// Channels of the velocity, and of the noise in the latent.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.in_channels / (self.patch_size * self.patch_size)
    }

    /// Width of a head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_heads
    }

    /// Hidden width of the feed-forward layers.
    #[must_use]
    pub fn ffn_dim(&self) -> usize {
        (self.hidden_size as f64 * self.mlp_ratio) as usize
    }

    /// Open-Sora 2.0, 11B.
    pub(super) fn published() -> Self {
        OpenSoraConfig {
            in_channels: 64,
            vec_in_dim: 768,
            context_in_dim: 4096,
            hidden_size: 3072,
            mlp_ratio: 4.0,
            num_heads: 24,
            depth: 19,
            depth_single_blocks: 38,
            axes_dim: [16, 56, 56],
            theta: 10000.0,
            qkv_bias: true,
            guidance_embed: false,
            cond_embed: true,
            fused_qkv: false,
            use_liger_rope: true,
            patch_size: 2,
            text_len: 512,
            sample_steps: 50,
            flow_shift: 5.73,
        }
    }

    pub(super) fn from_entries(entries: Vec<(String, Value)>, place: &str) -> Result<Self, Problems> {
        let mut fields = Fields::new(entries, FIELDS, place);
        let or = OpenSoraConfig::published();
        let config = OpenSoraConfig {
            in_channels: fields.size("in_channels", Some(or.in_channels)),
            vec_in_dim: fields.size("vec_in_dim", Some(or.vec_in_dim)),
            context_in_dim: fields.size("context_in_dim", Some(or.context_in_dim)),
            hidden_size: fields.size("hidden_size", Some(or.hidden_size)),
            mlp_ratio: fields.positive("mlp_ratio", or.mlp_ratio),
            num_heads: fields.size("num_heads", Some(or.num_heads)),
            depth: fields.integer("depth", Some(or.depth), 1..=MOST_BLOCKS / 2),
            depth_single_blocks: fields.integer(
                "depth_single_blocks",
                Some(or.depth_single_blocks),
                1..=MOST_BLOCKS / 2,
            ),
            axes_dim: fields.widths("axes_dim", or.axes_dim),
            theta: fields.positive("theta", or.theta),
            qkv_bias: fields.flag("qkv_bias", or.qkv_bias),
            guidance_embed: fields.flag("guidance_embed", or.guidance_embed),
            cond_embed: fields.flag("cond_embed", false),
            fused_qkv: fields.flag("fused_qkv", true),
            use_liger_rope: fields.flag("use_liger_rope", false),
            patch_size: fields.integer("patch_size", Some(or.patch_size), 1..=64),
            text_len: fields.size("text_len", Some(or.text_len)),
            sample_steps: fields.integer("sample_steps", Some(or.sample_steps), 1..=1000),
            flow_shift: fields.positive("flow_shift", or.flow_shift),
        };
        fields.finish()?;
        config.check(place)?;
        check_shift(&euler_sigmas(config.sample_steps, config.flow_shift), config.flow_shift, place)?;
        Ok(config)
    }

    /// Checks the fields that must fit each other.
    fn check(&self, place: &str) -> Result<(), Problems> {
        let mut problems = Problems::new();
        let mut check = |fits: bool, field: &str, found: String, expected: String| {
            if !fits {
                problems.push(format!("{place}: {field}"), found, expected);
            }
        };
        let (patch, heads) = (self.patch_size * self.patch_size, self.num_heads);
        let expected = format!("a multiple of {patch}, the square of patch_size: a patch is packed into channels");
        check(self.in_channels.is_multiple_of(patch), "in_channels", self.in_channels.to_string(), expected);
        let expected = format!("a multiple of num_heads ({heads})");
        check(self.hidden_size.is_multiple_of(heads), "hidden_size", self.hidden_size.to_string(), expected);
        let (axes, width) = (self.axes_dim, self.head_dim());
        let expected = format!("even widths that add up to {width}, that of a head (hidden_size / num_heads)");
        let fits = axes.iter().all(|axis| axis.is_multiple_of(2)) && axes.iter().sum::<usize>() == width;
        check(fits, "axes_dim", format!("{axes:?}"), expected);
        let hidden = self.hidden_size as f64 * self.mlp_ratio;
        let expected = format!("a ratio by which the feed-forward layers are 1 to {LARGEST} wide");
        check((1.0..=LARGEST as f64).contains(&hidden), "mlp_ratio", self.mlp_ratio.to_string(), expected);
        problems.into_result()
    }

    /// The configuration as a JSON value: always the same fields, in the same order.
    #[must_use]
    pub fn to_json_value(&self) -> Value {
        json!({
            "_class_name": Self::CLASS_NAME,
            "in_channels": self.in_channels,
            "vec_in_dim": self.vec_in_dim,
            "context_in_dim": self.context_in_dim,
            "hidden_size": self.hidden_size,
            "mlp_ratio": self.mlp_ratio,
            "num_heads": self.num_heads,
            "depth": self.depth,
            "depth_single_blocks": self.depth_single_blocks,
            "axes_dim": self.axes_dim,
            "theta": self.theta,
            "qkv_bias": self.qkv_bias,
            "guidance_embed": self.guidance_embed,
            "cond_embed": self.cond_embed,
            "fused_qkv": self.fused_qkv,
            "use_liger_rope": self.use_liger_rope,
            "patch_size": self.patch_size,
            "text_len": self.text_len,
            "sample_steps": self.sample_steps,
            "flow_shift": self.flow_shift,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(fields: &Value) -> Result<OpenSoraConfig, Problems> {
        let entries = fields.as_object().unwrap().clone().into_iter().collect();
        OpenSoraConfig::from_entries(entries, "config.json")
    }

    #[test]
    fn the_fields_of_the_projects_own_configuration_are_read() {
        // configs/diffusion/inference/256px.py of the project.
        let published = json!({
            "_class_name": "OpenSoraMMDiTModel", "guidance_embed": false, "fused_qkv": false, "use_liger_rope": true, "in_channels": 64,
            "vec_in_dim": 768, "context_in_dim": 4096, "hidden_size": 3072, "mlp_ratio": 4.0, "num_heads": 24, "depth": 19,
            "depth_single_blocks": 38, "axes_dim": [16, 56, 56], "theta": 10000, "qkv_bias": true, "cond_embed": true,
        });
        let config = parse(&published).unwrap();
        assert_eq!(config, OpenSoraConfig::published());
        assert_eq!((config.channels(), config.head_dim(), config.ffn_dim()), (16, 128, 12288));
        assert_eq!(parse(&config.to_json_value()).unwrap(), config);
        let written: Vec<String> = config.to_json_value().as_object().unwrap().keys().skip(1).cloned().collect();
        assert_eq!(written, FIELDS);
        // The defaults of the project's dataclass.
        let bare = parse(&json!({})).unwrap();
        assert_eq!((bare.cond_embed, bare.fused_qkv, bare.use_liger_rope, bare.patch_size), (false, true, false, 2));
    }

    #[test]
    fn fields_that_do_not_fit_are_refused() {
        for (fields, says) in [
            (json!({ "in_channels": 62 }), "in_channels: found 62, expected a multiple of 4"),
            (json!({ "num_heads": 25 }), "hidden_size: found 3072, expected a multiple of num_heads (25)"),
            (json!({ "axes_dim": [16, 56, 58] }), "axes_dim: found [16, 56, 58]"),
            (json!({ "axes_dim": [17, 55, 56] }), "even widths that add up to 128"),
            (json!({ "axes_dim": [16, 56] }), "axes_dim: found [16,56], expected a list of 3 integers"),
            (json!({ "mlp_ratio": 1e-9 }), "mlp_ratio"),
            (json!({ "mlp_ratio": 1e9 }), "mlp_ratio"),
            (json!({ "depths": 3 }), "did you mean `depth`?"),
        ] {
            let message = parse(&fields).unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
    }
}
