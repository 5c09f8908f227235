//! Statistics of the inputs of linears and convolutions: mean squares of their channels, and what a channel says of those after
//! it. Collected by running the graph with these inputs as outputs, and kept in a safetensors file beside the plan.

mod factors;
mod file;
mod magnitudes;
mod windows;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nalgebra::DMatrix;
use rayon::prelude::*;
use s2dit_ir::{DType, Function, TensorType, ValueId};
use s2dit_passes::quantize::Weight;
use s2dit_runtime::HostTensor;

use super::Survey;
use super::chain::{self, Chain, Outputs};
use super::samples::Inputs;
use factors::Moments;
use magnitudes::Magnitudes;
use s2dit_emit::plan::{FEEDBACK, IMPORTANCE};
use windows::Windows;

/// Inputs whose products are held at once; more are cut into blocks.
const WIDEST_BLOCK: usize = 1024;
/// Bytes of activations and products that are held at once.
const HELD: usize = 512 << 20;

/// The input of one or several weights.
struct Input {
    /// The first weight that it is multiplied with.
    name: String,
    value: ValueId,
    /// Input channels of the weight.
    channels: usize,
    windows: Windows,
    /// Inputs of an output channel.
    inputs: usize,
    /// Inputs of a block.
    block: usize,
    /// Whether it depends on no other parameter than the timestep.
    of_time: bool,
    /// The segment of the model that computes it; none computes a parameter of the model.
    segment: Option<usize>,
    /// What it is called in its segment.
    label: String,
}

impl Input {
    fn of(f: &Function, time: Option<&str>, weight: &Weight) -> Input {
        let (_, user, _) = weight.at;
        let value = f.operands(user)[0];
        let windows = Windows::of(f.op(user), f.shape(value), &weight.ty.shape);
        let inputs: usize = weight.ty.shape[1..].iter().product();
        let block = (1..=WIDEST_BLOCK.min(inputs)).rev().find(|b| inputs.is_multiple_of(*b)).unwrap_or(1);
        let of_time = parameters(f, value).iter().all(|name| Some(name.as_str()) == time);
        let (name, channels) = (weight.name.clone(), weight.ty.shape[1]);
        Input { name, value, channels, windows, inputs, block, of_time, segment: None, label: String::new() }
    }

    fn held(&self, f: &Function) -> usize {
        f.ty(self.value).bytes() + self.inputs * self.block * size_of::<f64>()
    }
}

/// The parameters that a value depends on.
fn parameters(f: &Function, v: ValueId) -> BTreeSet<String> {
    let (mut ahead, mut seen, mut found) = (vec![v], HashSet::new(), BTreeSet::new());
    while let Some(at) = ahead.pop() {
        if seen.insert(at) {
            ahead.extend(f.operands(at));
            if f.params().contains(&at) {
                found.insert(f.node(at).name.as_deref().unwrap_or_default().to_string());
            }
        }
    }
    found
}

/// Sums over what an output is made of.
struct Sums {
    /// Squares, a channel.
    squares: Vec<f64>,
    /// Products, a block.
    blocks: Vec<Moments>,
    /// Magnitudes of all elements.
    magnitudes: Magnitudes,
}

impl Sums {
    fn new(input: &Input) -> Sums {
        let block = Moments { products: DMatrix::zeros(input.block, input.block), fourth: 0.0, count: 0 };
        let blocks = vec![block; input.inputs / input.block];
        Sums { squares: vec![0.0; input.channels], blocks, magnitudes: Magnitudes::new() }
    }

    /// Adds what one sample makes of an input.
    fn add(&mut self, input: &Input, x: &HostTensor) -> Result<()> {
        if let Some(bad) = x.data.iter().find(|x| !x.is_finite()) {
            bail!(
                "calibration: what weight `{}` is multiplied with: found {bad}, expected finite activations",
                input.name
            );
        }
        let (windows, block) = (&input.windows, input.block);
        self.magnitudes.add(&x.data);
        self.blocks.par_iter_mut().enumerate().for_each(|(b, sums)| {
            let columns = DMatrix::from_fn(block, windows.count(), |i, w| windows.input(&x.data, w, b * block + i));
            sums.products.gemm(1.0, &columns, &columns.transpose(), 1.0);
            sums.fourth += columns.column_iter().map(|window| window.norm_squared().powi(2)).sum::<f64>();
            sums.count += windows.count();
        });
        Ok(())
    }

    /// Mean squares of the channels.
    fn finish(&mut self, input: &Input) {
        let positions = input.inputs / input.channels;
        for (b, sums) in self.blocks.iter().enumerate() {
            for i in 0..input.block {
                let mean = sums.products[(i, i)] / (sums.count * positions).max(1) as f64;
                self.squares[(b * input.block + i) / positions] += mean;
            }
        }
    }
}

/// The name of the input whose statistics a weight has, by weight.
pub type Names = BTreeMap<String, String>;

/// The statistics of inputs as plans refer to them.
pub struct Collected {
    /// Whose statistics are whose.
    pub names: Names,
    /// The scale at which each input is int8, by its name. What depends on the timestep only has none: it is one row.
    pub scales: BTreeMap<String, f64>,
}

