//! The proof of a kernel folder: a stream of calls against a recorded stream, or against the checkpoint's fp32 kernel.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use s2dit_backends::output::{Destination, Staged, made};
use s2dit_runtime::compare::{Metrics, compare};
use s2dit_runtime::stream::contract::{Contract, Precision, Target};
use s2dit_runtime::{Artifact, Engine, HostTensor, StreamOptions, StreamSession};
use serde::Serialize;

use super::{LATENTS, Noise, Recording, finite, kernel_prompt_of, plot, trial_prompt};
use crate::made_from::{self, Said, loras};
use crate::verify::{Against, Claim, Model, Reference, Verdict, quantized, reaches};
use s2dit_emit::plan::{How, Quantize, Sources, bar, is_exact};
use s2dit_emit::{TimestepChoice, stream as kernel};
use s2dit_files::SafetensorsFile;
use s2dit_models::checkpoint::Checkpoint;
use s2dit_models::graph::GraphStream;
use s2dit_models::model::Streaming;

/// A verification job.
#[derive(Clone, Debug)]
pub struct Options {
    /// Lowest SNR in dB that every chunk must reach; `None` for what the kernel's precision should reach.
    pub min_snr: Option<f64>,
    /// Round the result of every fp16 op of a package to fp16.
    pub fp16: bool,
    /// Engine that computes the functions.
    pub engine: Engine,
    /// Chunks to compare; `None` for all of a golden, or [`CHUNKS`].
    pub chunks: Option<u64>,
    /// SVG file for SNR against chunk.
    pub plot: Option<PathBuf>,
    /// Replace a drawing there that another program made.
    pub force: bool,
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

/// A compared chunk.
#[derive(Clone, Debug, Serialize)]
pub struct ComparedChunk {
    /// Index of the chunk in the stream.
    pub chunk: u64,
    /// Distance from the reference.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// Whether it passes.
    pub passed: bool,
}

/// The result of a verification.
#[derive(Clone, Debug, Serialize)]
pub struct StreamVerifyReport {
    /// The kernel folder.
    pub artifact: String,
    /// The reference.
    pub reference: String,
    /// Precision and policies of the kernel.
    pub kernel: String,
    /// Arithmetic that computed the results.
    pub arithmetic: &'static str,
    /// The bar, in dB; `None` if nothing says one.
    pub min_snr_db: Option<f64>,
    /// A row a chunk.
    pub rows: Vec<ComparedChunk>,
    /// Other comparisons that a pass needs.
    pub checks: Vec<StreamCheck>,
    /// Mean SNR of the last third of the chunks less that of the first third, in dB: below 0 the stream drifts.
    pub trend_db: f64,
    /// The first chunk below the bar.
    pub first_chunk_below: Option<u64>,
    /// What a pass shows and what it does not show.
    pub proves: String,
    /// The outcome.
    pub verdict: Verdict,
    /// Whether the outcome is a pass.
    pub passed: bool,
}

/// A comparison beside the main one, over all chunks.
#[derive(Clone, Debug, Serialize)]
pub struct StreamCheck {
    /// What is compared with what.
    pub what: String,
    /// The bar of each chunk, in dB.
    pub min_snr_db: f64,
    /// The lowest SNR of a chunk, in dB.
    pub least_snr_db: f64,
    /// The first chunk below the bar.
    pub first_chunk_below: Option<u64>,
    /// Whether every chunk passes.
    pub passed: bool,
}

impl StreamCheck {
    fn new(what: String, min_snr_db: f64) -> StreamCheck {
        StreamCheck { what, min_snr_db, least_snr_db: f64::INFINITY, first_chunk_below: None, passed: true }
    }

    fn add(&mut self, chunk: u64, metrics: &Metrics) {
        self.least_snr_db = self.least_snr_db.min(metrics.snr_db);
        if !reaches(metrics, Some(self.min_snr_db)) {
            self.passed = false;
            self.first_chunk_below.get_or_insert(chunk);
        }
    }
}

/// The origin of the reference's chunks.
enum Truth {
    Recorded(Vec<f32>),
    Session(Box<StreamSession>),
}

/// Where a verification is.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The chunk that is being made.
    pub chunk: u64,
    /// Chunks in all.
    pub chunks: u64,
    /// Calls of the kernel's functions that are done.
    pub calls_done: u64,
    /// Calls in all.
    pub calls: u64,
}

