//! Streams: video chunk by chunk, in constant memory, with a kernel folder as it lies on disk.
//!
//! A kernel folder is what `s2ditc compile --mode stream` makes: a [`contract`] and artifacts with three functions. [`StreamSession`]
//! calls them as a host app would: `prompt` once a prompt, `denoise` once a step, `commit` once a chunk; or `last_step`, in place of the
//! last `denoise`, where the kernel has that. States are kept here as tensors, whatever the kernel's policy.

pub mod contract;
pub mod folder;
pub mod host;
pub(crate) mod kernel;
pub mod made_for;
mod options;
mod prompt;
pub mod state;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use s2dit_backends::output::Destination;
use s2dit_ir::{DType, Module, WeightSource};

use crate::ranges::{self, Ranges};
use crate::sampler;
use crate::{Error, HostTensor};
use contract::{Contract, StateWrite};
pub use folder::KernelFolder;
use kernel::{Kernel, OUT, Values};
pub use options::StreamOptions;
pub use prompt::Prompt;
use state::Snapshot;

/// A stream: a loaded kernel with its states.
pub struct StreamSession {
    contract: Contract,
    kernel: Kernel,
    chunks: u64,
    seed: Option<u64>,
    states: BTreeMap<String, HostTensor>,
    prompt: Option<Prompt>,
    /// What `prompt` returned.
    prompt_values: BTreeMap<String, HostTensor>,
    ranges: Ranges,
}

impl StreamSession {
    /// Opens a kernel folder at the start of a stream.
    ///
    /// # Errors
    /// Not a kernel folder; artifacts that do not fit its contract; a failing engine.
    pub fn open(dir: &Path, options: &StreamOptions) -> Result<StreamSession, Error> {
        let folder = KernelFolder::open(dir)?;
        let kernel = Kernel::load(&folder, options).map_err(Error::artifact)?;
        Ok(StreamSession::start(folder.contract().clone(), kernel))
    }

    /// A kernel that was never written: the functions of `module` that the contract names, computed in their own dtypes, with weights
    /// that stay where they are.
    ///
    /// # Errors
    /// Functions that do not fit the contract; a failing engine.
    pub fn in_memory(
        contract: Contract,
        module: &Module,
        weights: &dyn WeightSource,
        options: &StreamOptions,
    ) -> Result<StreamSession, Error> {
        let kernel = Kernel::of_module(&contract, module, weights, options).map_err(Error::input)?;
        Ok(StreamSession::start(contract, kernel))
    }

    fn start(contract: Contract, kernel: Kernel) -> StreamSession {
        let states = contract
            .states
            .iter()
            .map(|s| {
                let data = vec![0.0; s.shape.iter().product()];
                (s.name.clone(), HostTensor { shape: s.shape.clone(), data })
            })
            .collect();
        StreamSession {
            contract,
            kernel,
            chunks: 0,
            seed: None,
            states,
            prompt: None,
            prompt_values: BTreeMap::new(),
            ranges: Ranges::new(),
        }
    }

    /// The kernel's contract.
    #[must_use]
    pub fn contract(&self) -> &Contract {
        &self.contract
    }

