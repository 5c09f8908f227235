//! A whole clip: its steps, then the decoder.

use anyhow::{Context, Result, bail};
use s2dit_runtime::RunOptions;
use s2dit_runtime::pipeline::{Part, Pipeline};

use super::{Push, Recorded, Report, Request, Stage, Texts, Watch, check_latent, shown, timed};
use crate::decode::{Decoder, Latents, frames_of_stream};
use crate::stream::all_finite;
use crate::stream::clip::{Clip, Given};

pub(super) fn make(
    pipeline: &Pipeline,
    request: &Request,
    run: &RunOptions,
    watch: Watch<'_>,
    report: &mut Report,
    push: Push<'_>,
) -> Result<()> {
    if let Some(chunks) = request.chunks {
        bail!("--chunks: found {chunks}, but this pipeline makes a whole clip: compile it with --mode stream");
    }
    if !request.prompt_at.is_empty() {
        bail!("--prompt-at is for streams, but this pipeline makes a whole clip: compile it with --mode stream");
    }
    if let Some(Recorded::Tensor(noise)) = &request.noise {
        let expected = pipeline.contract().latent.shape();
        if noise.shape != expected {
            bail!("noise: found {:?}, expected {expected:?}, the latent of the clip", noise.shape);
        }
        all_finite("noise", &noise.data)?;
    }
    let sampling = &pipeline.contract().sampling;
    let sampler = pipeline.contract().sampler(&shown(pipeline))?;
    let steps = request.steps.unwrap_or(sampling.steps);
    // Steps that the scheduler cannot make are found before the work.
    let [_, _, frames, rows, cols] = pipeline.contract().latent.shape();
    sampler.levels(steps, frames * rows * cols)?;
    let (guidance, second) = request.guidance.unwrap_or((sampling.guidance, sampling.guidance_2));
    let guidance = [guidance, second.unwrap_or(guidance)];
    // As in diffusers, whose pipelines ask the first strength only.
    let wants_guidance = guidance[0] > 1.0;
    if !wants_guidance && guidance[1] > 1.0 {
        bail!(
            "--guidance: found {},{}, expected a first number above 1: 1 or less is no guidance, of both transformers, as in diffusers",
            guidance[0],
            guidance[1]
        );
    }
    let negative = request.negative.clone().unwrap_or_else(|| sampling.negative.clone());
    if request.negative.is_some() && !wants_guidance {
        bail!(
            "--negative: found guidance {}, expected more than 1, without which no negative prompt is asked",
            guidance[0]
        );
    }
    if request.guidance.is_some() && guidance[0] < 1.0 {
        report.notes.push(format!(
            "guidance {} is none: a strength of 1 or less asks no negative prompt, as in diffusers",
            guidance[0]
        ));
    }
    // The encoder is loaded once. Whether the network takes no negative at all is known only when the transformer is open.
    let prompts = [&request.prompt, &negative];
    let asked = if wants_guidance { 2 } else { 1 };
    let texts = Texts::encoded(pipeline, prompts[..asked].iter().map(|p| p.as_str()), run, watch, report)?;

    let path = pipeline.part(Part::Transformer)?;
    let mut stage = Stage::new(Part::Transformer);
    watch(Part::Transformer, 0, steps as u64);
    let mut clip = timed(&mut stage.load_seconds, || Clip::open(&path, run))?;
    check_latent(pipeline, &path, clip.latent())?;
    if clip.takes_two() != (sampling.batch == 2) {
        bail!(
            "`{}`: found a transformer of {} prompt(s) a call, expected {}, as {} says: a part of another compile",
            path.display(),
            1 + usize::from(clip.takes_two()),
            sampling.batch,
            shown(pipeline)
        );
    }
    clip.set_sampler(sampler, steps);
    if let (Some((_, Some(second))), None) = (request.guidance, clip.shares(steps)) {
        bail!("--guidance: found a second number, {second}, expected one: this pipeline has one transformer");
    }
    let distilled = clip.takes_guidance();
    let is_guided = asked == 2 && !distilled;
    let negative = match (is_guided, clip.takes_two()) {
        (true, _) => Some((texts.of(&negative)?, guidance)),
        // A call of two prompts without guidance: the second one changes nothing.
        (false, true) => Some((texts.of(&request.prompt)?, [1.0, 1.0])),
        (false, false) => None,
    };
    let [image, condition] = clip.read(None, None, None)?;
    let given = Given {
        prompt: texts.of(&request.prompt)?,
        negative,
        guidance: distilled.then_some(guidance[0]),
        image,
        condition,
    };
    let noise = match &request.noise {
        Some(Recorded::File(path)) => clip.read_noise(path)?,
        Some(Recorded::Tensor(noise)) => noise.clone(),
        None => clip.seeded_noise(request.seed),
    };
    report.steps = steps;
    report.shares = clip.shares(steps);
    report.negative = is_guided.then(|| prompts[1].clone());
    report.guidance = match (is_guided || distilled, &report.shares) {
        (false, _) => Vec::new(),
        (true, None) => vec![guidance[0]],
        (true, Some(_)) => guidance.to_vec(),
    };
    let latent = timed(&mut stage.seconds, || {
        clip.sample(&noise, steps, &given, |done| watch(Part::Transformer, done as u64, steps as u64))
    })
    .with_context(|| format!("`{}`", path.display()))?;
    stage.calls = steps * if is_guided && !clip.takes_two() { 2 } else { 1 };
    report.stages.push(stage);
    drop(clip);

    let path = pipeline.part(Part::Decoder)?;
    let mut stage = Stage::new(Part::Decoder);
    let latents = Latents::of(latent, &shown(pipeline));
    let total = latents.frames() as u64;
    watch(Part::Decoder, 0, total);
    let mut decoder = timed(&mut stage.load_seconds, || Decoder::open(&path, run))?;
    let frames = match &decoder {
        Decoder::Chunks(session) => Some(frames_of_stream(session.contract(), latents.frames())),
        Decoder::Clip(..) => None,
    };
    let frames = frames.or(pipeline.contract().video.frames).unwrap_or_default();
    let calls = &mut stage.calls;
    timed(&mut stage.seconds, || {
        decoder.decode(&latents, |video, done| {
            *calls += 1;
            watch(Part::Decoder, done as u64, total);
            push(video, frames)
        })
    })
    .with_context(|| format!("`{}`", path.display()))?;
    report.stages.push(stage);
    Ok(())
}
