//! The configuration of a causal SANA-Video: the fields of its network, and those of the project's sampler that a stream needs.

use s2dit_runtime::sampler::shifted;
use serde_json::{Value, json};

use super::super::config::{SanaConfig, only};
use crate::fields::{Fields, MOST_FRAMES};
use s2dit_files::json::compact;
use s2dit_files::problems::Problems;

/// Every field, in the order they are written: first those of the network.
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
    "num_frame_per_block",
    "num_cached_blocks",
    "denoising_step_list",
    "flow_shift",
];
/// The first of [`FIELDS`] that is about streams and not about the network.
const STREAM: &str = "num_frame_per_block";

/// The configuration of a `SanaVideoCausalTransformer3DModel`, LongSANA.
///
/// A field that a `config.json` leaves out has the default of the project: `num_frame_per_block` \[10\], `num_cached_blocks` \[-1\],
/// `denoising_step_list` \[[1000, 960, 889, 727]\], `flow_shift` \[7.0\], and those of [`SanaConfig`].
#[derive(Clone, Debug, PartialEq)]
pub struct CausalSanaConfig {
    /// The network. Its sampler is not that of a stream.
    pub sana: SanaConfig,
    /// Latent frames of a chunk.
    pub num_frame_per_block: usize,
    /// Timesteps that the network is called with, from high to low, above 0 and at most 1000.
    pub denoising_step_list: Vec<usize>,
    /// Shift of the noise levels that the timesteps are looked up in.
    pub flow_shift: f64,
}

impl CausalSanaConfig {
    /// The class name in the project's conversion to diffusers.
    pub const CLASS_NAME: &str = "SanaVideoCausalTransformer3DModel";
    /// Noise levels that the project's sampler knows.
    const LEVELS: usize = 1000;

    pub(super) fn of(sana: SanaConfig) -> CausalSanaConfig {
        CausalSanaConfig {
            sana,
            num_frame_per_block: 10,
            denoising_step_list: vec![1000, 960, 889, 727],
            flow_shift: 7.0,
        }
    }

    pub(super) fn from_entries(entries: Vec<(String, Value)>, place: &str) -> Result<Self, Problems> {
        let streams = FIELDS.iter().position(|field| *field == STREAM).unwrap_or(FIELDS.len());
        let (network, stream): (Vec<_>, Vec<_>) = entries
            .into_iter()
            .filter(|(name, _)| !name.starts_with('_'))
            .partition(|(name, _)| FIELDS[..streams].contains(&name.as_str()));
        let usual = CausalSanaConfig::of(SanaConfig::defaults());
        let mut fields = Fields::new(stream, FIELDS, place);
        let said = "-1: a chunk sees all chunks before it; a stream that forgets the sums of old chunks is not made";
        only(&mut fields, "num_cached_blocks", &json!(-1), said);
        let config = CausalSanaConfig {
            num_frame_per_block: fields.integer(
                "num_frame_per_block",
                Some(usual.num_frame_per_block),
                1..=MOST_FRAMES,
            ),
            denoising_step_list: denoising_step_list(&mut fields).unwrap_or(usual.denoising_step_list),
            flow_shift: fields.positive("flow_shift", usual.flow_shift),
            sana: usual.sana,
        };
        let sigmas = config.sigmas();
        if !sigmas.iter().all(|s| *s > 0.0 && *s <= 1.0) || !sigmas.is_sorted_by(|a, b| a > b) {
            let expected = "a shift that leaves the noise levels of denoising_step_list apart";
            fields.problem("flow_shift", format!("{:?}", config.flow_shift), expected);
        }
        fields.finish()?;
        Ok(CausalSanaConfig { sana: SanaConfig::from_entries(network, place)?, ..config })
    }

    /// The noise level of each timestep, as the project's sampler finds it: of a thousand levels under the shift the nearest.
    #[must_use]
    pub fn sigmas(&self) -> Vec<f64> {
        let levels: Vec<f64> = (1..=Self::LEVELS)
            .rev()
            .map(|level| shifted(level as f64 / Self::LEVELS as f64, self.flow_shift))
            .collect();
        let nearest = |timestep: &usize| {
            let away = |level: &f64| (1000.0 * level - *timestep as f64).abs();
            levels.iter().copied().min_by(|a, b| away(a).total_cmp(&away(b)))
        };
        self.denoising_step_list.iter().filter_map(nearest).collect()
    }

