//! A video from a prompt, with the folder of a pipeline as it lies on disk.
//!
//! The stages follow each other: the text encoder, the transformer, the decoder. Each is loaded when it is needed and dropped before the next, so that memory is
//! bounded by the largest of them. A stream holds two: its transformer, and a decoder that decodes each chunk while the next is to come.
//!
//! [`frames`] hands frames over as they are made, and [`generate`] writes them to a file.

mod clip;
mod stream;
mod text;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use s2dit_backends::output::Destination;
use s2dit_runtime::pipeline::{Mode, Part, Pipeline, Video};
use s2dit_runtime::stream::state::MOST_CHUNKS;
use s2dit_runtime::{HostTensor, RunOptions};
use serde::Serialize;

use crate::decode::VideoOutput;
use text::Texts;

/// Most steps of a clip.
pub const MOST_STEPS: usize = 1000;

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
    pub noise: Option<Recorded>,
    /// Chunks of a stream.
    pub chunks: Option<u64>,
    /// Steps of a clip.
    pub steps: Option<usize>,
    /// Strength of guidance of a clip, and that of the second of two transformers.
    pub guidance: Option<(f64, Option<f64>)>,
    /// Frames a second.
    pub fps: Option<f64>,
}

/// Noise that was recorded: `[1, C, F, H, W]` of a clip, `[chunks, steps, 1, C, F, H, W]` of a stream.
#[derive(Clone, Debug)]
pub enum Recorded {
    /// A safetensors file with the tensor `noise`, or `stream.noise` of a stream.
    File(PathBuf),
    /// The numbers themselves.
    Tensor(HostTensor),
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
    /// The file or folder that the video was written to, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<PathBuf>,
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

/// Gets the frames of a video as they are made, `[1, 3, T, H, W]` in −1 to 1, and how many frames the video has in all.
pub type Push<'p> = &'p mut dyn FnMut(&HostTensor, usize) -> Result<()>;

/// Makes a video, and writes it.
///
/// # Errors
/// See [`frames`]; a place that cannot be written.
pub fn generate(
    pipeline: &Pipeline,
    request: &Request,
    to: Destination<'_>,
    run: &RunOptions,
    watch: Watch<'_>,
) -> Result<Report> {
    let Video { rows, cols, fps, .. } = pipeline.contract().video;
    let fps = request.fps.unwrap_or(fps);
    // A place that cannot be written is found before the work: the video is begun, and dropped.
    drop(VideoOutput::create(to, [1, 3, 1, rows, cols], fps)?);
    let mut file = None;
    let report = frames(pipeline, request, run, watch, &mut |video, total| {
        if file.is_none() {
            file = Some(VideoOutput::create(to, [1, 3, total, rows, cols], fps)?);
        }
        file.as_mut().map_or(Ok(()), |file| file.push(video))
    })?;
    file.context("the decoder made no frames")?.finish()?;
    Ok(Report { output: Some(to.path.into()), ..report })
}

/// Makes a video, and hands its frames to `push` in the order in which they are shown.
///
/// # Errors
/// A pipeline without the parts that are needed, or whose parts do not fit each other; a request that the pipeline cannot serve; a failing engine; an error of
/// `push`.
pub fn frames(
    pipeline: &Pipeline,
    request: &Request,
    run: &RunOptions,
    watch: Watch<'_>,
    push: Push<'_>,
) -> Result<Report> {
    if run.fp16 {
        pipeline.check_fp16()?;
    }
    if let Some(steps) = request.steps.filter(|steps| !(1..=MOST_STEPS).contains(steps)) {
        bail!("--steps: found {steps}, expected 1 to {MOST_STEPS}");
    }
    if let Some(chunks) = request.chunks.filter(|chunks| !(1..=MOST_CHUNKS).contains(chunks)) {
        bail!("--chunks: found {chunks}, expected 1 to {MOST_CHUNKS}");
    }
    let contract = pipeline.contract();
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
        fps: request.fps.unwrap_or(contract.video.fps),
        output: None,
        stages: Vec::new(),
        notes: Vec::new(),
    };
    // All parts are asked for first: a pipeline that lacks one is found before the work.
    for part in Part::ALL {
        pipeline.part(part)?;
    }
    let mut shown = 0;
    let mut push = |video: &HostTensor, total: usize| {
        shown += video.shape.get(2).copied().unwrap_or_default();
        push(video, total)
    };
    let made = match contract.mode {
        Mode::Clip => clip::make(pipeline, request, run, watch, &mut report, &mut push),
        Mode::Stream => stream::make(pipeline, request, run, watch, &mut report, &mut push),
    };
    made.with_context(|| format!("`{}`", pipeline.dir().display()))?;
    report.frames = shown;
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