/// Streams with a kernel and compares every chunk. `progress` is told before the first call and after every call.
///
/// # Errors
/// Files that cannot be opened or do not fit each other; a failing engine; a result that is not finite. A chunk below the bar is
/// not an error: see [`StreamVerifyReport::passed`].
pub fn verify(
    dir: &Path,
    reference: &Reference,
    options: &Options,
    mut progress: impl FnMut(Place),
) -> Result<StreamVerifyReport> {
    let run = StreamOptions {
        fp16: options.fp16,
        engine: options.engine,
        threads: options.threads,
        quiet: options.quiet,
        ranges: false,
    };
    let contract = Contract::read(dir)?;
    if options.fp16 && contract.precision != Precision::Fp16 {
        bail!("`{}`: an fp32 kernel: --fp16 would round nothing; leave it out", dir.display());
    }
    let metadata = Artifact::open(&dir.join(&contract.functions.denoise.file))?.metadata();
    let (noise, prompt, mut truth, chunks) = match reference {
        Reference::Golden { file: path, .. } => {
            let file = SafetensorsFile::open(path)?;
            let noise = Recording::read(&file, &contract)?;
            let prompt = kernel_prompt_of(&file, &contract)?;
            let expected = latents(&file, &contract, noise.chunks())?;
            let chunks = noise.chunks();
            if let Some(asked) = options.chunks.filter(|n| *n > chunks) {
                bail!("--chunks: found {asked}, but `{}` has {chunks}", path.display());
            }
            (Noise::Recorded(noise), prompt, Truth::Recorded(expected), options.chunks.unwrap_or(chunks))
        }
        Reference::Checkpoint { model, seed } => {
            let session = open_model(dir, &contract, model, model.quantize.as_ref(), &metadata, &run)?;
            let prompt = trial_prompt(*seed, &contract);
            (Noise::Seed(*seed), prompt, Truth::Session(Box::new(session)), options.chunks.unwrap_or(CHUNKS))
        }
    };
    let usual = match contract.precision {
        Precision::Fp32 => FP32_BAR,
        Precision::Fp16 | Precision::Fp16Weights => FP16_BAR,
    };
    let against = reference.against();
    let exact = is_exact(&metadata);
    let bar = match against {
        Against::Stored if exact => Some(options.min_snr.unwrap_or(usual)),
        _ => bar(&metadata, options.min_snr, usual),
    };
    // Kernels of the checkpoint beside the reference: the plain one must make the golden's chunks, the one that is stored alike
    // the artifact's.
    let mut plain: Option<(StreamSession, StreamCheck)> = None;
    let mut alike: Option<(StreamSession, StreamCheck)> = None;
    if let Reference::Golden { model: Some(model), .. } = reference {
        let what = format!("the plain fp32 kernel of {} against the golden", model.origin);
        let session = open_model(dir, &contract, model, None, &metadata, &run)?;
        plain = Some((session, StreamCheck::new(what, FP32_BAR)));
    }
    let model = match reference {
        Reference::Golden { model, .. } => model.as_ref(),
        Reference::Checkpoint { model, .. } => Some(model),
    };
    if let (Some(model), Some(said), true) = (model, quantized(&metadata), exact && against != Against::Stored) {
        let uniform = said.parse::<How>().ok().filter(|how| matches!(how, How::Every(_)));
        if let Some(how) = model.quantize.clone().or(uniform) {
            let what = format!("the kernel against that of {}, stored in {said} as well", model.origin);
            let session = open_model(dir, &contract, model, Some(&how), &metadata, &run)?;
            alike = Some((session, StreamCheck::new(what, usual)));
        } else if against == Against::Both {
            bail!(
                "`{}` is stored as a plan says: name the plan with --quantize PLAN.toml beside --checkpoint",
                dir.display()
            );
        }
    }
    let stored_alike = alike.is_some();
    let mut stream = StreamSession::open(dir, &run)?;
    for session in plain.iter_mut().chain(&mut alike).map(|(session, _)| session) {
        session.set_prompt(prompt.clone())?;
    }
    stream.set_prompt(prompt.clone())?;
    if let Truth::Session(session) = &mut truth {
        session.set_prompt(prompt)?;
    }
    let elements: usize = contract.chunk.shape().iter().product();
    let mut rows = Vec::new();
    // A call for each step, and one that commits the chunk.
    let calls = contract.sampler.steps() as u64 + 1;
    let mut at = Place { chunk: 0, chunks, calls_done: 0, calls: chunks * calls };
    progress(at);
    for chunk in 0..chunks {
        let noise = noise.chunk(chunk, &contract)?;
        let got = stream.next_chunk_with(&noise, |done, _| {
            at = Place { chunk, calls_done: chunk * calls + done as u64, ..at };
            progress(at);
        })?;
        let made: HostTensor;
        let want: &[f32] = match &mut truth {
            Truth::Recorded(all) => &all[chunk as usize * elements..][..elements],
            Truth::Session(session) => {
                made = session.next_chunk(&noise).context("the reference")?;
                &made.data
            }
        };
        let metrics = compare(&got.data, want);
        rows.push(ComparedChunk { chunk, passed: reaches(&metrics, bar), metrics });
        if let Some((session, check)) = &mut plain {
            check.add(chunk, &compare(&session.next_chunk(&noise).context("the checkpoint")?.data, want));
        }
        if let Some((session, check)) = &mut alike {
            check.add(chunk, &compare(&got.data, &session.next_chunk(&noise).context("the checkpoint")?.data));
        }
    }
    let checks: Vec<StreamCheck> = plain.into_iter().chain(alike).map(|(_, check)| check).collect();
    let claim = Claim {
        against,
        quantized: quantized(&metadata),
        ours: true,
        bar,
        asked: options.min_snr.is_some(),
        usual,
        stored_alike,
    };
    let verdict = claim.verdict(rows.iter().all(|r| r.passed) && checks.iter().all(|c| c.passed));
    let snr: Vec<f64> = rows.iter().map(|r| r.metrics.snr_db).collect();
    let report = StreamVerifyReport {
        artifact: dir.display().to_string(),
        reference: match reference {
            Reference::Golden { file, .. } => file.display().to_string(),
            Reference::Checkpoint { model, seed } => {
                let how = if model.quantize.is_some() { ", quantized" } else { "" };
                format!("{} (fp32 kernel{how}, noise of seed {seed})", model.origin)
            }
        },
        kernel: contract.summary(),
        arithmetic: match (contract.precision, contract.target, options.fp16) {
            (Precision::Fp32, ..) => "fp32",
            (Precision::Fp16Weights, ..) => "fp32 arithmetic on fp16 weights",
            (_, Target::CoreMl, true) => "every result rounded to fp16",
            (_, Target::CoreMl, false) => "fp32 arithmetic on fp16 weights and states",
            (_, Target::Onnx | Target::CoreAi, _) => "fp16 with fp32 islands",
        },
        min_snr_db: bar,
        trend_db: trend(&snr),
        first_chunk_below: rows.iter().find(|r| !r.passed).map(|r| r.chunk),
        proves: claim.sentence(),
        verdict,
        passed: verdict == Verdict::Passed,
        checks,
        rows,
    };
    if let Some(path) = &options.plot {
        let title = format!("{}: SNR against {}", report.artifact, report.reference);
        let staged = Staged::file(Destination { path, force: options.force }, &made::markup)?;
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
    finite(file, LATENTS)
}

/// The fp32 kernel of a checkpoint, from the graph and the mapped weights; `how` its weights are stored must be what the artifact's
/// `metadata` says.
fn open_model(
    kernel_dir: &Path,
    contract: &Contract,
    model: &Model,
    how: Option<&How>,
    metadata: &BTreeMap<String, String>,
    run: &StreamOptions,
) -> Result<StreamSession> {
    let checkpoint = open_as_made(model, contract)?;
    let hash = format!("blake3:{}", checkpoint.content_hash().to_hex());
    let said = Said { hash: Some(&contract.checkpoint), config: Some(&contract.config), loras: loras(metadata) };
    made_from::check(kernel_dir, said, &checkpoint)?;
    let quantize: Option<Quantize> = how.map(|how| how.open(&checkpoint)).transpose()?.flatten();
    if let (Some(_), given) = (how, quantize.as_ref().map(ToString::to_string))
        && given.as_deref() != quantized(metadata)
    {
        let (made, given) = (quantized(metadata).unwrap_or("not quantized"), given.unwrap_or("fp16".into()));
        bail!("`{}`: found {made}, expected {given}, as --quantize says", kernel_dir.display());
    }
    let options = kernel::Options {
        quantize: quantize.clone(),
        timesteps: if contract.timesteps.is_some() && quantize.is_some() {
            TimestepChoice::FromConfig
        } else {
            TimestepChoice::Any
        },
        ..kernel::Options::reference(contract.chunk.rows, contract.chunk.cols)
    };
    let (module, contract) =
        kernel::lower(&checkpoint, &options, &mut |_, _| {})?.with_contract(&checkpoint, &options, hash)?;
    let source = Sources::new(&checkpoint, quantize.as_ref());
    StreamSession::in_memory(contract, &module, &source, run).context("cannot run the reference kernel")
}

/// The checkpoint of a kernel. A graph does not say how it streams, and its inputs may have been given roles: the contract says both.
fn open_as_made(model: &Model, contract: &Contract) -> Result<Checkpoint> {
    let mut checkpoint = Checkpoint::open_from(&model.origin.with_roles_of(&contract.interface))?;
    if checkpoint.model().graph().is_some() {
        let s2dit_runtime::sampler::KernelSampler::FlowMatchingAr { sigmas, .. } = &contract.sampler;
        checkpoint.stream_as(GraphStream {
            streaming: Streaming {
                chunk_frames: contract.chunk.frames,
                window_frames: contract.window_frames,
                sink_frames: contract.sink_frames,
                ahead: false,
                state_write: contract.state_write,
            },
            sigmas: sigmas.clone(),
        })?;
    }
    Ok(checkpoint)
}

/// Mean of the last third less mean of the first third.
pub(crate) fn trend(snr: &[f64]) -> f64 {
    let third = snr.len().div_ceil(3);
    if third == 0 {
        return 0.0;
    }
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    mean(&snr[snr.len() - third..]) - mean(&snr[..third])
}
