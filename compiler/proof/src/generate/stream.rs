//! A stream: chunk by chunk, each decoded while the next is to come.

use anyhow::{Context, Result, bail};
use s2dit_runtime::pipeline::{Part, Pipeline};
use s2dit_runtime::{HostTensor, RunOptions, StreamOptions, StreamSession, stream};

use super::{Push, Recorded, Report, Request, Stage, Texts, Watch, check_latent, shown, timed};
use crate::decode::{Decoder, Feed, frames_of_stream};
use crate::stream::Noise;
use crate::stream::clip::Prompt;

/// Latent frames of a video where nobody says how long: five seconds of 16 frames.
const USUAL_FRAMES: u64 = 21;

pub(super) fn make(
    pipeline: &Pipeline,
    request: &Request,
    run: &RunOptions,
    watch: Watch<'_>,
    report: &mut Report,
    push: Push<'_>,
) -> Result<()> {
    let clips_only = [
        (request.steps.is_some(), "--steps"),
        (request.guidance.is_some(), "--guidance"),
        (request.negative.is_some(), "--negative"),
    ];
    if let Some((_, flag)) = clips_only.into_iter().find(|(given, _)| *given) {
        bail!("{flag} is for clips, but this pipeline makes a stream, whose steps are those of its kernel");
    }
    let prompts = [&request.prompt].into_iter().chain(request.prompt_at.iter().map(|(_, prompt)| prompt));
    let texts = Texts::encoded(pipeline, prompts.map(String::as_str), run, watch, report)?;

    let path = pipeline.part(Part::Transformer)?;
    let mut stage = Stage::new(Part::Transformer);
    watch(Part::Transformer, 0, 1);
    let options = StreamOptions {
        fp16: run.fp16,
        threads: run.threads,
        quiet: run.quiet,
        ranges: false,
        ..StreamOptions::default()
    };
    let mut session = timed(&mut stage.load_seconds, || Ok(StreamSession::open(&path, &options)?))?;
    let kernel = session.contract().clone();
    let [_, latent @ ..] = kernel.chunk.shape();
    check_latent(pipeline, &path, latent)?;
    let noise = match &request.noise {
        Some(Recorded::File(path)) => Noise::open(path, &kernel)?,
        Some(Recorded::Tensor(noise)) => Noise::given(noise, &kernel)?,
        None => Noise::Seed(request.seed),
    };
    let frames = kernel.chunk.frames as u64;
    let chunks = request.chunks.or(noise.chunks()).unwrap_or(USUAL_FRAMES.div_ceil(frames));
    if let Some(all) = noise.chunks().filter(|all| chunks > *all) {
        bail!("--chunks: found {chunks}, but the noise is that of {all}");
    }
    if let Some((chunk, _)) = request.prompt_at.iter().find(|(chunk, _)| *chunk >= chunks) {
        bail!("--prompt-at: found chunk {chunk}, expected one of this video: 0 to {}", chunks - 1);
    }
    report.chunks = Some(chunks);
    report.steps = kernel.sampler.steps();

    let decoder_path = pipeline.part(Part::Decoder)?;
    let mut decoding = Stage::new(Part::Decoder);
    let mut decoder = timed(&mut decoding.load_seconds, || Decoder::open(&decoder_path, run))?;
    let Decoder::Chunks(decoder) = &mut decoder else {
        bail!(
            "`{}`: found a decoder of whole clips, expected one that streams, as {} does: compile it with a decoder of which --mode stream makes a folder",
            decoder_path.display(),
            shown(pipeline)
        );
    };
    let [_, channels, _, rows, cols] = decoder.contract().chunk.shape();
    if [channels, rows, cols] != [latent[0], latent[2], latent[3]] {
        bail!(
            "`{}`: found latents of {channels} channels, {rows}x{cols}, expected {} channels, {}x{}: a part of another compile",
            decoder_path.display(),
            latent[0],
            latent[2],
            latent[3]
        );
    }
    let total = frames_of_stream(decoder.contract(), (chunks * frames) as usize);
    let mut feed = Feed::new(&mut **decoder);
    let mut calls = 0;
    let mut push = |video: &HostTensor, _: usize| {
        calls += 1;
        push(video, total)
    };
    for chunk in 0..chunks {
        let prompt = match request.prompt_at.iter().find(|(at, _)| *at == chunk) {
            Some((_, prompt)) => Some(prompt),
            None => (chunk == 0).then_some(&request.prompt),
        };
        let made = timed(&mut stage.seconds, || -> Result<HostTensor> {
            if let Some(prompt) = prompt {
                let Prompt { text, mask, .. } = texts.of(prompt)?;
                session.set_prompt(stream::Prompt { text, mask })?;
                stage.calls += 1;
            }
            let made = session.next_chunk_with(&noise.chunk(chunk, &kernel)?, |done, calls| {
                let calls = calls as u64;
                watch(Part::Transformer, chunk * calls + done as u64, chunks * calls);
            });
            made.with_context(|| format!("`{}`", path.display()))
        })?;
        stage.calls += kernel.sampler.steps();
        timed(&mut decoding.seconds, || feed.take(&made, &mut push))
            .with_context(|| format!("`{}`", decoder_path.display()))?;
    }
    timed(&mut decoding.seconds, || feed.finish(&mut push)).with_context(|| format!("`{}`", decoder_path.display()))?;
    decoding.calls = calls;
    report.stages.extend([stage, decoding]);
    Ok(())
}
