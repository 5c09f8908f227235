//! What the inputs of linears and convolutions look like: mean squares of their channels, and what a channel says of those after
//! it. Collected by running the graph with these inputs as outputs, and kept in a safetensors file beside the plan.

mod factors;
mod file;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use nalgebra::DMatrix;
use rayon::prelude::*;
use s2dit_ir::{DType, Function, Module, Op, TensorType, ValueId};
use s2dit_passes::quantize::Weight;
use s2dit_runtime::HostTensor;

use super::measure::session;
use super::samples::Inputs;
use super::{FEEDBACK, IMPORTANCE, Survey};

/// Channels whose products are held at once; a wider input is cut into blocks.
const WIDEST_BLOCK: usize = 1024;
/// Bytes of activations and products that are held at once.
const HELD: usize = 512 << 20;

/// The input of one or several weights.
struct Input {
    /// The first weight that it is multiplied with.
    name: String,
    value: ValueId,
    channels: usize,
    /// Elements of one channel that lie together.
    inner: usize,
    /// Channels of a block; 0 if some weight's kernel has several positions.
    block: usize,
}

impl Input {
    fn of(f: &Function, weight: &Weight) -> Input {
        let (_, user, _) = weight.at;
        let value = f.operands(user)[0];
        let channels = weight.ty.shape[1];
        let inner = match f.op(user) {
            // [N, C, …]
            Op::Conv(_) => f.shape(value)[2..].iter().product(),
            _ => 1,
        };
        let one_position = weight.ty.shape[2..].iter().all(|n| *n == 1);
        let block = (1..=WIDEST_BLOCK.min(channels)).rev().find(|b| channels.is_multiple_of(*b)).unwrap_or(1);
        Input { name: weight.name.clone(), value, channels, inner, block: if one_position { block } else { 0 } }
    }

    fn held(&self, f: &Function) -> usize {
        f.ty(self.value).bytes() + self.channels * self.block * size_of::<f64>()
    }
}

/// Sums over tokens: squares a channel, products of two channels of a block.
struct Sums {
    squares: Vec<f64>,
    products: Vec<DMatrix<f64>>,
    tokens: usize,
}

impl Sums {
    fn new(input: &Input) -> Sums {
        let blocks = if input.block > 0 { input.channels / input.block } else { 0 };
        Sums {
            squares: vec![0.0; input.channels],
            products: vec![DMatrix::zeros(input.block, input.block); blocks],
            tokens: 0,
        }
    }

    fn add(&mut self, input: &Input, x: &HostTensor) {
        let (channels, inner) = (input.channels, input.inner);
        for sample in x.data.chunks(channels * inner) {
            for (square, channel) in self.squares.iter_mut().zip(sample.chunks(inner)) {
                *square += channel.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>();
            }
        }
        let tokens = x.data.len() / channels.max(1);
        self.tokens += tokens;
        let block = input.block;
        self.products.par_iter_mut().enumerate().for_each(|(b, products)| {
            let at = |token: usize, channel: usize| {
                let (sample, position) = (token / inner, token % inner);
                f64::from(x.data[(sample * channels + b * block + channel) * inner + position])
            };
            let columns = DMatrix::from_fn(block, tokens, |channel, token| at(token, channel));
            products.gemm(1.0, &columns, &columns.transpose(), 1.0);
        });
    }
}

/// Which input's statistics each weight has.
pub type Names = BTreeMap<String, String>;

/// Runs the samples and writes the statistics to `path`. Returns which are whose. `progress` gets inputs done and all.
///
/// # Errors
/// A failing engine; a file that cannot be written.
pub fn collect(
    survey: &Survey<'_>,
    samples: &[Inputs],
    threads: usize,
    path: &Path,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Names> {
    let f = &survey.module.functions[0];
    let mut inputs: Vec<Input> = Vec::new();
    let mut names = Names::new();
    for weight in &survey.weights {
        let found = Input::of(f, weight);
        match inputs
            .iter_mut()
            .find(|i| i.value == found.value && i.channels == found.channels && i.inner == found.inner)
        {
            Some(input) => {
                input.block = input.block.max(found.block);
                names.insert(weight.name.clone(), input.name.clone());
            }
            None => {
                names.insert(weight.name.clone(), found.name.clone());
                inputs.push(found);
            }
        }
    }
    let mut entries = Vec::new();
    for input in &inputs {
        entries.push((format!("{IMPORTANCE}{}", input.name), TensorType::new(DType::F32, [input.channels])));
        if input.block > 0 {
            let ty = TensorType::new(DType::F16, [input.channels, input.block]);
            entries.push((format!("{FEEDBACK}{}", input.name), ty));
        }
    }
    let mut file = file::Writer::create(path, &entries)?;
    let mut done = 0;
    while done < inputs.len() {
        let mut held = 0;
        let more = inputs[done..].iter().take_while(|i| {
            held += i.held(f);
            held <= HELD
        });
        let batch = &inputs[done..][..more.count().max(1)];
        for sums in run(survey, batch, samples, threads)? {
            let n = sums.tokens.max(1) as f64;
            let squares: Vec<f64> = sums.squares.iter().map(|s| s / n).collect();
            file.f32s(squares.iter().map(|x| *x as f32))?;
            let factors: Vec<Vec<f32>> = sums.products.par_iter().map(factors::feedback).collect();
            for block in factors {
                file.f16s(block.into_iter())?;
            }
            done += 1;
            progress(done, inputs.len());
        }
    }
    file.finish()?;
    Ok(names)
}

/// The sums of a few inputs, over all samples.
fn run(survey: &Survey<'_>, batch: &[Input], samples: &[Inputs], threads: usize) -> Result<Vec<Sums>> {
    let mut f = survey.module.functions[0].clone();
    let name = |i: usize| format!("calibration.{i}");
    f.results = batch.iter().enumerate().map(|(i, input)| (name(i), input.value)).collect();
    let module = Module { states: survey.module.states.clone(), functions: vec![f] };
    let mut session = session(&module, survey.checkpoint, threads)?;
    let mut sums: Vec<Sums> = batch.iter().map(Sums::new).collect();
    for sample in samples {
        let needed: Vec<String> = session.inputs().iter().map(|p| p.name.clone()).collect();
        let sample =
            sample.iter().filter(|(name, _)| needed.contains(name)).map(|(n, t)| (n.clone(), t.clone())).collect();
        let outputs = session.run(&sample)?;
        for (i, (input, sums)) in batch.iter().zip(&mut sums).enumerate() {
            sums.add(input, outputs.get(&name(i)).with_context(|| format!("no output for `{}`", input.name))?);
        }
    }
    Ok(sums)
}
