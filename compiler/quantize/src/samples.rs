//! Samples that the model is run on to measure it: those of a file, or seeded ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rand::{Rng, SeedableRng};
use rand_distr::StandardNormal;
use s2dit_ir::Module;
use s2dit_ir::interface::{GUIDANCE, InputRole, Interface};
use s2dit_runtime::{HostTensor, text_mask, tokens};

use s2dit_files::SafetensorsFile;
use s2dit_files::problems::{Problems, quoted};
use s2dit_models::size::{LatentSize, Size};

/// The origin of samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Samples {
    /// Standard normal latents and text, of which a few tokens count, timesteps spread over [0, 1000].
    Seeded,
    /// A safetensors file in the golden's layout: latent `[N,C,F,H,W]`, timestep `[N]`, text `[N,L,D]` and, for a model that takes it, its mask
    /// `[N,L]`; of a text encoder, tokens `[N,L]`.
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
    /// The size of what a file has for a model of this interface: that of its latents `[N,C,F,H,W]` or tokens `[N,L]`. `None` of seeded samples, which are made
    /// for any size, and of a file with neither.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn size(&self, interface: &Interface) -> Result<Option<Size>> {
        let Samples::File(path) = self else { return Ok(None) };
        let file = SafetensorsFile::open(path)?;
        let shape = |name: Option<&str>| name.and_then(|name| file.get(name)).map(|info| info.ty.shape.as_slice());
        Ok(match (shape(interface.latent()), shape(interface.tokens())) {
            (Some(&[_, _, frames, rows, cols]), _) => Some(LatentSize { frames, rows, cols }.into()),
            (_, Some(&[_, tokens])) => Some(Size::Tokens(tokens)),
            _ => None,
        })
    }

    /// The inputs of each sample, for the first function of this module.
    ///
    /// # Errors
    /// A file that cannot be read; a tensor that is missing or of another shape.
    pub fn inputs(&self, module: &Module) -> Result<Vec<Inputs>> {
        match self {
            Samples::Seeded => Ok(seeded(module)),
            Samples::File(path) => read(path, module),
        }
    }
}

impl Samples {
    /// Additional timesteps, for weights whose inputs depend on nothing else and have one row a sample. None beside samples of a file, whose
    /// timesteps are those that matter; none of a step that takes a timestep for each token, whose samples have many rows.
    #[must_use]
    pub fn times(&self, module: &Module) -> Vec<Inputs> {
        let interface = &module.interface;
        let Some(name) = interface.time().filter(|_| *self == Samples::Seeded) else { return Vec::new() };
        let Some(InputRole::Time { low, high }) = interface.role(name) else { return Vec::new() };
        let parameter = module.functions.first().and_then(|f| Some(f.ty(f.by_name(name)?).elements()));
        if parameter != Some(1) {
            return Vec::new();
        }
        let time = |i: usize| (low + (i as f64 + 0.5) * (high - low) / TIMES as f64) as f32;
        let sample = |i: usize| HostTensor { shape: vec![1], data: vec![time(i)] };
        (0..TIMES).map(|i| Inputs::from([(name.to_string(), Arc::new(sample(i)))])).collect()
    }
}

fn seeded(module: &Module) -> Vec<Inputs> {
    let f = &module.functions[0];
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(SEED);
    let made = (0..SEEDED).map(|i| {
        let inputs = f.params().iter().map(|&p| {
            let name = f.node(p).name.as_deref().unwrap_or_default().to_string();
            let shape = f.shape(p).to_vec();
            let n = shape.iter().product();
            let data = match module.interface.role(&name) {
                // One in each of as many parts of the range, in an order that no split follows.
                Some(InputRole::Time { low, high }) => {
                    let (part, low, range) = ((i * 7 % SEEDED) as f32, *low as f32, (high - low) as f32);
                    (0..n).map(|_| low + (part + rng.random::<f32>()) * range / SEEDED as f32).collect()
                }
                Some(InputRole::Tokens { vocabulary }) => {
                    (0..n).map(|_| rng.random_range(0..(*vocabulary).max(1)) as f32).collect()
                }
                Some(InputRole::Guidance) => (0..n).map(|_| rng.random_range(GUIDANCE)).collect(),
                Some(InputRole::TextMask) => {
                    let tokens = shape.last().copied().unwrap_or(1);
                    text_mask::of_first(&shape, text_mask::counting(tokens, rng.random())).data
                }
                _ => (0..n).map(|_| rng.sample(StandardNormal)).collect(),
            };
            (name, Arc::new(HostTensor { shape, data }))
        });
        inputs.collect()
    });
    made.collect()
}

fn read(path: &Path, module: &Module) -> Result<Vec<Inputs>> {
    let f = &module.functions[0];
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
        if let Some(InputRole::Time { low, high }) = module.interface.role(&name)
            && let Some(t) = data.iter().find(|t| !(*low..=*high).contains(&f64::from(**t)))
        {
            problems.push(at, t.to_string(), format!("timesteps from {low} to {high}"));
            continue;
        }
        samples.resize_with(n, Inputs::new);
        for (sample, data) in samples.iter_mut().zip(data.chunks(one.iter().product())) {
            let tensor = HostTensor::new(one, data.to_vec()).context("a tensor that does not fill its shape")?;
            match module.interface.role(&name) {
                Some(InputRole::TextMask) => text_mask::check(&tensor).context(at.clone())?,
                Some(InputRole::Tokens { vocabulary }) => tokens::check(&tensor, *vocabulary).context(at.clone())?,
                _ => {}
            }
            sample.insert(name.clone(), Arc::new(tensor));
        }
    }
    problems.into_result()?;
    Ok(samples)
}
