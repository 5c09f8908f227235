//! The proof of a decoder's folder: chunk by chunk against a golden, or against the whole clip that the checkpoint's fp32 graph makes.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use s2dit_files::SafetensorsFile;
use s2dit_passes::emulate::Arithmetic;
use s2dit_runtime::compare::compare;
use s2dit_runtime::decode::contract::{Contract, Precision, StatesPolicy, Target};
use s2dit_runtime::{DecodeSession, DecoderFolder, HostTensor, RunOptions, StreamOptions, run_function};

use super::{LATENT, VIDEO, first_frames, frames_of};
use crate::made_from::{self, Said, loras};
use crate::stream::finite;
use crate::stream::verify::{ComparedChunk, Options, StreamVerifyReport, trend};
use crate::verify::{Claim, Model, Reference, Verdict, quantized, reaches};
use s2dit_emit::plan::{How, Quantize, bar};
use s2dit_emit::{Compute, Layout, Opset, TimestepChoice, lower_graph};
use s2dit_models::checkpoint::Checkpoint;
use s2dit_models::size::LatentSize;

/// Chunks compared with a checkpoint: the reference is one clip of all of them.
const CHUNKS: u64 = 4;
/// Bars in dB when none is asked for.
const FP32_BAR: f64 = 100.0;
const FP16_BAR: f64 = 45.0;

/// Decodes with the folder of a decoder and compares every chunk of frames. `progress` gets the chunks done and all chunks.
///
/// # Errors
/// Files that cannot be opened or do not fit each other; a failing engine; a result that is not finite. A chunk below the bar is
/// not an error: see [`StreamVerifyReport::passed`].
pub fn verify(
    dir: &Path,
    reference: &Reference,
    options: &Options,
    mut progress: impl FnMut(u64, u64),
) -> Result<StreamVerifyReport> {
    let folder = DecoderFolder::open(dir)?;
    let contract = folder.contract().clone();
    if options.fp16 && contract.precision != Precision::Fp16 {
        bail!("`{}`: an fp32 decoder: --fp16 would round nothing; leave it out", dir.display());
    }
    let metadata = folder.metadata(&contract.functions.first.file);
    let (latents, video) = match reference {
        Reference::Golden { file, .. } => golden(file, &contract)?,
        Reference::Checkpoint { model, seed } => {
            let chunks = options.chunks.unwrap_or(CHUNKS);
            of_checkpoint(dir, &contract, &metadata, model, *seed, chunks, options)?
        }
    };
    let usual = if contract.precision == Precision::Fp32 { FP32_BAR } else { FP16_BAR };
    let bar = bar(&metadata, options.min_snr, usual);
    let run = StreamOptions {
        fp16: options.fp16,
        engine: options.engine,
        threads: options.threads,
        quiet: options.quiet,
        ranges: false,
    };
    let mut session = DecodeSession::open(dir, &run)?;
    let (count, total) = (contract.chunk.frames, latents.shape[2]);
    let chunks = total.div_ceil(count) as u64;
    let (mut rows, mut frame) = (Vec::new(), 0);
    progress(0, chunks);
    for chunk in 0..chunks {
        let made = session.decode(&frames_of(&latents, chunk as usize * count, count))?;
        let keep = made.shape[2].min(video.shape[2] - frame);
        let expected = frames_of(&video, frame, keep);
        let metrics = compare(&first_frames(made, keep).data, &expected.data);
        rows.push(ComparedChunk { chunk, passed: reaches(&metrics, bar), metrics });
        frame += keep;
        progress(chunk + 1, chunks);
    }
    ensure!(frame == video.shape[2], "the decoder made {frame} frames, expected {}", video.shape[2]);
    let claim = Claim {
        against: reference.against(),
        quantized: quantized(&metadata),
        ours: true,
        bar,
        asked: options.min_snr.is_some(),
        usual,
        stored_alike: false,
    };
    let verdict = claim.verdict(rows.iter().all(|row| row.passed));
    let snr: Vec<f64> = rows.iter().map(|row| row.metrics.snr_db).collect();
    let states = if contract.states_policy == StatesPolicy::Io { "states io" } else { "states native" };
    Ok(StreamVerifyReport {
        artifact: dir.display().to_string(),
        reference: match reference {
            Reference::Golden { file, .. } => file.display().to_string(),
            Reference::Checkpoint { model, seed } => {
                format!("{} (fp32, a whole clip, latents of seed {seed})", model.origin)
            }
        },
        kernel: format!("{}, {}, {states}, {count} latent frame(s) a chunk", contract.target, contract.precision),
        arithmetic: match (contract.precision, contract.target, options.fp16) {
            (Precision::Fp32, ..) => "fp32",
            (Precision::Fp16Weights, ..) => "fp32 arithmetic on fp16 weights",
            (_, Target::CoreMl, true) => "every result rounded to fp16",
            (_, Target::CoreMl, false) => "fp32 arithmetic on fp16 weights and states",
            (_, Target::Onnx | Target::CoreAi, _) => "fp16 with fp32 islands",
        },
        min_snr_db: bar,
        trend_db: trend(&snr),
        first_chunk_below: rows.iter().find(|row| !row.passed).map(|row| row.chunk),
        proves: claim.sentence(),
        verdict,
        passed: verdict == Verdict::Passed,
        checks: Vec::new(),
        rows,
    })
}

