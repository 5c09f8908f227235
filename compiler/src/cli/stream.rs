//! `s2ditc stream`

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use s2dit_backends::output::{Staged, made};
use s2dit_backends::{coreai, coreml};
use s2dit_runtime::experts;
use s2dit_runtime::partition;
use s2dit_runtime::pipeline::{Contract, Mode, Part, Pipeline};
use s2dit_runtime::stream::state::MOST_CHUNKS;
use s2dit_runtime::stream::{Prompt, contract};
use s2dit_runtime::{RunOptions, StreamOptions, StreamSession};
use serde::Serialize;

use super::places::Places;
use super::progress::Progress;
use super::usage::{Guidance, latents, moving, refuse};
use super::{Context, print_json, print_line};
use crate::errors::About as _;
use s2dit_files::problems::{Problem, quoted};
use s2dit_proof::decode::Decoder;
use s2dit_proof::stream::clip::{Clip, Given};
use s2dit_proof::stream::{LatentsFile, Noise, Preview, read_prompt, trial_prompt};

/// Make video with a finished artifact: chunk by chunk with a kernel, or a whole clip
#[derive(Clone, clap::Args)]
#[command(
    after_help = "You bring trained weights (a checkpoint that was compiled), the text encoder that the checkpoint was trained with, for \
prompts, and the VAE decoder, which makes video of the latents. Without them --prompt-seed and random weights of s2ditc init try \
everything but the picture.

Examples:
  s2ditc compile tiny/ --target coreml --mode stream --latent 8x8 -o tiny.kernel
  s2ditc stream tiny.kernel --prompt text.safetensors --chunks 64 --seed 1 -o latents.safetensors --preview x.gif
  s2ditc stream tiny.kernel --prompt a.safetensors --prompt-at 8=b.safetensors --chunks 16 --state-out s.safetensors
  s2ditc stream tiny.kernel --state-in s.safetensors --chunks 16 -o more.safetensors

A prompt is a safetensors file with the tensor text [1,L,text_dim]: the text encoder's output, padded with zeros to the \
checkpoint's text_len; a model that takes a mask wants text_mask [1,L] beside it, 1 where a token counts and 0 where it is padding, and one \
that takes a pooled embedding wants pooled [1,width]. \
Latents are written as stream.latents [chunks,1,C,F,H,W]. A stream that is restored with --state-in goes on \
bit for bit: its noise depends on the seed, which the state holds, and the chunk's index alone.

