//! The configuration of Wan's autoencoders, as far as their decoders follow from it.

use serde_json::{Value, json};

use crate::fields::{Fields, LARGEST, as_integer};
use s2dit_files::problems::Problems;

/// Every field, in the order they are written.
pub(super) const FIELDS: &[&str] = &[
    "base_dim",
    "decoder_base_dim",
    "z_dim",
    "dim_mult",
    "num_res_blocks",
    "attn_scales",
    "temperal_downsample",
    "dropout",
    "latents_mean",
    "latents_std",
    "is_residual",
    "in_channels",
    "out_channels",
    "patch_size",
    "scale_factor_temporal",
    "scale_factor_spatial",
    "clip_output",
];

/// Most levels of an autoencoder: far above any.
const MOST_LEVELS: usize = 8;

/// The means of the latents of Wan 2.1, a channel each: the default of diffusers.
const MEAN: [f64; 16] = [
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517, -0.3632, -0.1922,
    -0.9497, 0.2503, -0.2921,
];
/// Their standard deviations.
const STD: [f64; 16] = [
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253,
    2.8251, 1.9160,
];

/// The configuration of an `AutoencoderKLWan`.
///
/// A field that a `config.json` leaves out has the default of diffusers, which is that of Wan 2.1. Fields that say something of the encoder alone
/// (`base_dim`, `in_channels`), and those that diffusers does not use in inference (`attn_scales`, `dropout`, `clip_output`), are read and kept.
#[derive(Clone, Debug, PartialEq)]
pub struct WanVaeConfig {
    /// Width of the encoder's first level.
    pub base_dim: usize,
    /// Width of the decoder's last level.
    pub decoder_base_dim: usize,
    /// Channels of the latent.
    pub z_dim: usize,
    /// Widths of the levels as multiples of the base, the finest first.
    pub dim_mult: Vec<usize>,
    /// Residual blocks of a level, but one.
    pub num_res_blocks: usize,
    /// For each step from a level to a coarser one, whether the encoder halves the frames, and the decoder doubles them.
    pub temperal_downsample: Vec<bool>,
    /// Means of the latent's channels.
    pub latents_mean: Vec<f64>,
    /// Standard deviations of the latent's channels.
    pub latents_std: Vec<f64>,
    /// Whether levels have shortcuts around them, as in Wan 2.2.
    pub is_residual: bool,
    /// Channels of the encoder's input: 3 for each pixel of a patch.
    pub in_channels: usize,
    /// Sides of the patches of pixels that the decoder's last channels are.
    pub patch_size: usize,
}

impl Default for WanVaeConfig {
    /// The defaults of diffusers: Wan 2.1.
    fn default() -> Self {
        WanVaeConfig {
            base_dim: 96,
            decoder_base_dim: 96,
            z_dim: 16,
            dim_mult: vec![1, 2, 4, 4],
            num_res_blocks: 2,
            temperal_downsample: vec![false, true, true],
            latents_mean: MEAN.to_vec(),
            latents_std: STD.to_vec(),
            is_residual: false,
            in_channels: 3,
            patch_size: 1,
        }
    }
}

/// A level of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Level {
    /// Channels that it takes.
    pub input: usize,
    /// Channels of its blocks.
    pub width: usize,
    /// How it ends, unless it is the finest.
    pub up: Option<Up>,
}

/// What ends a level: rows and columns are doubled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Up {
    /// Frames are doubled as well.
    pub time: bool,
    /// Channels that it makes.
    pub output: usize,
}

impl Level {
    /// Frames that the shortcut makes of one.
    pub fn times(&self) -> usize {
        self.up.map_or(1, |up| 1 + usize::from(up.time))
    }

    /// How the channels of the shortcut around a level become its pixels: see `DupUp3D` of diffusers. Channels are repeated so many times, and then
    /// each pixel has a share of them. `None` if the channels of a shortcut do not come out even.
    pub fn shortcut(&self) -> Option<[usize; 2]> {
        let made = self.width * 4 * self.times();
        let positions = 4 * self.times();
        let repeats = made.is_multiple_of(self.input).then(|| made / self.input)?;
        match (repeats.is_multiple_of(positions), positions.is_multiple_of(repeats)) {
            (true, _) => Some([repeats / positions, 1]),
            (_, true) => Some([1, positions / repeats]),
            _ => None,
        }
    }
}

impl WanVaeConfig {
    /// The diffusers class name.
    pub const CLASS_NAME: &str = "AutoencoderKLWan";

    /// The levels of the decoder, the coarsest first.
    pub(super) fn levels(&self) -> Vec<Level> {
        let widths: Vec<usize> = self.dim_mult.iter().rev().map(|mult| mult * self.decoder_base_dim).collect();
        let count = widths.len();
        let mut input = widths.first().copied().unwrap_or_default();
        let mut levels = Vec::with_capacity(count);
        for (i, &width) in widths.iter().enumerate() {
            let output = if self.is_residual { width } else { width / 2 };
            let time = |i: usize| self.temperal_downsample.iter().rev().nth(i).copied().unwrap_or_default();
            let up = (i + 1 < count).then(|| Up { time: time(i), output });
            levels.push(Level { input, width, up });
            input = output;
        }
        levels
    }

    /// Channels of the decoder's first layers.
    pub(super) fn widest(&self) -> usize {
        self.dim_mult.last().map_or(0, |mult| mult * self.decoder_base_dim)
    }

    /// Channels that the decoder's last layer makes.
    pub(super) fn out_channels(&self) -> usize {
        3 * self.patch_size * self.patch_size
    }

    /// Frames that a latent frame becomes, but for the first, which becomes one.
    #[must_use]
    pub fn temporal(&self) -> usize {
        1 << self.temperal_downsample.iter().filter(|time| **time).count()
    }

