//! The proof of a compiled pipeline: each part against the graph of its component, and all of them one after the other.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use s2dit_backends::output::{Destination, Staged, made};
use s2dit_emit::pipeline::{self, CARD, Fidelity, Plan, card};
use s2dit_emit::plan::How;
use s2dit_emit::stream::{Functions, States};
use s2dit_emit::{Attention, Opset, TimestepChoice};
use s2dit_ir::interface::{InputRole, OutputRole};
use s2dit_models::checkpoint::{Checkpoint, Lora, Origin, PipelineFolder};
use s2dit_runtime::compare::compare;
use s2dit_runtime::decode::contract::Contract as DecoderContract;
use s2dit_runtime::experts::Description;
use s2dit_runtime::pipeline::{Asset, Contract, EncoderMask, FILE, Mode, Part, Pipeline, Tokens};
use s2dit_runtime::stream::contract;
use s2dit_runtime::{Artifact, Engine, HostTensor, RunOptions};
use serde::Serialize;
use serde_json::Value;

use crate::decode;
use crate::stream::verify as stream;
use crate::verify::{Compared, Graph, Model, Reference, Tensors, Verdict, VerifyReport, reaches};

/// The prompt of the chain.
const PROMPT: &str = "A cat walks through the snow and looks at the camera.";
/// The timestep at which the transformer is asked: of pure noise, so that the noise less the velocity is an estimate of the latent.
const TIMESTEP: f32 = 1000.0;
/// Bars of the chain in dB when none is asked for: below those of a part, since errors add up.
const FP32_BAR: f64 = 80.0;
const FP16_BAR: f64 = 35.0;

/// A verification job.
#[derive(Clone, Debug)]
pub struct Options {
    /// Lowest SNR in dB that passes; `None` for what the precision should reach.
    pub min_snr: Option<f64>,
    /// Round the result of every fp16 op of a package to fp16.
    pub fp16: bool,
    /// Adapters that were merged into the transformer.
    pub loras: Vec<Lora>,
    /// How the transformer's weights are stored, if a plan says it.
    pub quantize: Option<How>,
    /// Seed of the inputs.
    pub seed: u64,
    /// Chunks of a stream to compare.
    pub chunks: Option<u64>,
    /// Threads.
    pub threads: usize,
    /// No notes on standard error.
    pub quiet: bool,
    /// Write the figures into the model card.
    pub card: bool,
    /// Replace a model card that somebody else wrote.
    pub force: bool,
}

/// The result of a verification.
#[derive(Clone, Debug, Serialize)]
pub struct PipelineReport {
    /// The folder.
    pub artifact: String,
    /// The pipeline folder that it is compared with.
    pub reference: String,
    /// The parts, in the order in which they are called.
    pub parts: Vec<PartReport>,
    /// Text, velocity, latent and video of the chain; empty for a stream and for a pipeline that was compiled in part.
    pub chain: Vec<Compared>,
    /// The bar of the chain, in dB.
    pub chain_min_snr_db: f64,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// What is below its bar, or has no bar: components, and results of the chain.
    pub below: Vec<String>,
    /// The outcome.
    pub verdict: Verdict,
    /// Whether the outcome is a pass.
    pub passed: bool,
}

/// The result of one component.
#[derive(Clone, Debug, Serialize)]
pub struct PartReport {
    /// The part.
    pub part: &'static str,
    /// The component of the pipeline folder.
    pub component: String,
    /// The lowest SNR of a result, in dB; of compressed weights against a graph with weights that are stored alike.
    pub least_snr_db: f64,
    /// Of compressed weights the same against the graph of the weights as the pipeline folder has them: what the compression costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_weights_snr_db: Option<f64>,
    /// The bar, in dB; `None` if nothing says one.
    pub min_snr_db: Option<f64>,
    /// The outcome.
    pub verdict: Verdict,
}

