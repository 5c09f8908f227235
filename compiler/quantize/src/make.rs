//! Making a plan for a goal.

use std::path::Path;

use anyhow::{Context, Result, bail};
use s2dit_backends::input::read_text;
use s2dit_backends::output::{Destination, Staged, made};
use s2dit_emit::plan::{FORMAT, LARGEST_FILE};

use super::Survey;
use super::calibrated::Calibrated;
use super::maker::{Made, Maker, too_small};
use super::progress::Progress;
use super::samples::Samples;
use super::sensitivity::smallest;
use super::uniform::Uniform;

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

/// Whether a plan lies there that is not as it was written: somebody changed it, rightly or with a slip.
fn is_edited(place: &Path) -> bool {
    let is_plan = read_text(place, LARGEST_FILE).is_ok_and(|text| text.contains(FORMAT));
    is_plan && !made::sealed(place)
}

/// Makes a plan and puts it at `out`, its statistics beside it.
///
/// # Errors
/// Samples that do not fit; a goal that cannot be reached; outputs that cannot be written; a plan there that somebody has edited.
pub fn make(survey: &Survey<'_>, request: &Request, out: Destination<'_>, progress: Progress<'_>) -> Result<Made> {
    let bare = matches!(request.goal, Goal::Scheme(Uniform::Weights(_)));
    let source = request.calibrate.clone().or((!bare).then_some(Samples::Seeded));
    if !out.force && is_edited(out.path) {
        bail!(
            "cannot write `{}`: found a plan that somebody has edited, whose choices would be lost; use it with --quantize, name \
             another place, or --force replaces it",
            out.path.display()
        );
    }
    let staged = Staged::file(out, &made::sealed)?;
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
    let text = made::seal(&made.plan.to_toml()?);
    std::fs::write(staged.path(), text).with_context(|| format!("cannot write `{}`", out.path.display()))?;
    let statistics = calibrated.map(|c| c.staged);
    survey.checkpoint.check_unchanged()?;
    Staged::commit_all(statistics.into_iter().chain([staged]).collect())?;
    Ok(made)
}