/// A golden's latent and video.
fn golden(path: &Path, contract: &Contract) -> Result<(HostTensor, HostTensor)> {
    let file = SafetensorsFile::open(path)?;
    let shown = path.display();
    let read = |name: &str| -> Result<HostTensor> {
        let shape = file.get(name).map(|info| info.ty.shape.clone());
        let shape = shape.filter(|shape| shape.len() == 5 && !shape.contains(&0));
        let Some(shape) = shape else { bail!("`{shown}`: no tensor `{name}` [1, …] of five axes") };
        HostTensor::new(shape, finite(&file, name)?).context("a tensor that does not fill its shape")
    };
    let (latent, video) = (read(LATENT)?, read(VIDEO)?);
    let [_, channels, _, rows, cols] = contract.chunk.shape();
    let found = [latent.shape[1], latent.shape[3], latent.shape[4]];
    if found != [channels, rows, cols] {
        bail!("`{shown}`, tensor `{LATENT}`: found {:?}, expected [1, {channels}, F, {rows}, {cols}]", latent.shape);
    }
    let pixels = [video.shape[3], video.shape[4]];
    if pixels != [contract.video.rows, contract.video.cols] {
        let [height, width] = [contract.video.rows, contract.video.cols];
        bail!("`{shown}`, tensor `{VIDEO}`: found {:?}, expected [1, 3, T, {height}, {width}]", video.shape);
    }
    Ok((latent, video))
}

/// Seeded latents, and the video that the fp32 graph of a whole clip makes of them.
fn of_checkpoint(
    dir: &Path,
    contract: &Contract,
    metadata: &BTreeMap<String, String>,
    model: &Model,
    seed: u64,
    chunks: u64,
    options: &Options,
) -> Result<(HostTensor, HostTensor)> {
    let checkpoint = Checkpoint::open_from(&model.origin)?;
    let said = Said { hash: Some(&contract.checkpoint), config: Some(&contract.config), loras: loras(metadata) };
    made_from::check(dir, said, &checkpoint)?;
    let how: Option<&How> = model.quantize.as_ref();
    if how.is_some() {
        bail!("--quantize: a decoder's folder is compared with the checkpoint as it is; leave it out");
    }
    let quantize: Option<Quantize> = None;
    let [_, channels, frames, rows, cols] = contract.chunk.shape();
    let frames = usize::try_from(chunks).ok().and_then(|chunks| chunks.checked_mul(frames)).context("--chunks")?;
    let latent = LatentSize { frames, rows, cols };
    let job = s2dit_emit::Options {
        target: Target::Onnx,
        precision: Precision::Fp32,
        opset: Opset::V21,
        layout: Layout { compute: Compute::Any, ..Layout::default() },
        size: latent.into(),
        timesteps: TimestepChoice::Any,
        quantize,
        partition: None,
    };
    let module = lower_graph(checkpoint.model(), &checkpoint, &job, &mut |_, _| {})?;
    let function = module.functions.first().context("a module without a function")?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let shape = vec![1, channels, frames, rows, cols];
    let data = (0..shape.iter().product()).map(|_| rng.sample(StandardNormal)).collect();
    let latents = HostTensor { shape, data };
    let run = RunOptions { threads: options.threads, quiet: options.quiet, ..RunOptions::default() };
    let inputs = BTreeMap::from([(contract.latent().to_owned(), latents.clone())]);
    let mut made = run_function(function, &checkpoint, Arithmetic::AsTyped, &inputs, &run).context("the reference")?;
    let video = made.remove(contract.output()).context("a reference without a video")?;
    Ok((latents, video))
}