/// Verifies the pipeline in the folder `dir` against a pipeline folder. `progress` is told the part that is run.
///
/// # Errors
/// A folder whose files are not those of one compile, or whose description is not that of the pipeline folder; a pipeline folder with other weights; a
/// failing engine. A result below its bar is
/// not an error: see [`PipelineReport::passed`].
pub fn verify(
    dir: &Path,
    folder: &PipelineFolder,
    options: &Options,
    progress: &mut dyn FnMut(&str),
) -> Result<PipelineReport> {
    progress("hashes");
    let pipeline = Pipeline::open(dir)?;
    if options.fp16 {
        pipeline.check_fp16()?;
    }
    pipeline.check_hashes(&mut |_, _| {})?;
    let contract = pipeline.contract();
    let mut jobs = Vec::new();
    for (part, asset) in contract.assets.parts() {
        for (from, path) in asset.checkpoints.iter().zip(paths(&pipeline, part, asset)?) {
            let origin = origin(folder, part, &from.component, options)?;
            let found = format!("blake3:{}", Checkpoint::open_from(&origin)?.content_hash().to_hex());
            if found != from.hash {
                bail!(
                    "`{origin}`: found weights with the hash {found}, expected {}, of which `{}` was compiled",
                    from.hash,
                    path.display()
                );
            }
            let model = Model { origin, quantize: storage(asset, part, options) };
            jobs.push((part, &from.component, path, model));
        }
    }
    check_description(&pipeline, folder, options)?;
    let mut parts = Vec::new();
    let mut notes = Vec::new();
    for (part, component, path, model) in jobs {
        progress(component);
        let (is_stored_alike, plain) = (model.quantize.is_some(), Model { quantize: None, ..model.clone() });
        let report = one(&path, model, options)?;
        let of_weights_snr_db = match is_stored_alike {
            // Where nothing was large enough to be compressed, both are the same.
            true => Some(one(&path, plain, options)?.least_snr_db).filter(|db| *db != report.least_snr_db),
            false => None,
        };
        parts.push(PartReport { part: part.name(), component: component.clone(), of_weights_snr_db, ..report });
    }
    let is_whole = Part::ALL.into_iter().all(|part| contract.assets.of(part).is_some());
    let chain = if contract.mode == Mode::Clip && is_whole {
        progress("all of them");
        chain(&pipeline, folder, options)?
    } else {
        let why = if is_whole { "a stream is compared part by part" } else { "the pipeline was compiled in part" };
        notes.push(format!("{why}: the parts were not run one after the other"));
        Vec::new()
    };
    let has_fp16 = contract.assets.parts().any(|(_, asset)| asset.precision == contract::Precision::Fp16);
    let chain_min_snr_db = options.min_snr.unwrap_or(if has_fp16 { FP16_BAR } else { FP32_BAR });
    let chain: Vec<Compared> = chain
        .into_iter()
        .map(|row| Compared { passed: reaches(&row.metrics, Some(chain_min_snr_db)), ..row })
        .collect();
    let of_parts = parts.iter().filter(|part| part.verdict != Verdict::Passed).map(|part| part.component.clone());
    let of_chain = chain.iter().filter(|row| !row.passed).map(|row| format!("{} of the whole pipeline", row.name));
    let below: Vec<String> = of_parts.chain(of_chain).collect();
    let is_failed = parts.iter().any(|part| part.verdict == Verdict::Failed) || chain.iter().any(|row| !row.passed);
    let verdict = match (below.is_empty(), is_failed) {
        (true, _) => Verdict::Passed,
        (false, true) => Verdict::Failed,
        (false, false) => Verdict::NoVerdict,
    };
    let report = PipelineReport {
        artifact: dir.display().to_string(),
        reference: folder.dir().display().to_string(),
        parts,
        chain,
        chain_min_snr_db,
        notes,
        below,
        verdict,
        passed: verdict == Verdict::Passed,
    };
    if options.card {
        write_card(&pipeline, &report, options)?;
    }
    Ok(report)
}

