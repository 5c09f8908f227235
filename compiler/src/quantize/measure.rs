//! What compression does to the model's output, by running it.

use anyhow::{Context, Result};
use s2dit_backends::onnx::Round;
use s2dit_ir::{Module, WeightSource};
use s2dit_passes::quantize::{self as pass, Choice};
use s2dit_runtime::compare::EXACT_DB;
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

/// A session of the surveyed graph or a changed one; `probes` are values to return beside the results.
pub(super) fn session(
    module: &Module,
    source: &dyn WeightSource,
    threads: usize,
    probes: &[String],
) -> Result<Session> {
    let f = module.functions.first().context("a module without a function")?;
    let options = RunOptions { engine: Engine::Ort, threads, probes: probes.to_vec(), ..RunOptions::default() };
    function_session(f, source, Round::AsTyped, &options)
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
        let mut session = session(module, source, threads, &[])?;
        let run = |inputs| {
            let mut outputs = session.run(inputs)?;
            Ok(outputs.remove(OUTPUT).with_context(|| format!("no output `{OUTPUT}`"))?.data)
        };
        samples.iter().map(run).collect()
    }

    /// ‖compressed − whole‖² / ‖whole‖² over the first samples.
    fn error(&self, module: &Module, source: &dyn WeightSource, samples: usize, threads: usize) -> Result<f64> {
        let outputs = self.outputs(module, source, &self.samples[..samples.min(self.samples.len())], threads)?;
        let pairs = outputs.iter().flatten().zip(self.reference.iter().flatten());
        Ok(relative(pairs))
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
        let (module, source) = self.planned(plan)?;
        self.error(&module, &source, self.samples.len(), self.threads)
    }

    /// The SNR in dB of the output of each block, on the first sample.
    ///
    /// # Errors
    /// See [`Runner::plan`].
    pub fn blocks(&self, plan: &OpenPlan) -> Result<Vec<f64>> {
        let (module, source) = self.planned(plan)?;
        let f = &self.survey.module.functions[0];
        let names: Vec<String> =
            (0..).map(|i| format!("block{i}")).take_while(|name| f.by_name(name).is_some()).collect();
        let Some(sample) = self.samples.first() else { return Ok(Vec::new()) };
        let whole = session(&self.survey.module, self.survey.checkpoint, self.threads, &names)?.run(sample)?;
        let stored = session(&module, &source, self.threads, &names)?.run(sample)?;
        let of = |name: &String| {
            let pair = stored.get(name).zip(whole.get(name)).with_context(|| format!("no value `{name}`"))?;
            Ok(decibels(relative(pair.0.data.iter().zip(&pair.1.data))))
        };
        names.iter().map(of).collect()
    }

    fn planned<'p>(&self, plan: &'p OpenPlan) -> Result<(Module, Sources<'p>)>
    where
        'a: 'p,
    {
        let mut module = self.survey.module.clone();
        plan.apply(&mut module, |name| self.survey.checkpoint.get(name).is_some())?;
        Ok((module, Sources { checkpoint: self.survey.checkpoint, statistics: plan.statistics.as_ref() }))
    }
}

/// ‖x − r‖² / ‖r‖²
fn relative<'x>(pairs: impl Iterator<Item = (&'x f32, &'x f32)>) -> f64 {
    let (mut errors, mut squares) = (0.0, 0.0);
    for (x, r) in pairs {
        let (x, r) = (f64::from(*x), f64::from(*r));
        errors += (x - r) * (x - r);
        squares += r * r;
    }
    if squares > 0.0 { errors / squares } else { errors }
}

/// A relative squared error in dB.
#[must_use]
pub fn decibels(error: f64) -> f64 {
    if error > 0.0 { (-10.0 * error.log10()).min(EXACT_DB) } else { EXACT_DB }
}
