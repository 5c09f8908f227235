//! The configuration of LTX-Video's autoencoders, as far as their decoders follow from it.

use serde_json::{Value, json};

use crate::fields::{Fields, LARGEST, as_integer};
use s2dit_files::json::compact;
use s2dit_files::problems::Problems;

/// Every field, in the order they are written.
pub(super) const FIELDS: &[&str] = &[
    "in_channels",
    "out_channels",
    "latent_channels",
    "block_out_channels",
    "down_block_types",
    "decoder_block_out_channels",
    "layers_per_block",
    "decoder_layers_per_block",
    "spatio_temporal_scaling",
    "decoder_spatio_temporal_scaling",
    "decoder_inject_noise",
    "downsample_type",
    "upsample_residual",
    "upsample_factor",
    "timestep_conditioning",
    "decode_timestep",
    "patch_size",
    "patch_size_t",
    "resnet_norm_eps",
    "scaling_factor",
    "encoder_causal",
    "decoder_causal",
    "spatial_compression_ratio",
    "temporal_compression_ratio",
];

/// Fields that say something of the encoder alone, or of what pipelines do. Their values are kept as they are.
const KEPT: &[&str] = &[
    "in_channels",
    "block_out_channels",
    "down_block_types",
    "layers_per_block",
    "spatio_temporal_scaling",
    "downsample_type",
    "encoder_causal",
    "spatial_compression_ratio",
    "temporal_compression_ratio",
];

/// Cosines and sines of the timestep, which is no field of diffusers.
pub(super) const SINUSOIDS: usize = 256;

/// Most levels of an autoencoder: far above any.
const MOST_LEVELS: usize = 8;

/// The configuration of an `AutoencoderKLLTXVideo`.
///
/// A field that a `config.json` leaves out has the default of diffusers, which is that of LTX-Video 0.9.0. The lists are of the encoder's order: the finest
/// level first.
#[derive(Clone, Debug, PartialEq)]
pub struct LtxVaeConfig {
    /// Channels of the latent.
    pub latent_channels: usize,
    /// Channels of each level.
    pub decoder_block_out_channels: Vec<usize>,
    /// Residual blocks of each level, and of the middle block.
    pub decoder_layers_per_block: Vec<usize>,
    /// Whether a level doubles frames, rows and columns.
    pub decoder_spatio_temporal_scaling: Vec<bool>,
    /// Whether there is a shortcut around the doubling of a level.
    pub upsample_residual: Vec<bool>,
    /// What a level divides its channels by as it doubles.
    pub upsample_factor: Vec<usize>,
    /// The timestep at which a decoder that takes one is asked, in 0 to 1: pipelines have one for all videos. `None` if it takes none.
    pub decode_timestep: Option<f64>,
    /// Sides of the patches of pixels that the decoder's last channels are.
    pub patch_size: usize,
    /// The ε of the layer norms of shortcuts.
    pub resnet_norm_eps: f64,
    /// What the latent is divided by.
    pub scaling_factor: f64,
    /// Whether a frame sees none that follow.
    pub decoder_causal: bool,
    /// Fields of the encoder, and of pipelines, in the order of [`FIELDS`].
    pub(super) kept: Vec<(&'static str, Value)>,
}

impl Default for LtxVaeConfig {
    /// The defaults of diffusers: LTX-Video 0.9.0.
    fn default() -> Self {
        LtxVaeConfig {
            latent_channels: 128,
            decoder_block_out_channels: vec![128, 256, 512, 512],
            decoder_layers_per_block: vec![4, 3, 3, 3, 4],
            decoder_spatio_temporal_scaling: vec![true, true, true, false],
            upsample_residual: vec![false; 4],
            upsample_factor: vec![1; 4],
            decode_timestep: None,
            patch_size: 4,
            resnet_norm_eps: 1e-6,
            scaling_factor: 1.0,
            decoder_causal: false,
            kept: Vec::new(),
        }
    }
}

impl LtxVaeConfig {
    /// The diffusers class name.
    pub const CLASS_NAME: &str = "AutoencoderKLLTXVideo";

    /// Channels that the decoder's last layer makes.
    pub(super) fn out_channels(&self) -> usize {
        3 * self.patch_size * self.patch_size
    }

    /// How often frames, rows and columns are doubled.
    fn doublings(&self) -> usize {
        self.decoder_spatio_temporal_scaling.iter().filter(|up| **up).count()
    }

    /// Frames that a latent frame becomes, but for the first, which becomes one.
    #[must_use]
    pub fn temporal(&self) -> usize {
        1 << self.doublings()
    }

    /// Rows that a latent row becomes, and columns a column.
    #[must_use]
    pub fn spatial(&self) -> usize {
        self.patch_size << self.doublings()
    }

