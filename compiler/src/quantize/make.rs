//! From a goal to a plan.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rayon::prelude::*;
use s2dit_backends::output::Staged;
use s2dit_ir::compress::Scheme;
use s2dit_passes::quantize::{Choice, Weight};
use serde::Serialize;

use super::measure::{Runner, decibels};
use super::plan::{Calibration, Entry, FORMAT, Plan, Storage, VERSION};
use super::samples::{Inputs, Parts, Samples};
use super::search::{Way, pick};
use super::statistics::{self, Names};
use super::survey::fits;
use super::{FEEDBACK, IMPORTANCE, OpenPlan, Quantize, Survey, hash_of};
use crate::checkpoint::SafetensorsFile;
use crate::problems::Problems;

/// What a plan is to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// One scheme for every weight.
    Scheme(Storage),
    /// The least error in at most so many bytes of weights.
    Size(u64),
    /// The fewest bytes with at least this SNR in dB.
    Snr(f64),
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Request {
    /// What the plan is to reach.
    pub goal: Goal,
    /// What the statistics are collected on. A goal other than a scheme needs some: seeded ones, if none are named.
    pub calibrate: Option<Samples>,
    /// Threads.
    pub threads: usize,
}

/// A size and what it costs.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// Bytes of all weights.
    pub bytes: u64,
    /// SNR of the output, as predicted.
    pub snr_db: f64,
}

/// A plan that was made, and how.
#[derive(Clone, Debug, Serialize)]
pub struct Made {
    /// The plan.
    pub plan: Plan,
    /// Bytes of all weights, nothing compressed.
    pub whole_bytes: u64,
    /// For each weight of the plan, the SNR in dB when only it is stored in 4 bits, if that was measured.
    pub alone_db: Vec<Option<f64>>,
    /// SNR of each block's output in dB.
    pub blocks_db: Vec<f64>,
    /// What other sizes would give.
    pub pareto: Vec<Point>,
}

/// The ways a search may store a weight in.
const SCHEMES: [Scheme; 8] = {
    const fn group(bits: u8) -> Scheme {
        Scheme::Palette { bits, group: Some(16) }
    }
    [group(1), group(2), group(3), group(4), group(6), Scheme::Int8, group(8), Scheme::Palette { bits: 4, group: None }]
};

/// What a weight is stored in to see what its error does to the output.
const PROBES: [Scheme; 3] =
    [Scheme::Palette { bits: 4, group: Some(16) }, Scheme::Palette { bits: 4, group: None }, Scheme::Int8];

/// Where the work is: what is done, how much of it, how much there is.
pub type Progress<'a> = &'a mut dyn FnMut(&str, usize, usize);

/// Makes a plan and puts it at `out`, its statistics beside it.
///
/// # Errors
/// Samples that do not fit; a goal that cannot be reached; outputs that cannot be written.
pub fn make(survey: &Survey<'_>, request: &Request, out: &Path, progress: Progress<'_>) -> Result<Made> {
    let searches = !matches!(request.goal, Goal::Scheme(_));
    let source = request.calibrate.clone().or(searches.then_some(Samples::Seeded));
    let staged = Staged::file(out)?;
    let calibrated = match &source {
        None => None,
        Some(source) => Some(Calibrated::collect(survey, source, request.threads, out, progress)?),
    };
    let maker = Maker { survey, calibrated: calibrated.as_ref(), place: out };
    let made = match request.goal {
        Goal::Scheme(storage) => maker.uniform(storage, request.threads, progress)?,
        Goal::Size(bytes) => maker.search(request.threads, progress)?.smallest_error(bytes)?,
        Goal::Snr(least) => maker.search(request.threads, progress)?.smallest(least, progress)?,
    };
    let text = made.plan.to_toml()?;
    std::fs::write(staged.path(), text).with_context(|| format!("cannot write `{}`", out.display()))?;
    let statistics = calibrated.map(|c| c.staged);
    Staged::commit_all(statistics.into_iter().chain([staged]).collect())?;
    Ok(made)
}

/// Statistics that were just collected.
struct Calibrated {
    staged: Staged,
    about: Calibration,
    names: Names,
    samples: Vec<Inputs>,
    file: SafetensorsFile,
}

