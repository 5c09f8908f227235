//! The proof: runs the finished files and compares what they compute with a reference.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rand::{Rng, SeedableRng};
use rand_distr::StandardNormal;
use s2dit_backends::onnx::Round;
use s2dit_ir::DType;
use s2dit_passes::Pipeline;
use s2dit_runtime::compare::{Metrics, compare};
use s2dit_runtime::timesteps::{INPUT, Timesteps};
use s2dit_runtime::{Artifact, Engine, HostTensor, Port, RunOptions, run_function};
use serde::Serialize;

use crate::made_from;
use s2dit_emit::plan::{How, Sources, bar, is_exact};
use s2dit_emit::timesteps::tables;
use s2dit_files::SafetensorsFile;
use s2dit_models::checkpoint::Checkpoint;
use s2dit_models::s2dit;
use s2dit_models::s2dit::config::LatentSize;

/// Where the truth comes from.
#[derive(Clone, Debug)]
pub enum Reference {
    /// A golden: inputs, outputs and perhaps block outputs, by the artifact's names.
    Golden(PathBuf),
    /// The plain fp32 graph of a checkpoint, run on seeded inputs.
    Checkpoint {
        /// The checkpoint's folder.
        dir: PathBuf,
        /// Seed of the inputs.
        seed: u64,
        /// Weights of the graph that are stored as in the artifact: then only its storage and arithmetic are judged.
        quantize: Option<How>,
    },
}

/// A verification job.
#[derive(Clone, Debug)]
pub struct Options {
    /// Lowest SNR in dB that passes; `None` for what the artifact's precision should reach.
    pub min_snr: Option<f64>,
    /// Round the result of every fp16 op of a package to fp16.
    pub fp16: bool,
    /// What executes the graph.
    pub engine: Engine,
    /// Compare block by block as well.
    pub blocks: bool,
    /// Threads.
    pub threads: usize,
    /// No notes on standard error.
    pub quiet: bool,
}

/// One compared tensor.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// How far it is from the reference.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// Whether it passes.
    pub passed: bool,
}

/// The result of a verification.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The artifact.
    pub artifact: String,
    /// The reference.
    pub reference: String,
    /// The engine.
    pub engine: &'static str,
    /// Whether results were rounded to fp16.
    pub fp16: bool,
    /// How it was computed.
    pub arithmetic: &'static str,
    /// What a reader should know: inputs that lost digits, tensors that were not compared.
    pub notes: Vec<String>,
    /// The bar, in dB.
    pub min_snr_db: f64,
    /// Outputs, then blocks.
    pub rows: Vec<Row>,
    /// The first block below the bar.
    pub first_block_below: Option<String>,
    /// Whether every row passes.
    pub passed: bool,
}

/// Bars in dB when none is asked for: fp32 arithmetic throughout, fp16 somewhere.
const FP32_BAR: f64 = 100.0;
const FP16_BAR: f64 = 50.0;

