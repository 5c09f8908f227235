//! The configuration of a TAEHV: the arguments of its class.

use serde_json::{Value, json};

use crate::fields::{Fields, as_integer};
use s2dit_files::problems::Problems;

/// Every field, in the order they are written.
pub(super) const FIELDS: &[&str] =
    &["latent_channels", "patch_size", "decoder_time_upscale", "decoder_space_upscale", "widths"];

/// Levels of a decoder.
pub(super) const LEVELS: usize = 3;

/// The configuration of the decoder of a `TAEHV`.
///
/// TAEHV is published as a file of weights without a configuration: it is the name of the file that says the arguments of its class. The fields are called
/// as these arguments; `widths` are numbers of its code, \[256, 128, 64, 64\] in every published file of this layout.
#[derive(Clone, Debug, PartialEq)]
pub struct TaehvConfig {
    /// Channels of the latent.
    pub latent_channels: usize,
    /// Sides of the patches of pixels that the last channels are.
    pub patch_size: usize,
    /// Whether each level doubles the frames.
    pub decoder_time_upscale: [bool; LEVELS],
    /// Whether each level doubles rows and columns.
    pub decoder_space_upscale: [bool; LEVELS],
    /// Channels of each level, and of the last layer.
    pub widths: [usize; LEVELS + 1],
}

impl Default for TaehvConfig {
    /// The decoder for Wan 2.1.
    fn default() -> Self {
        TaehvConfig {
            latent_channels: 16,
            patch_size: 1,
            decoder_time_upscale: [false, true, true],
            decoder_space_upscale: [true; LEVELS],
            widths: [256, 128, 64, 64],
        }
    }
}

impl TaehvConfig {
    /// The name of the class.
    pub const CLASS_NAME: &str = "TAEHV";

    /// Frames that a latent frame becomes.
    #[must_use]
    pub fn temporal(&self) -> usize {
        1 << self.decoder_time_upscale.iter().filter(|time| **time).count()
    }

    /// Rows that a latent row becomes, and columns a column.
    #[must_use]
    pub fn spatial(&self) -> usize {
        self.patch_size << self.decoder_space_upscale.iter().filter(|space| **space).count()
    }

    pub(super) fn from_entries(entries: Vec<(String, Value)>, place: &str) -> Result<Self, Problems> {
        let mut fields = Fields::new(entries, FIELDS, place);
        let or = TaehvConfig::default();
        let flags = |fields: &mut Fields<'_>, field: &str, default: [bool; LEVELS]| {
            let found = fields.list(field, default.to_vec(), "a list of 3 of true and false", Value::as_bool);
            exactly(fields, field, &found).unwrap_or(default)
        };
        let latent_channels = fields.integer("latent_channels", Some(or.latent_channels), 1..=4096);
        let patch_size = fields.integer("patch_size", Some(or.patch_size), 1..=16);
        let decoder_time_upscale = flags(&mut fields, "decoder_time_upscale", or.decoder_time_upscale);
        let decoder_space_upscale = flags(&mut fields, "decoder_space_upscale", or.decoder_space_upscale);
        let width = |value: &Value| as_integer(value, &(1..=65_536));
        let found = fields.list("widths", or.widths.to_vec(), "a list of 4 integers from 1 to 65536", width);
        let widths = exactly(&mut fields, "widths", &found).unwrap_or(or.widths);
        fields.finish()?;
        Ok(TaehvConfig { latent_channels, patch_size, decoder_time_upscale, decoder_space_upscale, widths })
    }

    /// The configuration as a JSON value: always the same fields, in the same order.
    #[must_use]
    pub fn to_json_value(&self) -> Value {
        json!({
            "_class_name": Self::CLASS_NAME,
            "latent_channels": self.latent_channels,
            "patch_size": self.patch_size,
            "decoder_time_upscale": self.decoder_time_upscale,
            "decoder_space_upscale": self.decoder_space_upscale,
            "widths": self.widths,
        })
    }
}

/// A list of so many items; another number is a problem.
fn exactly<T: Copy, const N: usize>(fields: &mut Fields<'_>, field: &str, list: &[T]) -> Option<[T; N]> {
    let array = list.try_into().ok();
    if array.is_none() {
        fields.problem(field, format!("{} items", list.len()), N.to_string());
    }
    array
}
