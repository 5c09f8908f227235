//! Inputs and outputs of a stream: seeded or recorded noise, prompts, and latents that are written as they come.

pub mod clip;
mod plot;
mod preview;
pub mod verify;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use s2dit_backends::output::{Destination, Staged, made};
use s2dit_runtime::stream::Prompt;
use s2dit_runtime::stream::contract::{Chunk, Contract};
use s2dit_runtime::{HostTensor, text_mask};

use s2dit_files::SafetensorsFile;
use s2dit_files::writer::{SafetensorsLayout, Writer};
use s2dit_ir::DType;

pub use preview::Preview;

/// Names of the tensors of a stream golden.
pub const NOISE: &str = "stream.noise";
/// The chunks that were made, `[chunks, 1, C, F, H, W]`.
pub const LATENTS: &str = "stream.latents";
/// The prompt `[1, L, text_dim]`.
pub const TEXT: &str = "text";
/// What of the prompt counts, `[1, L]`, for a model that takes it.
pub const TEXT_MASK: &str = "text_mask";
/// One embedding of the whole prompt, `[1, width]`, for a model that takes it.
pub const POOLED: &str = "pooled";

/// The origin of a stream's noise.
pub enum Noise {
    /// A seed: the same numbers for a chunk and step wherever the stream started.
    Seed(u64),
    /// A recording.
    Recorded(Recording),
}

/// Noise that was made before: `[chunks, steps, 1, C, F, H, W]`.
pub struct Recording {
    shown: String,
    shape: Vec<usize>,
    data: Vec<f32>,
}

impl Noise {
    /// Opens a recording and checks that it fits the kernel.
    ///
    /// # Errors
    /// No tensor `stream.noise`; one of another shape.
    pub fn open(path: &Path, contract: &Contract) -> Result<Noise> {
        let file = SafetensorsFile::open(path)?;
        Ok(Noise::Recorded(Recording::read(&file, contract)?))
    }

    /// Noise that a caller has, `[chunks, steps, 1, C, F, H, W]`.
    ///
    /// # Errors
    /// A tensor that does not fit the kernel; NaN or infinite elements.
    pub fn given(noise: &HostTensor, contract: &Contract) -> Result<Noise> {
        let shown = "noise";
        Recording::check(shown, &noise.shape, contract)?;
        all_finite(shown, &noise.data)?;
        Ok(Noise::Recorded(Recording { shown: shown.into(), shape: noise.shape.clone(), data: noise.data.clone() }))
    }

    /// Chunks there are, `None` for any number.
    #[must_use]
    pub fn chunks(&self) -> Option<u64> {
        match self {
            Noise::Seed(_) => None,
            Noise::Recorded(r) => Some(r.chunks()),
        }
    }

    /// The noise of a chunk, a tensor a step.
    ///
    /// # Errors
    /// A chunk after the end of a recording.
    pub fn chunk(&self, index: u64, contract: &Contract) -> Result<Vec<HostTensor>> {
        match self {
            Noise::Seed(seed) => Ok(seeded(*seed, index, contract)),
            Noise::Recorded(recording) => recording.chunk(index, contract),
        }
    }
}

impl Recording {
    /// Reads `stream.noise`.
    ///
    /// # Errors
    /// No such tensor; one that does not fit the kernel; NaN or infinite elements.
    pub fn read(file: &SafetensorsFile, contract: &Contract) -> Result<Recording> {
        let shown = file.path().display().to_string();
        let Some(info) = file.get(NOISE) else {
            let clip = file.get("velocity").is_some();
            let hint = if clip { ": it is a golden of clip mode" } else { "" };
            bail!("`{shown}`: no tensor `{NOISE}` [chunks, steps, 1, C, F, H, W]{hint}");
        };
        Recording::check(&format!("`{shown}`, tensor `{NOISE}`"), &info.ty.shape, contract)?;
        let data = finite(file, NOISE)?;
        Ok(Recording { shown: format!("`{shown}`"), shape: info.ty.shape.clone(), data })
    }

    /// Checks a shape; `shown` names the tensor.
    fn check(shown: &str, shape: &[usize], contract: &Contract) -> Result<()> {
        let chunk = contract.chunk.shape();
        let steps = contract.sampler.steps();
        if shape.len() != 7 || shape[1] != steps || shape[2..] != chunk {
            let [_, c, f, h, w] = chunk;
            bail!(
                "{shown}: found {shape:?}, expected [chunks, {steps}, 1, {c}, {f}, {h}, {w}], what the kernel was compiled for"
            );
        }
        if shape[0] == 0 {
            bail!("{shown}: found {shape:?}, noise of 0 chunks, expected 1 or more");
        }
        Ok(())
    }

