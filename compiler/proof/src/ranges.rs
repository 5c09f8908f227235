//! The range report: how close each fp16 value of an artifact comes to what fp16 holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use s2dit_ir::interface::InputRole;
use s2dit_runtime::ranges::{self, Ranges};
use s2dit_runtime::stream::contract::{self, Contract, Precision, Target};
use s2dit_runtime::timesteps::Timesteps;
use s2dit_runtime::{Artifact, HostTensor, RunOptions, StreamOptions, StreamSession};
use serde::Serialize;

use crate::stream::{Noise, Recording, kernel_prompt_of, trial_prompt};
use crate::verify::{golden_inputs, seeded_inputs};
use s2dit_files::SafetensorsFile;

/// The largest finite fp16 number.
pub const LARGEST: f32 = 65_504.0;
/// Values within this factor of the largest are at risk: other inputs may be as much larger.
pub const AT_RISK: f32 = 4.0;
/// Ops whose results have a limit of their own on the Neural Engine.
const PRODUCTS: [&str; 5] = ["matmul", "linear", "conv", "conv_transpose", "einsum"];

/// A range job.
#[derive(Clone, Debug)]
pub struct Options {
    /// Recorded inputs; `None` for seeded ones.
    pub golden: Option<PathBuf>,
    /// Seed of the inputs.
    pub seed: u64,
    /// Clips to run, with timesteps from the greatest down to the least, 1000 to 0 of most models; or chunks of a stream.
    pub samples: Option<u64>,
    /// The largest magnitude of a product's result, at most [`LARGEST`]: engines make infinity of more.
    pub product_largest: f32,
    /// Threads.
    pub threads: usize,
    /// No notes on standard error.
    pub quiet: bool,
}

/// Seeded clips, or chunks of a stream, if no number is asked for.
pub const SAMPLES: u64 = 8;

/// The fate of a value in fp16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RangeVerdict {
    /// The value is larger than any fp16 number, or than any result of a product on the device, or not finite.
    Overflows,
    /// Within a factor of four of it.
    AtRisk,
    /// The value is far from the largest fp16 number.
    Holds,
}

/// A value.
#[derive(Clone, Debug, Serialize)]
pub struct ValueRange {
    /// The function.
    pub function: String,
    /// Op that computes the value.
    pub op: String,
    /// Name of the value in the package, which begins with the module that it comes from.
    pub scope: String,
    /// Largest magnitude of the value, computed in fp32; 3.4e38 stands for infinity.
    pub largest: f32,
    /// The largest magnitude that holds.
    pub limit: f32,
    /// Fate of the value in fp16.
    pub verdict: RangeVerdict,
    /// Rewrite that would make the value smaller; empty if fp16 holds it.
    pub rewrite: &'static str,
}

/// The ranges of an artifact.
#[derive(Clone, Debug, Serialize)]
pub struct RangeReport {
    /// The artifact.
    pub artifact: String,
    /// The inputs.
    pub inputs: String,
    /// fp16 values, those nearest to what holds first.
    pub rows: Vec<ValueRange>,
    /// Number of values that overflow.
    pub overflows: usize,
    /// Number of values within a factor of four of the largest that holds.
    pub at_risk: usize,
}

/// Runs an artifact in fp32 and looks at every value that it declares fp16.
///
/// # Errors
/// An artifact that has no fp16 values or cannot be run; inputs that do not fit.
pub fn ranges(path: &Path, options: &Options, progress: &mut dyn FnMut(u64, u64)) -> Result<RangeReport> {
    let (ranges, inputs) = match path.join(contract::FILE).is_file() {
        true => of_stream(path, options, progress)?,
        false => of_clip(path, options, progress)?,
    };
    if ranges.is_empty() {
        bail!("`{}`: no fp16 values: compile with --target coreml --precision fp16", path.display());
    }
    let mut rows: Vec<ValueRange> = ranges
        .into_iter()
        .map(|(value, largest)| {
            let limit = match PRODUCTS.contains(&value.op.as_str()) {
                true => options.product_largest.min(LARGEST),
                false => LARGEST,
            };
            let verdict = match largest {
                x if x > limit => RangeVerdict::Overflows,
                x if x > limit / AT_RISK => RangeVerdict::AtRisk,
                _ => RangeVerdict::Holds,
            };
            let rewrite = if verdict == RangeVerdict::Holds { "" } else { rewrite(&value.op) };
            let largest = largest.min(f32::MAX);
            ValueRange { function: value.function, op: value.op, scope: value.scope, largest, limit, verdict, rewrite }
        })
        .collect();
    rows.sort_by(|a, b| (b.largest / b.limit).total_cmp(&(a.largest / a.limit)));
    let count = |verdict| rows.iter().filter(|r| r.verdict == verdict).count();
    Ok(RangeReport {
        artifact: path.display().to_string(),
        inputs,
        overflows: count(RangeVerdict::Overflows),
        at_risk: count(RangeVerdict::AtRisk),
        rows,
    })
}

