//! The configuration of a causal Wan: the fields of `CausalWanModel`, and those of the project's YAML that a stream needs.

use s2dit_runtime::sampler::shifted;
use serde_json::{Value, json};

use crate::fields::{Fields, MOST_FRAMES};
use crate::wan::config::WanConfig;
use crate::wan::original;
use s2dit_files::json::compact;
use s2dit_files::problems::Problems;

/// Every field, in the order they are written: first those of the network.
pub(super) const FIELDS: &[&str] = &[
    "model_type",
    "patch_size",
    "text_len",
    "in_dim",
    "dim",
    "ffn_dim",
    "freq_dim",
    "text_dim",
    "out_dim",
    "num_heads",
    "num_layers",
    "cross_attn_norm",
    "eps",
    "local_attn_size",
    "sink_size",
    "num_frame_per_block",
    "denoising_step_list",
    "timestep_shift",
    "context_noise",
];
/// The first of [`FIELDS`] that is about streams and not about the network.
const STREAM: &str = "local_attn_size";

/// The configuration of a `CausalWanModel` that makes video from text.
///
/// A field that a `config.json` leaves out has the default of the project: `num_frame_per_block` \[3\], `local_attn_size` \[-1\], `sink_size`
/// \[0\], `denoising_step_list` \[[1000, 750, 500, 250]\], `timestep_shift` \[5.0\], `context_noise` \[0\], and those of `WanModel`.
#[derive(Clone, Debug, PartialEq)]
pub struct CausalWanConfig {
    /// The network.
    pub wan: WanConfig,
    /// Latent frames that attention sees at most, the current chunk and the sink included; `None` for those of a training clip,
    /// [`CausalWanConfig::TRAINED_FRAMES`].
    pub local_attn_size: Option<usize>,
    /// Latent frames at the start of a stream that never leave the window.
    pub sink_size: usize,
    /// Latent frames of a chunk.
    pub num_frame_per_block: usize,
    /// Timesteps of the sampler before the shift, from high to low, above 0 and at most 1000.
    pub denoising_step_list: Vec<f64>,
    /// The sampler's timestep shift.
    pub timestep_shift: f64,
}

impl CausalWanConfig {
    /// The class name of the project.
    pub const CLASS_NAME: &str = "CausalWanModel";
    /// Latent frames of a training clip, and what its model sees at most: 32,760 tokens of 60 × 104 latents.
    pub const TRAINED_FRAMES: usize = 21;

    pub(super) fn from_entries(entries: Vec<(String, Value)>, place: &str) -> Result<Self, Problems> {
        let streams = FIELDS.iter().position(|field| *field == STREAM).unwrap_or(FIELDS.len());
        let (network, stream): (Vec<_>, Vec<_>) = entries
            .into_iter()
            .filter(|(name, _)| !name.starts_with('_'))
            .partition(|(name, _)| FIELDS[..streams].contains(&name.as_str()));
        let mut fields = Fields::new(stream, FIELDS, place);
        let num_frame_per_block = fields.integer("num_frame_per_block", Some(3), 1..=MOST_FRAMES);
        let local_attn_size = local_attn_size(&mut fields, num_frame_per_block);
        let beside = local_attn_size.unwrap_or(Self::TRAINED_FRAMES).saturating_sub(num_frame_per_block);
        let denoising_step_list = denoising_step_list(&mut fields);
        let sink_size = fields.integer("sink_size", Some(0), 0..=MOST_FRAMES);
        let timestep_shift = fields.positive("timestep_shift", 5.0);
        if sink_size > beside {
            fields.problem(
                "sink_size",
                sink_size.to_string(),
                format!("at most {beside}: attention sees so many frames beside a chunk (local_attn_size)"),
            );
        }
        if let Some(value) = fields.remove("context_noise").filter(|value| value.as_f64() != Some(0.0)) {
            fields.problem("context_noise", compact(&value), "0: a finished chunk enters the window without noise");
        }
        let sigmas: Vec<f64> = denoising_step_list.iter().map(|t| shifted(t / 1000.0, timestep_shift)).collect();
        // The shift of 1 is 1 but for the last bit.
        if !sigmas.iter().all(|s| *s > 0.0 && *s <= 1.0 + 1e-9) || !sigmas.is_sorted_by(|a, b| a > b) {
            fields.problem(
                "timestep_shift",
                format!("{timestep_shift:?}"),
                "a shift that leaves the noise levels apart",
            );
        }
        fields.finish()?;
        if let Some((_, kind)) = network.iter().find(|(name, kind)| name == "model_type" && kind != "t2v") {
            let expected = "\"t2v\": a stream makes video from text alone";
            return Err(Problems::one(format!("{place}: model_type"), compact(kind), expected));
        }
        let wan = original::config(network, place)?;
        Ok(CausalWanConfig {
            wan,
            local_attn_size,
            sink_size,
            num_frame_per_block,
            denoising_step_list,
            timestep_shift,
        })
    }

    /// Noise levels after the shift, from high to low.
    #[must_use]
    pub fn sigmas(&self) -> Vec<f64> {
        self.denoising_step_list.iter().map(|t| shifted(t / 1000.0, self.timestep_shift)).collect()
    }

    /// The most recent latent frames in the window, without the current chunk and the sink.
    #[must_use]
    pub fn window_frames(&self) -> usize {
        let seen = self.local_attn_size.unwrap_or(Self::TRAINED_FRAMES);
        seen.saturating_sub(self.num_frame_per_block + self.sink_size)
    }

