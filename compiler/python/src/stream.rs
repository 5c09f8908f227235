//! Streams of a kernel folder.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use s2ditc::backends::output::Destination;
use s2ditc::proof::stream::{Noise, trial_prompt};
use s2ditc::runtime::stream::Prompt;
use s2ditc::runtime::{HostTensor, StreamOptions, StreamSession};

use crate::array::{Given, Made, of_tensor, tensor};
use crate::errors::released;

/// A stream: a loaded kernel with its states. Its lock is taken with the interpreter released, so that threads never wait for each other in a circle.
#[pyclass(module = "s2ditc._native", frozen)]
pub(crate) struct Stream {
    inner: Mutex<StreamSession>,
}

impl Stream {
    fn lock(&self) -> MutexGuard<'_, StreamSession> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Stream {
    /// Opens a kernel folder at the start of a stream.
    #[new]
    fn new(py: Python<'_>, path: PathBuf, fp16: bool, threads: usize, seed: u64) -> PyResult<Stream> {
        let options = StreamOptions {
            fp16,
            threads: crate::threads(threads),
            quiet: true,
            ranges: false,
            ..StreamOptions::default()
        };
        let mut session = released(py, || StreamSession::open(&path, &options))?;
        session.set_seed(Some(seed));
        Ok(Stream { inner: Mutex::new(session) })
    }

    /// The contract as JSON.
    fn contract(&self, py: Python<'_>) -> PyResult<String> {
        released(py, || self.lock().contract().to_json())
    }

    /// Extents of a chunk.
    fn chunk_shape(&self) -> Vec<usize> {
        self.lock().contract().chunk.shape().to_vec()
    }

    /// Extents of a prompt.
    fn text_shape(&self) -> Vec<usize> {
        self.lock().contract().text.shape().to_vec()
    }

    /// Steps of the sampler: tensors of noise for a chunk.
    fn steps(&self) -> usize {
        self.lock().contract().sampler.steps()
    }

    /// Chunks made so far.
    fn chunks(&self) -> u64 {
        self.lock().chunks()
    }

    /// Seed of the noise.
    fn seed(&self) -> Option<u64> {
        self.lock().seed()
    }

    /// Whether there is a prompt.
    fn has_prompt(&self) -> bool {
        self.lock().has_prompt()
    }

    /// Extents of a prompt's mask, if the kernel takes one.
    fn mask_shape(&self) -> Option<Vec<usize>> {
        self.lock().contract().mask_shape().map(|shape| shape.to_vec())
    }

    /// Sets the prompt of the chunks that follow.
    #[pyo3(signature = (text, mask = None))]
    fn set_prompt(&self, py: Python<'_>, text: Given<'_>, mask: Option<Given<'_>>) -> PyResult<()> {
        let text = tensor(py, "prompt", &text)?;
        let mask = mask.map(|mask| tensor(py, "mask of the prompt", &mask)).transpose()?;
        released(py, || self.lock().set_prompt(Prompt { text, mask }))
    }

    /// Sets a random prompt.
    fn set_seeded_prompt(&self, py: Python<'_>, seed: u64) -> PyResult<()> {
        released(py, || {
            let mut session = self.lock();
            let prompt = trial_prompt(seed, session.contract());
            session.set_prompt(prompt)
        })
    }

    /// Makes the next chunk, of the noise that is given for each step or else of that of the seed.
    #[pyo3(signature = (noise = None))]
    fn next_chunk<'py>(&self, py: Python<'py>, noise: Option<Vec<Given<'py>>>) -> PyResult<Made<'py>> {
        let given = noise
            .map(|given| given.iter().map(|each| tensor(py, "noise", each)).collect::<PyResult<Vec<_>>>())
            .transpose()?;
        let made = released(py, || {
            let mut session = self.lock();
            let noise = match given {
                Some(given) => {
                    session.set_seed(None);
                    given
                }
                None => seeded(&session),
            };
            session.next_chunk(&noise)
        })?;
        Ok(of_tensor(py, &made))
    }

    /// The states after the last chunk.
    fn states<'py>(&self, py: Python<'py>) -> Vec<(String, Made<'py>)> {
        let states = py.detach(|| self.lock().states().clone());
        states.iter().map(|(name, state)| (name.clone(), of_tensor(py, state))).collect()
    }

    /// Writes the stream as it stands to a file.
    fn save(&self, py: Python<'_>, path: PathBuf, force: bool) -> PyResult<()> {
        released(py, || self.lock().save(Destination { path: &path, force }))
    }

    /// Goes on where the stream in a file stood.
    fn restore(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        released(py, || self.lock().restore(&path))
    }
}

/// The next chunk's noise of the stream's seed. After noise that was given there is no seed: then none, which the stream refuses.
fn seeded(session: &StreamSession) -> Vec<HostTensor> {
    let seed = session.seed();
    let made = seed.and_then(|seed| Noise::Seed(seed).chunk(session.chunks(), session.contract()).ok());
    made.unwrap_or_default()
}
