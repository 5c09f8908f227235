//! The error that each way to store a weight adds to the output.

use anyhow::{Result, bail};
use rayon::prelude::*;
use s2dit_ir::compress::Scheme;
use s2dit_passes::quantize::{Choice, Weight};

use super::alone::alone;
use super::calibrated::Calibrated;
use super::curve::Curve;
use super::goal::Search;
use super::maker::Maker;
use super::measure::{Runner, decibels};
use super::progress::Progress;
use super::samples::SampleSplit;
use super::search::Way;
use super::survey::fits;
use s2dit_emit::plan::{Sources, Storage};

/// The ways a search may store a weight in.
const SCHEMES: [Scheme; 8] = {
    const fn group(bits: u8) -> Scheme {
        Scheme::Palette { bits, group: Some(16) }
    }
    [group(1), group(2), group(3), group(4), group(6), Scheme::Int8, group(8), Scheme::Palette { bits: 4, group: None }]
};

/// Schemes in which a weight is stored to see what its error does to the output.
const PROBES: [Scheme; 3] =
    [Scheme::Palette { bits: 4, group: Some(16) }, Scheme::Palette { bits: 4, group: None }, Scheme::Int8];

/// The smallest way to store a weight.
pub(super) fn smallest(weight: &Weight) -> Storage {
    let schemes = SCHEMES.into_iter().filter(|s| fits(*s, &weight.ty)).map(Storage::Compressed);
    let bytes = |storage: &Storage| storage.bytes(&weight.ty.shape).unwrap_or(u64::MAX);
    schemes.chain([Storage::Whole]).min_by_key(bytes).unwrap_or(Storage::Whole)
}

impl<'a> Maker<'a> {
    /// Measures every weight: what each way to store it adds to the error of the output.
    pub(super) fn search(&'a self, threads: usize, progress: Progress<'_>) -> Result<Search<'a>> {
        let Some(calibrated) = self.calibrated else { bail!("a search needs calibration") };
        let samples = SampleSplit::of(&calibrated.samples).measurement;
        let runner = Runner::new(self.survey, samples, threads)?;
        let probes = self.survey.weights.iter().filter_map(|weight| {
            let probe = PROBES.iter().find(|s| fits(**s, &weight.ty))?;
            // Nearest codes, as the losses of all schemes are.
            Some((weight.name.clone(), Choice { feedback: None, ..calibrated.choice(weight, *probe) }))
        });
        let sources = Sources::with_statistics(self.survey.checkpoint, Some(&calibrated.file));
        let alone = alone(self.survey, samples, &probes.collect(), &sources, threads, progress)?;
        let all = self.survey.weights.len();
        let mut curves = Vec::new();
        // As many weights at a time as there are threads.
        for chunk in self.survey.weights.chunks(rayon::current_num_threads().max(1)) {
            let measured: Vec<Curve> = chunk
                .par_iter()
                .map(|weight| self.curve(weight, calibrated, alone.get(&weight.name).copied()))
                .collect::<Result<_>>()?;
            curves.extend(measured);
            progress("schemes", curves.len(), all);
        }
        let fixed = self.survey.whole_bytes - curves.iter().map(|c| c.ways[0].1.bytes).sum::<u64>();
        Ok(Search { maker: self, runner, curves, fixed })
    }

    fn curve(&self, weight: &Weight, calibrated: &Calibrated, alone: Option<f64>) -> Result<Curve> {
        let values = self.survey.values(weight)?;
        let ways = vec![self.way(weight, Storage::Whole, 0.0)?];
        let mut curve = Curve { ways, relative: vec![0.0], alone: None, note: None };
        if values.non_finite() > 0 {
            curve.note = Some(format!("{} element(s) are NaN or infinite", values.non_finite()));
            return Ok(curve);
        }
        let moments = calibrated.moments(weight)?;
        let sample = values.sample();
        let loss = |scheme| sample.loss(Storage::Compressed(scheme), Some(&moments), Some(&moments), None);
        let mut gain = 0.0;
        if let (Some(probe), Some(alone)) = (PROBES.iter().find(|s| fits(**s, &weight.ty)), alone) {
            let local = loss(*probe)?.weighted;
            gain = if local > 0.0 { alone / local } else { 0.0 };
            curve.alone = Some(decibels(alone));
        }
        for scheme in SCHEMES.into_iter().filter(|s| fits(*s, &weight.ty)) {
            let loss = loss(scheme)?;
            // What is not exact is never chosen before what is, however little it does on these samples.
            let error = if loss.relative == 0.0 { 0.0 } else { (gain * loss.weighted).max(f64::MIN_POSITIVE) };
            curve.ways.push(self.way(weight, Storage::Compressed(scheme), error)?);
            curve.relative.push(loss.relative);
        }
        Ok(curve)
    }

    fn way(&self, weight: &Weight, storage: Storage, error: f64) -> Result<(Storage, Way)> {
        let bytes = storage.bytes(&weight.ty.shape).map_err(|e| anyhow::anyhow!("weight `{}`: {e}", weight.name))?;
        Ok((storage, Way { bytes, error }))
    }
}