An .onnx file, .mlpackage or .aimodel of a bidirectional checkpoint (chunk_frames null) makes one clip, with Euler steps and \
classifier-free guidance: --steps, --guidance, --negative. It is written as latent [1,C,F,H,W]. So does a folder with experts.json: \
each of its two transformers makes its share of the steps. A model of images takes their embeddings with --image, and what is given of \
the latent with --condition."
)]
pub(super) struct Args {
    /// A kernel folder, or the folder of a pipeline that streams; or a clip step of a bidirectional checkpoint, or of two experts
    pub(super) artifact: PathBuf,
    /// Prompt: a safetensors file with the tensor text, and text_mask or pooled for a model that takes it
    #[arg(long, value_name = "FILE", conflicts_with = "prompt_seed")]
    prompt: Option<PathBuf>,
    /// A seeded random prompt, for trials without a text encoder; with it an image or a condition that a clip needs is random too
    #[arg(long, value_name = "N")]
    prompt_seed: Option<u64>,
    /// From this chunk on another prompt; may be repeated
    #[arg(long, value_name = "CHUNK=FILE")]
    prompt_at: Vec<PromptAt>,
    /// Chunks to make [default: 1, or all of --noise]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MOST_CHUNKS))]
    chunks: Option<u64>,
    /// Seed of the noise [default: that of --state-in, or 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Recorded noise instead: a safetensors file with stream.noise [chunks,steps,1,C,F,H,W], or noise [1,C,F,H,W] of a clip
    #[arg(long, value_name = "FILE", conflicts_with = "seed")]
    noise: Option<PathBuf>,
    /// Latents to write, as safetensors; the checkpoint's VAE decoder makes a video of them
    #[arg(short, long, value_name = "FILE", value_parser = latents)]
    output: Option<PathBuf>,
    /// Moving picture to write, .gif, .webp or .mp4: video, if the artifact is the transformer of a compiled pipeline that has a decoder; else the
    /// latents' three main directions as colours, which of random weights is static
    #[arg(long, value_name = "FILE", value_parser = moving)]
    preview: Option<PathBuf>,
    /// Go on where a saved stream stood
    #[arg(long, value_name = "FILE")]
    state_in: Option<PathBuf>,
    /// Save the stream at the end; may be the file of --state-in
    #[arg(long, value_name = "FILE")]
    state_out: Option<PathBuf>,
    /// Save to --state-out after every N chunks too
    #[arg(long, value_name = "N", requires = "state_out", value_parser = clap::value_parser!(u64).range(1..))]
    save_every: Option<u64>,
    /// Euler steps of a clip [default: the checkpoint's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    steps: Option<u16>,
    /// Guidance of a clip: v = v_neg + G·(v_pos − v_neg), of two transformers G,G2; or the strength that a network with distilled guidance
    /// takes [default: 5]
    #[arg(long, value_name = "G[,G2]")]
    guidance: Option<Guidance>,
    /// Negative prompt of a clip; without it there is no guidance but what was distilled into the network
    #[arg(long, value_name = "FILE")]
    negative: Option<PathBuf>,
    /// Embeddings of an image, for a clip step that takes one: a safetensors file with the tensor image [1,M,width]
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// What is given of a clip's latent: a safetensors file with the tensor condition [1,C,F,H,W], channels beside the noise; or
    /// [1,C,1,H,W], the first frame, for a step that takes a timestep for each token
    #[arg(long, value_name = "FILE")]
    condition: Option<PathBuf>,
    /// Round the result of every fp16 op to fp16, as the Neural Engine stores it (packages only)
    #[arg(long)]
    fp16: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// `CHUNK=FILE`
#[derive(Clone)]
struct PromptAt {
    chunk: u64,
    file: PathBuf,
}

impl FromStr for PromptAt {
    type Err = Problem;
    fn from_str(text: &str) -> Result<Self, Problem> {
        let parts = text.split_once('=').and_then(|(chunk, file)| Some((chunk.parse().ok()?, file)));
        match parts {
            Some((chunk, file)) if !file.is_empty() => Ok(PromptAt { chunk, file: file.into() }),
            _ => Err(Problem {
                place: "prompt".into(),
                found: quoted(text),
                expected: "CHUNK=FILE, such as 8=b.safetensors".into(),
            }),
        }
    }
}

/// The summary of what was made.
#[derive(Serialize)]
struct Summary {
    artifact: PathBuf,
    kernel: String,
    /// Seed of the noise, if it was not recorded.
    seed: Option<u64>,
    first_chunk: u64,
    chunks: u64,
    /// Latent frames.
    frames: u64,
    /// Loading the kernel.
    load_seconds: f64,
    /// Computing the prompt's keys and values.
    prompt_seconds: f64,
    /// Each chunk: all of its calls.
    chunk_seconds: Vec<f64>,
    frames_per_second: f64,
    output: Option<PathBuf>,
    preview: Option<PathBuf>,
    /// Whether the preview is decoded video, and not latents as colours.
    is_decoded: bool,
    state: Option<PathBuf>,
}

pub(super) fn run(args: &Args, context: Context) -> Result<ExitCode> {
    for (i, at) in args.prompt_at.iter().enumerate() {
        if let Some(other) = args.prompt_at[..i].iter().find(|other| other.chunk == at.chunk) {
            let (chunk, one, two) = (at.chunk, other.file.display(), at.file.display());
            refuse!("--prompt-at: found two prompts for chunk {chunk}, `{one}` and `{two}`; expected one");
        }
    }
    Places::default()
        .input("ARTIFACT", [&args.artifact])
        .input("--prompt", &args.prompt)
        .input("--prompt-at", args.prompt_at.iter().map(|at| &at.file))
        .input("--noise", &args.noise)
        .input("--negative", &args.negative)
        .input("--image", &args.image)
        .input("--condition", &args.condition)
        .output("-o", &args.output)
        .output("--preview", &args.preview)
        .output("--state-out", &args.state_out)
        .check()?;
    // Not against --state-out: the state is read first, and the stream may be saved where it was.
    Places::default()
        .input("--state-in", &args.state_in)
        .output("-o", &args.output)
        .output("--preview", &args.preview)
        .check()?;
    let shipped = Shipped::of(&args.artifact)?;
    let within;
    let args = match &shipped {
        Some(shipped) => {
            within = Args { artifact: shipped.transformer.clone(), ..args.clone() };
            &within
        }
        None => args,
    };
    if args.artifact.is_dir() && args.artifact.join(contract::FILE).exists() {
        return stream(args, context, shipped.as_ref());
    }
    let marks = [coreml::MANIFEST, coreai::asset::PROGRAM, partition::FILE, experts::FILE];
    if args.artifact.is_file() || marks.iter().any(|name| args.artifact.join(name).exists()) {
        return clip(args, context, shipped.as_ref());
    }
    bail!(
        "`{}`: expected a kernel folder (with {}), an .onnx file, an .mlpackage, an .aimodel, a folder of parts (with {}) or of experts (with \
         {}), found {}",
        args.artifact.display(),
        contract::FILE,
        partition::FILE,
        experts::FILE,
        if args.artifact.is_dir() { "another folder" } else { "nothing" }
    )
}

/// A transformer that lies in the folder of a compiled pipeline.
struct Shipped {
    transformer: PathBuf,
    /// The decoder, if the pipeline has one.
    decoder: Option<PathBuf>,
    /// Rows and columns of the decoder's frames, and frames a second.
    size: [usize; 2],
    fps: f64,
}

impl Shipped {
    /// The transformer of the pipeline at a path, which streams, or the one at the path itself; `None` if that is in no pipeline.
    fn of(path: &Path) -> Result<Option<Shipped>> {
        if Pipeline::is_in(path) {
            let pipeline = Pipeline::open(path).about("E0709")?;
            let transformer = pipeline.part(Part::Transformer)?;
            if pipeline.contract().mode == Mode::Clip {
                bail!(
                    "`{}`: found a pipeline that makes clips, expected one that streams: s2ditc generate makes video of prompts with it, and s2ditc stream takes \
                     its transformer `{}` by itself",
                    path.display(),
                    transformer.display()
                );
            }
            return Ok(Some(Shipped::from(pipeline.contract(), path, transformer)));
        }
        // A name without a folder lies in this one.
        let above = path.parent().map(|above| if above.as_os_str().is_empty() { Path::new(".") } else { above });
        let Some(folder) = above.filter(|above| Pipeline::is_in(above)) else { return Ok(None) };
        // What cannot be read is no pipeline that this artifact is known to be of.
        let Ok(contract) = Contract::read(folder) else { return Ok(None) };
        let own = contract.assets.transformer.as_ref().map(|asset| OsStr::new(&asset.path));
        Ok((own == path.file_name()).then(|| Shipped::from(&contract, folder, path.into())))
    }

