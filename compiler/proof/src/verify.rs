//! The proof: runs the finished files and compares what they compute with a reference.

mod claim;
mod file;
mod inputs;
mod reference;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use s2dit_ir::Interface;
use s2dit_runtime::compare::{Metrics, compare};
use s2dit_runtime::{Artifact, Engine, RunOptions, interface};
use serde::Serialize;

use s2dit_emit::plan::{bar, is_exact};
use s2dit_files::SafetensorsFile;

pub use claim::Verdict;
pub(crate) use claim::{Against, Claim, quantized};
pub(crate) use inputs::{Tensors, check_finite, golden_inputs, read_tensors, seeded_inputs};
pub use reference::Model;

use inputs::about_inputs;
pub(crate) use reference::Graph;

/// The origin of the reference's results.
#[derive(Clone, Debug)]
pub enum Reference {
    /// A golden: inputs, outputs and perhaps block outputs, by the artifact's names.
    Golden {
        /// The golden's file.
        file: PathBuf,
        /// The checkpoint whose graph is to be the golden's model, and what a quantized artifact is compared with exactly.
        model: Option<Model>,
    },
    /// The plain fp32 graph of a checkpoint, run on seeded inputs; or that graph with weights that are stored as in the artifact:
    /// then only its storage and arithmetic are judged.
    Checkpoint {
        /// The checkpoint.
        model: Model,
        /// Seed of the inputs.
        seed: u64,
    },
}

impl Reference {
    /// What the artifact is compared with.
    pub(crate) fn against(&self) -> Against {
        match self {
            Reference::Golden { model: None, .. } => Against::Golden,
            Reference::Golden { model: Some(_), .. } => Against::Both,
            Reference::Checkpoint { model: Model { quantize: None, .. }, .. } => Against::Checkpoint,
            Reference::Checkpoint { model: Model { quantize: Some(_), .. }, .. } => Against::Stored,
        }
    }
}

/// A verification job.
#[derive(Clone, Debug)]
pub struct Options {
    /// Lowest SNR in dB that passes; `None` for what the artifact's precision should reach.
    pub min_snr: Option<f64>,
    /// Round the result of every fp16 op of a package to fp16.
    pub fp16: bool,
    /// Engine that executes the graph.
    pub engine: Engine,
    /// Compare block by block as well.
    pub blocks: bool,
    /// Threads.
    pub threads: usize,
    /// No notes on standard error.
    pub quiet: bool,
}

/// A compared tensor.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// Name of the tensor.
    pub name: String,
    /// Shape of the tensor.
    pub shape: Vec<usize>,
    /// Distance from the reference.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// Whether it passes.
    pub passed: bool,
}

/// A comparison beside the main one.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What is compared with what.
    pub what: String,
    /// The bar, in dB.
    pub min_snr_db: f64,
    /// Outputs, then blocks.
    pub rows: Vec<Compared>,
    /// Whether every result passes.
    pub passed: bool,
}

/// The result of a verification.
#[derive(Clone, Debug, Serialize)]
pub struct VerifyReport {
    /// The artifact.
    pub artifact: String,
    /// The reference.
    pub reference: String,
    /// The engine.
    pub engine: &'static str,
    /// Whether results were rounded to fp16.
    pub fp16: bool,
    /// Arithmetic that computed the results.
    pub arithmetic: &'static str,
    /// Notes for the reader: inputs that lost digits, tensors that were not compared.
    pub notes: Vec<String>,
    /// The bar, in dB; `None` if nothing says one.
    pub min_snr_db: Option<f64>,
    /// Outputs, then blocks.
    pub rows: Vec<Compared>,
    /// Other comparisons that a pass needs.
    pub checks: Vec<Check>,
    /// The first block below the bar; the verdict is that of the results.
    pub first_block_below: Option<String>,
    /// Whether the artifact names its blocks, and they were not compared.
    pub blocks_unseen: bool,
    /// What a pass shows and what it does not show.
    pub proves: String,
    /// The outcome.
    pub verdict: Verdict,
    /// Whether the outcome is a pass.
    pub passed: bool,
}

/// Bars in dB when none is asked for: fp32 arithmetic throughout, fp16 somewhere.
const FP32_BAR: f64 = 100.0;
const FP16_BAR: f64 = 50.0;

