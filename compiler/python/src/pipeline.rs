//! Videos from prompts, with the folder of a compiled pipeline.

use std::panic::resume_unwind;
use std::path::PathBuf;

use anyhow::bail;
use pyo3::prelude::*;
use s2ditc::files::arrays::Array;
use s2ditc::ir::{DType, TensorType};
use s2ditc::proof::generate::{self, Recorded, Request};
use s2ditc::runtime::{HostTensor, RunOptions, pipeline};
use s2ditc::video::Rgb;

use crate::array::{Given, made, tensor};
use crate::errors::{Stopped, error, worked};

/// The folder of a compiled pipeline. Its parts are loaded when a video is made, one after the other.
#[pyclass(module = "s2ditc._native", frozen)]
pub(crate) struct Pipeline {
    inner: pipeline::Pipeline,
    run: RunOptions,
}

#[pymethods]
impl Pipeline {
    /// Opens a folder, and checks its files.
    #[new]
    fn new(py: Python<'_>, path: PathBuf, fp16: bool, threads: usize) -> PyResult<Pipeline> {
        let inner = worked(py, || Ok(pipeline::Pipeline::open(&path)?))?;
        let run = RunOptions { fp16, threads: crate::threads(threads), quiet: true, ..RunOptions::default() };
        Ok(Pipeline { inner, run })
    }

    /// The contract as JSON.
    fn contract(&self, py: Python<'_>) -> PyResult<String> {
        worked(py, || Ok(self.inner.contract().to_json()?))
    }

    /// Makes a video. `push` gets its frames as they are made, `[T, H, W, 3]` in 8 bits or in f32, and their number in all; `progress` hears of each call of
    /// a part. What one of them raises ends the work. Returns the report as JSON.
    #[allow(clippy::too_many_arguments)]
    fn generate(
        &self,
        py: Python<'_>,
        prompt: String,
        negative: Option<String>,
        prompt_at: Vec<(u64, String)>,
        seed: u64,
        noise: Option<Given<'_>>,
        chunks: Option<u64>,
        steps: Option<usize>,
        guidance: Option<(f64, Option<f64>)>,
        in_floats: bool,
        push: Py<PyAny>,
        progress: Py<PyAny>,
    ) -> PyResult<String> {
        if let Some((first, second)) = guidance
            && !(first.is_finite() && second.is_none_or(f64::is_finite))
        {
            return Err(error(py, "input", format!("guidance: found {guidance:?}, expected finite numbers")));
        }
        let noise = noise.map(|noise| tensor(py, "noise", &noise).map(Recorded::Tensor)).transpose()?;
        let request = Request { prompt, negative, prompt_at, seed, noise, chunks, steps, guidance, fps: None };
        let told = |told: PyResult<Py<PyAny>>| {
            told.map(drop).unwrap_or_else(|raised| resume_unwind(Box::new(Stopped(raised))));
        };
        worked(py, || {
            let mut watch = |part: pipeline::Part, done: u64, total: u64| {
                // A signal's handler runs in here, too: Ctrl-C raises.
                Python::attach(|py| told(progress.call1(py, (done, total, part.name().replace('_', " ")))));
            };
            let mut push = |video: &HostTensor, total: usize| {
                let frames = if in_floats { floats_of(video) } else { pixels_of(video) }?;
                Python::attach(|py| told(push.call1(py, (made(py, frames), total))));
                Ok(())
            };
            let report = generate::frames(&self.inner, &request, &self.run, &mut watch, &mut push)?;
            Ok(serde_json::to_string(&report)?)
        })
    }

    fn __repr__(&self) -> String {
        format!("Pipeline({:?})", self.inner.dir())
    }
}

/// The frames of a video `[1, 3, T, H, W]` as `[T, H, W, 3]` in 8 bits, as the formats for people have them.
fn pixels_of(video: &HostTensor) -> anyhow::Result<Array> {
    let mut extents = vec![0, 0, 0, 3];
    let mut bytes = Vec::with_capacity(video.data.len());
    for frame in Rgb::of_video(video)? {
        extents[0] += 1;
        (extents[1], extents[2]) = (frame.rows, frame.cols);
        bytes.extend(frame.pixels);
    }
    Ok(Array { ty: TensorType::new(DType::U8, extents), bytes })
}

/// The frames of a video `[1, 3, T, H, W]` as `[T, H, W, 3]` in f32.
fn floats_of(video: &HostTensor) -> anyhow::Result<Array> {
    let [1, 3, frames, rows, cols] = video.shape[..] else {
        bail!("a video of shape {:?}, expected [1, 3, T, H, W]", video.shape);
    };
    let plane = rows * cols;
    let at = |i: usize| video.data[i % 3 * frames * plane + i / 3];
    let bytes = (0..3 * frames * plane).flat_map(|i| at(i).to_le_bytes()).collect();
    Ok(Array { ty: TensorType::new(DType::F32, vec![frames, rows, cols, 3]), bytes })
}
