//! What compression does to the model's output, by running it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use rayon::prelude::*;
use s2dit_backends::onnx::{MemoryOptions, Round, WeightMode, model_in_memory};
use s2dit_ir::{Module, WeightSource};
use s2dit_passes::quantize::{self as pass, Choice};
use s2dit_runtime::compare::EXACT_DB;
use s2dit_runtime::{HostTensor, Session, SessionOptions};

use super::samples::Inputs;
use super::{OpenPlan, Sources, Storage, Survey};

/// Runs the model on samples and compares it with itself, uncompressed.
pub struct Runner<'a> {
    survey: &'a Survey<'a>,
    samples: &'a [Inputs],
    reference: Vec<Outputs>,
    blocks: Vec<String>,
    threads: usize,
}

/// Samples that a single weight is measured on: its error need not be known as well as the plan's.
const ALONE: usize = 2;

/// The result of a clip.
const OUTPUT: &str = "velocity";

/// Compressed weights lie in the model that is run, which protobuf limits to 2 GiB.
const LARGEST: u64 = 1_900_000_000;

type Outputs = BTreeMap<String, HostTensor>;

/// Runs samples of a graph, `threads` at a time, and gives the outputs to `each` in order. `probes` are values to return
/// beside the results. A sample has one thread: the sums of several would depend on their number.
pub(super) fn run(
    module: &Module,
    source: &dyn WeightSource,
    samples: &[Inputs],
    probes: &[String],
    threads: usize,
    mut each: impl FnMut(Outputs) -> Result<()>,
) -> Result<()> {
    let f = module.functions.first().context("a module without a function")?;
    let memory = MemoryOptions { round: Round::AsTyped, weights: WeightMode::Reference, outputs: probes.to_vec() };
    let model = model_in_memory(f, source, &memory)?;
    let options = SessionOptions { threads: 1, keep_weights_mapped: true, quiet: false };
    let session = || Session::from_bytes(&model.bytes, model.folder.as_deref(), &options);
    let count = threads.clamp(1, samples.len().max(1));
    let mut sessions: Vec<Session> = (0..count).map(|_| session()).collect::<Result<_>>()?;
    for chunk in samples.chunks(count) {
        let run = |(session, sample): (&mut Session, &Inputs)| session.run_with(|name| sample.get(name));
        let outputs: Vec<Outputs> = sessions.par_iter_mut().zip(chunk).map(run).collect::<Result<_>>()?;
        outputs.into_iter().try_for_each(&mut each)?;
    }
    Ok(())
}

impl<'a> Runner<'a> {
    /// Runs the uncompressed model.
    ///
    /// # Errors
    /// A failing engine.
    pub fn new(survey: &'a Survey<'a>, samples: &'a [Inputs], threads: usize) -> Result<Self> {
        let f = &survey.module.functions[0];
        let blocks: Vec<String> =
            (0..).map(|i| format!("block{i}")).take_while(|name| f.by_name(name).is_some()).collect();
        let mut runner = Runner { survey, samples, reference: Vec::new(), blocks, threads };
        runner.reference = runner.outputs(&survey.module, survey.checkpoint)?;
        Ok(runner)
    }

    /// The results of every sample, and the blocks of the first.
    fn outputs(&self, module: &Module, source: &dyn WeightSource) -> Result<Vec<Outputs>> {
        let mut all: Vec<Outputs> = Vec::new();
        run(module, source, self.samples, &self.blocks, self.threads, |mut outputs| {
            outputs.retain(|name, _| name == OUTPUT || all.is_empty());
            all.push(outputs);
            Ok(())
        })?;
        Ok(all)
    }

    /// ‖x − r‖² / ‖r‖² of a value over the samples that have it.
    fn error(&self, name: &str, outputs: &[Outputs]) -> f64 {
        let pairs = outputs.iter().zip(&self.reference).filter_map(|(x, r)| x.get(name).zip(r.get(name)));
        relative(pairs.flat_map(|(x, r)| x.data.iter().zip(&r.data)))
    }

    /// The error when only this weight is compressed. Several may be asked for at once: each takes one thread.
    ///
    /// # Errors
    /// A scheme that does not fit; a failing engine.
    pub fn alone(&self, name: &str, choice: &Choice, source: &dyn WeightSource) -> Result<f64> {
        let mut module = self.survey.module.clone();
        pass::run(&mut module, |n, _| (n == name).then(|| choice.clone()))?;
        let mut outputs = Vec::new();
        run(&module, source, &self.samples[..ALONE.min(self.samples.len())], &[], 1, |o| {
            outputs.push(o);
            Ok(())
        })?;
        Ok(self.error(OUTPUT, &outputs))
    }

    /// The error of a plan, and the SNR in dB of the output of each block on the first sample.
    ///
    /// # Errors
    /// A plan that does not fit or cannot be run, see [`Runner::can_run`]; a failing engine.
    pub fn plan(&self, plan: &OpenPlan) -> Result<(f64, Vec<f64>)> {
        if !Runner::can_run(plan) {
            bail!("found more than {LARGEST} bytes of compressed weights, expected less: larger plans cannot be run");
        }
        let mut module = self.survey.module.clone();
        plan.apply(&mut module, |name| self.survey.checkpoint.get(name).is_some())?;
        let source = Sources { checkpoint: self.survey.checkpoint, statistics: plan.statistics.as_ref() };
        let outputs = self.outputs(&module, &source)?;
        let blocks = self.blocks.iter().map(|name| decibels(self.error(name, &outputs)));
        Ok((self.error(OUTPUT, &outputs), blocks.collect()))
    }

    /// Whether the compressed weights of a plan fit into a model that can be run.
    #[must_use]
    pub fn can_run(plan: &OpenPlan) -> bool {
        let compressed = plan.plan.weight.iter().filter(|w| w.scheme != Storage::Whole);
        compressed.map(|w| w.bytes).sum::<u64>() <= LARGEST
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