/// Runs an artifact against a reference.
///
/// # Errors
/// Files that cannot be opened or do not fit each other; a failing engine. A result below the bar is not an error: see
/// [`VerifyReport::verdict`].
pub fn verify(path: &Path, reference: &Reference, options: &Options) -> Result<VerifyReport> {
    let artifact = Artifact::open(path)?;
    let (ports, metadata) = (artifact.inputs(), artifact.metadata());
    let listed = artifact.timesteps().with_context(|| format!("`{}`", path.display()))?;
    let interface = artifact.interface().with_context(|| format!("`{}`", path.display()))?;
    let named: Vec<String> = interface.milestones.iter().map(|milestone| milestone.value.clone()).collect();
    let blocks = if options.blocks { named.clone() } else { Vec::new() };
    if options.blocks && blocks.is_empty() {
        bail!("`{}`: no values that end blocks, such as block0, block1, …, to compare", path.display());
    }
    let run = RunOptions {
        fp16: options.fp16,
        engine: options.engine,
        threads: options.threads,
        probes: blocks,
        quiet: options.quiet,
        ranges: false,
    };
    let model = match reference {
        Reference::Golden { model, .. } => model.as_ref(),
        Reference::Checkpoint { model, .. } => Some(model),
    };
    let graph = model.map(|model| Graph::open(&artifact, path, &model.origin)).transpose()?;
    let storage = match (&graph, model) {
        (Some(graph), Some(model)) => graph.storage(&artifact, path, model.quantize.as_ref())?,
        _ => None,
    };
    let mut notes = Vec::new();
    let (inputs, expected) = match (reference, &graph) {
        (Reference::Checkpoint { model, seed }, Some(graph)) => {
            let inputs = seeded_inputs(&ports, &interface, listed.as_ref(), *seed)?;
            let stored = storage.as_ref().filter(|_| model.quantize.is_some());
            let expected = graph.run(stored, &inputs, &run)?;
            (inputs, expected)
        }
        (Reference::Checkpoint { .. }, None) => bail!("no checkpoint to compare with"),
        (Reference::Golden { file, .. }, _) => {
            let file = SafetensorsFile::open(file)?;
            let inputs = golden_inputs(&file, &ports, &interface)?;
            let expected = golden_outputs(&file, &artifact, &interface, &inputs, &run, &mut notes)?;
            (inputs, expected)
        }
    };
    notes.extend(about_inputs(&ports, &interface, &inputs, listed.as_ref()));
    let outputs = artifact.run(&inputs, &run).with_context(|| format!("cannot run `{}`", path.display()))?;

    let has_fp16 = artifact.has_fp16();
    let usual = if has_fp16 { FP16_BAR } else { FP32_BAR };
    let against = reference.against();
    let exact = is_exact(&metadata);
    let bar = match against {
        Against::Stored if exact => Some(options.min_snr.unwrap_or(usual)),
        _ => bar(&metadata, options.min_snr, usual),
    };
    let shown = path.display().to_string();
    let of = match reference {
        Reference::Golden { file, .. } => file.display().to_string(),
        Reference::Checkpoint { model, .. } => model.origin.to_string(),
    };
    let rows = compared((&outputs, &shown), (&expected, &of), &interface, bar)?;

    let mut checks = Vec::new();
    if let (Some(graph), Some(model)) = (&graph, model) {
        let dir = &model.origin;
        if against == Against::Both {
            let plain = graph.run(None, &inputs, &run)?;
            let what = format!("the plain fp32 graph of {dir} against the golden");
            let rows = compared((&plain, &dir.to_string()), (&expected, &of), &interface, Some(FP32_BAR))?;
            checks.push(Check::new(what, FP32_BAR, rows, &artifact.outputs()));
        }
        if let Some(storage) = storage.as_ref().filter(|_| exact && against != Against::Stored) {
            let alike = graph.run(Some(storage), &inputs, &run)?;
            let what = format!("the artifact against the graph of {dir}, stored in {storage} as well");
            let rows = compared((&outputs, &shown), (&alike, &dir.to_string()), &interface, Some(usual))?;
            checks.push(Check::new(what, usual, rows, &artifact.outputs()));
        } else if against == Against::Both && exact && quantized(&metadata).is_some() {
            bail!("`{shown}` is stored as a plan says: name the plan with --quantize PLAN.toml beside --checkpoint");
        }
    }
    let claim = Claim {
        against,
        quantized: quantized(&metadata),
        ours: metadata.contains_key("s2ditc.checkpoint"),
        bar,
        asked: options.min_snr.is_some(),
        usual,
        stored_alike: storage.is_some() && exact,
    };
    let verdict = claim.verdict(reach_bar(&rows, &artifact.outputs()) && checks.iter().all(|c| c.passed));
    let first_block_below = rows.iter().find(|r| !r.passed && is_block(&interface, &r.name)).map(|r| r.name.clone());
    Ok(VerifyReport {
        artifact: shown,
        reference: match reference {
            Reference::Golden { file, .. } => file.display().to_string(),
            Reference::Checkpoint { model, seed } => {
                let how = if model.quantize.is_some() { "fp32, quantized" } else { "fp32" };
                format!("{} ({how}, inputs of seed {seed})", model.origin)
            }
        },
        engine: match options.engine {
            Engine::Ort => "ort",
            Engine::Tract => "tract",
            Engine::CoreAi => "coreai",
        },
        fp16: options.fp16,
        arithmetic: match (has_fp16, &artifact, options.fp16) {
            (false, ..) => "fp32",
            _ if options.engine == Engine::CoreAi && artifact.asset_computes_in_fp16() => "fp16 as the asset says",
            (_, Artifact::Onnx(..), _) => "fp16 as the file says",
            (_, Artifact::MlPackage(_) | Artifact::CoreAi(_) | Artifact::Partition(_), true) => {
                "every result rounded to fp16"
            }
            (_, Artifact::MlPackage(_) | Artifact::CoreAi(_) | Artifact::Partition(_), false) => {
                "fp32 arithmetic on fp16 weights"
            }
        },
        notes,
        min_snr_db: bar,
        rows,
        checks,
        first_block_below,
        blocks_unseen: !options.blocks && !named.is_empty(),
        proves: claim.sentence(),
        verdict,
        passed: verdict == Verdict::Passed,
    })
}