    /// Chunks there are.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        self.shape[0] as u64
    }

    /// The noise of a chunk, a tensor a step.
    ///
    /// # Errors
    /// A chunk after the end.
    pub fn chunk(&self, index: u64, contract: &Contract) -> Result<Vec<HostTensor>> {
        let shape = contract.chunk.shape();
        let (steps, elements) = (self.shape[1], shape.iter().product::<usize>());
        let all =
            usize::try_from(index).ok().filter(|i| *i < self.shape[0]).map(|i| &self.data[i * steps * elements..]);
        let Some(all) = all else {
            bail!("{}: has noise of {} chunk(s), but chunk {index} is to be made", self.shown, self.shape[0]);
        };
        let tensor = |data: &[f32]| HostTensor { shape: shape.to_vec(), data: data.to_vec() };
        Ok(all.chunks_exact(elements).take(steps).map(tensor).collect())
    }
}

/// A standard normal prompt, for trials without a text encoder.
#[must_use]
pub fn seeded_prompt(seed: u64, shape: [usize; 3]) -> HostTensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // A stream of its own: not the noise of the same seed.
    rng.set_stream(u64::MAX);
    let data = (0..shape.iter().product()).map(|_| rng.sample(StandardNormal)).collect();
    HostTensor { shape: shape.to_vec(), data }
}

/// A made-up prompt of a kernel, for trials without a text encoder: where the kernel takes a mask, the last tokens do not count.
#[must_use]
pub fn trial_prompt(seed: u64, contract: &Contract) -> Prompt {
    let shape = contract.text.shape();
    let mask = contract.mask_shape().map(|mask| text_mask::of_first(&mask, text_mask::counting(shape[1], seed)));
    Prompt { text: seeded_prompt(seed, shape), mask }
}

/// Standard normal numbers that depend on seed, chunk and step alone, so that a restored stream goes on with the same noise.
fn seeded(seed: u64, chunk: u64, contract: &Contract) -> Vec<HostTensor> {
    let steps = contract.sampler.steps() as u64;
    let tensor = |step: u64| seeded_noise(seed, chunk.wrapping_mul(steps).wrapping_add(step), &contract.chunk.shape());
    (0..steps).map(tensor).collect()
}

/// Standard normal numbers; `index` picks one of many independent tensors of a seed.
fn seeded_noise(seed: u64, index: u64, shape: &[usize]) -> HostTensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(index);
    let data = (0..shape.iter().product()).map(|_| rng.sample(StandardNormal)).collect();
    HostTensor { shape: shape.to_vec(), data }
}

/// Reads the prompt of a kernel from a file: the tensor `text` and, where the kernel takes it, `text_mask`.
///
/// # Errors
/// See [`kernel_prompt_of`].
pub fn read_prompt(path: &Path, contract: &Contract) -> Result<Prompt> {
    kernel_prompt_of(&SafetensorsFile::open(path)?, contract)
}

/// The prompt of a kernel in an open file.
///
/// # Errors
/// A tensor that is missing or that the kernel does not take.
pub fn kernel_prompt_of(file: &SafetensorsFile, contract: &Contract) -> Result<Prompt> {
    let text = prompt_of(file, contract.text.shape())?;
    let mask = contract.mask_shape().map(|shape| mask_of(file, &shape)).transpose()?;
    Ok(Prompt { text, mask })
}

/// The tensor `text` of an open file.
///
/// # Errors
/// No such tensor; one that the model does not take.
pub fn prompt_of(file: &SafetensorsFile, expected: [usize; 3]) -> Result<HostTensor> {
    let hint = format!(": the model takes prompts of exactly {} tokens (pad with zeros)", expected[1]);
    tensor_of(file, TEXT, &expected, &hint)
}

/// A tensor of an open file; `hint` follows the shape that is expected.
///
/// # Errors
/// No such tensor; one of another shape, or with elements that are not finite.
fn tensor_of(file: &SafetensorsFile, name: &str, expected: &[usize], hint: &str) -> Result<HostTensor> {
    let shown = file.path().display();
    let Some(info) = file.get(name) else { bail!("`{shown}`: no tensor `{name}` {expected:?}") };
    if info.ty.shape != expected {
        bail!("`{shown}`, tensor `{name}`: found {:?}, expected {expected:?}{hint}", info.ty.shape);
    }
    if !info.ty.dtype.is_float() {
        bail!(
            "`{shown}`, tensor `{name}`: found {}, expected a floating-point dtype: embeddings, not token ids",
            info.ty.dtype
        );
    }
    HostTensor::new(expected, finite(file, name)?).context("a tensor that does not fill its shape")
}