/// Checks that the description of a pipeline follows from the pipeline folder, as that of a new compile does.
fn check_description(pipeline: &Pipeline, folder: &PipelineFolder, options: &Options) -> Result<()> {
    let contract = pipeline.contract();
    let shown = pipeline.dir().join(FILE);
    let shown = shown.display();
    let precision = contract.assets.parts().map(|(_, asset)| asset.precision).next();
    let plan = Plan::new(
        folder,
        &pipeline::Options {
            target: contract.target,
            precision: precision.with_context(|| format!("`{shown}`: field `assets`: found no model"))?,
            opset: Opset::default(),
            compute: None,
            attention: Attention::default(),
            pixels: [contract.video.rows, contract.video.cols],
            frames: contract.video.frames,
            mode: contract.mode,
            batch: contract.sampling.batch,
            timesteps: TimestepChoice::Any,
            states: States::default(),
            functions: Functions::default(),
            quantize: None,
            partition: None,
            parts: contract.assets.parts().map(|(part, _)| part).collect(),
            loras: options.loras.clone(),
        },
    )?;
    let of = |contract: &Contract| {
        let Contract { class, mode, latent, video, text, scheduler, sampling, .. } = contract;
        serde_json::json!({
            "class": class, "mode": mode, "latent": latent, "video": video, "text": text, "scheduler": scheduler, "sampling": sampling
        })
    };
    if let Some((field, found, expected)) = difference("", &of(contract), &of(&plan.contract)) {
        bail!(
            "`{shown}`: field `{field}`: found {found}, expected {expected}, as `{}` says: the description was edited, or is of another pipeline; compile it again",
            folder.dir().display()
        );
    }
    let files = contract.assets.tokenizer.iter().flat_map(|tokenizer| &tokenizer.files);
    let found: Vec<(&str, &str)> =
        files.map(|file| (file.path.rsplit('/').next().unwrap_or_default(), file.blake3.as_str())).collect();
    let expected: Vec<(&str, String)> = plan.tokenizer.iter().flat_map(|tokenizer| tokenizer.hashes()).collect();
    if !found.iter().copied().eq(expected.iter().map(|(file, hash)| (*file, hash.as_str()))) {
        bail!(
            "`{shown}`: field `assets.tokenizer.files`: found files with other contents than those of the tokenizer in `{}`: compile the pipeline again",
            folder.dir().display()
        );
    }
    Ok(())
}

/// The first field in which two values differ, and its two values.
fn difference(place: &str, found: &Value, expected: &Value) -> Option<(String, String, String)> {
    if let (Value::Object(found), Value::Object(expected)) = (found, expected) {
        let names = found.keys().chain(expected.keys().filter(|name| !found.contains_key(*name)));
        return names.into_iter().find_map(|name| {
            let place = if place.is_empty() { name.clone() } else { format!("{place}.{name}") };
            let of = |fields: &serde_json::Map<String, Value>| fields.get(name).cloned().unwrap_or(Value::Null);
            difference(&place, &of(found), &of(expected))
        });
    }
    (found != expected).then(|| (place.to_owned(), found.to_string(), expected.to_string()))
}

/// Writes the figures into the model card.
fn write_card(opened: &Pipeline, report: &PipelineReport, options: &Options) -> Result<()> {
    let of_part = |part: &PartReport| {
        let row = |what: String, snr_db: f64| Fidelity { what, snr_db, fp16: options.fp16 };
        let component = &part.component;
        match part.of_weights_snr_db {
            None => vec![row(format!("`{component}`"), part.least_snr_db)],
            Some(of_weights) => vec![
                row(format!("`{component}`, its weights compressed alike"), part.least_snr_db),
                row(format!("`{component}`, its weights as they were: what the compression costs"), of_weights),
            ],
        }
    };
    let of_chain = |row: &Compared| Fidelity {
        what: format!("`{}`, all parts one after the other", row.name),
        snr_db: row.metrics.snr_db,
        fp16: options.fp16,
    };
    let rows: Vec<Fidelity> = report.parts.iter().flat_map(of_part).chain(report.chain.iter().map(of_chain)).collect();
    let path = opened.dir().join(CARD);
    let old = std::fs::read_to_string(&path).unwrap_or_default();
    let text = card(opened.contract(), &pipeline::estimate_of(&old), &rows);
    let staged = Staged::file(Destination { path: &path, force: options.force }, &made::markup)?;
    std::fs::write(staged.path(), text).with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(staged.commit()?)
}

/// A component of the pipeline folder, with the adapters that are the transformer's.
fn origin(folder: &PipelineFolder, part: Part, component: &str, options: &Options) -> Result<Origin> {
    let loras = if part == Part::Transformer { options.loras.clone() } else { Vec::new() };
    Ok(Origin { path: folder.component(component)?, loras, ..Origin::default() })
}