    fn from(contract: &Contract, folder: &Path, transformer: PathBuf) -> Shipped {
        Shipped {
            transformer,
            decoder: contract.assets.decoder.as_ref().map(|asset| folder.join(&asset.path)),
            size: [contract.video.rows, contract.video.cols],
            fps: contract.video.fps,
        }
    }
}

/// Begins the preview: decoded frames if the pipeline of the transformer has a decoder, and else latents as colours.
fn preview_of(
    args: &Args,
    context: Context,
    shipped: Option<&Shipped>,
    chunk: contract::Chunk,
) -> Result<Option<Preview>> {
    let Some(path) = args.preview.as_deref() else { return Ok(None) };
    let decoder = shipped.and_then(|shipped| Some((shipped, shipped.decoder.as_deref()?)));
    let Some((shipped, decoder)) = decoder else { return Ok(Some(Preview::create(context.to(path), chunk)?)) };
    let run = RunOptions { fp16: args.fp16, threads: context.threads, quiet: context.quiet, ..RunOptions::default() };
    let opened = Decoder::open(decoder, &run)?;
    let [_, channels, frames, rows, cols] = opened.latent();
    let fits = [channels, rows, cols] == [chunk.channels, chunk.rows, chunk.cols];
    if !fits || (matches!(opened, Decoder::Clip(..)) && frames != chunk.frames) {
        bail!(
            "`{}`: found a decoder of latents {channels}x{frames}x{rows}x{cols}, expected {}x{}x{}x{}, as `{}` makes: a part of another compile",
            decoder.display(),
            chunk.channels,
            chunk.frames,
            chunk.rows,
            chunk.cols,
            args.artifact.display()
        );
    }
    Ok(Some(Preview::decoded(context.to(path), opened, shipped.size, shipped.fps)?))
}

fn stream(args: &Args, context: Context, shipped: Option<&Shipped>) -> Result<ExitCode> {
    let clip_only = [
        (args.steps.is_some(), "--steps"),
        (args.guidance.is_some(), "--guidance"),
        (args.negative.is_some(), "--negative"),
        (args.image.is_some(), "--image"),
        (args.condition.is_some(), "--condition"),
    ];
    for (given, flag) in clip_only {
        if given {
            bail!("{flag} is for clips of a bidirectional checkpoint, but `{}` is a kernel", args.artifact.display());
        }
    }
    let start = Instant::now();
    let options = StreamOptions {
        fp16: args.fp16,
        threads: context.threads,
        quiet: context.quiet,
        ranges: false,
        ..StreamOptions::default()
    };
    let mut session = StreamSession::open(&args.artifact, &options).about("E0706")?;
    let load_seconds = start.elapsed().as_secs_f64();
    let contract = session.contract().clone();
    let recorded = args.noise.as_ref().map(|path| Noise::open(path, &contract)).transpose().about("E0708")?;
    if let Some(state) = &args.state_in {
        session.restore(state).about("E0707")?;
    }
    let noise = match recorded {
        Some(noise) => noise,
        None => Noise::Seed(seed(args, &session)?),
    };
    session.set_seed(match noise {
        Noise::Seed(seed) => Some(seed),
        Noise::Recorded(_) => None,
    });
    let first = session.chunks();
    let left = noise.chunks().map(|all| all.saturating_sub(first));
    let chunks = args.chunks.or(left).unwrap_or(1);
    if let (Some(path), Some(0), None) = (&args.noise, left, args.chunks) {
        bail!(
            "--noise: found no noise from chunk {first} on in `{}`, expected that of 1 chunk or more",
            path.display()
        );
    }
    if let (Some(path), Some(left)) = (&args.noise, left)
        && chunks > left
    {
        bail!("--chunks: found {chunks}, but from chunk {first} on `{}` has noise of {left}", path.display());
    }
    // All prompts before the first chunk: a bad file is better found early.
    let mut prompts: Vec<(u64, Prompt)> = Vec::new();
    for at in &args.prompt_at {
        if at.chunk < first || at.chunk >= first + chunks {
            let last = (first + chunks).saturating_sub(1);
            bail!("--prompt-at: found chunk {}, expected one of this run: {first} to {last}", at.chunk);
        }
        prompts.push((at.chunk, read_prompt(&at.file, &contract).about("E0708")?));
    }
    let clock = Instant::now();
    match (&args.prompt, args.prompt_seed) {
        (Some(path), _) => session.set_prompt(read_prompt(path, &contract).about("E0708")?).about("E0708")?,
        (None, Some(seed)) => session.set_prompt(trial_prompt(seed, &contract))?,
        (None, None) if session.has_prompt() || prompts.iter().any(|(chunk, _)| *chunk == first) => {}
        (None, None) => refuse!("no prompt: name one with --prompt (or --prompt-seed N for a trial)"),
    }
    let prompt_seconds = clock.elapsed().as_secs_f64();

    let mut latents =
        args.output.as_deref().map(|p| LatentsFile::create(context.to(p), chunks, contract.chunk)).transpose()?;
    let mut preview = preview_of(args, context, shipped, contract.chunk)?;
    let is_decoded = matches!(preview, Some(Preview::Decoded(_)));
    if let Some(path) = &args.state_out {
        // Found now, not after an hour.
        drop(Staged::file(context.to(path), &made::safetensors)?);
    }
    let progress = Progress::calls("chunks", context.quiet);
    let frames = contract.chunk.frames as u64;
    let clock = Instant::now();
    let rate = |chunks: u64| (chunks * frames) as f64 / clock.elapsed().as_secs_f64().max(1e-9);
    let mut chunk_seconds = Vec::new();
    for i in 0..chunks {
        let index = first + i;
        if let Some((_, prompt)) = prompts.iter().rev().find(|(chunk, _)| *chunk == index) {
            session.set_prompt(prompt.clone())?;
        }
        let begun = Instant::now();
        let made = session.next_chunk_with(&noise.chunk(index, &contract).about("E0708")?, |done, calls| {
            let all = chunks * calls as u64;
            progress.say(i * calls as u64 + done as u64, all, || {
                format!("chunk {}/{chunks} {} {:.1} latent frames/s", i + 1, place(done, calls), rate(i))
            });
        });
        let made = made.with_context(|| format!("`{}`", args.artifact.display()))?;
        chunk_seconds.push(begun.elapsed().as_secs_f64());
        if let Some(file) = &mut latents {
            file.push(&made)?;
        }
        if let Some(preview) = &mut preview {
            preview.push(&made)?;
        }
        if let (Some(every), Some(path)) = (args.save_every, &args.state_out)
            && (i + 1).is_multiple_of(every)
        {
            session.save(context.to(path))?;
        }
    }
    let frames_per_second = rate(chunks);
    drop(progress);
    if let Some(file) = latents {
        file.finish()?;
    }
    if let Some(preview) = preview {
        preview.finish()?;
    }
    if let Some(path) = &args.state_out {
        session.save(context.to(path))?;
    }
    let summary = Summary {
        artifact: args.artifact.clone(),
        kernel: contract.summary(),
        seed: session.seed(),
        first_chunk: first,
        chunks,
        frames: chunks * frames,
        load_seconds,
        prompt_seconds,
        chunk_seconds,
        frames_per_second,
        output: args.output.clone(),
        preview: args.preview.clone(),
        is_decoded,
        state: args.state_out.clone(),
    };
    if args.json {
        print_json(&summary)?;
    } else if !context.quiet {
        print_line(&text(&summary))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Where in a chunk the work is after `done` of its `calls`. The last call is no step of the sampler: it commits the chunk to the
/// states.
fn place(done: usize, calls: usize) -> String {
    let steps = calls.saturating_sub(1);
    if done <= steps { format!("step {done}/{steps}") } else { "committed".into() }
}

/// The seed of a stream's noise: a stream that goes on keeps the one it has.
fn seed(args: &Args, session: &StreamSession) -> Result<u64> {
    match (args.seed, session.seed(), &args.state_in) {
        (Some(asked), Some(made), Some(state)) if asked != made => bail!(
            "--seed: found {asked}, expected {made}, the seed that `{}` was made with; without --seed the stream goes on with it",
            state.display()
        ),
        (None, None, Some(state)) => bail!(
            "`{}` was made with recorded noise, so there is no seed to go on with: name one with --seed, or noise with --noise",
            state.display()
        ),
        (asked, made, _) => Ok(asked.or(made).unwrap_or_default()),
    }
}

fn text(s: &Summary) -> String {
    let mut out = format!(
        "{}: {}; {} chunk(s) from chunk {}, {} latent frames, {:.1} a second",
        s.artifact.display(),
        s.kernel,
        s.chunks,
        s.first_chunk,
        s.frames,
        s.frames_per_second
    );
    for (what, path) in [("latents", &s.output), ("preview", &s.preview), ("state", &s.state)] {
        if let Some(path) = path {
            out += &format!("\n  {what:<8} {}", path.display());
        }
    }
    if s.preview.is_some() && !s.is_decoded {
        out += PREVIEWED;
    }
    out
}

/// What a preview is not.
const PREVIEWED: &str =
    "\n  (the preview shows latents as colours, not decoded video; with random weights it is static)";

/// A bidirectional checkpoint's clip.
#[derive(Serialize)]
struct ClipSummary {
    artifact: PathBuf,
    steps: usize,
    /// Of two transformers the steps that each makes.
    #[serde(skip_serializing_if = "Option::is_none")]
    shares: Option<Vec<(String, usize)>>,
    guidance: Option<f64>,
    /// That of the second of two transformers, if it has one of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    second_guidance: Option<f64>,
    latent: Vec<usize>,
    seconds: f64,
    output: Option<PathBuf>,
    preview: Option<PathBuf>,
    /// Whether the preview is decoded video, and not latents as colours.
    is_decoded: bool,
}

fn clip(args: &Args, context: Context, shipped: Option<&Shipped>) -> Result<ExitCode> {
    let path: &Path = &args.artifact;
    let stream_only = [
        (args.chunks.is_some(), "--chunks"),
        (args.state_in.is_some(), "--state-in"),
        (args.state_out.is_some(), "--state-out"),
        (!args.prompt_at.is_empty(), "--prompt-at"),
    ];
    if let Some((_, flag)) = stream_only.into_iter().find(|(given, _)| *given) {
        bail!("{flag} is for streams, but `{}` makes a whole clip: compile with --mode stream", path.display());
    }
    let Guidance(guidance, second) = args.guidance.unwrap_or(Guidance(5.0, None));
    let run = RunOptions { fp16: args.fp16, threads: context.threads, quiet: context.quiet, ..RunOptions::default() };
    let mut clip = Clip::open(path, &run)?;
    match (clip.takes_guidance(), &args.negative) {
        (true, Some(negative)) => bail!(
            "--negative `{}`: `{}` takes the strength of guidance as an input: give --guidance G alone",
            negative.display(),
            path.display()
        ),
        (false, None) if args.guidance.is_some() => bail!(
            "--guidance: `{}` takes no strength of guidance: give the prompt to go away from with --negative FILE",
            path.display()
        ),
        _ => {}
    }
    let steps = args.steps.map_or(clip.steps(), usize::from);
    let shares = clip.shares(steps);
    if second.is_some() && (shares.is_none() || clip.takes_guidance()) {
        refuse!("--guidance G,G2 is for two transformers: `{}` has one strength of guidance", path.display());
    }
    let prompt = match (&args.prompt, args.prompt_seed) {
        (Some(path), _) => clip.read_prompt(path)?,
        (None, Some(seed)) => clip.seeded_prompt(seed),
        (None, None) => refuse!("no prompt: name one with --prompt (or --prompt-seed N for a trial)"),
    };
    let negative = args.negative.as_deref().map(|p| clip.read_prompt(p)).transpose()?;
    let negative = negative.map(|prompt| (prompt, [guidance, second.unwrap_or(guidance)]));
    let [image, condition] = clip.read(args.image.as_deref(), args.condition.as_deref(), args.prompt_seed)?;
    let strength = clip.takes_guidance().then_some(guidance);
    let given = Given { prompt, negative, guidance: strength, image, condition };
    let noise = match &args.noise {
        Some(path) => clip.read_noise(path)?,
        None => clip.seeded_noise(args.seed.unwrap_or_default()),
    };
    let [channels, frames, rows, cols] = clip.latent();
    let chunk = contract::Chunk { channels, frames, rows, cols };
    let mut preview = preview_of(args, context, shipped, chunk)?;
    let is_decoded = matches!(preview, Some(Preview::Decoded(_)));
    let progress = Progress::calls("steps", context.quiet);
    let start = Instant::now();
    let made = clip.sample(&noise, steps, &given, |done| {
        progress.say(done as u64, steps as u64, || format!("step {done}/{steps}"));
    });
    let made = made.with_context(|| format!("`{}`", path.display()))?;
    let seconds = start.elapsed().as_secs_f64();
    drop(progress);
    if let Some(path) = &args.output {
        Clip::save(context.to(path), &made)?;
    }
    if let Some(mut preview) = preview.take() {
        preview.push(&made)?;
        preview.finish()?;
    }
    let summary = ClipSummary {
        artifact: path.into(),
        steps,
        shares,
        guidance: given.negative.map(|(_, g)| g[0]).or(strength),
        second_guidance: second,
        latent: made.shape,
        seconds,
        output: args.output.clone(),
        preview: args.preview.clone(),
        is_decoded,
    };
    if args.json {
        print_json(&summary)?;
    } else if !context.quiet {
        let mut guidance = summary.guidance.map_or("no guidance".into(), |g| format!("guidance {g}"));
        if let Some(second) = summary.second_guidance {
            guidance += &format!(" and {second}");
        }
        let shares = summary.shares.iter().flatten().map(|(name, steps)| format!("{steps} of {name}"));
        let shares = shares.collect::<Vec<_>>().join(", ");
        let shares = if shares.is_empty() { String::new() } else { format!(" ({shares})") };
        let previewed = if summary.preview.is_some() && !summary.is_decoded { PREVIEWED } else { "" };
        let files = [("clip", &summary.output), ("preview", &summary.preview)];
        let mut written: String = (files.into_iter())
            .filter_map(|(what, path)| Some(format!("\n  {what}: {}", path.as_ref()?.display())))
            .collect();
        if written.is_empty() {
            written = "\n  nothing was written: name a file with -o or --preview".into();
        }
        print_line(&format!(
            "{}: a clip {:?} in {steps} Euler steps{shares}, {guidance}, {seconds:.1} s{written}{previewed}",
            path.display(),
            summary.latent
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn four_steps_are_not_five() {
        let places: Vec<String> = (1..=5).map(|done| place(done, 5)).collect();
        assert_eq!(places, ["step 1/4", "step 2/4", "step 3/4", "step 4/4", "committed"]);
    }
}