impl Calibrated {
    fn collect(
        survey: &Survey<'_>,
        source: &Samples,
        threads: usize,
        out: &Path,
        progress: Progress<'_>,
    ) -> Result<Calibrated> {
        let stem = out.file_stem().and_then(|s| s.to_str()).context("the output has no name in UTF-8")?;
        let name = format!("{stem}.stats.safetensors");
        let staged = Staged::file(&out.with_file_name(&name))?;
        let samples = source.inputs(&survey.module.functions[0])?;
        let parts = Parts::of(&samples);
        let names = statistics::collect(
            survey,
            parts.calibration,
            &source.times(),
            threads,
            staged.path(),
            &mut |done, all| {
                progress("calibration", done, all);
            },
        )?;
        let about = Calibration {
            file: name,
            hash: hash_of(staged.path())?,
            samples: parts.calibration.len(),
            source: source.to_string(),
            held_out: if parts.held_out { parts.measurement.len() } else { 0 },
        };
        let file = SafetensorsFile::open(staged.path())?;
        Ok(Calibrated { staged, about, names, samples, file })
    }

    /// Mean squares of a weight's input channels.
    fn moments(&self, weight: &Weight) -> Result<Vec<f64>> {
        let tensor = self.names.get(&weight.name).map(|input| format!("{IMPORTANCE}{input}"));
        Ok(self.file.tensor_f64(&tensor.with_context(|| format!("no statistics for `{}`", weight.name))?)?)
    }

    fn choice(&self, weight: &Weight, scheme: Scheme) -> Choice {
        let stored = |prefix: &str| {
            let tensor = format!("{prefix}{}", self.names.get(&weight.name)?);
            let info = self.file.get(&tensor)?;
            Some((tensor, info.ty.clone()))
        };
        Choice { scheme, importance: stored(IMPORTANCE), feedback: stored(FEEDBACK) }
    }
}

struct Maker<'a> {
    survey: &'a Survey<'a>,
    calibrated: Option<&'a Calibrated>,
    place: &'a Path,
}

impl<'a> Maker<'a> {
    /// A plan with these entries, its bytes counted.
    fn plan(&self, goal: String, weight: Vec<Entry>) -> Result<OpenPlan> {
        let mut plan = Plan {
            format: FORMAT.into(),
            version: VERSION,
            checkpoint: format!("blake3:{}", self.survey.checkpoint.content_hash().to_hex()),
            latent: self.survey.latent.to_string(),
            goal,
            weight_bytes: 0,
            snr_db: None,
            calibration: self.calibrated.map(|c| c.about.clone()),
            overrides: BTreeMap::new(),
            weight,
        };
        // Beside the staged statistics, which are opened anew: the survey's own may be in use.
        let statistics = self.calibrated.map(|c| SafetensorsFile::open(c.staged.path())).transpose()?;
        let open = |plan: Plan, statistics| OpenPlan {
            place: self.place.display().to_string(),
            plan,
            hash: String::new(),
            statistics,
        };
        let counted = Quantize::Plan(std::sync::Arc::new(open(plan.clone(), None)));
        plan.weight_bytes = match self.calibrated {
            None => self.survey.package_bytes(&counted)?,
            // Statistics change no size.
            Some(_) => {
                let bare = plan.weight.iter().map(|w| Entry { statistics: None, ..w.clone() }).collect();
                let bare = Plan { weight: bare, calibration: None, ..plan.clone() };
                self.survey.package_bytes(&Quantize::Plan(std::sync::Arc::new(open(bare, None))))?
            }
        };
        Ok(open(plan, statistics))
    }

    fn entry(&self, weight: &Weight, scheme: Storage, error: f64, why: String) -> Result<Entry> {
        let bytes = scheme.bytes(&weight.ty.shape).map_err(|e| anyhow::anyhow!("weight `{}`: {e}", weight.name))?;
        let compressed = scheme != Storage::Whole;
        let statistics = self.calibrated.filter(|_| compressed).and_then(|c| c.names.get(&weight.name).cloned());
        Ok(Entry { name: weight.name.clone(), scheme, bytes, error, statistics, why })
    }

