//! The proof of a kernel folder: a stream of calls against a recorded stream, or against the checkpoint's fp32 kernel.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use s2dit_backends::output::Staged;
use s2dit_runtime::compare::{Metrics, compare};
use s2dit_runtime::stream::contract::{Contract, Precision, Target};
use s2dit_runtime::{Artifact, HostTensor, StreamOptions, StreamSession};
use serde::Serialize;

use super::{LATENTS, Noise, Recording, plot, prompt_of, seeded_prompt};
use crate::made_from;
use crate::verify::Reference;
use s2dit_emit::plan::bar;
use s2dit_emit::stream as kernel;
use s2dit_files::SafetensorsFile;
use s2dit_models::checkpoint::Checkpoint;

/// A verification job.
#[derive(Clone, Debug)]
pub struct Options {
    /// Lowest SNR in dB that every chunk must reach; `None` for what the kernel's precision should reach.
    pub min_snr: Option<f64>,
    /// Round the result of every fp16 op of a package to fp16.
    pub fp16: bool,
    /// Chunks to compare; `None` for all of a golden, or [`CHUNKS`].
    pub chunks: Option<u64>,
    /// Where to draw SNR against chunk.
    pub plot: Option<PathBuf>,
    /// Threads.
    pub threads: usize,
    /// No notes on standard error.
    pub quiet: bool,
}

/// Chunks compared with a checkpoint.
pub const CHUNKS: u64 = 16;
/// Bars in dB when none is asked for.
const FP32_BAR: f64 = 100.0;
const FP16_BAR: f64 = 45.0;

/// One compared chunk.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its index in the stream.
    pub chunk: u64,
    /// How far it is from the reference.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// Whether it passes.
    pub passed: bool,
}

/// The result of a verification.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The kernel folder.
    pub artifact: String,
    /// The reference.
    pub reference: String,
    /// Precision and policies of the kernel.
    pub kernel: String,
    /// How it was computed.
    pub arithmetic: &'static str,
    /// The bar, in dB.
    pub min_snr_db: f64,
    /// A row a chunk.
    pub rows: Vec<Row>,
    /// Mean SNR of the last third of the chunks less that of the first third, in dB: below 0 the stream drifts.
    pub trend_db: f64,
    /// The first chunk below the bar.
    pub first_chunk_below: Option<u64>,
    /// Whether every chunk passes.
    pub passed: bool,
}

/// Where the true chunks come from.
enum Truth {
    Recorded(Vec<f32>),
    Session(Box<StreamSession>),
}