/// The artifacts of a part: one, or those of two experts.
fn paths(pipeline: &Pipeline, part: Part, asset: &Asset) -> Result<Vec<PathBuf>> {
    let path = pipeline.part(part)?;
    let paths = match Description::read(&path)? {
        Some(pair) => pair.paths(&path),
        None => vec![path.clone()],
    };
    if paths.len() != asset.checkpoints.len() {
        bail!("`{}`: found {} models, expected {}", path.display(), paths.len(), asset.checkpoints.len());
    }
    Ok(paths)
}

/// How the weights of a part are stored, as the reference is to store them too.
fn storage(asset: &Asset, part: Part, options: &Options) -> Option<How> {
    let said = asset.compression.as_ref()?;
    match said.parse::<How>() {
        Ok(how @ How::Every(_)) => Some(how),
        _ if part == Part::Transformer => options.quantize.clone(),
        _ => None,
    }
}

/// Compares one artifact with its checkpoint.
fn one(path: &Path, model: Model, options: &Options) -> Result<PartReport> {
    let reference = Reference::Checkpoint { model, seed: options.seed };
    let made = |least_snr_db: f64, min_snr_db: Option<f64>, verdict: Verdict| PartReport {
        part: "",
        component: String::new(),
        least_snr_db,
        of_weights_snr_db: None,
        min_snr_db,
        verdict,
    };
    if path.join(contract::FILE).is_file() {
        let options = stream::Options {
            min_snr: options.min_snr,
            fp16: options.fp16,
            engine: Engine::Ort,
            chunks: options.chunks,
            plot: None,
            force: false,
            threads: options.threads,
            quiet: options.quiet,
        };
        let report = match DecoderContract::is_in(path) {
            true => decode::verify(path, &reference, &options, |_, _| {})?,
            false => stream::verify(path, &reference, &options, |_| {})?,
        };
        let least = report.rows.iter().map(|row| row.metrics.snr_db).fold(f64::INFINITY, f64::min);
        return Ok(made(least, report.min_snr_db, report.verdict));
    }
    let report: VerifyReport = crate::verify::verify(
        path,
        &reference,
        &crate::verify::Options {
            min_snr: options.min_snr,
            fp16: options.fp16,
            engine: Engine::Ort,
            blocks: false,
            threads: options.threads,
            quiet: options.quiet,
        },
    )?;
    let least = report.rows.iter().map(|row| row.metrics.snr_db).fold(f64::INFINITY, f64::min);
    Ok(made(least, report.min_snr_db, report.verdict))
}

/// What one side of the chain made.
struct Chain {
    text: HostTensor,
    velocity: HostTensor,
    latent: HostTensor,
    video: HostTensor,
}

