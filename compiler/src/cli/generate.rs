//! `s2ditc generate`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Result;
use s2dit_files::problems::{Problem, quoted};
use s2dit_proof::generate::{MOST_STEPS, Recorded, Report, Request, generate};
use s2dit_runtime::RunOptions;
use s2dit_runtime::pipeline::{Part, Pipeline};
use s2dit_runtime::stream::state::MOST_CHUNKS;

use super::places::Places;
use super::progress::Progress;
use super::usage::{Guidance, fps, refuse, video};
use super::{Context, print_json, print_line, print_note};
use crate::errors::About as _;

/// Make a video from a prompt with the folder of a compiled pipeline
#[derive(clap::Args)]
#[command(after_help = "Examples:
  s2ditc compile wan/ --target coreml --size 512x288 --frames 33 -o wan.pipeline
  s2ditc generate wan.pipeline --prompt \"a red fox runs through snow\" -o fox.mp4
  s2ditc generate wan.pipeline --prompt \"a fox\" --negative \"blurred\" --guidance 4 --steps 20 --seed 3 -o fox.webp
  s2ditc generate stream.pipeline --prompt \"a calm sea\" --prompt-at 6=\"a storm\" --chunks 12 -o sea.mp4

The files that ship are run as they lie in the folder, with ONNX Runtime. The text encoder, the transformer and the decoder are in memory one after the other; a \
pipeline that streams decodes each chunk before the next one is made. The same seed makes the same frames.")]
pub(super) struct Args {
    /// The folder of a compiled pipeline
    pub(super) pipeline: PathBuf,
    /// What the video shows
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// What it does not show, for a clip with guidance [default: the pipeline's]
    #[arg(long, value_name = "TEXT")]
    negative: Option<String>,
    /// From this chunk of a stream on another prompt; may be repeated
    #[arg(long, value_name = "CHUNK=TEXT")]
    prompt_at: Vec<PromptAt>,
    /// Seed of the noise
    #[arg(long, value_name = "N", default_value = "0")]
    seed: u64,
    /// Recorded noise instead: a safetensors file with noise [1,C,F,H,W], or stream.noise [chunks,steps,1,C,F,H,W] of a stream
    #[arg(long, value_name = "FILE", conflicts_with = "seed")]
    noise: Option<PathBuf>,
    /// Chunks of a stream [default: five seconds, or all of --noise]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MOST_CHUNKS))]
    chunks: Option<u64>,
    /// Steps of a clip [default: the pipeline's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MOST_STEPS as i64))]
    steps: Option<u16>,
    /// Guidance of a clip: v = v_neg + G·(v_pos − v_neg), of two transformers G,G2; 1 or less is none [default: the pipeline's]
    #[arg(long, value_name = "G[,G2]", allow_hyphen_values = true)]
    guidance: Option<Guidance>,
    /// Frames a second [default: the pipeline's]
    #[arg(long, value_name = "N", value_parser = fps)]
    fps: Option<f64>,
    /// Video to write: .mp4, .webp, .gif, a folder of PNGs (a name without an ending), or .safetensors for its numbers
    #[arg(short, long, value_name = "FILE", value_parser = video)]
    output: PathBuf,
    /// Round the result of every fp16 op to fp16, as the Neural Engine stores it (packages only)
    #[arg(long)]
    fp16: bool,
    /// Print the report as JSON: what was made, and the time of each stage
    #[arg(long)]
    json: bool,
}

/// `CHUNK=TEXT`
#[derive(Clone)]
struct PromptAt(u64, String);

impl FromStr for PromptAt {
    type Err = Problem;
    fn from_str(text: &str) -> Result<Self, Problem> {
        let parts = text.split_once('=').and_then(|(chunk, prompt)| Some((chunk.parse().ok()?, prompt)));
        match parts {
            Some((chunk, prompt)) if !prompt.is_empty() => Ok(PromptAt(chunk, prompt.into())),
            _ => Err(Problem {
                place: "prompt".into(),
                found: quoted(text),
                expected: "CHUNK=TEXT, such as 8=\"a storm\"".into(),
            }),
        }
    }
}

pub(super) fn run(args: &Args, context: Context) -> Result<ExitCode> {
    for (i, PromptAt(chunk, _)) in args.prompt_at.iter().enumerate() {
        if args.prompt_at[..i].iter().any(|PromptAt(other, _)| other == chunk) {
            refuse!("--prompt-at: found two prompts for chunk {chunk}; expected one");
        }
    }
    Places::default()
        .input("PIPELINE", [&args.pipeline])
        .input("--noise", &args.noise)
        .output("-o", [&args.output])
        .check()?;
    let pipeline = Pipeline::open(&args.pipeline).about("E0709")?;
    let request = Request {
        prompt: args.prompt.clone(),
        negative: args.negative.clone(),
        prompt_at: args.prompt_at.iter().map(|PromptAt(chunk, prompt)| (*chunk, prompt.clone())).collect(),
        seed: args.seed,
        noise: args.noise.clone().map(Recorded::File),
        chunks: args.chunks,
        steps: args.steps.map(usize::from),
        guidance: args.guidance.map(|Guidance(first, second)| (first, second)),
        fps: args.fps,
    };
    let options =
        RunOptions { fp16: args.fp16, threads: context.threads, quiet: context.quiet, ..RunOptions::default() };
    let mut now: Option<(Part, Progress)> = None;
    let mut watch = |part: Part, done: u64, total: u64| {
        let name = part.name().replace('_', " ");
        if now.as_ref().is_none_or(|(before, _)| *before != part) {
            now = Some((part, Progress::calls(&name, context.quiet)));
        }
        if let Some((_, progress)) = &now {
            let what = if done == 0 { "loading".to_owned() } else { format!("{done}/{total}") };
            progress.say(done, total, || format!("{name}: {what}"));
        }
    };
    let report = generate(&pipeline, &request, context.to(&args.output), &options, &mut watch).about("E0708")?;
    drop(now);
    if args.json {
        print_json(&report)?;
    } else if !context.quiet {
        report.notes.iter().for_each(|note| print_note(&format!("note: {note}")));
        print_line(&text(&args.output, &report))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(output: &Path, r: &Report) -> String {
    let mut out = format!("{}: {} frames of {}x{}, {} a second", output.display(), r.frames, r.cols, r.rows, r.fps);
    let steps = if r.steps == 1 { "1 step".to_owned() } else { format!("{} steps", r.steps) };
    let steps = match r.chunks {
        Some(1) => format!("1 chunk of {steps}"),
        Some(chunks) => format!("{chunks} chunks of {steps}"),
        None => steps,
    };
    let shares = r.shares.iter().flatten().map(|(name, steps)| format!("{steps} of {name}")).collect::<Vec<_>>();
    let shares = if shares.is_empty() { String::new() } else { format!(" ({})", shares.join(", ")) };
    let guidance = match r.guidance[..] {
        [] => ", no guidance".to_owned(),
        [one] => format!(", guidance {one}"),
        _ => format!(", guidance {}", r.guidance.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")),
    };
    let seed = r.seed.map_or(", recorded noise".to_owned(), |seed| format!(", seed {seed}"));
    out += &format!("\n  {}: {steps}{shares}{guidance}{seed}", r.class);
    for stage in &r.stages {
        let name = stage.part.replace('_', " ");
        out += &format!(
            "\n  {name:<12} {:>7.1} s, {} {}, loaded in {:.1} s",
            stage.seconds,
            stage.calls,
            if stage.calls == 1 { "call" } else { "calls" },
            stage.load_seconds
        );
    }
    out
}