/// Streams with a kernel and compares every chunk. `progress` gets chunks done and chunks in all.
///
/// # Errors
/// Files that cannot be opened or do not fit each other; a failing engine; a result that is not finite. A chunk below the bar is
/// not an error: see [`Report::passed`].
pub fn verify(
    dir: &Path,
    reference: &Reference,
    options: &Options,
    mut progress: impl FnMut(u64, u64),
) -> Result<Report> {
    let run = StreamOptions { fp16: options.fp16, threads: options.threads, quiet: options.quiet, ranges: false };
    let contract = Contract::read(dir)?;
    if options.fp16 && contract.precision == Precision::Fp32 {
        bail!("`{}`: an fp32 kernel: --fp16 would round nothing; leave it out", dir.display());
    }
    let (noise, text, mut truth, chunks) = match reference {
        Reference::Golden(path) => {
            let file = SafetensorsFile::open(path)?;
            let noise = Recording::read(&file, &contract)?;
            let text = prompt_of(&file, contract.text.shape())?;
            let expected = latents(&file, &contract, noise.chunks())?;
            let chunks = noise.chunks();
            if let Some(asked) = options.chunks.filter(|n| *n > chunks) {
                bail!("--chunks: found {asked}, but `{}` has {chunks}", path.display());
            }
            (Noise::Recorded(noise), text, Truth::Recorded(expected), options.chunks.unwrap_or(chunks))
        }
        Reference::Checkpoint { dir: checkpoint, seed, quantize } => {
            if quantize.is_some() {
                bail!(
                    "--quantize is for clips: a kernel is compared with the uncompressed kernel; name the lowest SNR with --min-snr"
                );
            }
            let session = reference_session(dir, &contract, checkpoint, &run)?;
            let text = seeded_prompt(*seed, contract.text.shape());
            (Noise::Seed(*seed), text, Truth::Session(Box::new(session)), options.chunks.unwrap_or(CHUNKS))
        }
    };
    let mut stream = StreamSession::open(dir, &run)?;
    stream.set_prompt(text.clone())?;
    if let Truth::Session(session) = &mut truth {
        session.set_prompt(text)?;
    }
    let usual = match contract.precision {
        Precision::Fp32 => FP32_BAR,
        Precision::Fp16 => FP16_BAR,
    };
    let metadata = Artifact::open(&dir.join(&contract.functions.denoise.file))?.metadata();
    let bar = bar(&metadata, options.min_snr, usual).with_context(|| format!("`{}`", dir.display()))?;
    let elements: usize = contract.chunk.shape().iter().product();
    let mut rows = Vec::new();
    for chunk in 0..chunks {
        let noise = noise.chunk(chunk, &contract)?;
        let got = stream.next_chunk(&noise)?;
        let made: HostTensor;
        let want: &[f32] = match &mut truth {
            Truth::Recorded(all) => &all[chunk as usize * elements..][..elements],
            Truth::Session(session) => {
                made = session.next_chunk(&noise).context("the reference")?;
                &made.data
            }
        };
        let metrics = compare(&got.data, want);
        let passed = metrics.snr_db >= bar && metrics.non_finite == 0 && metrics.reference_non_finite == 0;
        rows.push(Row { chunk, metrics, passed });
        progress(chunk + 1, chunks);
    }
    let snr: Vec<f64> = rows.iter().map(|r| r.metrics.snr_db).collect();
    let report = Report {
        artifact: dir.display().to_string(),
        reference: match reference {
            Reference::Golden(path) => path.display().to_string(),
            Reference::Checkpoint { dir, seed, .. } => format!("{} (fp32 kernel, noise of seed {seed})", dir.display()),
        },
        kernel: contract.summary(),
        arithmetic: match (contract.precision, contract.target, options.fp16) {
            (Precision::Fp32, ..) => "fp32",
            (_, Target::CoreMl, true) => "every result rounded to fp16",
            (_, Target::CoreMl, false) => "fp32 arithmetic on fp16 weights and states",
            (_, Target::Onnx, _) => "fp16 with fp32 islands",
        },
        min_snr_db: bar,
        trend_db: trend(&snr),
        first_chunk_below: rows.iter().find(|r| !r.passed).map(|r| r.chunk),
        passed: rows.iter().all(|r| r.passed),
        rows,
    };
    if let Some(path) = &options.plot {
        let title = format!("{}: SNR against {}", report.artifact, report.reference);
        let staged = Staged::file(path)?;
        std::fs::write(staged.path(), plot::svg(&title, &snr, bar))
            .with_context(|| format!("cannot write `{}`", path.display()))?;
        staged.commit()?;
    }
    Ok(report)
}

/// The golden's chunks, one after the other.
fn latents(file: &SafetensorsFile, contract: &Contract, chunks: u64) -> Result<Vec<f32>> {
    let shown = file.path().display();
    let mut expected = vec![chunks as usize];
    expected.extend(contract.chunk.shape());
    let Some(info) = file.get(LATENTS) else { bail!("`{shown}`: no tensor `{LATENTS}` {expected:?}") };
    if info.ty.shape != expected {
        bail!("`{shown}`, tensor `{LATENTS}`: found {:?}, expected {expected:?}", info.ty.shape);
    }
    Ok(file.tensor_f32(LATENTS)?)
}

/// The fp32 kernel of a checkpoint, from the graph and the mapped weights.
fn reference_session(
    kernel_dir: &Path,
    contract: &Contract,
    checkpoint: &Path,
    run: &StreamOptions,
) -> Result<StreamSession> {
    let checkpoint = Checkpoint::open(checkpoint)?;
    let hash = format!("blake3:{}", checkpoint.content_hash().to_hex());
    made_from::check(kernel_dir, Some(&contract.checkpoint), Some(&contract.config), &checkpoint)?;
    let options = kernel::Options::reference(contract.chunk.rows, contract.chunk.cols);
    let (module, contract) =
        kernel::lower(&checkpoint, &options, &mut |_, _| {})?.with_contract(&checkpoint, &options, hash)?;
    StreamSession::in_memory(contract, &module, &checkpoint, run).context("cannot run the reference kernel")
}

/// Mean of the last third less mean of the first third.
fn trend(snr: &[f64]) -> f64 {
    let third = snr.len().div_ceil(3);
    if third == 0 {
        return 0.0;
    }
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    mean(&snr[snr.len() - third..]) - mean(&snr[..third])
}
