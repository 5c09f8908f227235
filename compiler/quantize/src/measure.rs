//! The effect of a plan on the model's output, measured by running it.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use s2dit_ir::{Module, WeightSource};
use s2dit_runtime::compare::EXACT_DB;

use super::Survey;
use super::chain::{Chain, Outputs};
use super::progress::Progress;
use super::samples::Inputs;
use s2dit_emit::plan::{OpenPlan, Sources};

/// Runs the model on samples and compares it with itself, uncompressed.
pub struct Runner<'a> {
    survey: &'a Survey<'a>,
    samples: &'a [Inputs],
    reference: Vec<Outputs>,
    output: String,
    blocks: Vec<String>,
    threads: usize,
}

impl<'a> Runner<'a> {
    /// Runs the uncompressed model.
    ///
    /// # Errors
    /// A failing engine.
    pub fn new(survey: &'a Survey<'a>, samples: &'a [Inputs], threads: usize) -> Result<Self> {
        let interface = &survey.module.interface;
        let output = interface.output().context("a graph without a result")?.to_owned();
        let blocks = interface.milestones.iter().map(|milestone| milestone.value.clone()).collect();
        let mut runner = Runner { survey, samples, reference: Vec::new(), output, blocks, threads };
        runner.reference = runner.outputs(&survey.module, survey.checkpoint, &mut |_, _, _| {})?;
        Ok(runner)
    }

    /// The results of every sample, and the blocks of the first.
    fn outputs(&self, module: &Module, source: &dyn WeightSource, progress: Progress<'_>) -> Result<Vec<Outputs>> {
        let mut all = vec![Outputs::new(); self.samples.len()];
        let blocks: BTreeSet<String> = self.blocks.iter().cloned().collect();
        let (chain, mut done) = (Chain::of(module)?, 0);
        chain.run(source, self.samples, &blocks, self.threads, |sample, outputs| {
            if sample == 0 {
                done += 1;
                progress("plan, block", done, chain.segments.len());
            }
            let kept =
                outputs.iter().filter(|(name, _)| **name == self.output || (sample == 0 && blocks.contains(*name)));
            all[sample].extend(kept.map(|(name, value)| (name.clone(), value.clone())));
            Ok(())
        })?;
        Ok(all)
    }

    /// ‖x − r‖² / ‖r‖² of a value over the samples that have it.
    fn error(&self, name: &str, outputs: &[Outputs]) -> f64 {
        let pairs = outputs.iter().zip(&self.reference).filter_map(|(x, r)| x.get(name).zip(r.get(name)));
        relative(pairs.flat_map(|(x, r)| x.data.iter().zip(&r.data)))
    }

    /// The error of a plan, and the SNR in dB of the output of each block on the first sample.
    ///
    /// # Errors
    /// A plan that does not fit; a failing engine.
    pub fn plan(&self, plan: &OpenPlan, progress: Progress<'_>) -> Result<(f64, Vec<f64>)> {
        let mut module = self.survey.module.clone();
        plan.apply(&mut module, |name| self.survey.checkpoint.weights().has(name))?;
        let source = Sources::with_statistics(self.survey.checkpoint, plan.statistics.as_ref());
        let outputs = self.outputs(&module, &source, progress)?;
        let blocks = self.blocks.iter().map(|name| decibels(self.error(name, &outputs)));
        Ok((self.error(&self.output, &outputs), blocks.collect()))
    }
}

/// ‖x − r‖² / ‖r‖²
pub(super) fn relative<'x>(pairs: impl Iterator<Item = (&'x f32, &'x f32)>) -> f64 {
    let (mut errors, mut squares) = (0.0, 0.0);
    for (x, r) in pairs {
        let (x, r) = (f64::from(*x), f64::from(*r));
        errors += (x - r) * (x - r);
        squares += r * r;
    }
    if squares > 0.0 { errors / squares } else { errors }
}

/// A relative squared error in dB; of one that is no number, the worst.
#[must_use]
pub fn decibels(error: f64) -> f64 {
    match error {
        e if !e.is_finite() => -EXACT_DB,
        e if e > 0.0 => (-10.0 * e.log10()).min(EXACT_DB),
        _ => EXACT_DB,
    }
}
