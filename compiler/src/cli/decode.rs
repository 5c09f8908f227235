//! `s2ditc decode`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use s2dit_proof::decode::{Decoder, Latents, VideoOutput};
use s2dit_runtime::RunOptions;
use serde::Serialize;

use super::places::Places;
use super::progress::Progress;
use super::usage::{fps, latents, video};
use super::{Context, print_json, print_line};
use crate::errors::About as _;

/// Make a video of latents with a decoder: a whole clip, or chunk by chunk
#[derive(clap::Args)]
#[command(after_help = "Examples:
  s2ditc compile wan/vae --target coreml --mode stream --latent 36x64 --chunk 3 -o decoder
  s2ditc decode decoder --latents latents.safetensors -o video.mp4
  s2ditc compile wan/vae --target onnx --latent 5x36x64 -o decoder.onnx
  s2ditc decode decoder.onnx --latents latents.safetensors -o video.safetensors

Latents are a safetensors file with latent [1,C,F,H,W] or stream.latents [chunks,1,C,F,H,W], as s2ditc stream writes them. A decoder that was compiled \
with --mode stream takes any number of latent frames, in the memory of a chunk. As safetensors the video is written as video [1,3,T,H,W], from -1 to 1.")]
pub(super) struct Args {
    /// The folder of a decoder that streams; or an .onnx file or .mlpackage that decodes a whole clip
    pub(super) artifact: PathBuf,
    /// Latents: a safetensors file
    #[arg(long, value_name = "FILE", value_parser = latents)]
    latents: PathBuf,
    /// Video to write: .mp4, .webp, .gif, a folder of PNGs (a name without an ending), or .safetensors for its numbers
    #[arg(short, long, value_name = "FILE", value_parser = video)]
    output: PathBuf,
    /// Frames a second
    #[arg(long, value_name = "N", default_value = "16", value_parser = fps)]
    fps: f64,
    /// Round the result of every fp16 op to fp16, as the Neural Engine stores it (packages only)
    #[arg(long)]
    fp16: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// The summary of what was made.
#[derive(Serialize)]
struct Summary {
    artifact: PathBuf,
    output: PathBuf,
    latent_frames: usize,
    /// The video: 1, colours, frames, rows, columns.
    video: [usize; 5],
    seconds: f64,
}

pub(super) fn run(args: &Args, context: Context) -> Result<ExitCode> {
    let start = Instant::now();
    Places::default()
        .input("ARTIFACT", [&args.artifact])
        .input("--latents", [&args.latents])
        .output("-o", [&args.output])
        .check()?;
    let latents = Latents::read(&args.latents).about("E0708")?;
    let options =
        RunOptions { fp16: args.fp16, threads: context.threads, quiet: context.quiet, ..RunOptions::default() };
    let mut decoder = Decoder::open(&args.artifact, &options).about("E0706")?;
    latents.check(decoder.latent()).about("E0708")?;
    let frames = decoder.frames(&latents).about("E0708")?;
    let mut shape = None;
    let mut file = None;
    {
        let progress = Progress::calls("latent frames", context.quiet);
        let total = latents.frames() as u64;
        decoder.decode(&latents, |video, done| {
            let [one, colours, made, rows, cols] = video.shape[..] else { bail!("a video of another rank than 5") };
            if file.is_none() {
                let all = [one, colours, frames.unwrap_or(made), rows, cols];
                shape = Some(all);
                file = Some(VideoOutput::create(context.to(&args.output), all, args.fps)?);
            }
            progress.say(done as u64, total, || format!("latent frame {done} of {total}"));
            file.as_mut().context("no file")?.push(video)
        })?;
    }
    let video = shape.context("no frames")?;
    file.context("no frames")?.finish()?;
    let summary = Summary {
        artifact: args.artifact.clone(),
        output: args.output.clone(),
        latent_frames: latents.frames(),
        video,
        seconds: start.elapsed().as_secs_f64(),
    };
    if args.json {
        print_json(&summary)?;
    } else if !context.quiet {
        let [_, _, made, rows, cols] = video;
        print_line(&format!(
            "{}: {made} frames of {cols}x{rows} of {} latent frames, {:.1} s",
            args.output.display(),
            summary.latent_frames,
            summary.seconds
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
