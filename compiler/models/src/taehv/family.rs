//! TAEHV behind the seam.

use std::sync::Arc;

use s2dit_ir::{Module, ValueId, WeightSource};
use serde_json::Value;

use super::config::{FIELDS, LEVELS, TaehvConfig};
use crate::layers::frames::{self, Decoder, Frames};
use crate::layers::{BuildError, Built};
use crate::model::{Family, Model, Outline, Part};
use crate::size::{Grid, LatentSize, Size};
use crate::tensor::TensorSpec;
use s2dit_files::problems::Problems;

/// The family of TAEHV.
#[derive(Debug)]
pub struct Taehv;

const WAN21: &str = "taew2.1";
const WAN22: &str = "taew2.2";
const TINY: &str = "taehv-tiny";

impl Family for Taehv {
    fn name(&self) -> &'static str {
        "TAEHV"
    }

    fn part(&self) -> Part {
        Part::Decoder
    }

    fn class(&self) -> &'static str {
        TaehvConfig::CLASS_NAME
    }

    fn presets(&self) -> Vec<&'static str> {
        vec![TINY, WAN21, WAN22]
    }

    fn preset(&self, name: &str) -> Option<Arc<dyn Model>> {
        let published = TaehvConfig::default();
        Some(Arc::new(match name {
            WAN21 => published,
            WAN22 => TaehvConfig { latent_channels: 48, patch_size: 2, ..published },
            TINY => TaehvConfig { latent_channels: 4, widths: [32, 16, 16, 8], ..published },
            _ => return None,
        }))
    }

    fn fields(&self) -> &'static [&'static str] {
        FIELDS
    }

    fn parse(&self, entries: Vec<(String, Value)>, place: &str) -> Result<Arc<dyn Model>, Problems> {
        Ok(Arc::new(TaehvConfig::from_entries(entries, place)?))
    }
}

impl TaehvConfig {
    /// Two factors of the elements of the decoder's largest value for a latent: the frames that the last doubling makes.
    fn largest(&self, latent: LatentSize) -> [usize; 2] {
        let side = self.spatial() / self.patch_size;
        let width = self.widths[LEVELS - 1].max(self.widths[LEVELS]);
        [width * latent.frames * self.temporal(), latent.rows * side * latent.cols * side]
    }

    fn decoder<'a>(
        &'a self,
        weights: &'a dyn WeightSource,
    ) -> Decoder<'a, impl Fn(&mut Frames<'_>, ValueId) -> Built + 'a> {
        let blocks = (0..LEVELS).map(TaehvConfig::level_end).collect();
        let forward = move |m: &mut Frames<'_>, x| self.forward(m, x);
        Decoder { weights, channels: self.latent_channels, blocks, forward }
    }
}

impl Model for TaehvConfig {
    fn family(&self) -> &'static dyn Family {
        &Taehv
    }

    fn config(&self) -> Value {
        self.to_json_value()
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        self.specs()
    }

    fn is_idle(&self, tensor: &str) -> bool {
        tensor.starts_with("encoder.")
    }

    fn grid(&self, size: Size) -> Result<Grid, Problems> {
        frames::grid(size, self.latent_channels, |latent| self.largest(latent))
    }

    fn usual_size(&self, latent: LatentSize) -> Size {
        latent.into()
    }

    fn build(&self, weights: &dyn WeightSource, size: Size) -> Result<Module, BuildError> {
        self.grid(size)?;
        frames::clip(&self.decoder(weights), size.latent()?)
    }

    fn build_chunks(&self, weights: &dyn WeightSource, chunk: LatentSize) -> Result<Module, BuildError> {
        self.grid(chunk.into())?;
        frames::chunks(&self.decoder(weights), chunk)
    }

    fn outline(&self) -> Outline {
        frames::outline(self.widths[0], "level", LEVELS)
    }
}
