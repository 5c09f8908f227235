//! How an imported graph makes a stream: what a checkpoint's configuration says, as flags.

use anyhow::Result;
use s2dit_models::checkpoint::Checkpoint;
use s2dit_models::graph::GraphStream;
use s2dit_models::model::{Part, Streaming};
use s2dit_runtime::sampler::shifted;
use s2dit_runtime::stream::contract::StateWrite;

use crate::cli::usage::refuse;

/// Timesteps before the shift, and the shift, that S2DiT-AR and Self-Forcing were trained for.
const SAMPLE_STEPS: [f64; 4] = [1000.0, 750.0, 500.0, 250.0];
const FLOW_SHIFT: f64 = 5.0;

/// What the stream of a graph keeps, and its sampler.
#[derive(clap::Args)]
pub(super) struct ChunkArgs {
    /// Latent frames of a call, of a decoder's stream [default: 1]; of a graph's stream those that its latent has
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) chunk: Option<u16>,
    /// Latent frames before a chunk that softmax attention sees, of a graph's stream
    #[arg(long, value_name = "N")]
    window: Option<u16>,
    /// Latent frames at the start of the stream that softmax attention always sees, of a graph's stream [default: 0]
    #[arg(long, value_name = "N")]
    sinks: Option<u16>,
    /// What writes the states of a graph's stream: commit (a pass over the finished chunk) or last_step (the last denoising step)
    /// [default: commit]
    #[arg(long, value_name = "WHICH", value_parser = state_write)]
    state_write: Option<StateWrite>,
    /// Timesteps of a graph's stream before the shift [default: 1000,750,500,250]
    #[arg(long, value_name = "T,…", value_delimiter = ',')]
    sample_steps: Vec<f64>,
    /// Shift of the noise levels of a graph's stream [default: 5]
    #[arg(long, value_name = "S", value_parser = shift)]
    flow_shift: Option<f64>,
}

fn state_write(text: &str) -> Result<StateWrite, String> {
    [StateWrite::Commit, StateWrite::LastStep]
        .into_iter()
        .find(|which| which.name() == text)
        .ok_or_else(|| "expected commit or last_step".into())
}

fn shift(text: &str) -> Result<f64, String> {
    let shift = text.parse().ok().filter(|shift: &f64| shift.is_finite() && *shift > 0.0);
    shift.ok_or_else(|| "expected a number above 0, such as 5".into())
}

impl ChunkArgs {
    /// The first flag given.
    pub(super) fn given(&self) -> Option<&'static str> {
        self.chunk.map(|_| "--chunk").or_else(|| self.of_graphs())
    }

    /// The first flag given of those that are of graphs only.
    fn of_graphs(&self) -> Option<&'static str> {
        let flags = [
            (self.window.is_some(), "--window"),
            (self.sinks.is_some(), "--sinks"),
            (self.state_write.is_some(), "--state-write"),
            (!self.sample_steps.is_empty(), "--sample-steps"),
            (self.flow_shift.is_some(), "--flow-shift"),
        ];
        flags.into_iter().find(|(given, _)| *given).map(|(_, flag)| flag)
    }

    /// Takes a graph for that of a chunk, if a stream is made of it. Of all else the flags are refused.
    pub(super) fn apply(&self, checkpoint: &mut Checkpoint, streams: bool) -> Result<()> {
        let frames = checkpoint.model().graph().map(|graph| graph.size().latent().map_or(1, |latent| latent.frames));
        let Some((frames, true)) = frames.map(|frames| (frames, streams)) else {
            if let Some(flag) = self.of_graphs() {
                refuse!(
                    "{flag} is for --mode stream of a graph: a checkpoint's config.json says how it streams, and a clip has no past"
                );
            }
            let is_decoder = checkpoint.model().family().part() == Part::Decoder;
            if self.chunk.is_some() && !(is_decoder && streams) {
                refuse!("--chunk is for --mode stream of a decoder or a graph: a step's frames are its own");
            }
            return Ok(());
        };
        let Some(window) = self.window else {
            refuse!(
                "--window N says how many latent frames before a chunk softmax attention sees, which a graph does not say, such as --window {}; 0 if \
                 every chunk stands alone but for linear attention and convolutions",
                2 * frames
            );
        };
        let steps = if self.sample_steps.is_empty() { &SAMPLE_STEPS[..] } else { &self.sample_steps };
        let by = self.flow_shift.unwrap_or(FLOW_SHIFT);
        checkpoint.stream_as(GraphStream {
            streaming: Streaming {
                chunk_frames: self.chunk.map_or(frames, usize::from),
                window_frames: window.into(),
                sink_frames: self.sinks.unwrap_or_default().into(),
                ahead: false,
                state_write: self.state_write.unwrap_or_default(),
            },
            sigmas: steps.iter().map(|t| shifted(t / 1000.0, by)).collect(),
        })?;
        Ok(())
    }
}