/// Runs an artifact against a reference.
///
/// # Errors
/// Files that cannot be opened or do not fit each other; a failing engine. A result below the bar is not an error: see
/// [`Report::passed`].
pub fn verify(path: &Path, reference: &Reference, options: &Options) -> Result<Report> {
    let artifact = Artifact::open(path)?;
    let ports = artifact.inputs();
    let listed = artifact.timesteps().with_context(|| format!("`{}`", path.display()))?;
    let blocks = if options.blocks { artifact.blocks() } else { Vec::new() };
    if options.blocks && blocks.is_empty() {
        bail!("`{}`: no values named block0, block1, … to compare", path.display());
    }
    let mut run = RunOptions {
        fp16: options.fp16,
        engine: options.engine,
        threads: options.threads,
        probes: blocks.clone(),
        quiet: options.quiet,
        ranges: false,
    };
    let mut notes = Vec::new();
    let (inputs, expected) = match reference {
        Reference::Golden(golden) => {
            let file = SafetensorsFile::open(golden)?;
            let inputs = read_tensors(&file, ports.iter().map(|p| p.name.as_str()))?;
            let outputs = artifact.outputs();
            let compared =
                |n: &str| outputs.iter().any(|o| o == n) || (options.blocks && blocks.iter().any(|b| b == n));
            let (expected, others): (Vec<String>, Vec<String>) = file
                .tensors()
                .map(|(name, _)| name.to_string())
                .filter(|n| !inputs.contains_key(n) && (options.blocks || !is_block(n)))
                .partition(|n| compared(n));
            if !others.is_empty() {
                notes.push(format!("`{}`: not outputs, so not compared: {}", golden.display(), others.join(", ")));
            }
            if !expected.iter().any(|n| outputs.contains(n)) {
                bail!("`{}`: no reference outputs; the artifact gives: {}", golden.display(), outputs.join(", "));
            }
            let expected = read_tensors(&file, expected.iter().map(String::as_str))?;
            run.probes.retain(|p| expected.contains_key(p));
            if options.blocks && run.probes.is_empty() {
                bail!("`{}`: has no block outputs (block0, block1, …) to compare with", golden.display());
            }
            (inputs, expected)
        }
        Reference::Checkpoint { dir, seed, quantize } => {
            from_checkpoint(&artifact, path, dir, *seed, quantize.as_ref(), &run)?
        }
    };
    notes.extend(about_inputs(&ports, &inputs, listed.as_ref()));
    let outputs = artifact.run(&inputs, &run).with_context(|| format!("cannot run `{}`", path.display()))?;

    let has_fp16 = artifact.has_fp16();
    let usual = if has_fp16 { FP16_BAR } else { FP32_BAR };
    let bar = match reference {
        Reference::Checkpoint { quantize: Some(_), .. } if is_exact(&artifact.metadata()) => {
            options.min_snr.unwrap_or(usual)
        }
        _ => bar(&artifact.metadata(), options.min_snr, usual).with_context(|| format!("`{}`", path.display()))?,
    };
    let mut names: Vec<&String> = expected.keys().collect();
    names.sort_by_key(|n| (block_index(n), (*n).clone()));
    let mut rows = Vec::new();
    for name in names {
        let want = &expected[name];
        let Some(got) = outputs.get(name) else {
            bail!("`{}` has no output `{name}`, which the reference has", path.display());
        };
        let got = &got.tokens_first(&want.shape);
        if got.shape != want.shape {
            bail!("`{name}`: the artifact gives {:?}, the reference {:?}", got.shape, want.shape);
        }
        let metrics = compare(&got.data, &want.data);
        let passed = metrics.snr_db >= bar && metrics.non_finite == 0 && metrics.reference_non_finite == 0;
        rows.push(Row { name: name.clone(), shape: got.shape.clone(), metrics, passed });
    }
    let first_block_below = rows.iter().find(|r| !r.passed && is_block(&r.name)).map(|r| r.name.clone());
    Ok(Report {
        artifact: path.display().to_string(),
        reference: match reference {
            Reference::Golden(g) => g.display().to_string(),
            Reference::Checkpoint { dir, seed, quantize } => {
                let how = if quantize.is_some() { "fp32, quantized" } else { "fp32" };
                format!("{} ({how}, inputs of seed {seed})", dir.display())
            }
        },
        engine: match options.engine {
            Engine::Ort => "ort",
            Engine::Tract => "tract",
        },
        fp16: options.fp16,
        arithmetic: match (has_fp16, &artifact, options.fp16) {
            (false, ..) => "fp32",
            (_, Artifact::MlPackage(_) | Artifact::Pipeline(_), true) => "every result rounded to fp16",
            (_, Artifact::MlPackage(_) | Artifact::Pipeline(_), false) => "fp32 arithmetic on fp16 weights",
            (_, Artifact::Onnx(..), _) => "fp16 as the file says",
        },
        notes,
        min_snr_db: bar,
        passed: rows.iter().all(|r| r.passed),
        rows,
        first_block_below,
    })
}

type Tensors = BTreeMap<String, HostTensor>;

/// What is odd about inputs, without being wrong.
fn about_inputs(ports: &[Port], inputs: &Tensors, listed: Option<&Timesteps>) -> Vec<String> {
    let mut notes = Vec::new();
    let loses = |p: &&Port| {
        let data = inputs.get(&p.name).map(|t| t.data.as_slice()).unwrap_or_default();
        // A listed timestep means the same however it is rounded.
        p.dtype == "f16"
            && (listed.is_none() || p.name != INPUT)
            && data.iter().any(|x| DType::F16.round(f64::from(*x)) as f32 != *x)
    };
    let rounded: Vec<&str> = ports.iter().filter(loses).map(|p| p.name.as_str()).collect();
    if !rounded.is_empty() {
        notes.push(format!(
            "the artifact takes fp16, so inputs were rounded to it: {}; the reference was made from the unrounded ones",
            rounded.join(", ")
        ));
    }
    if let Some(t) = inputs.get("timestep").and_then(|t| t.data.iter().find(|t| !(0.0..=1000.0).contains(*t))) {
        notes.push(format!("`timestep` is {t}, outside of [0, 1000], where the model was trained"));
    }
    notes
}

pub(crate) fn read_tensors<'a>(file: &SafetensorsFile, names: impl Iterator<Item = &'a str>) -> Result<Tensors> {
    let mut tensors = Tensors::new();
    for name in names {
        let Some(info) = file.get(name) else {
            bail!("golden `{}`: no tensor `{name}`, which the artifact takes as input", file.path().display());
        };
        let tensor = HostTensor::new(info.ty.shape.clone(), file.tensor_f32(name)?)
            .context("a tensor that does not fill its shape")?;
        tensors.insert(name.to_string(), tensor);
    }
    Ok(tensors)
}

