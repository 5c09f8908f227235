//! Plans of one scheme for every weight.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};
use s2dit_ir::compress::{EXPECTED, Scheme};
use s2dit_passes::quantize::Weight;

use super::maker::{Made, Maker};
use super::measure::Runner;
use super::progress::Progress;
use super::samples::{SampleSplit, Samples};
use super::survey::fits;
use s2dit_emit::plan::Entry;
use s2dit_emit::plan::{Storage, W8A8};

/// One storage for every weight, and the type of the activations that it is multiplied with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uniform {
    /// Weights in one scheme; activations stay floats.
    Weights(Storage),
    /// int8 weights, and int8 activations where samples show their range.
    W8A8,
}

impl Uniform {
    /// The storage of the weights.
    #[must_use]
    pub const fn storage(self) -> Storage {
        match self {
            Uniform::Weights(storage) => storage,
            Uniform::W8A8 => Storage::Compressed(Scheme::Int8),
        }
    }
}

impl fmt::Display for Uniform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Uniform::Weights(storage) => storage.fmt(f),
            Uniform::W8A8 => f.write_str(W8A8),
        }
    }
}

impl FromStr for Uniform {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            W8A8 => Ok(Uniform::W8A8),
            _ => text.parse().map(Uniform::Weights).map_err(|_: String| format!("expected fp16, {W8A8}, {EXPECTED}")),
        }
    }
}

impl Maker<'_> {
    /// A plan of one scheme where it fits.
    ///
    /// # Errors
    /// A failing engine.
    pub(super) fn uniform(&self, uniform: Uniform, threads: usize, progress: Progress<'_>) -> Result<Made> {
        let storage = uniform.storage();
        let mut entries = Vec::new();
        let all = self.survey.weights.len();
        for (i, weight) in self.survey.weights.iter().enumerate() {
            let values = self.survey.values(weight)?;
            let (scheme, why) = match storage {
                Storage::Compressed(_) if values.non_finite() > 0 => {
                    (Storage::Whole, format!("{} element(s) are NaN or infinite", values.non_finite()))
                }
                Storage::Compressed(scheme) if !fits(scheme, &weight.ty) => {
                    (Storage::Whole, format!("{scheme} does not fit {}", weight.ty))
                }
                storage => (storage, "asked for".into()),
            };
            let loss = values.loss(scheme, None, None, None)?;
            let input_scale = self.input_scale(weight).filter(|_| uniform == Uniform::W8A8 && scheme == storage);
            entries.push(Entry { input_scale, ..self.entry(weight, scheme, loss.relative, why)? });
            progress("weights", i + 1, all);
        }
        if let (Storage::Compressed(scheme), Some(first)) = (storage, entries.first())
            && entries.iter().all(|entry| entry.scheme == Storage::Whole)
        {
            bail!("--scheme {scheme}: found no weight that it fits: `{}`: {}", first.name, first.why);
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