/// The tensor `pooled` of an open file.
///
/// # Errors
/// No such tensor; one that the model does not take.
fn pooled_of(file: &SafetensorsFile, expected: &[usize]) -> Result<HostTensor> {
    if file.get(POOLED).is_none() {
        let shown = file.path().display();
        bail!(
            "`{shown}`: no tensor `{POOLED}` {expected:?}: one embedding of the whole prompt, the pooled output of a text encoder"
        );
    }
    tensor_of(file, POOLED, expected, "")
}

/// The tensor `text_mask` of an open file.
///
/// # Errors
/// No such tensor; one that the model does not take; elements that are neither 0 nor 1, or no 1.
fn mask_of(file: &SafetensorsFile, expected: &[usize]) -> Result<HostTensor> {
    let shown = file.path().display();
    let Some(info) = file.get(TEXT_MASK) else {
        bail!(
            "`{shown}`: no tensor `{TEXT_MASK}` {expected:?}: 1 where a token of the prompt counts, 0 where it is padding"
        );
    };
    if info.ty.shape != expected {
        bail!("`{shown}`, tensor `{TEXT_MASK}`: found {:?}, expected {expected:?}", info.ty.shape);
    }
    let mask =
        HostTensor::new(expected, file.tensor_f32(TEXT_MASK)?).context("a tensor that does not fill its shape")?;
    text_mask::check(&mask).with_context(|| format!("`{shown}`, tensor `{TEXT_MASK}`"))?;
    Ok(mask)
}

/// A tensor's numbers.
///
/// # Errors
/// NaN or infinite elements: what comes of them would be found an hour later, and far from here.
pub(crate) fn finite(file: &SafetensorsFile, name: &str) -> Result<Vec<f32>> {
    let data = file.tensor_f32(name)?;
    all_finite(&format!("`{}`, tensor `{name}`", file.path().display()), &data)?;
    Ok(data)
}

/// Checks numbers; `shown` names them.
///
/// # Errors
/// NaN or infinite elements.
pub(crate) fn all_finite(shown: &str, data: &[f32]) -> Result<()> {
    if let Some(i) = data.iter().position(|x| !x.is_finite()) {
        bail!("{shown}: element {i}: found {}, expected finite numbers", data[i]);
    }
    Ok(())
}

/// A safetensors file with one tensor, written chunk by chunk; it appears when it is whole.
pub struct LatentsFile {
    staged: Staged,
    out: Writer<BufWriter<File>>,
}

impl LatentsFile {
    /// Begins a file of `chunks` chunks of a stream: [`LATENTS`].
    ///
    /// # Errors
    /// A place that cannot be written.
    pub fn create(to: Destination<'_>, chunks: u64, chunk: Chunk) -> Result<LatentsFile> {
        let mut shape = vec![chunks];
        shape.extend(chunk.shape().map(|d| d as u64));
        LatentsFile::with_tensor(to, LATENTS, &shape)
    }

    /// Begins a file with the tensor `name`.
    fn with_tensor(to: Destination<'_>, name: &str, shape: &[u64]) -> Result<LatentsFile> {
        let (path, staged) = (to.path, Staged::file(to, &made::safetensors)?);
        let begin = || {
            let metadata = BTreeMap::from([(made::MADE_BY.to_string(), made::by())]);
            let layout = SafetensorsLayout::new([(name, DType::F32, shape.to_vec())], &metadata)?;
            Writer::new(BufWriter::new(File::create(staged.path())?), &layout)
        };
        let out = begin().with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(LatentsFile { staged, out })
    }

    /// Adds a chunk.
    ///
    /// # Errors
    /// The disk is full.
    pub fn push(&mut self, chunk: &HostTensor) -> Result<()> {
        self.out
            .write_all(&chunk.data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
            .with_context(|| format!("cannot write `{}`", self.staged.place().display()))
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// The disk is full.
    pub fn finish(self) -> Result<()> {
        let LatentsFile { staged, out } = self;
        out.finish().map(drop).with_context(|| format!("cannot write `{}`", staged.place().display()))?;
        Ok(staged.commit()?)
    }
}

#[cfg(test)]
mod tests;