/// Seeded inputs of the artifact's shapes, and what the checkpoint's plain fp32 graph makes of them.
fn from_checkpoint(
    artifact: &Artifact,
    path: &Path,
    dir: &Path,
    seed: u64,
    quantize: Option<&How>,
    run: &RunOptions,
) -> Result<(Tensors, Tensors)> {
    let checkpoint = Checkpoint::open(dir)?;
    let metadata = artifact.metadata();
    let config = metadata.get("s2ditc.config").map(|text| serde_json::from_str(text)).transpose();
    let config = config.with_context(|| format!("`{}`: metadata `s2ditc.config`: not JSON", path.display()))?;
    made_from::check(path, metadata.get("s2ditc.checkpoint").map(String::as_str), config.as_ref(), &checkpoint)?;
    let (ports, listed) = (artifact.inputs(), artifact.timesteps()?);
    let Some([_, _, frames, rows, cols]) = ports.iter().find(|p| p.name == "latent").map(|p| p.shape.as_slice()) else {
        bail!("`{}`: expected an input `latent` [1, C, F, H, W]", path.display());
    };
    let side = |n: i64| usize::try_from(n).context("the input `latent` has no static shape");
    let latent = LatentSize { frames: side(*frames)?, rows: side(*rows)?, cols: side(*cols)? };
    let mut module = s2dit::clip(checkpoint.config(), &checkpoint, latent)?;
    let quantize = quantize.map(|how| how.open(&checkpoint)).transpose()?.flatten();
    if let Some(quantize) = &quantize {
        let (made, given) = (metadata.get("s2ditc.quantize"), quantize.to_string());
        if made != Some(&given) {
            let made = made.map_or("not quantized", String::as_str);
            bail!("`{}`: found {made}, expected {given}, as --quantize says", path.display());
        }
    }
    match &quantize {
        // In fp32 the plain sinusoids would be the least exact part of the reference.
        None => {
            Pipeline::new(&["phase"])?.run(&mut module, |_, _| {})?;
        }
        Some(quantize) => {
            // What the gate is folded into is compressed as it is then.
            if let Some(listed) = &listed {
                tables(&mut module, listed)?;
            }
            let passes = ["canonicalize", "phase", "cse", "fuse", "fold-gate", "decompose", "cse"];
            Pipeline::new(&passes)?.run(&mut module, |_, _| {})?;
            quantize.apply(&mut module, &checkpoint)?;
        }
    }
    let chunk = &module.functions[0];
    for port in &ports {
        let wanted = chunk.by_name(&port.name).map(|v| chunk.shape(v).iter().map(|d| *d as i64).collect::<Vec<_>>());
        if wanted.as_ref() != Some(&port.shape) {
            let wanted = wanted.map_or("no such input".into(), |w| format!("{w:?}"));
            bail!("`{}`, input `{}`: found {:?}, the checkpoint has {wanted}", path.display(), port.name, port.shape);
        }
    }
    let inputs = seeded_inputs(&ports, listed.as_ref(), seed)?;
    let mut expected = run_function(
        &module.functions[0],
        &Sources::new(&checkpoint, quantize.as_ref()),
        Round::AsTyped,
        &inputs,
        &RunOptions { fp16: false, engine: Engine::Ort, ..run.clone() },
    )
    .context("cannot run the reference graph")?;
    expected.retain(|name, _| name == "velocity" || run.probes.contains(name));
    Ok((inputs, expected))
}

/// Standard normal latents and text, a timestep in [0, 1000] or of the list; the others rounded to fp16 where the artifact takes fp16, so that only the
/// arithmetic is compared.
pub(crate) fn seeded_inputs(ports: &[Port], listed: Option<&Timesteps>, seed: u64) -> Result<Tensors> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let mut inputs = Tensors::new();
    for port in ports {
        let shape: Vec<usize> = port
            .shape
            .iter()
            .map(|d| usize::try_from(*d))
            .collect::<Result<_, _>>()
            .with_context(|| format!("input `{}` has no static shape", port.name))?;
        let n = shape.iter().product();
        let mut data: Vec<f32> = match (port.name.as_str(), listed.map(Timesteps::list)) {
            (INPUT, Some(list @ [_, ..])) => (0..n).map(|_| list[rng.random_range(0..list.len())] as f32).collect(),
            (INPUT, _) => (0..n).map(|_| rng.random_range(0.0..1000.0)).collect(),
            _ => (0..n).map(|_| rng.sample(StandardNormal)).collect(),
        };
        if port.dtype == "f16" && (listed.is_none() || port.name != INPUT) {
            for x in &mut data {
                *x = DType::F16.round(f64::from(*x)) as f32;
            }
        }
        inputs.insert(port.name.clone(), HostTensor { shape, data });
    }
    Ok(inputs)
}

fn is_block(name: &str) -> bool {
    block_index(name).is_some()
}

/// `block12` → 12; outputs have none and sort first.
fn block_index(name: &str) -> Option<usize> {
    name.strip_prefix("block")?.parse().ok()
}
