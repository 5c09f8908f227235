//! What compression does to the model's output, by running it.

use anyhow::{Context, Result};
use s2dit_backends::onnx::Round;
use s2dit_ir::{Module, WeightSource};
use s2dit_passes::quantize::{self as pass, Choice};
use s2dit_runtime::{Engine, RunOptions, Session, function_session};

use super::samples::Inputs;
use super::{OpenPlan, Sources, Survey};

/// Runs the model on samples and compares it with itself, uncompressed.
pub struct Runner<'a> {
    survey: &'a Survey<'a>,
    samples: &'a [Inputs],
    reference: Vec<Vec<f32>>,
    threads: usize,
}

/// Samples that a single weight is measured on: its error need not be known as well as the plan's.
const ALONE: usize = 2;

/// The result of a clip.
const OUTPUT: &str = "velocity";

fn options(threads: usize) -> RunOptions {
    RunOptions { engine: Engine::Ort, threads, ..RunOptions::default() }
}

/// A session of the surveyed graph or a changed one.
pub(super) fn session(module: &Module, source: &dyn WeightSource, threads: usize) -> Result<Session> {
    let f = module.functions.first().context("a module without a function")?;
    function_session(f, source, Round::AsTyped, &options(threads))
}

impl<'a> Runner<'a> {
    /// Runs the uncompressed model.
    ///
    /// # Errors
    /// A failing engine.
    pub fn new(survey: &'a Survey<'a>, samples: &'a [Inputs], threads: usize) -> Result<Self> {
        let mut runner = Runner { survey, samples, reference: Vec::new(), threads };
        runner.reference = runner.outputs(&survey.module, survey.checkpoint, samples, threads)?;
        Ok(runner)
    }

    fn outputs(
        &self,
        module: &Module,
        source: &dyn WeightSource,
        samples: &[Inputs],
        threads: usize,
    ) -> Result<Vec<Vec<f32>>> {
        let mut session = session(module, source, threads)?;
        let run = |inputs| {
            let mut outputs = session.run(inputs)?;
            Ok(outputs.remove(OUTPUT).with_context(|| format!("no output `{OUTPUT}`"))?.data)
        };
        samples.iter().map(run).collect()
    }

    /// ‖compressed − whole‖² / ‖whole‖² over the first samples.
    fn error(&self, module: &Module, source: &dyn WeightSource, samples: usize, threads: usize) -> Result<f64> {
        let outputs = self.outputs(module, source, &self.samples[..samples.min(self.samples.len())], threads)?;
        let (mut errors, mut squares) = (0.0, 0.0);
        for (x, r) in outputs.iter().flatten().zip(self.reference.iter().flatten()) {
            let (x, r) = (f64::from(*x), f64::from(*r));
            errors += (x - r) * (x - r);
            squares += r * r;
        }
        Ok(if squares > 0.0 { errors / squares } else { errors })
    }

    /// The error when only this weight is compressed. Several may be asked for at once: each takes one thread.
    ///
    /// # Errors
    /// A scheme that does not fit; a failing engine.
    pub fn alone(&self, name: &str, choice: &Choice, source: &dyn WeightSource) -> Result<f64> {
        let mut module = self.survey.module.clone();
        pass::run(&mut module, |n, _| (n == name).then(|| choice.clone()))?;
        self.error(&module, source, ALONE, 1)
    }

    /// The error of a plan.
    ///
    /// # Errors
    /// A plan that does not fit; a failing engine.
    pub fn plan(&self, plan: &OpenPlan) -> Result<f64> {
        let mut module = self.survey.module.clone();
        plan.apply(&mut module, |name| self.survey.checkpoint.get(name).is_some())?;
        let source = Sources { checkpoint: self.survey.checkpoint, statistics: plan.statistics.as_ref() };
        self.error(&module, &source, self.samples.len(), self.threads)
    }
}

/// A relative squared error in dB.
#[must_use]
pub fn decibels(error: f64) -> f64 {
    if error > 0.0 {
        (-10.0 * error.log10()).min(s2dit_runtime::compare::EXACT_DB)
    } else {
        s2dit_runtime::compare::EXACT_DB
    }
}
