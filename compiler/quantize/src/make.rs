//! Making a plan for a goal.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use s2dit_backends::output::{Destination, Staged, made};
use s2dit_passes::quantize::Weight;
use serde::Serialize;

use super::Survey;
use super::calibrated::Calibrated;
use super::measure::decibels;
use super::samples::Samples;
use super::sensitivity::smallest;
use super::uniform::Uniform;
use s2dit_emit::plan::{Entry, FORMAT, Plan, VERSION};
use s2dit_emit::plan::{OpenPlan, Quantize, Storage};
use s2dit_files::SafetensorsFile;
use s2dit_files::problems::Problems;

/// The goal of a plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// The same scheme for every weight.
    Scheme(Uniform),
    /// The least error in at most this many bytes of weights.
    Size(u64),
    /// The fewest bytes with at least this SNR in dB.
    Snr(f64),
}

/// A request for a plan.
#[derive(Clone, Debug)]
pub struct Request {
    /// Goal of the plan.
    pub goal: Goal,
    /// Samples that the statistics are collected on. A goal other than a scheme of weights needs some: seeded ones, if none are named.
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
    /// Sizes and errors of other plans.
    pub pareto: Vec<Point>,
}

/// A callback about progress: the name of the task, the work done, the work in all.
pub type Progress<'a> = &'a mut dyn FnMut(&str, usize, usize);

/// Makes a plan and puts it at `out`, its statistics beside it.
///
/// # Errors
/// Samples that do not fit; a goal that cannot be reached; outputs that cannot be written.
pub fn make(survey: &Survey<'_>, request: &Request, out: Destination<'_>, progress: Progress<'_>) -> Result<Made> {
    let bare = matches!(request.goal, Goal::Scheme(Uniform::Weights(_)));
    let source = request.calibrate.clone().or((!bare).then_some(Samples::Seeded));
    let staged = Staged::file(out, &made::plan)?;
    if let Goal::Size(target) = request.goal {
        // Found now, not after the measurements.
        let bare = Maker { survey, calibrated: None, place: out.path };
        let entries = survey.weights.iter().map(|w| bare.entry(w, smallest(w), 0.0, String::new()));
        let least = bare.plan(String::new(), entries.collect::<Result<_>>()?)?.plan.weight_bytes;
        if target < least {
            return Err(too_small(target, least).into());
        }
    }
    let calibrated = match &source {
        None => None,
        Some(source) => Some(Calibrated::collect(survey, source, request.threads, out, progress)?),
    };
    let maker = Maker { survey, calibrated: calibrated.as_ref(), place: out.path };
    let made = match request.goal {
        Goal::Scheme(uniform) => maker.uniform(uniform, request.threads, progress)?,
        Goal::Size(bytes) => maker.search(request.threads, progress)?.smallest_error(bytes, progress)?,
        Goal::Snr(least) => maker.search(request.threads, progress)?.smallest(least, progress)?,
    };
    let text = made.plan.to_toml()?;
    std::fs::write(staged.path(), text).with_context(|| format!("cannot write `{}`", out.path.display()))?;
    let statistics = calibrated.map(|c| c.staged);
    survey.checkpoint.check_unchanged()?;
    Staged::commit_all(statistics.into_iter().chain([staged]).collect())?;
    Ok(made)
}

/// A size that no plan reaches; `least` is that of the smallest plan.
pub(super) fn too_small(target: u64, least: u64) -> Problems {
    let expected = format!("at least {least} bytes, which the weights take in their smallest schemes");
    Problems::one("--target-size", format!("{target} bytes"), expected)
}

/// Makes plans.
pub(super) struct Maker<'a> {
    /// The model and its weights.
    pub survey: &'a Survey<'a>,
    /// Statistics, if there are any.
    pub calibrated: Option<&'a Calibrated>,
    place: &'a Path,
}

impl Maker<'_> {
    /// A plan with these entries, its bytes counted.
    pub(super) fn plan(&self, goal: String, weight: Vec<Entry>) -> Result<OpenPlan> {
        let mut plan = Plan {
            format: FORMAT.into(),
            version: VERSION,
            checkpoint: format!("blake3:{}", self.survey.checkpoint.content_hash().to_hex()),
            config: Some(self.survey.checkpoint.model().config().to_string()),
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

    /// An entry, with the statistics of its input.
    pub(super) fn entry(&self, weight: &Weight, scheme: Storage, error: f64, why: String) -> Result<Entry> {
        let bytes = scheme.bytes(&weight.ty.shape).map_err(|e| anyhow::anyhow!("weight `{}`: {e}", weight.name))?;
        let compressed = scheme != Storage::Whole;
        let statistics = self.calibrated.filter(|_| compressed).and_then(|c| c.found.names.get(&weight.name).cloned());
        Ok(Entry { name: weight.name.clone(), scheme, bytes, error, statistics, input_scale: None, why })
    }

    /// The finished plan with its measurements.
    pub(super) fn made(
        &self,
        mut open: OpenPlan,
        (error, blocks_db): (f64, Vec<f64>),
        alone_db: Vec<Option<f64>>,
        pareto: Vec<Point>,
    ) -> Made {
        // Hundredths of a dB are all that a plan says.
        open.plan.snr_db = error.is_finite().then(|| (decibels(error) * 100.0).floor() / 100.0);
        Made { plan: open.plan, whole_bytes: self.survey.whole_bytes, alone_db, blocks_db, pareto }
    }
}
