//! Plans of one rule for every weight: a scheme, or that of a published recipe.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};
use s2dit_ir::TensorType;
use s2dit_ir::compress::{EXPECTED, Scheme};
use s2dit_passes::quantize::Weight;

use super::maker::{Made, Maker};
use super::measure::Runner;
use super::progress::Progress;
use super::samples::{SampleSplit, Samples};
use super::survey::{Survey, fits};
use s2dit_emit::plan::Entry;
use s2dit_emit::plan::{Storage, W4A8, W8A8};

/// One rule for every weight, and the type of the activations that it is multiplied with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uniform {
    /// Weights in one scheme; activations stay floats.
    Weights(Storage),
    /// int8 weights, and int8 activations where samples show their range.
    W8A8,
    /// What the paper of S2DiT runs (arXiv 2601.12719, D.2): 4-bit palettes inside blocks, 8-bit palettes before and behind them (the projections of latent
    /// and result, embeddings of text and time), and int8 activations where samples show their range.
    W4A8,
}

/// 4-bit weights with a palette for each 16 output channels.
const INSIDE: Scheme = Scheme::Palette { bits: 4, group: Some(16) };
/// 8-bit weights before the first block and behind the last.
const OUTSIDE: Scheme = Scheme::Palette { bits: 8, group: None };

impl Uniform {
    /// The storage of a weight, inside a block or not.
    #[must_use]
    pub const fn storage(self, in_block: bool) -> Storage {
        match (self, in_block) {
            (Uniform::Weights(storage), _) => storage,
            (Uniform::W8A8, _) => Storage::Compressed(Scheme::Int8),
            (Uniform::W4A8, true) => Storage::Compressed(INSIDE),
            (Uniform::W4A8, false) => Storage::Compressed(OUTSIDE),
        }
    }

    /// Whether activations are int8 where samples show their range.
    #[must_use]
    pub const fn int8_activations(self) -> bool {
        matches!(self, Uniform::W8A8 | Uniform::W4A8)
    }
}

/// A weight and how a rule stores it: what does not fit the rule stays whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// The checkpoint's tensor.
    pub name: String,
    /// Type in the graph.
    pub ty: TensorType,
    /// Storage.
    pub storage: Storage,
}

/// The storage of every weight by a rule, as far as shapes say: what a plan of it begins with.
///
/// # Errors
/// A model without blocks, for a rule that asks where they begin.
pub fn stored(survey: &Survey<'_>, uniform: Uniform) -> Result<Vec<Stored>> {
    let blocks = survey.module.interface.blocks();
    if uniform == Uniform::W4A8 && survey.module.interface.milestones.is_empty() {
        bail!(
            "--scheme {W4A8}: the model says of no value that it ends a block, and blocks are what gets 4 bits: name a scheme"
        );
    }
    let of = |weight: &Weight| {
        let (function, user, _) = weight.at;
        let in_block = blocks.of(&survey.module.functions[function].node(user).scope).is_some();
        let storage = match uniform.storage(in_block) {
            Storage::Compressed(scheme) if !fits(scheme, &weight.ty) => Storage::Whole,
            storage => storage,
        };
        Stored { name: weight.name.clone(), ty: weight.ty.clone(), storage }
    };
    Ok(survey.weights.iter().map(of).collect())
}

impl fmt::Display for Uniform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Uniform::Weights(storage) => storage.fmt(f),
            Uniform::W8A8 => f.write_str(W8A8),
            Uniform::W4A8 => f.write_str(W4A8),
        }
    }
}

impl FromStr for Uniform {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            W8A8 => Ok(Uniform::W8A8),
            W4A8 => Ok(Uniform::W4A8),
            _ => text
                .parse()
                .map(Uniform::Weights)
                .map_err(|_: String| format!("expected fp16, {W8A8}, {W4A8}, {EXPECTED}")),
        }
    }
}

impl Maker<'_> {
    /// A plan of one scheme where it fits.
    ///
    /// # Errors
    /// A failing engine.
    pub(super) fn uniform(&self, uniform: Uniform, threads: usize, progress: Progress<'_>) -> Result<Made> {
        let mut entries = Vec::new();
        let planned = stored(self.survey, uniform)?;
        let asked = |weight: &Weight| {
            let (function, user, _) = weight.at;
            let scope = &self.survey.module.functions[function].node(user).scope;
            uniform.storage(self.survey.module.interface.block_of(scope).is_some())
        };
        let all = self.survey.weights.len();
        for (i, (weight, planned)) in self.survey.weights.iter().zip(&planned).enumerate() {
            let values = self.survey.values(weight)?;
            let (scheme, why) = match (asked(weight), planned.storage) {
                (Storage::Compressed(_), _) if values.non_finite() > 0 => {
                    (Storage::Whole, format!("{} element(s) are NaN or infinite", values.non_finite()))
                }
                (Storage::Compressed(scheme), Storage::Whole) => {
                    (Storage::Whole, format!("{scheme} does not fit {}", weight.ty))
                }
                (_, storage) => (storage, "asked for".into()),
            };
            let loss = values.loss(scheme, None, None, None)?;
            let int8 = uniform.int8_activations() && scheme != Storage::Whole;
            let input_scale = self.input_scale(weight).filter(|_| int8);
            entries.push(Entry { input_scale, ..self.entry(weight, scheme, loss.relative, why)? });
            progress("weights", i + 1, all);
        }
        if let (true, Some(first)) = (uniform != Uniform::Weights(Storage::Whole), entries.first())
            && entries.iter().all(|entry| entry.scheme == Storage::Whole)
        {
            bail!("--scheme {uniform}: found no weight that it fits: `{}`: {}", first.name, first.why);
        }
        let open = self.plan(uniform.to_string(), entries)?;
        let seeded;
        let samples = match self.calibrated {
            Some(calibrated) => SampleSplit::of(&calibrated.samples).measurement,
            None => {
                seeded = Samples::Seeded.inputs(&self.survey.module)?;
                &seeded[..1]
            }
        };
        let runner = Runner::new(self.survey, samples, threads)?;
        let alone = vec![None; open.plan.weight.len()];
        let measured = runner.plan(&open, progress)?;
        Ok(self.made(open, measured, alone, Vec::new()))
    }
    /// The scale at which the input of a weight is int8, if samples showed one.
    fn input_scale(&self, weight: &Weight) -> Option<f64> {
        let found = &self.calibrated?.found;
        found.scales.get(found.names.get(&weight.name)?).copied()
    }
}
