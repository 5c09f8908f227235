//! The model, cut between its blocks and run a segment at a time over all samples: only one segment's weights are in memory.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use anyhow::{Context, Result};
use rayon::prelude::*;
use s2dit_backends::onnx::{MemoryOptions, WeightMode, model_in_memory};
use s2dit_ir::{Function, Module, WeightSource};
use s2dit_passes::partition::{Casts, block_bytes, partition};
use s2dit_runtime::{HostTensor, Session, SessionOptions};

use super::samples::Inputs;

/// The values that a segment computes: its results, and whatever else was asked for.
pub(super) type Outputs = BTreeMap<String, HostTensor>;

/// A block, with what comes before the first or after the last.
pub(super) struct Segment {
    /// The number of the block.
    pub block: usize,
    /// Graph of the segment: from parameters of the model and results of earlier segments to results of the model and parameters of later segments.
    pub function: Function,
    /// The value that shows what the segment's weights do: its block's output, or the model's.
    pub output: String,
    /// Whether that is the model's.
    pub last: bool,
    /// Values that later segments read, and results of the model.
    wanted: HashSet<String>,
}

/// The segments, in order.
pub(super) struct Chain {
    pub segments: Vec<Segment>,
}

impl Chain {
    /// Cuts the first function of a module between its blocks.
    ///
    /// # Errors
    /// A graph that updates states, or whose result nobody knows.
    pub fn of(module: &Module) -> Result<Chain> {
        let (f, interface) = (&module.functions[0], &module.interface);
        let result = interface.output().context("a graph without a result")?;
        let starts: Vec<usize> = (0..block_bytes(&[f], interface, Casts::AreStored).len().max(1)).collect();
        let mut segments: Vec<Segment> = partition(f, interface, &starts)?
            .into_iter()
            .map(|(block, function)| {
                let last = function.results.iter().any(|(name, _)| name == result);
                let ends = interface.milestones.get(block).map(|milestone| milestone.value.as_str());
                let output = if last { result } else { ends.unwrap_or(result) }.to_owned();
                Segment { block, function, output, last, wanted: HashSet::new() }
            })
            .collect();
        let mut wanted: HashSet<String> = f.results.iter().map(|(name, _)| name.clone()).collect();
        for segment in segments.iter_mut().rev() {
            segment.wanted.clone_from(&wanted);
            let params = segment.function.params().iter();
            wanted.extend(params.filter_map(|&p| segment.function.node(p).name.as_deref()).map(str::to_string));
        }
        Ok(Chain { segments })
    }

    /// Runs all segments over all samples. `each` gets the number of the sample and what a segment computes of it, with those of
    /// `probes` that the segment computes.
    ///
    /// # Errors
    /// A failing engine; what `each` says.
    pub fn run(
        &self,
        source: &dyn WeightSource,
        samples: &[Inputs],
        probes: &BTreeSet<String>,
        threads: usize,
        mut each: impl FnMut(usize, &Outputs) -> Result<()>,
    ) -> Result<()> {
        let mut values = samples.to_vec();
        for segment in &self.segments {
            let here = segment.computed(probes);
            let mut made = Vec::with_capacity(values.len());
            let all: Vec<&Inputs> = values.iter().collect();
            run(&segment.function, source, &all, &here, threads, |outputs| {
                each(made.len(), &outputs)?;
                made.push(outputs);
                Ok(())
            })?;
            for (values, outputs) in values.iter_mut().zip(made) {
                segment.advance(values, outputs);
            }
        }
        Ok(())
    }
}

impl Segment {
    /// The values among `names` that the segment computes.
    pub fn computed(&self, names: &BTreeSet<String>) -> Vec<String> {
        let f = &self.function;
        let params: HashSet<_> = f.params().iter().copied().collect();
        names.iter().filter(|name| f.by_name(name).is_some_and(|v| !params.contains(&v))).cloned().collect()
    }

    /// Replaces the values that the segment reads by those that later segments read.
    pub fn advance(&self, values: &mut Inputs, outputs: Outputs) {
        values.extend(outputs.into_iter().map(|(name, value)| (name, Arc::new(value))));
        values.retain(|name, _| self.wanted.contains(name));
    }
}

/// Runs samples of a graph, `threads` at a time, and gives the outputs to `each` in order. `probes` are values to return
/// beside the results. A sample has one thread: the sums of several would depend on their number.
///
/// # Errors
/// A failing engine; what `each` says.
pub(super) fn run(
    f: &Function,
    source: &dyn WeightSource,
    samples: &[&Inputs],
    probes: &[String],
    threads: usize,
    mut each: impl FnMut(Outputs) -> Result<()>,
) -> Result<()> {
    let results: HashSet<&str> = f.results.iter().map(|(name, _)| name.as_str()).collect();
    let probes = probes.iter().filter(|name| !results.contains(name.as_str())).cloned().collect();
    let memory = MemoryOptions { weights: WeightMode::Reference, outputs: probes };
    let model = model_in_memory(f, source, &memory)?;
    let options = SessionOptions { threads: 1, keep_weights_mapped: true, quiet: false };
    let session = || Session::from_bytes(&model.bytes, model.folder.as_deref(), &options);
    let count = threads.clamp(1, samples.len().max(1));
    let mut sessions: Vec<Session> = (0..count).map(|_| session()).collect::<Result<_, _>>()?;
    for chunk in samples.chunks(count) {
        let run = |(session, sample): (&mut Session, &&Inputs)| session.run_with(|name| sample.get(name).map(|t| &**t));
        let outputs: Vec<Outputs> = sessions.par_iter_mut().zip(chunk).map(run).collect::<Result<_, _>>()?;
        outputs.into_iter().try_for_each(&mut each)?;
    }
    Ok(())
}

/// The output of this name.
pub(super) fn named<'o>(outputs: &'o Outputs, name: &str) -> Result<&'o HostTensor> {
    outputs.get(name).with_context(|| format!("the model has no value `{name}`"))
}