    /// Chunks made so far: those whose states are written.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        self.chunks
    }

    /// Seed of the noise, if the stream's owner named one.
    #[must_use]
    pub fn seed(&self) -> Option<u64> {
        self.seed
    }

    /// Sets the seed that the noise is made of, which [`StreamSession::save`] stores; `None` if the noise is recorded.
    pub fn set_seed(&mut self, seed: Option<u64>) {
        self.seed = seed;
    }

    /// The states after the last chunk, by name. Those of dtype f16 hold f16 numbers.
    #[must_use]
    pub fn states(&self) -> &BTreeMap<String, HostTensor> {
        &self.states
    }

    /// The largest magnitudes so far, if [`StreamOptions::ranges`] asked for them.
    #[must_use]
    pub fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// Whether a prompt was set.
    #[must_use]
    pub fn has_prompt(&self) -> bool {
        self.prompt.is_some()
    }

    /// Sets the prompt of the chunks that follow; mid-stream too.
    ///
    /// # Errors
    /// A text that is not `[1, L, text_dim]` of the kernel; a mask that is missing, or that the kernel does not take; a failing engine.
    pub fn set_prompt(&mut self, prompt: impl Into<Prompt>) -> Result<(), Error> {
        let prompt = prompt.into();
        prompt.check(&self.contract).map_err(Error::input)?;
        let names = self.contract.names();
        let value = |name: &str| match name {
            _ if name == names.text => Some(&prompt.text),
            _ if Some(name) == names.text_mask => prompt.mask.as_ref(),
            _ => None,
        };
        let computed = self.kernel.prompt.run_with(value);
        self.prompt_values = computed.context("function `prompt`").map_err(Error::engine)?;
        ranges::take(&mut self.prompt_values, &mut self.ranges);
        self.prompt = Some(prompt);
        Ok(())
    }

    /// Makes the next chunk `[1, C, F, H, W]` and writes its states. `noise` has one tensor of that shape for each step of the sampler.
    ///
    /// # Errors
    /// No prompt; noise of another shape or count; a failing engine; a result that is not finite. The stream is then where it
    /// was before.
    pub fn next_chunk(&mut self, noise: &[HostTensor]) -> Result<HostTensor, Error> {
        self.next_chunk_with(noise, |_, _| {})
    }

    /// [`StreamSession::next_chunk`]; `progress` gets the calls done and all calls of the chunk: one each step, and `commit` if the
    /// kernel has it.
    ///
    /// # Errors
    /// As [`StreamSession::next_chunk`].
    pub fn next_chunk_with(
        &mut self,
        noise: &[HostTensor],
        progress: impl FnMut(usize, usize),
    ) -> Result<HostTensor, Error> {
        self.check_noise(noise).map_err(Error::input)?;
        self.made_of(noise, progress).map_err(Error::engine)
    }

    fn check_noise(&self, noise: &[HostTensor]) -> Result<()> {
        let (shape, steps) = (self.contract.chunk.shape(), self.contract.sampler.steps());
        if self.prompt.is_none() {
            bail!("the stream has no prompt: set one before the first chunk");
        }
        if noise.len() != steps {
            bail!("noise: found {} tensor(s) for a chunk, expected {steps}, one a step", noise.len());
        }
        if let Some(wrong) = noise.iter().find(|n| n.shape != shape) {
            bail!("noise: found shape {:?}, expected {shape:?}, what the kernel was compiled for", wrong.shape);
        }
        Ok(())
    }

    fn made_of(&mut self, noise: &[HostTensor], mut progress: impl FnMut(usize, usize)) -> Result<HostTensor> {
        let (names, steps) = (self.contract.names(), self.contract.sampler.steps());
        let (writer_name, writer_ports) = self.contract.writer()?;
        let host_inputs = |f: &contract::Function| -> BTreeMap<String, HostTensor> {
            host::inputs(&self.contract, &f.inputs, self.chunks).into_iter().collect()
        };
        let (host, writer_host) = (host_inputs(&self.contract.functions.denoise), host_inputs(writer_ports));
        let commits = self.contract.state_write == StateWrite::Commit;
        let calls = steps + usize::from(commits);
        let (states, prompt) = (&self.states, &self.prompt_values);
        let Kernel { denoise, writer, .. } = &mut self.kernel;
        let mut written = None;
        let clean = sampler::autoregressive(&self.contract.sampler, noise, |x, t, step| {
            let writes = !commits && step + 1 == steps;
            let (name, function, host) = match writes {
                true => (writer_name, &mut *writer, &writer_host),
                false => ("denoise", &mut *denoise, &host),
            };
            let timestep = HostTensor { shape: vec![1], data: vec![t as f32] };
            let own = BTreeMap::from([(names.latent.to_string(), x.clone()), (names.time.to_string(), timestep)]);
            let values = Values(vec![&own, host, prompt, states]);
            let mut out = function.run_with(|name| values.get(name)).with_context(|| format!("function `{name}`"))?;
            ranges::take(&mut out, &mut self.ranges);
            progress(step + 1, calls);
            let velocity = names.velocity;
            let velocity =
                out.remove(velocity).with_context(|| format!("function `{name}` returns no `{velocity}`"))?;
            if writes {
                written = Some(out);
            }
            Ok::<_, anyhow::Error>(velocity)
        })?;
        if clean.data.iter().any(|x| !x.is_finite()) {
            bail!("chunk {}: the network's result has NaN or infinite elements", self.chunks);
        }
        let own = BTreeMap::from([(names.latent.to_string(), clean)]);
        let mut out = match written {
            Some(out) => out,
            None => {
                let values = Values(vec![&own, &writer_host, prompt, states]);
                let mut out =
                    writer.run_with(|name| values.get(name)).with_context(|| format!("function `{writer_name}`"))?;
                ranges::take(&mut out, &mut self.ranges);
                progress(calls, calls);
                out
            }
        };
        let mut states = BTreeMap::new();
        for state in &self.contract.states {
            let name = format!("{}{OUT}", state.name);
            let mut value =
                out.remove(&name).with_context(|| format!("function `{writer_name}` returns no `{name}`"))?;
            if state.dtype == DType::F16 {
                // What computes in fp32 returns more digits than the state holds.
                for x in &mut value.data {
                    *x = host::rounded(f64::from(*x), DType::F16);
                }
            }
            if value.data.iter().any(|x| !x.is_finite()) {
                bail!("chunk {}: state `{}` would have NaN or infinite elements", self.chunks, state.name);
            }
            states.insert(state.name.clone(), value);
        }
        self.states = states;
        self.chunks += 1;
        own.into_values().next().context("the chunk")
    }

    /// Writes the stream as it stands to a file.
    ///
    /// # Errors
    /// A place that cannot be written.
    pub fn save(&self, to: Destination<'_>) -> Result<(), Error> {
        let snapshot =
            Snapshot { chunks: self.chunks, seed: self.seed, states: self.states.clone(), prompt: self.prompt.clone() };
        state::save(to, &self.contract, &snapshot)
    }

    /// Goes on where the stream in a file stood; bit for bit as if it had never stopped.
    ///
    /// # Errors
    /// A file that is no stream state, or one of another model. The stream is then where it was before.
    pub fn restore(&mut self, path: &Path) -> Result<(), Error> {
        let Snapshot { chunks, seed, states, prompt } = state::restore(path, &self.contract)?;
        if let Some(prompt) = prompt {
            let place = || format!("`{}`", path.display());
            prompt.check(&self.contract).with_context(place).map_err(Error::state)?;
            self.set_prompt(prompt).with_context(place).map_err(Error::engine)?;
        }
        (self.chunks, self.seed, self.states) = (chunks, seed, states);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
