//! The plan that reaches a size or an SNR.

use anyhow::{Context, Result};

use super::curve::Curve;
use super::maker::{Made, Maker, Point, too_small};
use super::measure::{Runner, decibels};
use super::progress::Progress;
use super::search::{Way, pick};
use s2dit_emit::plan::{Entry, OpenPlan, Storage};

/// Every weight, measured.
pub(super) struct Search<'a> {
    pub maker: &'a Maker<'a>,
    pub runner: Runner<'a>,
    pub curves: Vec<Curve>,
    /// Bytes of all other weights.
    pub fixed: u64,
}

impl Search<'_> {
    fn ways(&self) -> Vec<Vec<Way>> {
        self.curves.iter().map(|c| c.ways.iter().map(|w| w.1).collect()).collect()
    }

    fn least(&self) -> u64 {
        self.fixed + self.ways().iter().filter_map(|w| w.iter().map(|w| w.bytes).min()).sum::<u64>()
    }

    /// The plan of the least error for at most `target` bytes; the smallest plan, which may be larger, if there is none.
    fn planned(&self, target: u64, goal: &str) -> Result<OpenPlan> {
        let ways = self.ways();
        let least = self.least() - self.fixed;
        let mut budget = target.saturating_sub(self.fixed);
        loop {
            budget = budget.max(least);
            let picks = pick(&ways, budget).context("the smallest plan is larger than itself")?;
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
            if over == 0 || budget == least {
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
        self.maker.made(open, measured, alone, pareto)
    }

    pub(super) fn smallest_error(&self, target: u64, progress: Progress<'_>) -> Result<Made> {
        let open = self.planned(target, &format!("at most {target} bytes"))?;
        if open.plan.weight_bytes > target {
            return Err(too_small(target, open.plan.weight_bytes).into());
        }
        let measured = self.runner.plan(&open, progress)?;
        Ok(self.made(open, measured))
    }

    /// The smallest plan that a real run shows to reach `least` dB: the prediction is corrected by what was measured.
    pub(super) fn smallest(&self, least: f64, progress: Progress<'_>) -> Result<Made> {
        const RUNS: usize = 6;
        /// A plan this little above the goal is small enough.
        const NEAR: f64 = 0.3;
        let goal = format!("at least {least} dB");
        let mut found: Option<(OpenPlan, (f64, Vec<f64>))> = None;
        let mut aim = least;
        let mut before: Option<Vec<Entry>> = None;
        for run in 0..RUNS {
            let open = self.planned(self.predicted(aim), &goal)?;
            if before.as_ref() == Some(&open.plan.weight) {
                break;
            }
            before = Some(open.plan.weight.clone());
            let measured = self.runner.plan(&open, progress)?;
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
            let measured = self.runner.plan(&open, progress)?;
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