/// Whether every result reaches its bar. A row of what is no result is a block, which says where a difference arises and not whether it matters: of it all
/// numbers must be finite.
fn reach_bar(rows: &[Compared], results: &[String]) -> bool {
    let is_finite = |row: &Compared| row.metrics.non_finite + row.metrics.reference_non_finite == 0;
    rows.iter().all(|row| row.passed || !results.contains(&row.name) && is_finite(row))
}

/// The outputs that a golden has for an artifact, and every block that `run` probes.
fn golden_outputs(
    file: &SafetensorsFile,
    artifact: &Artifact,
    interface: &Interface,
    inputs: &Tensors,
    run: &RunOptions,
    notes: &mut Vec<String>,
) -> Result<Tensors> {
    let (shown, outputs) = (file.path().display(), artifact.outputs());
    let with_blocks = !run.probes.is_empty();
    let compared = |n: &str| outputs.iter().any(|o| o == n) || run.probes.iter().any(|b| b == n);
    let (expected, others): (Vec<String>, Vec<String>) = file
        .tensors()
        .map(|(name, _)| name.to_string())
        .filter(|n| !inputs.contains_key(n) && (with_blocks || !is_block(interface, n)))
        .partition(|n| compared(n));
    if !others.is_empty() {
        notes.push(format!("`{shown}`: not outputs, so not compared: {}", others.join(", ")));
    }
    if !expected.iter().any(|n| outputs.contains(n)) {
        bail!("`{shown}`: no reference outputs; the artifact gives: {}", outputs.join(", "));
    }
    let expected = read_tensors(file, expected.iter().map(String::as_str))?;
    check_finite(file, &expected)?;
    let lacking: Vec<&str> = run.probes.iter().filter(|p| !expected.contains_key(*p)).map(String::as_str).collect();
    if !lacking.is_empty() {
        bail!(
            "`{shown}`: lacks {} of {} blocks to compare with: {}; write each block's tokens to the golden, or verify without --blocks",
            lacking.len(),
            run.probes.len(),
            lacking.join(", ")
        );
    }
    Ok(expected)
}

/// A row for each expected tensor: outputs in the model's order, then blocks. Without a bar, what is finite passes. What was found and what was expected
/// come with the file or the checkpoint that they are of.
fn compared(
    (found, shown): (&Tensors, &str),
    (expected, of): (&Tensors, &str),
    interface: &Interface,
    bar: Option<f64>,
) -> Result<Vec<Compared>> {
    let mut names: Vec<&String> = expected.keys().collect();
    let place = |name: &str| interface.outputs.iter().position(|output| output.name == name);
    names.sort_by_key(|n| (interface.milestone(n), place(n), (*n).clone()));
    let mut rows = Vec::new();
    for name in names {
        let want = &expected[name];
        let Some(got) = found.get(name) else {
            bail!("`{shown}` has no output `{name}`, which the reference, `{of}`, has");
        };
        let got = &got.tokens_first(&want.shape);
        if got.shape != want.shape {
            bail!("`{of}`, tensor `{name}`: found {:?}, expected {:?}, which `{shown}` gives", want.shape, got.shape);
        }
        let metrics = compare(&got.data, &want.data);
        rows.push(Compared { name: name.clone(), shape: got.shape.clone(), passed: reaches(&metrics, bar), metrics });
    }
    Ok(rows)
}

/// Whether a comparison reaches a bar; without one, whether everything is a number.
pub(crate) fn reaches(metrics: &Metrics, bar: Option<f64>) -> bool {
    let finite = metrics.non_finite == 0 && metrics.reference_non_finite == 0 && !metrics.snr_db.is_nan();
    finite && bar.is_none_or(|bar| metrics.snr_db >= bar)
}

impl Check {
    fn new(what: String, min_snr_db: f64, rows: Vec<Compared>, results: &[String]) -> Check {
        Check { what, min_snr_db, passed: reach_bar(&rows, results), rows }
    }
}

/// Whether a value ends a block of the artifact, or is called so in a golden whose artifact has no such value.
fn is_block(interface: &Interface, name: &str) -> bool {
    interface.milestone(name).is_some() || interface::block(name).is_some()
}
