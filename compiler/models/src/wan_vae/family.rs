//! The decoders of Wan's autoencoders behind the seam.

use std::sync::Arc;

use s2dit_ir::{Module, WeightSource};
use serde_json::Value;

use super::config::{FIELDS, WanVaeConfig};
use crate::layers::BuildError;
use crate::layers::frames::{self, Decoder, Frames};
use crate::model::{Family, Model, Outline, Part};
use crate::size::{Grid, LatentSize, Size};
use crate::tensor::TensorSpec;
use s2dit_files::problems::Problems;

/// The family of the decoders of Wan's autoencoders.
#[derive(Debug)]
pub struct WanVae;

const WAN21: &str = "wan-vae";
const WAN22: &str = "wan2.2-vae";
const TINY: &str = "wan-vae-tiny";

/// Means of the latents of Wan 2.2 TI2V, a channel each.
const MEAN22: [f64; 48] = [
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891, 0.1570,
    -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502, -0.2055, -0.0322,
    0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520,
    0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
];
/// Their standard deviations.
const STD22: [f64; 48] = [
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165,
    0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659, 0.7069, 0.5338, 0.4889, 0.4917,
    0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600,
    0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
];

impl Family for WanVae {
    fn name(&self) -> &'static str {
        "Wan-VAE"
    }

    fn part(&self) -> Part {
        Part::Decoder
    }

    fn class(&self) -> &'static str {
        WanVaeConfig::CLASS_NAME
    }

    fn presets(&self) -> Vec<&'static str> {
        vec![TINY, WAN21, WAN22]
    }

    fn preset(&self, name: &str) -> Option<Arc<dyn Model>> {
        let published = WanVaeConfig::default();
        Some(Arc::new(match name {
            WAN21 => published,
            WAN22 => WanVaeConfig {
                base_dim: 160,
                decoder_base_dim: 256,
                z_dim: 48,
                is_residual: true,
                in_channels: 12,
                patch_size: 2,
                latents_mean: MEAN22.to_vec(),
                latents_std: STD22.to_vec(),
                ..published
            },
            TINY => WanVaeConfig {
                base_dim: 8,
                decoder_base_dim: 8,
                z_dim: 4,
                num_res_blocks: 1,
                latents_mean: published.latents_mean[..4].to_vec(),
                latents_std: published.latents_std[..4].to_vec(),
                ..published
            },
            _ => return None,
        }))
    }

    fn fields(&self) -> &'static [&'static str] {
        FIELDS
    }

    fn parse(&self, entries: Vec<(String, Value)>, place: &str) -> Result<Arc<dyn Model>, Problems> {
        Ok(Arc::new(WanVaeConfig::from_entries(entries, place)?))
    }
}

impl WanVaeConfig {
    /// Elements of the decoder's largest value for a latent.
    fn largest(&self, latent: LatentSize) -> [usize; 2] {
        // Planes and frames grow up to the finest level; there its own width, or that of the level before, upsampled, is the largest.
        let levels = self.levels();
        let before = levels.iter().rev().find(|level| level.up.is_some()).map_or(0, |level| level.width);
        let width = levels.last().map_or(0, |level| level.width).max(before);
        let side = 1 << self.temperal_downsample.len();
        [width * latent.frames * self.temporal(), latent.rows * side * latent.cols * side]
    }

    fn decoder<'a>(
        &'a self,
        weights: &'a dyn WeightSource,
    ) -> Decoder<'a, impl Fn(&mut Frames<'_>, s2dit_ir::ValueId) -> crate::layers::Built + 'a> {
        let blocks = (0..self.levels().len()).map(|i| format!("decoder.up_blocks.{i}")).collect();
        Decoder { weights, channels: self.z_dim, blocks, forward: move |m: &mut Frames<'_>, x| self.forward(m, x) }
    }
}

impl Model for WanVaeConfig {
    fn family(&self) -> &'static dyn Family {
        &WanVae
    }

    fn config(&self) -> Value {
        self.to_json_value()
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        super::tensors::tensors(self)
    }

    fn is_idle(&self, tensor: &str) -> bool {
        tensor.starts_with("encoder.") || tensor.starts_with("quant_conv.")
    }

    fn grid(&self, size: Size) -> Result<Grid, Problems> {
        frames::grid(size, self.z_dim, |latent| self.largest(latent))
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
        frames::outline(self.widest(), "level", self.levels().len())
    }
}
