//! Plans with these entries: their bytes, their statistics, what was measured of them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use s2dit_passes::quantize::Weight;
use serde::Serialize;

use super::Survey;
use super::calibrated::Calibrated;
use super::measure::decibels;
use s2dit_emit::plan::{Entry, FORMAT, Plan, VERSION};
use s2dit_emit::plan::{OpenPlan, Quantize, Storage};
use s2dit_files::SafetensorsFile;
use s2dit_files::problems::Problems;

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
    /// Place of the plan.
    pub place: &'a Path,
}

impl Maker<'_> {
    /// A plan with these entries, its bytes counted.
    pub(super) fn plan(&self, goal: String, weight: Vec<Entry>) -> Result<OpenPlan> {
        let mut plan = Plan {
            format: FORMAT.into(),
            version: VERSION,
            checkpoint: format!("blake3:{}", self.survey.checkpoint.content_hash().to_hex()),
            config: Some(self.survey.checkpoint.model().config().to_string()),
            latent: None,
            tokens: None,
            goal,
            weight_bytes: 0,
            snr_db: None,
            calibration: self.calibrated.map(|c| c.about.clone()),
            overrides: BTreeMap::new(),
            weight,
        }
        .at(self.survey.size);
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