    pub(super) fn from_entries(entries: Vec<(String, Value)>, place: &str) -> Result<Self, Problems> {
        let mut fields = Fields::new(entries, FIELDS, place);
        let or = LtxVaeConfig::default();
        let kept = KEPT.iter().filter_map(|field| Some((*field, fields.remove(field)?))).collect();
        // The checkpoint's tensors say them.
        fields.ignored("latents_mean");
        fields.ignored("latents_std");
        let size = |value: &Value| as_integer(value, &(1..=LARGEST));
        let few = |value: &Value| as_integer(value, &(1..=64));
        const FLAGS: &str = "a list of true and false";
        let is_conditioned = fields.flag("timestep_conditioning", false);
        let timestep = fields.remove("decode_timestep");
        let decode_timestep = match &timestep {
            None => is_conditioned.then_some(0.0),
            Some(value) => {
                let read = value.as_f64().filter(|t| is_conditioned && (0.0..=1.0).contains(t));
                if read.is_none() {
                    fields.problem(
                        "decode_timestep",
                        compact(value),
                        "a number from 0 to 1, with timestep_conditioning: the timestep at which the decoder is asked",
                    );
                }
                read
            }
        };
        refuse(&mut fields, "decoder_inject_noise", "a decoder that adds noise of its own is not compiled");
        let config = LtxVaeConfig {
            latent_channels: fields.integer("latent_channels", Some(or.latent_channels), 1..=4096),
            decoder_block_out_channels: fields.list(
                "decoder_block_out_channels",
                or.decoder_block_out_channels,
                "a list of sizes",
                size,
            ),
            decoder_layers_per_block: fields.list(
                "decoder_layers_per_block",
                or.decoder_layers_per_block,
                "a list of integers from 1 to 64",
                few,
            ),
            decoder_spatio_temporal_scaling: fields.list(
                "decoder_spatio_temporal_scaling",
                or.decoder_spatio_temporal_scaling,
                FLAGS,
                Value::as_bool,
            ),
            upsample_residual: fields.list("upsample_residual", or.upsample_residual, FLAGS, Value::as_bool),
            upsample_factor: fields.list("upsample_factor", or.upsample_factor, "a list of integers from 1 to 64", few),
            decode_timestep,
            patch_size: fields.integer("patch_size", Some(or.patch_size), 1..=16),
            resnet_norm_eps: fields.eps("resnet_norm_eps", or.resnet_norm_eps),
            scaling_factor: fields.positive("scaling_factor", or.scaling_factor),
            decoder_causal: fields.flag("decoder_causal", or.decoder_causal),
            kept,
        };
        fields.integer("patch_size_t", Some(1), 1..=1);
        fields.integer("out_channels", Some(3), 3..=3);
        config.check(&mut fields);
        fields.finish()?;
        Ok(config)
    }

    /// What fields say of each other.
    fn check(&self, fields: &mut Fields<'_>) {
        let count = self.decoder_block_out_channels.len();
        if !(1..=MOST_LEVELS).contains(&count) {
            let expected = format!("1 to {MOST_LEVELS}, one a level");
            return fields.problem("decoder_block_out_channels", format!("{count} numbers"), expected);
        }
        let lengths = [
            ("decoder_layers_per_block", self.decoder_layers_per_block.len(), count + 1),
            ("decoder_spatio_temporal_scaling", self.decoder_spatio_temporal_scaling.len(), count),
            ("upsample_residual", self.upsample_residual.len(), count),
            ("upsample_factor", self.upsample_factor.len(), count),
        ];
        for (field, found, expected) in lengths {
            if found != expected {
                let expected = format!("{expected}: decoder_block_out_channels has {count}");
                return fields.problem(field, format!("{found} entries"), expected);
            }
        }
        match self.levels() {
            Err((field, found, expected)) => fields.problem(field, found, expected),
            Ok(levels) => {
                if self.decode_timestep.is_some() && levels.iter().any(|level| level.changes.is_some()) {
                    fields.problem(
                        "timestep_conditioning",
                        "true, and a level whose first block changes its channels",
                        "levels of which upsample_factor makes the channels: diffusers has no modulation of such a block",
                    );
                }
            }
        }
    }

    /// The configuration as a JSON value: the decoder's fields, and those of the encoder that were read.
    #[must_use]
    pub fn to_json_value(&self) -> Value {
        let mut all = json!({
            "_class_name": Self::CLASS_NAME,
            "out_channels": 3,
            "latent_channels": self.latent_channels,
            "decoder_block_out_channels": self.decoder_block_out_channels,
            "decoder_layers_per_block": self.decoder_layers_per_block,
            "decoder_spatio_temporal_scaling": self.decoder_spatio_temporal_scaling,
            "decoder_inject_noise": vec![false; self.decoder_layers_per_block.len()],
            "upsample_residual": self.upsample_residual,
            "upsample_factor": self.upsample_factor,
            "timestep_conditioning": self.decode_timestep.is_some(),
            "patch_size": self.patch_size,
            "patch_size_t": 1,
            "resnet_norm_eps": self.resnet_norm_eps,
            "scaling_factor": self.scaling_factor,
            "decoder_causal": self.decoder_causal,
        });
        if let Some(timestep) = self.decode_timestep {
            all["decode_timestep"] = timestep.into();
        }
        for (field, value) in &self.kept {
            all[*field] = value.clone();
        }
        all
    }
}

/// A field that is not false anywhere.
fn refuse(fields: &mut Fields<'_>, field: &str, why: &str) {
    let Some(value) = fields.remove(field) else { return };
    let is_false = |value: &Value| *value == Value::Bool(false);
    if !is_false(&value) && !value.as_array().is_some_and(|items| items.iter().all(is_false)) {
        fields.problem(field, compact(&value), format!("false: {why}"));
    }
}
