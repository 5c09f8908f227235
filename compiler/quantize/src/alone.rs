//! The effect of a single compressed weight on the model's output.
//!
//! A weight of a block changes its block's output first, and that error then goes through the rest of the model as any other of
//! its size does: so only the block is run for each weight, and the rest once a block, with all weights of the block in int8.
//! What changes more than one block's output, such as the time embedding, is run to the end by itself.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use rayon::prelude::*;
use s2dit_ir::compress::Scheme;
use s2dit_ir::{Function, Interface, Module, WeightSource};
use s2dit_passes::quantize::{self as pass, Choice};

use super::Survey;
use super::chain::{Chain, Outputs, Segment, named, run};
use super::measure::relative;
use super::progress::Progress;
use super::samples::Inputs;
use super::survey::fits;

/// Samples that a single weight is measured on: its error need not be known as well as the plan's.
const SAMPLES: usize = 2;

/// The object of a measurement: one weight, or one block's output.
#[derive(Clone, Debug)]
enum Probe {
    /// A weight, compressed.
    Weight(String),
    /// Every weight of a block; the error that this makes of the block's output.
    Block { number: usize, local: f64 },
}

/// A probe on its way through the model.
struct Pending {
    probe: Probe,
    /// Values that the next segments read, of each sample.
    values: Vec<Inputs>,
}

/// A function to run with something compressed.
struct Job {
    probe: Probe,
    function: Function,
    /// Whether only the output of the block is compared.
    within: bool,
}

/// ‖x − r‖² / ‖r‖² of the output for each weight, when only it is compressed as chosen. `progress` gets weights done and all.
///
/// # Errors
/// A scheme that does not fit; a failing engine.
pub(super) fn alone(
    survey: &Survey<'_>,
    samples: &[Inputs],
    choices: &BTreeMap<String, Choice>,
    source: &dyn WeightSource,
    threads: usize,
    progress: Progress<'_>,
) -> Result<BTreeMap<String, f64>> {
    let samples = &samples[..SAMPLES.min(samples.len())];
    let interface = &survey.module.interface;
    let chain = Chain::of(&survey.module)?;
    let mut base = samples.to_vec();
    let mut pending: Vec<Pending> = Vec::new();
    // Errors of outputs of blocks, and of the model.
    let (mut local, mut found): (BTreeMap<String, (usize, f64)>, BTreeMap<String, f64>) = Default::default();
    let mut gains: BTreeMap<usize, f64> = BTreeMap::new();
    let mut done = BTreeSet::new();
    for segment in &chain.segments {
        let output = segment.output.clone();
        let here = segment.computed(&BTreeSet::from([output.clone()]));
        // The uncompressed model and all that differs from it, through one session.
        let all: Vec<&Inputs> = base.iter().chain(pending.iter().flat_map(|p| &p.values)).collect();
        let mut outputs = Vec::with_capacity(all.len());
        run(&segment.function, source, &all, &here, threads, |o| {
            outputs.push(o);
            Ok(())
        })?;
        let mut later = outputs.split_off(samples.len());
        let reference = outputs;
        let error = |outputs: &[Outputs]| -> Result<f64> {
            let pairs: Vec<_> = outputs
                .iter()
                .zip(&reference)
                .map(|(x, r)| Ok((named(x, &output)?, named(r, &output)?)))
                .collect::<Result<_>>()?;
            Ok(relative(pairs.iter().flat_map(|(x, r)| x.data.iter().zip(&r.data))))
        };
        let last = segment.last;
        for p in pending.iter_mut().rev() {
            let outputs = later.split_off(later.len() - samples.len());
            if last {
                match &p.probe {
                    Probe::Weight(name) => _ = found.insert(name.clone(), error(&outputs)?),
                    Probe::Block { number, local } if *local > 0.0 => {
                        gains.insert(*number, error(&outputs)? / local);
                    }
                    Probe::Block { .. } => {}
                }
            }
            p.values.iter_mut().zip(outputs).for_each(|(values, outputs)| segment.advance(values, outputs));
        }
        let jobs = jobs(segment, interface, choices, &done)?;
        done.extend(jobs.iter().filter_map(|job| match &job.probe {
            Probe::Weight(name) => Some(name.clone()),
            Probe::Block { .. } => None,
        }));
        for chunk in jobs.chunks(threads.max(1)) {
            let inputs: Vec<&Inputs> = base.iter().collect();
            let run_job = |job: &Job| -> Result<Vec<Outputs>> {
                let mut outputs = Vec::new();
                run(&job.function, source, &inputs, &here, 1, |o| {
                    outputs.push(o);
                    Ok(())
                })?;
                Ok(outputs)
            };
            let results: Vec<Vec<Outputs>> = chunk.par_iter().map(run_job).collect::<Result<_>>()?;
            for (job, outputs) in chunk.iter().zip(results) {
                let error = error(&outputs)?;
                let probe = match &job.probe {
                    Probe::Weight(name) if last => {
                        found.insert(name.clone(), error);
                        continue;
                    }
                    Probe::Weight(name) if job.within => {
                        local.insert(name.clone(), (segment.block, error));
                        continue;
                    }
                    Probe::Block { number, .. } => Probe::Block { number: *number, local: error },
                    probe => probe.clone(),
                };
                let mut values = base.clone();
                values.iter_mut().zip(outputs).for_each(|(values, outputs)| segment.advance(values, outputs));
                pending.push(Pending { probe, values });
            }
            progress("sensitivity", found.len() + local.len(), choices.len());
        }
        base.iter_mut().zip(reference).for_each(|(values, outputs)| segment.advance(values, outputs));
    }
    // A block that int8 leaves as it is tells no gain: its own error is the best there is.
    found.extend(
        local.into_iter().map(|(name, (block, error))| (name, error * gains.get(&block).copied().unwrap_or(1.0))),
    );
    Ok(found)
}

/// A segment with each of its weights compressed, and with all of its block's.
fn jobs(
    segment: &Segment,
    interface: &Interface,
    choices: &BTreeMap<String, Choice>,
    done: &BTreeSet<String>,
) -> Result<Vec<Job>> {
    let single = Module::single(segment.function.clone());
    let compressed = |choose: &dyn Fn(&str) -> Option<Choice>| -> Result<Function> {
        let mut module = single.clone();
        pass::run(&mut module, |name, _| choose(name))?;
        Ok(module.functions.swap_remove(0))
    };
    let (mut jobs, mut own) = (Vec::new(), BTreeMap::new());
    for weight in pass::weights_of(&single) {
        let Some(choice) = choices.get(&weight.name).filter(|_| !done.contains(&weight.name)) else { continue };
        let within = interface.block_of(&weight.name) == Some(segment.block);
        if within {
            let plain = if fits(Scheme::Int8, &weight.ty) { Scheme::Int8.into() } else { choice.clone() };
            own.insert(weight.name.clone(), plain);
        }
        let function = compressed(&|name| (name == weight.name).then(|| choice.clone()))?;
        jobs.push(Job { probe: Probe::Weight(weight.name), function, within });
    }
    if !segment.last && !own.is_empty() {
        let function = compressed(&|name| own.get(name).cloned())?;
        jobs.push(Job { probe: Probe::Block { number: segment.block, local: 0.0 }, function, within: false });
    }
    Ok(jobs)
}

#[cfg(test)]
mod tests;