/// Runs the samples, and more `times` for what depends on the timestep only, and writes the statistics to `path`. `progress` gets inputs done and all.
///
/// # Errors
/// A failing engine; a file that cannot be written.
pub fn collect(
    survey: &Survey<'_>,
    samples: &[Inputs],
    times: &[Inputs],
    threads: usize,
    path: &Path,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Collected> {
    let f = &survey.module.functions[0];
    let mut inputs: Vec<Input> = Vec::new();
    let mut names = Names::new();
    for weight in &survey.weights {
        let found = Input::of(f, survey.module.interface.time(), weight);
        let same = |i: &&Input| i.value == found.value && i.windows == found.windows && i.inputs == found.inputs;
        let known = inputs.iter().find(same).map(|input| input.name.clone());
        names.insert(weight.name.clone(), known.clone().unwrap_or_else(|| found.name.clone()));
        if known.is_none() {
            inputs.push(found);
        }
    }
    let mut module = survey.module.clone();
    let f = &mut module.functions[0];
    for (i, input) in inputs.iter_mut().enumerate() {
        if f.node(input.value).name.is_none() {
            f.set_name(input.value, &format!("calibration.{i}"));
        }
        input.label = f.node(input.value).name.as_deref().unwrap_or_default().to_string();
    }
    let f = f.clone();
    let chain = Chain::of(&module)?;
    for input in inputs.iter_mut().filter(|i| !i.of_time) {
        let label = BTreeSet::from([input.label.clone()]);
        input.segment = chain.segments.iter().position(|segment| !segment.computed(&label).is_empty());
    }
    // What depends on the timestep only is run apart, the rest segment by segment.
    inputs.sort_by_key(|i| (!i.of_time, i.segment));
    let mut entries = Vec::new();
    for input in &inputs {
        entries.push((format!("{IMPORTANCE}{}", input.name), TensorType::new(DType::F32, [input.channels])));
        let factors = TensorType::new(DType::F16, [input.inputs, input.block]);
        entries.push((format!("{FEEDBACK}{}", input.name), factors));
    }
    let mut scales = BTreeMap::new();
    let mut file = file::Writer::create(path, &entries)?;
    let (mut done, all) = (0, inputs.len());
    let mut finish = |batch: &[Input], sums: Vec<Sums>| -> Result<()> {
        for (input, mut sums) in batch.iter().zip(sums) {
            sums.finish(input);
            let scale = sums.magnitudes.scale().filter(|_| !input.of_time);
            scales.extend(scale.map(|scale| (input.name.clone(), scale)));
            file.f32s(sums.squares.iter().map(|x| *x as f32))?;
            let factors: Vec<Vec<f32>> = sums.blocks.par_iter().map(factors::feedback).collect();
            for block in factors {
                file.f16s(block.into_iter())?;
            }
            done += 1;
            progress(done, all);
        }
        Ok(())
    };
    let of_time = inputs.partition_point(|i| i.of_time);
    for batch in batches(&f, &inputs[..of_time]) {
        let samples = if times.is_empty() { samples } else { times };
        finish(batch, run_alone(&f, survey, batch, samples, threads)?)?;
    }
    // Parameters first: no segment is before the first.
    let params = inputs.partition_point(|i| i.of_time || i.segment.is_none());
    let mut values = samples.to_vec();
    for batch in batches(&f, &inputs[of_time..params]) {
        let mut sums: Vec<Sums> = batch.iter().map(Sums::new).collect();
        for sample in &values {
            for (input, sums) in batch.iter().zip(&mut sums) {
                sums.add(input, sample.get(&input.label).with_context(|| format!("no input for `{}`", input.name))?)?;
            }
        }
        finish(batch, sums)?;
    }
    let mut rest = &inputs[params..];
    for (number, segment) in chain.segments.iter().enumerate() {
        let (here, later) = rest.split_at(rest.partition_point(|i| i.segment == Some(number)));
        rest = later;
        let mut made: Vec<Outputs> = Vec::new();
        let all = batches(&f, here);
        // A segment without inputs is run for the segments after it.
        for batch in if all.is_empty() { vec![&here[..0]] } else { all } {
            let labels: Vec<String> = batch.iter().map(|i| i.label.clone()).collect();
            let mut sums: Vec<Sums> = batch.iter().map(Sums::new).collect();
            let envs: Vec<&Inputs> = values.iter().collect();
            made.clear();
            chain::run(&segment.function, survey.checkpoint, &envs, &labels, threads, |mut outputs| {
                for (input, sums) in batch.iter().zip(&mut sums) {
                    sums.add(input, chain::named(&outputs, &input.label)?)?;
                }
                outputs.retain(|name, _| segment.function.results.iter().any(|(result, _)| result == name));
                made.push(outputs);
                Ok(())
            })?;
            finish(batch, sums)?;
        }
        values.iter_mut().zip(made).for_each(|(values, outputs)| segment.advance(values, outputs));
    }
    file.finish()?;
    Ok(Collected { names, scales })
}

/// Inputs in groups that can be held at once.
fn batches<'i>(f: &Function, mut inputs: &'i [Input]) -> Vec<&'i [Input]> {
    let mut batches = Vec::new();
    while !inputs.is_empty() {
        let mut held = 0;
        let more = inputs.iter().take_while(|i| {
            held += i.held(f);
            held <= HELD
        });
        let (batch, rest) = inputs.split_at(more.count().max(1));
        batches.push(batch);
        inputs = rest;
    }
    batches
}

/// The sums of a few inputs over all samples, computed without the rest of the model.
fn run_alone(
    f: &Function,
    survey: &Survey<'_>,
    batch: &[Input],
    samples: &[Inputs],
    threads: usize,
) -> Result<Vec<Sums>> {
    let mut f = f.clone();
    f.results = batch.iter().map(|input| (input.label.clone(), input.value)).collect();
    f.remove_dead();
    f.remove_unused_params(&[]);
    let mut sums: Vec<Sums> = batch.iter().map(Sums::new).collect();
    let samples: Vec<&Inputs> = samples.iter().collect();
    chain::run(&f, survey.checkpoint, &samples, &[], threads, |outputs| {
        for (input, sums) in batch.iter().zip(&mut sums) {
            sums.add(input, chain::named(&outputs, &input.label)?)?;
        }
        Ok(())
    })?;
    Ok(sums)
}
