//! Decoding: video chunk by chunk from latents, in constant memory, with the folder of a decoder as it lies on disk.
//!
//! A decoder folder is what `s2ditc compile --mode stream` makes of a decoder: a [`contract`] and artifacts with two functions. [`DecodeSession`] calls them as a
//! host app would: `first` for the first chunk of a video, `next` for each other. States are kept here as tensors, whatever the decoder's policy.

pub mod contract;
mod folder;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::stream::StreamOptions;
use crate::{Chain, Error, HostTensor};
use contract::Contract;
pub use folder::DecoderFolder;

/// The suffix of a state's name for its new value among a function's outputs.
const OUT: &str = "_out";

/// A video that is being decoded: a loaded decoder with its states.
pub struct DecodeSession {
    contract: Contract,
    first: Chain,
    next: Chain,
    chunks: u64,
    states: BTreeMap<String, HostTensor>,
}

impl DecodeSession {
    /// Opens the folder of a decoder at the start of a video.
    ///
    /// # Errors
    /// Not a decoder folder; artifacts that do not fit its contract; a failing engine.
    pub fn open(dir: &Path, options: &StreamOptions) -> Result<DecodeSession, Error> {
        let folder = DecoderFolder::open(dir)?;
        let load = |name: &str| {
            folder.session(name, options).with_context(|| format!("function `{name}` of `{}`", dir.display()))
        };
        let (first, next) = (load("first").map_err(Error::artifact)?, load("next").map_err(Error::artifact)?);
        let contract = folder.contract().clone();
        let mut session = DecodeSession { contract, first, next, chunks: 0, states: BTreeMap::new() };
        session.restart();
        Ok(session)
    }

    /// The decoder's contract.
    #[must_use]
    pub fn contract(&self) -> &Contract {
        &self.contract
    }

    /// Chunks of the video decoded so far.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        self.chunks
    }

    /// The states after the last chunk, by name.
    #[must_use]
    pub fn states(&self) -> &BTreeMap<String, HostTensor> {
        &self.states
    }

    /// Starts another video: states are zeros again.
    pub fn restart(&mut self) {
        self.chunks = 0;
        let zeros =
            |s: &contract::State| HostTensor { shape: s.shape.clone(), data: vec![0.0; s.shape.iter().product()] };
        self.states = self.contract.states.iter().map(|s| (s.name.clone(), zeros(s))).collect();
    }

    /// Decodes the next chunk of latents, `[1, C, F, h, w]` of the contract's `chunk`, to frames `[1, 3, T, H, W]` in −1 to 1.
    ///
    /// # Errors
    /// A latent of another shape, or that is not finite; a failing engine; a result that is not finite. The video is then where it was before.
    pub fn decode(&mut self, latent: &HostTensor) -> Result<HostTensor, Error> {
        self.check(latent).map_err(Error::input)?;
        self.decoded(latent).map_err(Error::engine)
    }

    fn check(&self, latent: &HostTensor) -> Result<()> {
        let expected = self.contract.chunk.shape();
        if latent.shape != expected {
            bail!("latent: found shape {:?}, expected {expected:?}, what the decoder was compiled for", latent.shape);
        }
        if let Some(i) = latent.data.iter().position(|x| !x.is_finite()) {
            bail!("latent: element {i} is {}, expected finite numbers", latent.data[i]);
        }
        Ok(())
    }

    fn decoded(&mut self, latent: &HostTensor) -> Result<HostTensor> {
        let (name, function) = if self.chunks == 0 { ("first", &mut self.first) } else { ("next", &mut self.next) };
        let (latent_name, states) = (self.contract.latent(), &self.states);
        let value = |name: &str| if name == latent_name { Some(latent) } else { states.get(name) };
        let mut made = function.run_with(value).with_context(|| format!("function `{name}`"))?;
        let output = self.contract.output();
        let video = made.remove(output).with_context(|| format!("function `{name}` returns no `{output}`"))?;
        if video.data.iter().any(|x| !x.is_finite()) {
            bail!("chunk {}: the decoder's result has NaN or infinite elements", self.chunks);
        }
        for state in &self.contract.states {
            // The first chunk need not write them all: they are zeros.
            if let Some(value) = made.remove(&format!("{}{OUT}", state.name)) {
                self.states.insert(state.name.clone(), value);
            }
        }
        self.chunks += 1;
        Ok(video)
    }
}
