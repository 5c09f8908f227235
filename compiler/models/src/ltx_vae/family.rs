//! The decoders of LTX-Video's autoencoders behind the seam.

use std::sync::Arc;

use s2dit_ir::{Module, ValueId, WeightSource};
use serde_json::Value;

use super::config::{FIELDS, LtxVaeConfig};
use super::levels::Level;
use crate::layers::BuildError;
use crate::layers::frames::{self, Decoder, Frames};
use crate::model::{Family, Model, Outline, Part};
use crate::size::{Grid, LatentSize, Size};
use crate::tensor::TensorSpec;
use s2dit_files::problems::Problems;

/// The family of the decoders of LTX-Video's autoencoders.
#[derive(Debug)]
pub struct LtxVae;

const PUBLISHED: &str = "ltx-vae";
const TINY: &str = "ltx-vae-tiny";

impl Family for LtxVae {
    fn name(&self) -> &'static str {
        "LTX-Video-VAE"
    }

    fn part(&self) -> Part {
        Part::Decoder
    }

    fn class(&self) -> &'static str {
        LtxVaeConfig::CLASS_NAME
    }

    fn presets(&self) -> Vec<&'static str> {
        vec![TINY, PUBLISHED]
    }

    fn preset(&self, name: &str) -> Option<Arc<dyn Model>> {
        let published = LtxVaeConfig::default();
        Some(Arc::new(match name {
            PUBLISHED => published,
            TINY => LtxVaeConfig {
                latent_channels: 8,
                decoder_block_out_channels: vec![8, 16, 24, 24],
                decoder_layers_per_block: vec![1, 1, 1, 1, 2],
                ..published
            },
            _ => return None,
        }))
    }

    fn fields(&self) -> &'static [&'static str] {
        FIELDS
    }

    fn parse(&self, entries: Vec<(String, Value)>, place: &str) -> Result<Arc<dyn Model>, Problems> {
        Ok(Arc::new(LtxVaeConfig::from_entries(entries, place)?))
    }
}

impl LtxVaeConfig {
    /// The levels of a configuration that was checked.
    fn checked_levels(&self) -> Vec<Level> {
        self.levels().unwrap_or_default()
    }

    /// Two factors of the elements of the decoder's largest value for a latent, at its finest level.
    fn largest(&self, latent: LatentSize) -> [usize; 2] {
        let side = self.spatial() / self.patch_size;
        let width = self.checked_levels().last().map_or(0, |level| level.width).max(self.out_channels());
        [width * latent.frames * self.temporal(), latent.rows * side * latent.cols * side]
    }
}

impl Model for LtxVaeConfig {
    fn family(&self) -> &'static dyn Family {
        &LtxVae
    }

    fn config(&self) -> Value {
        self.to_json_value()
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        super::tensors::tensors(self, &self.checked_levels())
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
        let levels = self.checked_levels();
        let blocks = (0..levels.len()).map(|i| format!("decoder.up_blocks.{i}")).collect();
        let forward = |m: &mut Frames<'_>, x: ValueId| self.forward(m, x, &levels);
        frames::clip(&Decoder { weights, channels: self.latent_channels, blocks, forward }, size.latent()?)
    }

    fn outline(&self) -> Outline {
        frames::outline(self.widest(), "level", self.decoder_block_out_channels.len())
    }
}