    /// Rows that a latent row becomes, and columns a column.
    #[must_use]
    pub fn spatial(&self) -> usize {
        self.patch_size << self.temperal_downsample.len()
    }

    pub(super) fn from_entries(entries: Vec<(String, Value)>, place: &str) -> Result<Self, Problems> {
        let mut fields = Fields::new(entries, FIELDS, place);
        let or = WanVaeConfig::default();
        let base_dim = fields.size("base_dim", Some(or.base_dim));
        let decoder_base_dim = fields.null_or("decoder_base_dim", LARGEST).unwrap_or(base_dim);
        let z_dim = fields.integer("z_dim", Some(or.z_dim), 1..=4096);
        let integer = |value: &Value| as_integer(value, &(1..=64));
        let dim_mult = fields.list("dim_mult", or.dim_mult, "a list of integers from 1 to 64", integer);
        let num_res_blocks = fields.integer("num_res_blocks", Some(or.num_res_blocks), 1..=64);
        fields.ignored("attn_scales");
        let temperal_downsample =
            fields.list("temperal_downsample", or.temperal_downsample, "a list of true and false", Value::as_bool);
        fields.ignored("dropout");
        let latents_mean = fields.list("latents_mean", or.latents_mean, "a list of numbers", Value::as_f64);
        let above = |value: &Value| value.as_f64().filter(|std| *std > 0.0);
        let latents_std = fields.list("latents_std", or.latents_std, "a list of numbers above 0", above);
        let is_residual = fields.flag("is_residual", or.is_residual);
        let in_channels = fields.integer("in_channels", Some(or.in_channels), 1..=4096);
        let out_channels = fields.integer("out_channels", Some(3), 1..=4096);
        let patch_size = fields.null_or("patch_size", 16).unwrap_or(1);
        let [temporal, spatial] =
            ["scale_factor_temporal", "scale_factor_spatial"].map(|field| fields.null_or(field, 4096));
        fields.ignored("clip_output");
        let config = WanVaeConfig {
            base_dim,
            decoder_base_dim,
            z_dim,
            dim_mult,
            num_res_blocks,
            temperal_downsample,
            latents_mean,
            latents_std,
            is_residual,
            in_channels,
            patch_size,
        };
        config.check(&mut fields, out_channels, [temporal, spatial]);
        fields.finish()?;
        Ok(config)
    }

    /// What fields say of each other.
    fn check(&self, fields: &mut Fields<'_>, out_channels: usize, factors: [Option<usize>; 2]) {
        let count = self.dim_mult.len();
        if !(1..=MOST_LEVELS).contains(&count) {
            fields.problem("dim_mult", format!("{count} numbers"), format!("1 to {MOST_LEVELS}, one a level"));
            return;
        }
        if self.temperal_downsample.len() + 1 != count {
            let expected = format!("{}, one less than dim_mult has", count - 1);
            fields.problem("temperal_downsample", format!("{} entries", self.temperal_downsample.len()), expected);
            return;
        }
        for (field, list) in [("latents_mean", &self.latents_mean), ("latents_std", &self.latents_std)] {
            if list.len() != self.z_dim {
                fields.problem(
                    field,
                    format!("{} numbers", list.len()),
                    format!("{} (z_dim), one a channel", self.z_dim),
                );
            }
        }
        if out_channels != self.out_channels() {
            let expected = format!(
                "{}: 3 colours of a patch of {}×{} pixels",
                self.out_channels(),
                self.patch_size,
                self.patch_size
            );
            fields.problem("out_channels", out_channels.to_string(), expected);
        }
        for (field, found, made) in [
            ("scale_factor_temporal", factors[0], self.temporal()),
            ("scale_factor_spatial", factors[1], self.spatial()),
        ] {
            if let Some(found) = found.filter(|found| *found != made) {
                fields.problem(field, found.to_string(), format!("{made}, which the levels and patch_size make"));
            }
        }
        if self.widest() > LARGEST {
            fields.problem("decoder_base_dim × dim_mult", self.widest().to_string(), format!("at most {LARGEST}"));
        }
        for (i, level) in self.levels().iter().enumerate() {
            let odd = !self.is_residual && level.up.is_some() && level.width % 2 == 1;
            if odd {
                let found = format!("a width of {} at level {i} of the decoder", level.width);
                fields.problem("dim_mult", found, "an even one: it is halved on the way up");
            }
            if self.is_residual && level.up.is_some() && level.shortcut().is_none() {
                let found = format!("{} channels to {} at level {i} of the decoder", level.input, level.width);
                fields.problem(
                    "dim_mult",
                    found,
                    "numbers whose quotient is a power of two: a shortcut repeats channels or shares them out",
                );
            }
        }
    }

    /// The configuration as a JSON value: always the same fields, in the same order.
    #[must_use]
    pub fn to_json_value(&self) -> Value {
        json!({
            "_class_name": Self::CLASS_NAME,
            "base_dim": self.base_dim,
            "decoder_base_dim": self.decoder_base_dim,
            "z_dim": self.z_dim,
            "dim_mult": self.dim_mult,
            "num_res_blocks": self.num_res_blocks,
            "attn_scales": [],
            "temperal_downsample": self.temperal_downsample,
            "dropout": 0.0,
            "latents_mean": self.latents_mean,
            "latents_std": self.latents_std,
            "is_residual": self.is_residual,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels(),
            "patch_size": (self.patch_size > 1).then_some(self.patch_size),
            "scale_factor_temporal": self.temporal(),
            "scale_factor_spatial": self.spatial(),
            "clip_output": true,
        })
    }
}
