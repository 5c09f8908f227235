//! Samples that the model is run on to measure it: those of a file, or seeded ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rand::{Rng, SeedableRng};
use rand_distr::StandardNormal;
use s2dit_ir::Function;
use s2dit_runtime::HostTensor;
use s2dit_runtime::timesteps::INPUT;

use s2dit_files::SafetensorsFile;
use s2dit_files::problems::{Problems, quoted};

/// The origin of samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Samples {
    /// Standard normal latents and text, timesteps spread over [0, 1000].
    Seeded,
    /// A safetensors file in the golden's layout: latent `[N,C,F,H,W]`, timestep `[N]`, text `[N,L,D]`.
    File(PathBuf),
}

/// Inputs of one call.
pub type Inputs = BTreeMap<String, Arc<HostTensor>>;

/// So many seeded samples are made: a quarter is for measuring.
const SEEDED: usize = 16;
const SEED: u64 = 0x5eed;
/// So many timesteps are run through what depends on nothing else.
const TIMES: usize = 512;

impl std::str::FromStr for Samples {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if text == "seeded" { Samples::Seeded } else { Samples::File(text.into()) })
    }
}

impl std::fmt::Display for Samples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Samples::Seeded => f.write_str("seeded"),
            Samples::File(path) => path.display().fmt(f),
        }
    }
}

/// Samples by what they are for.
pub struct SampleSplit<'a> {
    /// Statistics are collected on these.
    pub calibration: &'a [Inputs],
    /// Errors are measured on these: others, if there are enough.
    pub measurement: &'a [Inputs],
    /// Whether they are others.
    pub held_out: bool,
}

impl<'a> SampleSplit<'a> {
    /// The last quarter is for measuring; of less than four samples, all are for both.
    #[must_use]
    pub fn of(samples: &'a [Inputs]) -> Self {
        let held_out = samples.len() / 4;
        if held_out == 0 {
            return SampleSplit { calibration: samples, measurement: samples, held_out: false };
        }
        let (calibration, measurement) = samples.split_at(samples.len() - held_out);
        SampleSplit { calibration, measurement, held_out: true }
    }
}

impl Samples {
    /// The inputs of each sample, for this function.
    ///
    /// # Errors
    /// A file that cannot be read; a tensor that is missing or of another shape.
    pub fn inputs(&self, f: &Function) -> Result<Vec<Inputs>> {
        match self {
            Samples::Seeded => Ok(seeded(f)),
            Samples::File(path) => read(path, f),
        }
    }
}

impl Samples {
    /// Additional timesteps, for weights whose inputs depend on nothing else and have one row a sample. None beside samples of a file, whose
    /// timesteps are those that matter.
    #[must_use]
    pub fn times(&self) -> Vec<Inputs> {
        let count = if *self == Samples::Seeded { TIMES } else { 0 };
        let time = |i: usize| HostTensor { shape: vec![1], data: vec![(i as f32 + 0.5) * 1000.0 / TIMES as f32] };
        (0..count).map(|i| Inputs::from([("timestep".to_string(), Arc::new(time(i)))])).collect()
    }
}

fn seeded(f: &Function) -> Vec<Inputs> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(SEED);
    let made = (0..SEEDED).map(|i| {
        let inputs = f.params().iter().map(|&p| {
            let name = f.node(p).name.as_deref().unwrap_or_default().to_string();
            let shape = f.shape(p).to_vec();
            let n = shape.iter().product();
            let data = match name.as_str() {
                // One in each of as many parts of the range, in an order that no split follows.
                "timestep" => {
                    let part = (i * 7 % SEEDED) as f32;
                    (0..n).map(|_| (part + rng.random::<f32>()) * 1000.0 / SEEDED as f32).collect()
                }
                _ => (0..n).map(|_| rng.sample(StandardNormal)).collect(),
            };
            (name, Arc::new(HostTensor { shape, data }))
        });
        inputs.collect()
    });
    made.collect()
}

fn read(path: &Path, f: &Function) -> Result<Vec<Inputs>> {
    let file = SafetensorsFile::open(path)?;
    let mut samples: Vec<Inputs> = Vec::new();
    let mut problems = Problems::new();
    let mut count: Option<usize> = None;
    for &p in f.params() {
        let name = f.node(p).name.as_deref().unwrap_or_default().to_string();
        let (at, one) = (format!("{}: tensor {}", path.display(), quoted(&name)), f.shape(p));
        let sides = one[1..].iter().map(|side| format!(", {side}")).collect::<String>();
        let wanted = || format!("[N{sides}]");
        let Some(info) = file.get(&name) else {
            problems.push(at, "nothing", wanted());
            continue;
        };
        let found = &info.ty.shape;
        let fits = found.len() == one.len() && found[1..] == one[1..] && found[0] > 0;
        if !fits {
            problems.push(at, format!("{found:?}"), wanted());
            continue;
        }
        let n = *count.get_or_insert(found[0]);
        if n != found[0] {
            problems.push(at, format!("{} samples", found[0]), format!("{n}, as many as the other tensors have"));
            continue;
        }
        let data = file.tensor_f32(&name)?;
        if data.iter().any(|x| !x.is_finite()) {
            problems.push(at, "elements that are NaN or infinite", "finite ones");
            continue;
        }
        if name == INPUT
            && let Some(t) = data.iter().find(|t| !(0.0..=1000.0).contains(*t))
        {
            problems.push(at, t.to_string(), "timesteps from 0 to 1000");
            continue;
        }
        samples.resize_with(n, Inputs::new);
        for (sample, data) in samples.iter_mut().zip(data.chunks(one.iter().product())) {
            let tensor = HostTensor::new(one, data.to_vec()).context("a tensor that does not fill its shape")?;
            sample.insert(name.clone(), Arc::new(tensor));
        }
    }
    problems.into_result()?;
    Ok(samples)
}