    /// The configuration as a JSON value: always the same fields, in the same order.
    #[must_use]
    pub fn to_json_value(&self) -> Value {
        let wan = &self.wan;
        json!({
            "_class_name": Self::CLASS_NAME,
            "model_type": "t2v",
            "patch_size": wan.patch_size,
            "text_len": wan.text_len,
            "in_dim": wan.in_channels,
            "dim": wan.hidden_size(),
            "ffn_dim": wan.ffn_dim,
            "freq_dim": wan.freq_dim,
            "text_dim": wan.text_dim,
            "out_dim": wan.out_channels,
            "num_heads": wan.num_attention_heads,
            "num_layers": wan.num_layers,
            "cross_attn_norm": wan.cross_attn_norm,
            "eps": wan.eps,
            "local_attn_size": self.local_attn_size.map_or(json!(-1), |frames| json!(frames)),
            "sink_size": self.sink_size,
            "num_frame_per_block": self.num_frame_per_block,
            "denoising_step_list": self.denoising_step_list,
            "timestep_shift": self.timestep_shift,
            "context_noise": 0,
        })
    }
}

/// Frames that attention sees, at least a chunk; -1 stands for those of a training clip.
fn local_attn_size(fields: &mut Fields<'_>, chunk: usize) -> Option<usize> {
    const FIELD: &str = "local_attn_size";
    let value = fields.remove(FIELD).filter(|value| value.as_i64() != Some(-1));
    let least = match &value {
        None => CausalWanConfig::TRAINED_FRAMES,
        Some(value) => crate::fields::as_integer(value, &(1..=MOST_FRAMES)).unwrap_or(0),
    };
    if least < chunk {
        let found = value.as_ref().map_or("-1 (21 frames)".into(), compact);
        fields.problem(
            FIELD,
            found,
            format!("-1, or a number of frames from {chunk}, which is num_frame_per_block, to {MOST_FRAMES}"),
        );
    }
    value.map(|_| least)
}

/// Timesteps from high to low.
fn denoising_step_list(fields: &mut Fields<'_>) -> Vec<f64> {
    const FIELD: &str = "denoising_step_list";
    let Some(value) = fields.remove(FIELD) else { return vec![1000.0, 750.0, 500.0, 250.0] };
    let steps: Option<Vec<f64>> = value.as_array().and_then(|list| list.iter().map(Value::as_f64).collect());
    let valid = |steps: &Vec<f64>| {
        let in_range = steps.iter().all(|t| *t > 0.0 && *t <= 1000.0);
        !steps.is_empty() && in_range && steps.is_sorted_by(|a, b| a > b)
    };
    steps.filter(valid).unwrap_or_else(|| {
        fields.problem(FIELD, compact(&value), "a list of timesteps that descend, above 0 and at most 1000");
        vec![1000.0]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(config: &Value) -> Result<CausalWanConfig, Problems> {
        CausalWanConfig::from_entries(config.as_object().unwrap().clone().into_iter().collect(), "config.json")
    }

    /// The configuration that Self-Forcing loads its weights into: that of Wan 2.1 1.3B.
    fn published() -> Value {
        json!({
            "_class_name": "CausalWanModel", "dim": 1536, "eps": 1e-06, "ffn_dim": 8960, "freq_dim": 256, "in_dim": 16,
            "model_type": "t2v", "num_heads": 12, "num_layers": 30, "out_dim": 16, "text_len": 512,
        })
    }

    #[test]
    fn the_published_model_has_a_window_of_18_frames_and_four_steps() {
        let config = parse(&published()).unwrap();
        assert_eq!((config.wan.hidden_size(), config.wan.num_layers, config.window_frames()), (1536, 30, 18));
        assert_eq!(
            config.sigmas().iter().map(|s| (s * 1e4).round()).collect::<Vec<_>>(),
            [10000.0, 9375.0, 8333.0, 6250.0]
        );
        assert_eq!(parse(&config.to_json_value()).unwrap(), config);
        let written: Vec<String> = config.to_json_value().as_object().unwrap().keys().skip(1).cloned().collect();
        assert_eq!(written, FIELDS);
    }

    #[test]
    fn a_window_includes_the_chunk_and_the_sink() {
        let mut config = published();
        (config["local_attn_size"], config["sink_size"], config["num_frame_per_block"]) =
            (json!(9), json!(2), json!(4));
        let config = parse(&config).unwrap();
        assert_eq!((config.window_frames(), config.sink_size), (3, 2));
    }

    #[test]
    fn what_cannot_be_streamed_is_refused_by_its_name() {
        for (field, value) in [
            ("local_attn_size", json!(2)),
            ("local_attn_size", json!(0)),
            ("local_attn_size", json!(5000)),
            ("local_attn_size", json!("all")),
            ("num_frame_per_block", json!(22)),
            ("sink_size", json!(19)),
            ("denoising_step_list", json!([1000, 750, 0])),
            ("denoising_step_list", json!([250, 500])),
            ("denoising_step_list", json!([])),
            ("timestep_shift", json!(0)),
            ("context_noise", json!(100)),
            ("model_type", json!("i2v")),
            ("dim", json!(1537)),
            ("flow_shift", json!(5.0)),
        ] {
            let mut config = published();
            config[field] = value;
            let message = parse(&config).unwrap_err().to_string();
            assert!(message.contains(field), "{field}: {message}");
        }
    }
}
