//! A video from a prompt, with the folder of a pipeline as it lies on disk.
//!
//! The stages follow each other: the text encoder, the transformer, the decoder. Each is loaded when it is needed and dropped before the next, so that memory is
//! bounded by the largest of them. A stream holds two: its transformer, and a decoder that decodes each chunk while the next is to come.

mod clip;
mod stream;
mod text;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use s2dit_backends::output::Destination;
use s2dit_runtime::pipeline::{Mode, Part, Pipeline};
use s2dit_runtime::{HostTensor, RunOptions};
use serde::Serialize;

use crate::decode::VideoOutput;
use text::Texts;

/// What to make. What is `None` is as the pipeline says.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The prompt.
    pub prompt: String,
    /// The prompt to go away from, of a clip with guidance.
    pub negative: Option<String>,
    /// From these chunks of a stream on other prompts.
    pub prompt_at: Vec<(u64, String)>,
    /// The seed of the noise.
    pub seed: u64,
    /// Recorded noise instead of a seed's.
    pub noise: Option<PathBuf>,
    /// Chunks of a stream.
    pub chunks: Option<u64>,
    /// Steps of a clip.
    pub steps: Option<usize>,
    /// Strength of guidance of a clip, and that of the second of two transformers.
    pub guidance: Option<(f64, Option<f64>)>,
    /// Frames a second.
    pub fps: Option<f64>,
}

/// What was made.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The pipeline's class in diffusers.
    pub class: String,
    /// Whether it made a clip or a stream.
    pub mode: Mode,
    /// The prompt.
    pub prompt: String,
    /// The prompt to go away from.
    pub negative: Option<String>,
    /// Strengths of guidance, one for each transformer that was asked.
    pub guidance: Vec<f64>,
    /// The seed of the noise, if it was not recorded.
    pub seed: Option<u64>,
    /// Chunks of a stream.
    pub chunks: Option<u64>,
    /// Steps of a clip, or of each chunk.
    pub steps: usize,
    /// Of two transformers the steps that each made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shares: Option<Vec<(String, usize)>>,
    /// Frames of the video.
    pub frames: usize,
    /// Rows of pixels.
    pub rows: usize,
    /// Columns of pixels.
    pub cols: usize,
    /// Frames a second.
    pub fps: f64,
    /// The output.
    pub output: PathBuf,
    /// The work, in order.
    pub stages: Vec<Stage>,
    /// What the caller should know, such as a prompt that was cut.
    pub notes: Vec<String>,
}

/// A part of the pipeline at work.
#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    /// The part: `text_encoder`, `transformer` or `decoder`.
    pub part: &'static str,
    /// The time to load it.
    pub load_seconds: f64,
    /// The time of its calls.
    pub seconds: f64,
    /// Its calls.
    pub calls: usize,
}

impl Stage {
    /// A part that is being loaded.
    fn new(part: Part) -> Stage {
        Stage { part: part.name(), load_seconds: 0.0, seconds: 0.0, calls: 0 }
    }
}

/// Adds the time of some work to a clock.
fn timed<T>(seconds: &mut f64, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let done = work();
    *seconds += start.elapsed().as_secs_f64();
    done
}

/// What is told of the work as it goes on: the part, its calls done, and its calls in all.
pub type Watch<'w> = &'w mut dyn FnMut(Part, u64, u64);

/// Makes a video.
///
/// # Errors
/// A pipeline without the parts that are needed, or whose parts do not fit each other; a request that the pipeline cannot serve; a failing engine; a place
/// that cannot be written.
pub fn generate(
    pipeline: &Pipeline,
    request: &Request,
    to: Destination<'_>,
    run: &RunOptions,
    watch: Watch<'_>,
) -> Result<Report> {
    if run.fp16 {
        pipeline.check_fp16()?;
    }
    let contract = pipeline.contract();
    let fps = request.fps.unwrap_or(contract.video.fps);
    let mut report = Report {
        class: contract.class.clone(),
        mode: contract.mode,
        prompt: request.prompt.clone(),
        negative: None,
        guidance: Vec::new(),
        seed: request.noise.is_none().then_some(request.seed),
        chunks: None,
        steps: 0,
        shares: None,
        frames: 0,
        rows: contract.video.rows,
        cols: contract.video.cols,
        fps,
        output: to.path.into(),
        stages: Vec::new(),
        notes: Vec::new(),
    };
    // All parts are asked for first: a pipeline that lacks one is found before the work.
    for part in Part::ALL {
        pipeline.part(part)?;
    }
    // So is a place that cannot be written: the video is begun, and dropped.
    drop(VideoOutput::create(to, [1, 3, 1, contract.video.rows, contract.video.cols], fps)?);
    let made = match contract.mode {
        Mode::Clip => clip::make(pipeline, request, to, run, watch, &mut report),
        Mode::Stream => stream::make(pipeline, request, to, run, watch, &mut report),
    };
    made.with_context(|| format!("`{}`", pipeline.dir().display()))?;
    Ok(report)
}

fn shown(pipeline: &Pipeline) -> String {
    format!("`{}`", pipeline.dir().join(s2dit_runtime::pipeline::FILE).display())
}

/// Refuses a latent of another size than the contract says: a part of another compile.
fn check_latent(pipeline: &Pipeline, path: &Path, found: [usize; 4]) -> Result<()> {
    let [_, expected @ ..] = pipeline.contract().latent.shape();
    if found != expected {
        bail!(
            "`{}`: found a latent {found:?}, expected {expected:?}, as {} says: a part of another compile",
            path.display(),
            shown(pipeline)
        );
    }
    Ok(())
}

/// An output that begins with its first frames, when its size is known.
struct Written<'a> {
    to: Destination<'a>,
    fps: f64,
    /// Frames of the video in all.
    frames: usize,
    file: Option<VideoOutput>,
    written: usize,
}

impl<'a> Written<'a> {
    fn new(to: Destination<'a>, fps: f64, frames: usize) -> Self {
        Written { to, fps, frames, file: None, written: 0 }
    }

    /// Adds frames `[1, 3, T, H, W]`.
    fn push(&mut self, video: &HostTensor) -> Result<()> {
        let [one, colours, count, rows, cols] = video.shape[..] else { bail!("a video of another rank than 5") };
        self.written += count;
        match &mut self.file {
            Some(file) => file.push(video),
            None => {
                let shape = [one, colours, self.frames, rows, cols];
                self.file.insert(VideoOutput::create(self.to, shape, self.fps)?).push(video)
            }
        }
    }

    /// Puts the video in its place, and returns its frames.
    fn finish(self) -> Result<usize> {
        self.file.context("the decoder made no frames")?.finish()?;
        Ok(self.written)
    }
}