    /// The configuration as a JSON value: always the same fields, in the same order.
    #[must_use]
    pub fn to_json_value(&self) -> Value {
        let mut fields = self.sana.to_json_value();
        fields["_class_name"] = Self::CLASS_NAME.into();
        if let Value::Object(fields) = &mut fields {
            fields.retain(|name, _| name.starts_with('_') || FIELDS.contains(&name.as_str()));
            fields.shift_remove("flow_shift");
        }
        fields["num_frame_per_block"] = self.num_frame_per_block.into();
        fields["num_cached_blocks"] = json!(-1);
        fields["denoising_step_list"] = json!(self.denoising_step_list);
        fields["flow_shift"] = json!(self.flow_shift);
        fields
    }
}

/// Whole timesteps from high to low: the network rounds others down. A 0 at the end, as the project writes it, is no step.
fn denoising_step_list(fields: &mut Fields<'_>) -> Option<Vec<usize>> {
    const FIELD: &str = "denoising_step_list";
    let value = fields.remove(FIELD)?;
    let whole = |value: &Value| value.as_u64().and_then(|t| usize::try_from(t).ok());
    let mut steps: Vec<usize> = value.as_array().and_then(|list| list.iter().map(whole).collect()).unwrap_or_default();
    if steps.last() == Some(&0) {
        steps.pop();
    }
    let valid = !steps.is_empty() && steps.iter().all(|t| (1..=1000).contains(t)) && steps.is_sorted_by(|a, b| a > b);
    if !valid {
        fields.problem(FIELD, compact(&value), "a list of integers that descend, above 0 and at most 1000");
    }
    valid.then_some(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(config: &Value) -> Result<CausalSanaConfig, Problems> {
        CausalSanaConfig::from_entries(config.as_object().unwrap().clone().into_iter().collect(), "config.json")
    }

    /// As the project's script makes it for the checkpoint of LongSANA.
    fn published() -> Value {
        json!({
            "_class_name": "SanaVideoCausalTransformer3DModel", "_diffusers_version": "0.36.0.dev0", "attention_bias": false,
            "attention_head_dim": 112, "caption_channels": 2304, "cross_attention_dim": 2240, "cross_attention_head_dim": 112,
            "dropout": 0.0, "guidance_embeds": false, "guidance_embeds_scale": 0.1, "in_channels": 16,
            "interpolation_scale": null, "mlp_ratio": 3.0, "norm_elementwise_affine": false, "norm_eps": 1e-06,
            "num_attention_heads": 20, "num_cross_attention_heads": 20, "num_layers": 20, "out_channels": 16,
            "patch_size": [1, 2, 2], "qk_norm": "rms_norm_across_heads", "rope_max_seq_len": 1024, "sample_size": 30,
        })
    }

    #[test]
    fn the_published_model_has_chunks_of_ten_frames_and_four_steps() {
        let config = parse(&published()).unwrap();
        assert_eq!((config.sana.hidden_size(), config.sana.ffn_dim(), config.num_frame_per_block), (2240, 6720, 10));
        assert_eq!(parse(&config.to_json_value()).unwrap(), config);
        let written: Vec<String> = config.to_json_value().as_object().unwrap().keys().skip(1).cloned().collect();
        assert_eq!(written, FIELDS);
    }

    /// What `FlowMatchScheduler(shift=7.0, sigma_min=0.0, extra_one_step=True)` of the project has nearest to each timestep, printed by PyTorch in float64.
    #[test]
    fn noise_levels_are_the_nearest_of_a_thousand() {
        let config = parse(&published()).unwrap();
        let found: Vec<f64> = config.sigmas().iter().map(|s| (s * 1e9).round() / 1e9).collect();
        assert_eq!(found, [1.0, 0.959957477, 0.889153187, 0.727409639]);
        let with_zero = json!({ "denoising_step_list": [1000, 960, 889, 727, 0] });
        assert_eq!(parse(&with_zero).unwrap().denoising_step_list, config.denoising_step_list);
    }

    #[test]
    fn what_cannot_be_streamed_is_refused_by_its_name() {
        for (field, value) in [
            ("num_frame_per_block", json!(0)),
            ("num_cached_blocks", json!(2)),
            ("denoising_step_list", json!([1000, 0, 727])),
            ("denoising_step_list", json!([727, 960])),
            ("denoising_step_list", json!([0])),
            ("denoising_step_list", json!([])),
            ("denoising_step_list", json!([1000, 889.5])),
            ("denoising_step_list", json!([1001])),
            ("flow_shift", json!(0)),
            ("flow_shift", json!(1e6)),
            ("sample_steps", json!(50)),
            ("qk_norm", json!("rms_norm")),
            ("chunk_frames", json!(3)),
        ] {
            let mut config = published();
            config[field] = value;
            let message = parse(&config).unwrap_err().to_string();
            assert!(message.contains(field), "{field}: {message}");
        }
    }
}
