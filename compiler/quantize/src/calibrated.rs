//! Statistics beside a plan that is being made.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rayon::prelude::*;
use s2dit_backends::output::{Destination, Staged, made};
use s2dit_ir::compress::Scheme;
use s2dit_ir::convert::non_finite;
use s2dit_ir::{WeightError, WeightSource};
use s2dit_passes::quantize::{Choice, Weight};

use super::Survey;
use super::progress::Progress;
use super::samples::{Inputs, SampleSplit, Samples};
use super::statistics::{self, Collected};
use s2dit_emit::plan::Calibration;
use s2dit_emit::plan::{FEEDBACK, IMPORTANCE};
use s2dit_files::problems::{Problems, quoted};
use s2dit_files::{SafetensorsFile, hash_of};
use s2dit_models::checkpoint::Checkpoint;

/// The path of a plan's statistics: beside the plan. `None` if the plan's name is not UTF-8.
#[must_use]
pub fn stats_file(plan: &Path) -> Option<PathBuf> {
    Some(plan.with_file_name(format!("{}.stats.safetensors", plan.file_stem()?.to_str()?)))
}

/// Statistics that were just collected.
pub(super) struct Calibrated {
    /// File of the statistics, not yet in its place.
    pub staged: Staged,
    /// The plan's entry about the statistics.
    pub about: Calibration,
    /// Statistics by weight, as the plan's entries name them.
    pub found: Collected,
    /// All samples.
    pub samples: Vec<Inputs>,
    /// The file, open.
    pub file: SafetensorsFile,
}

impl Calibrated {
    /// Collects statistics into a file beside `out`.
    ///
    /// # Errors
    /// Samples that do not fit; a failing engine; a file that cannot be written.
    pub(super) fn collect(
        survey: &Survey<'_>,
        source: &Samples,
        threads: usize,
        out: Destination<'_>,
        progress: Progress<'_>,
    ) -> Result<Calibrated> {
        check_finite(survey.checkpoint)?;
        let file = stats_file(out.path).context("the output has no name in UTF-8")?;
        let name = file.file_name().and_then(|name| name.to_str()).context("the output has no name in UTF-8")?;
        let to = Destination { path: &file, ..out };
        let (name, staged) = (name.to_string(), Staged::file(to, &made::safetensors)?);
        let samples = source.inputs(&survey.module)?;
        let split = SampleSplit::of(&samples);
        let found = statistics::collect(
            survey,
            split.calibration,
            &source.times(&survey.module),
            threads,
            staged.path(),
            &mut |done, all| {
                progress("calibration", done, all);
            },
        )
        .map_err(|error| staged.unwritten(&error))?;
        let about = Calibration {
            file: name,
            hash: hash_of(staged.path())?,
            samples: split.calibration.len(),
            source: source.to_string(),
            held_out: if split.held_out { split.measurement.len() } else { 0 },
        };
        let file = SafetensorsFile::open(staged.path())?;
        Ok(Calibrated { staged, about, found, samples, file })
    }

    /// Mean squares of a weight's input channels.
    pub(super) fn moments(&self, weight: &Weight) -> Result<Vec<f64>> {
        let tensor = self.found.names.get(&weight.name).map(|input| format!("{IMPORTANCE}{input}"));
        Ok(self.file.tensor_f64(&tensor.with_context(|| format!("no statistics for `{}`", weight.name))?)?)
    }

    /// The statistics by which the codes of a weight are chosen.
    pub(super) fn choice(&self, weight: &Weight, scheme: Scheme) -> Choice {
        let stored = |prefix: &str| {
            let tensor = format!("{prefix}{}", self.found.names.get(&weight.name)?);
            let info = self.file.get(&tensor)?;
            Some((tensor, info.ty.clone()))
        };
        Choice { scheme, importance: stored(IMPORTANCE), feedback: stored(FEEDBACK), input_scale: None }
    }
}

/// Bytes of a tensor that are looked at together.
const BLOCK: usize = 1 << 20;

/// Refuses a checkpoint with elements that are NaN or infinite: every activation after them would be NaN, and the statistics of
/// sound weights with it.
fn check_finite(checkpoint: &Checkpoint) -> Result<()> {
    let mut problems = Problems::new();
    let weights = checkpoint.weights();
    for name in weights.names() {
        let Some(ty) = weights.ty(name) else { continue };
        let starts: Vec<usize> = (0..ty.bytes()).step_by(BLOCK).collect();
        let of_block = |start: &usize| {
            let bytes = weights.read(name, *start..ty.bytes().min(start + BLOCK))?;
            Ok(non_finite(&bytes, ty.dtype))
        };
        let counts: Vec<u64> = starts.par_iter().map(of_block).collect::<Result<_, WeightError>>()?;
        let count: u64 = counts.iter().sum();
        if count > 0 {
            let file = weights.door_of(name).map_or(checkpoint.path(), |door| door.path());
            let at = format!("{}: tensor {}", file.display(), quoted(name));
            let found = format!("{count} element(s) that are NaN or infinite");
            problems.push(at, found, "finite ones: statistics are collected by running the model");
        }
        weights.done(name);
    }
    Ok(problems.into_result()?)
}