fn rewrite(op: &str) -> &'static str {
    match op {
        "matmul" | "linear" | "conv" | "reduce_sum" => "scale an operand by a power of two and the result back",
        "square" | "pow" => "scale before squaring: a norm does not depend on the scale",
        "mul" => "scale a factor by a power of two (a square: before squaring), and the result back",
        "exp" => "subtract the maximum before",
        "add" | "sub" => "scale the weights of both terms by a power of two, and the result back",
        "rsqrt" | "div" | "reciprocal" => "bound the divisor from below",
        _ => "keep it in fp32, which leaves the Neural Engine",
    }
}

fn of_clip(path: &Path, options: &Options, progress: &mut dyn FnMut(u64, u64)) -> Result<(Ranges, String)> {
    let artifact = Artifact::open(path)?;
    if let Artifact::Onnx(..) = artifact {
        bail!("`{}`: ranges are of packages, whose every value has a declared type", path.display());
    }
    let run = RunOptions { ranges: true, threads: options.threads, quiet: options.quiet, ..RunOptions::default() };
    let mut session = artifact.session(&run)?;
    let said = || format!("`{}`", path.display());
    let listed = artifact.timesteps().with_context(said)?;
    let (ports, interface) = (artifact.inputs(), artifact.interface().with_context(said)?);
    let mut found = Ranges::new();
    let mut sample = |inputs: BTreeMap<String, HostTensor>| -> Result<()> {
        if let Some(listed) = &listed {
            listed.check_inputs(&inputs, interface.time()).with_context(|| format!("`{}`", path.display()))?;
        }
        let mut results = session.run(&inputs).with_context(|| format!("cannot run `{}`", path.display()))?;
        ranges::take(&mut results, &mut found);
        Ok(())
    };
    if let Some(golden) = &options.golden {
        let file = SafetensorsFile::open(golden)?;
        sample(golden_inputs(&file, &ports, &interface)?)?;
        return Ok((found, golden.display().to_string()));
    }
    let samples = options.samples.unwrap_or(SAMPLES);
    for i in 0..samples {
        let mut inputs = seeded_inputs(&ports, &interface, listed.as_ref(), options.seed.wrapping_add(i))?;
        for (name, tensor) in &mut inputs {
            let Some(InputRole::Time { low, high }) = interface.role(name) else { continue };
            tensor.data.fill(match listed.as_ref().map(Timesteps::list) {
                Some(list) if !list.is_empty() => list[i as usize % list.len()] as f32,
                _ => (high - (high - low) * i as f64 / (samples.max(2) - 1) as f64) as f32,
            });
        }
        sample(inputs)?;
        progress(i + 1, samples);
    }
    let range = match interface.time().and_then(|time| interface.role(time)) {
        Some(InputRole::Time { low, high }) => format!("from {high} to {low}"),
        _ => "none".into(),
    };
    let timesteps = listed.as_ref().map_or(range, Timesteps::to_string);
    Ok((found, format!("{samples} clip(s) of seed {}, timesteps {timesteps}", options.seed)))
}

fn of_stream(dir: &Path, options: &Options, progress: &mut dyn FnMut(u64, u64)) -> Result<(Ranges, String)> {
    let contract = Contract::read(dir)?;
    if contract.target != Target::CoreMl || contract.precision != Precision::Fp16 {
        bail!("`{}`: ranges are of fp16 kernels for Core ML, found {}", dir.display(), contract.summary());
    }
    let run =
        StreamOptions { ranges: true, threads: options.threads, quiet: options.quiet, ..StreamOptions::default() };
    let (noise, prompt, inputs) = match &options.golden {
        Some(path) => {
            let file = SafetensorsFile::open(path)?;
            let prompt = kernel_prompt_of(&file, &contract)?;
            (Noise::Recorded(Recording::read(&file, &contract)?), prompt, path.display().to_string())
        }
        None => {
            let prompt = trial_prompt(options.seed, &contract);
            (Noise::Seed(options.seed), prompt, format!("noise and prompt of seed {}", options.seed))
        }
    };
    let recorded = noise.chunks();
    let chunks = options.samples.or(recorded).unwrap_or(SAMPLES);
    if let Some(recorded) = recorded.filter(|n| *n < chunks) {
        bail!("--samples: found {chunks}, but the recording has {recorded} chunk(s)");
    }
    let mut stream = StreamSession::open(dir, &run)?;
    stream.set_prompt(prompt)?;
    for chunk in 0..chunks {
        stream.next_chunk(&noise.chunk(chunk, &contract)?)?;
        progress(chunk + 1, chunks);
    }
    Ok((stream.ranges().clone(), format!("{chunks} chunk(s), {inputs}")))
}