    fn uniform(&self, storage: Storage, threads: usize, progress: Progress<'_>) -> Result<Made> {
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
            entries.push(self.entry(weight, scheme, loss.relative, why)?);
            progress("weights", i + 1, all);
        }
        let open = self.plan(storage.to_string(), entries)?;
        let seeded;
        let samples = match self.calibrated {
            Some(calibrated) => Parts::of(&calibrated.samples).measurement,
            None => {
                seeded = Samples::Seeded.inputs(&self.survey.module.functions[0])?;
                &seeded[..1]
            }
        };
        let runner = Runner::new(self.survey, samples, threads)?;
        let alone = vec![None; open.plan.weight.len()];
        let measured = if Runner::can_run(&open) { Some(runner.plan(&open)?) } else { None };
        Ok(self.made(open, measured, alone, Vec::new()))
    }

    fn made(
        &self,
        mut open: OpenPlan,
        measured: Option<(f64, Vec<f64>)>,
        alone_db: Vec<Option<f64>>,
        pareto: Vec<Point>,
    ) -> Made {
        // Hundredths of a dB are all that a plan says.
        open.plan.snr_db = measured.as_ref().map(|(error, _)| (decibels(*error) * 100.0).floor() / 100.0);
        let blocks_db = measured.map(|(_, blocks)| blocks).unwrap_or_default();
        Made { plan: open.plan, whole_bytes: self.survey.whole_bytes, alone_db, blocks_db, pareto }
    }

    /// Measures every weight: what each way to store it adds to the error of the output.
    fn search(&'a self, threads: usize, progress: Progress<'_>) -> Result<Search<'a>> {
        let Some(calibrated) = self.calibrated else { bail!("a search needs calibration") };
        let runner = Runner::new(self.survey, Parts::of(&calibrated.samples).measurement, threads)?;
        let all = self.survey.weights.len();
        let mut curves = Vec::new();
        // As many weights at a time as there are threads.
        for chunk in self.survey.weights.chunks(rayon::current_num_threads().max(1)) {
            let measured: Vec<Curve> =
                chunk.par_iter().map(|weight| self.curve(weight, calibrated, &runner)).collect::<Result<_>>()?;
            curves.extend(measured);
            progress("sensitivity", curves.len(), all);
        }
        let fixed = self.survey.whole_bytes - curves.iter().map(|c| c.ways[0].1.bytes).sum::<u64>();
        Ok(Search { maker: self, runner, curves, fixed })
    }

    fn curve(&self, weight: &Weight, calibrated: &Calibrated, runner: &Runner<'_>) -> Result<Curve> {
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
        if let Some(probe) = PROBES.iter().find(|s| fits(**s, &weight.ty)) {
            let sources = super::Sources { checkpoint: self.survey.checkpoint, statistics: Some(&calibrated.file) };
            let alone = runner.alone(&weight.name, &calibrated.choice(weight, *probe), &sources)?;
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

/// What can be done with a weight.
struct Curve {
    ways: Vec<(Storage, Way)>,
    /// ‖stored − weight‖ / ‖weight‖ of each way.
    relative: Vec<f64>,
    alone: Option<f64>,
    note: Option<String>,
}

struct Search<'a> {
    maker: &'a Maker<'a>,
    runner: Runner<'a>,
    curves: Vec<Curve>,
    fixed: u64,
}

impl Search<'_> {
    fn ways(&self) -> Vec<Vec<Way>> {
        self.curves.iter().map(|c| c.ways.iter().map(|w| w.1).collect()).collect()
    }

    fn least(&self) -> u64 {
        self.fixed + self.ways().iter().filter_map(|w| w.iter().map(|w| w.bytes).min()).sum::<u64>()
    }

    /// The plan of the least error for at most `target` bytes, measured.
    fn planned(&self, target: u64, goal: &str) -> Result<OpenPlan> {
        let ways = self.ways();
        let mut budget = target.saturating_sub(self.fixed);
        loop {
            let Some(picks) = pick(&ways, budget) else {
                return Err(Problems::one(
                    "--target-size",
                    format!("{target} bytes"),
                    format!("at least {} bytes, which the weights take in their smallest schemes", self.least()),
                )
                .into());
            };
            let total: f64 = ways.iter().zip(&picks).map(|(w, i)| w[*i].error).sum();
            let mut entries = Vec::new();
            for ((weight, curve), pick) in self.maker.survey.weights.iter().zip(&self.curves).zip(&picks) {
                let (storage, way) = curve.ways[*pick];
                let why = match (&curve.note, curve.alone) {
                    (Some(note), _) => note.clone(),
                    (None, _) if way.error == 0.0 && storage != Storage::Whole => "exact".into(),
                    (None, Some(alone)) => format!(
                        "{alone:.1} dB if only this weight has 4 bits; {:.1} % of the planned error",
                        if total > 0.0 { 100.0 * way.error / total } else { 0.0 }
                    ),
                    (None, None) => "no scheme fits".into(),
                };
                let error = curve.relative[*pick];
                entries.push(self.maker.entry(weight, storage, error, why)?);
            }
            let open = self.maker.plan(goal.into(), entries)?;
            // Weights that are equal, or stored at aligned places, may change the sum a little.
            let over = open.plan.weight_bytes.saturating_sub(target);
            if over == 0 {
                return Ok(open);
            }
            budget = budget.saturating_sub(over);
        }
    }

    fn made(&self, open: OpenPlan, measured: (f64, Vec<f64>)) -> Made {
        let ways = self.ways();
        let (least, most) = (self.least() - self.fixed, self.maker.survey.whole_bytes - self.fixed);
        let point = |budget| {
            let picks = pick(&ways, budget)?;
            let picked = || ways.iter().zip(&picks).map(|(w, i)| w[*i]);
            let error: f64 = picked().map(|w| w.error).sum();
            let bytes = self.fixed + picked().map(|w| w.bytes).sum::<u64>();
            (error > 0.0).then(|| Point { bytes, snr_db: decibels(error) })
        };
        let pareto = (0..=24).filter_map(|i| point(least + (most - least) * i / 24)).collect();
        let alone = self.curves.iter().map(|c| c.alone).collect();
        self.maker.made(open, Some(measured), alone, pareto)
    }

    fn smallest_error(&self, target: u64) -> Result<Made> {
        let open = self.planned(target, &format!("at most {target} bytes"))?;
        let measured = self.runner.plan(&open)?;
        Ok(self.made(open, measured))
    }

    /// The smallest plan that a real run shows to reach `least` dB: the prediction is corrected by what was measured.
    fn smallest(&self, least: f64, progress: Progress<'_>) -> Result<Made> {
        const RUNS: usize = 6;
        /// A plan this little above the goal is small enough.
        const NEAR: f64 = 0.3;
        let goal = format!("at least {least} dB");
        let mut found: Option<(OpenPlan, (f64, Vec<f64>))> = None;
        let mut aim = least;
        for run in 0..RUNS {
            let open = self.planned(self.predicted(aim), &goal)?;
            let measured = self.runner.plan(&open)?;
            let snr = decibels(measured.0);
            progress("runs", run + 1, RUNS);
            let smaller = found.as_ref().is_none_or(|(best, _)| open.plan.weight_bytes < best.plan.weight_bytes);
            // What two weights do together is seldom more than their sum, but it can be.
            aim += least + NEAR / 2.0 - snr;
            if snr >= least && smaller {
                found = Some((open, measured));
            }
            if found.as_ref().is_some_and(|(_, (error, _))| decibels(*error) <= least + NEAR) {
                break;
            }
        }
        if found.is_none() {
            // Whole weights are exact, so that the largest plan always passes.
            let open = self.planned(self.maker.survey.whole_bytes, &goal)?;
            let measured = self.runner.plan(&open)?;
            found = Some((open, measured));
        }
        let (open, measured) = found.context("no plan")?;
        Ok(self.made(open, measured))
    }

    /// The size at which the prediction reaches this SNR.
    fn predicted(&self, least: f64) -> u64 {
        let ways = self.ways();
        let (mut low, mut high) = (self.least(), self.maker.survey.whole_bytes);
        while high - low > self.maker.survey.whole_bytes / 1000 {
            let middle = low + (high - low) / 2;
            let error = pick(&ways, middle - self.fixed)
                .map(|picks| ways.iter().zip(&picks).map(|(w, i)| w[*i].error).sum::<f64>());
            match error.is_some_and(|e| decibels(e) >= least) {
                true => high = middle,
                false => low = middle,
            }
        }
        high
    }
}