/// Runs tokenizer, text encoder, transformer and decoder one after the other: the artifacts, and the graphs of the components.
fn chain(pipeline: &Pipeline, folder: &PipelineFolder, options: &Options) -> Result<Vec<Compared>> {
    let contract = pipeline.contract();
    let tokens = pipeline.tokenizer()?.encode(PROMPT)?;
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    let shape = contract.latent.shape();
    let noise = HostTensor {
        shape: shape.to_vec(),
        data: (0..shape.iter().product()).map(|_| rng.sample(StandardNormal)).collect(),
    };
    let run = RunOptions {
        fp16: options.fp16,
        engine: Engine::Ort,
        threads: options.threads,
        probes: Vec::new(),
        quiet: options.quiet,
        ranges: false,
    };
    let side = |is_reference: bool| -> Result<Chain> {
        let call = |part: Part, given: &[(InputRole, &HostTensor)]| -> Result<Results> {
            let asset = contract.assets.of(part).context("a part that is not there")?;
            // Pure noise is the first expert's.
            let path = paths(pipeline, part, asset)?.swap_remove(0);
            let artifact = Artifact::open(&path)?;
            let inputs = inputs(&artifact, contract.text.encoder_mask, part, &tokens, given)?;
            let tensors = if is_reference {
                let origin = origin(folder, part, &asset.checkpoints[0].component, options)?;
                let graph = Graph::open(&artifact, &path, &origin)?;
                let stored = graph.storage(&artifact, &path, storage(asset, part, options).as_ref())?;
                graph.run(stored.as_ref(), &inputs, &RunOptions { fp16: false, ..run.clone() })?
            } else {
                let run = RunOptions { fp16: run.fp16 && artifact.has_fp16(), ..run.clone() };
                artifact.run(&inputs, &run).with_context(|| format!("cannot run `{}`", path.display()))?
            };
            Ok(Results {
                roles: artifact.interface()?.outputs.into_iter().map(|o| (o.name, o.role)).collect(),
                tensors,
            })
        };
        let mut encoded = call(Part::TextEncoder, &[])?;
        let text = encoded.take(OutputRole::Text)?;
        let pooled = if contract.text.pooled { Some(encoded.take(OutputRole::Pooled)?) } else { None };
        let mut given = vec![(InputRole::Latent, &noise), (InputRole::Text, &text)];
        given.extend(pooled.as_ref().map(|pooled| (InputRole::Pooled, pooled)));
        let velocity = first(call(Part::Transformer, &given)?.take(OutputRole::Velocity)?);
        let data = noise.data.iter().zip(&velocity.data).map(|(noise, velocity)| noise - velocity).collect();
        let latent = HostTensor { shape: noise.shape.clone(), data };
        let video = call(Part::Decoder, &[(InputRole::Latent, &latent)])?.take(OutputRole::Video)?;
        Ok(Chain { text, velocity, latent, video })
    };
    let (made, wanted) = (side(false)?, side(true)?);
    let rows = [
        ("text", made.text, wanted.text),
        ("velocity", made.velocity, wanted.velocity),
        ("latent", made.latent, wanted.latent),
        ("video", made.video, wanted.video),
    ];
    Ok(rows
        .into_iter()
        .map(|(name, made, wanted)| Compared {
            name: name.to_owned(),
            shape: made.shape.clone(),
            metrics: compare(&made.data, &wanted.data),
            passed: true,
        })
        .collect())
}

/// The first of what a call makes of several prompts at once.
fn first(all: HostTensor) -> HostTensor {
    let HostTensor { mut shape, mut data } = all;
    if let Some(count) = shape.first_mut().map(|count| std::mem::replace(count, 1).max(1)) {
        data.truncate(data.len() / count);
    }
    HostTensor { shape, data }
}

/// A tensor `[1, …]` as often as a port takes it at once.
fn filling(tensor: &HostTensor, port: &[usize]) -> HostTensor {
    let (1, Some(count)) = (tensor.shape.first().copied().unwrap_or(1), port.first().copied()) else {
        return tensor.clone();
    };
    HostTensor { shape: [&[count], &tensor.shape[1..]].concat(), data: tensor.data.repeat(count) }
}

/// The results of a call, with their roles by name.
struct Results {
    roles: Vec<(String, OutputRole)>,
    tensors: Tensors,
}

impl Results {
    fn take(&mut self, role: OutputRole) -> Result<HostTensor> {
        let name = self.roles.iter().find(|(_, found)| *found == role).map(|(name, _)| name);
        name.and_then(|name| self.tensors.remove(name)).with_context(|| format!("found no result of the role {role:?}"))
    }
}

/// The inputs of an artifact by role.
fn inputs(
    artifact: &Artifact,
    mask: EncoderMask,
    part: Part,
    tokens: &Tokens,
    given: &[(InputRole, &HostTensor)],
) -> Result<Tensors> {
    let ports = artifact.inputs();
    let mut inputs = Tensors::new();
    for input in artifact.interface()?.inputs {
        let port = ports.iter().find(|port| port.name == input.name);
        let shape: Vec<usize> =
            port.into_iter().flat_map(|port| &port.shape).map(|d| usize::try_from(*d).unwrap_or(1)).collect();
        let filled = |value: f32| HostTensor { data: vec![value; shape.iter().product()], shape: shape.clone() };
        let value = match &input.role {
            InputRole::Tokens { .. } => tokens.tensor(),
            InputRole::TextMask if part == Part::TextEncoder && mask == EncoderMask::Ones => filled(1.0),
            InputRole::TextMask => filling(&tokens.mask(), &shape),
            InputRole::Time { .. } => filled(TIMESTEP),
            role => match given.iter().find(|(known, _)| known == role) {
                Some((_, tensor)) => filling(tensor, &shape),
                None => bail!("found an input `{}` that no part makes", input.name),
            },
        };
        inputs.insert(input.name, value);
    }
    Ok(inputs)
}
