//! From a pipeline folder to the folder of a compiled pipeline: text encoder, transformer, decoder, tokenizer, contract and model card.

mod card;
mod plan;
mod tokenizer;

use std::path::Path;

use anyhow::{Context, Result};
use s2dit_backends::output::{Contents, Destination, Staged};
use s2dit_runtime::partition;
use s2dit_runtime::pipeline::{Asset, AssetFile, Contract, FILE, FORMAT, Part};
use s2dit_runtime::pipeline::{Checkpoint as MadeFrom, Pipeline};

pub use self::card::{CARD, Fidelity, card, estimate_of};
pub use self::plan::{Component, Options, Plan};
pub use self::tokenizer::{TokenizerFiles, tokenizer_json};

use self::plan::Job;
use crate::format::has_format;
use crate::{Summary, Target, Watch, decoder, experts, functions, parts, stream};

/// The folder of the tokenizer's files.
const TOKENIZER: &str = "Tokenizer";

/// Estimates the pipeline that lies in a folder, as lines of Markdown; none if it cannot be estimated.
pub type Estimated<'a> = dyn FnMut(&Contract, &Path) -> Vec<String> + 'a;

/// What was made.
#[derive(Debug)]
pub struct Made {
    /// The contract.
    pub contract: Contract,
    /// The summaries of the artifacts, by part; of a pair of experts there are two.
    pub summaries: Vec<(Part, Summary)>,
}

/// Compiles a pipeline to the folder `out`, which appears whole or not at all. `progress` gets the part, bytes of its weights written and bytes in all;
/// `estimate` is asked for lines of the model card.
///
/// # Errors
/// A component that does not compile; a tokenizer that does not fit; an output that cannot be written.
pub fn compile_pipeline(
    plan: Plan,
    out: Destination<'_>,
    watch: &mut Watch,
    progress: &mut dyn FnMut(Part, u64, u64),
    estimate: &mut Estimated<'_>,
) -> Result<Made> {
    let contents = Contents {
        kind: "a compiled pipeline",
        marker: FILE,
        part: &is_part,
        ours: &|folder| has_format(&folder.join(FILE), FORMAT),
    };
    let folder = Staged::folder(out, &contents)?;
    let dir = folder.path().to_path_buf();
    let made = plan.write(&dir, watch, progress, estimate).map_err(|error| {
        // What is wrong with the pipeline folder is not about the output.
        let is_of_output = format!("{error:#}").contains(&*dir.to_string_lossy());
        if is_of_output { folder.unwritten(&error) } else { error }
    })?;
    // What was written is what the contract says: read as a host reads it.
    Pipeline::open(&dir).map_err(|error| folder.unwritten(&error.into()))?;
    folder.commit()?;
    let at = |(part, summary): (Part, Summary)| {
        let rest = summary.path.strip_prefix(&dir).unwrap_or(&summary.path).to_owned();
        (part, Summary { path: out.path.join(rest), ..summary })
    };
    Ok(Made { contract: made.contract, summaries: made.summaries.into_iter().map(at).collect() })
}

impl Plan {
    /// Writes everything into the folder `dir`.
    fn write(
        self,
        dir: &Path,
        watch: &mut Watch,
        progress: &mut dyn FnMut(Part, u64, u64),
        estimate: &mut Estimated<'_>,
    ) -> Result<Made> {
        let mut contract = self.contract;
        if let Some(tokenizer) = &self.tokenizer {
            contract.assets.tokenizer = Some(tokenizer.write(dir, TOKENIZER)?);
        }
        let mut summaries = Vec::new();
        for component in &self.components {
            let path = dir.join(&component.file);
            let to = Destination::new(&path);
            let part = component.part;
            let first = &component.checkpoints[0].1;
            let mut shown = |done: u64, all: u64| progress(part, done, all);
            let made = match &component.job {
                Job::Clip(options) => vec![crate::compile(first, options, to, watch, &mut shown)?],
                Job::Stream(options) => vec![stream::compile(first, options, to, watch, &mut shown)?],
                Job::Decoder(options) => vec![decoder::compile(first, options, to, watch, &mut shown)?],
                Job::Experts(options, boundary) => {
                    let job = |i: usize| experts::Job {
                        name: &component.checkpoints[i].0,
                        checkpoint: &component.checkpoints[i].1,
                        options: &options[i],
                    };
                    let mut both = |i: usize, done: u64, all: u64| progress(part, i as u64 * all + done, 2 * all);
                    experts::compile_experts([job(0), job(1)], *boundary, to, watch, &mut both)?
                }
            };
            let asset = asset(dir, component, &made)?;
            match part {
                Part::TextEncoder => contract.assets.text_encoder = Some(asset),
                Part::Transformer => contract.assets.transformer = Some(asset),
                Part::Decoder => contract.assets.decoder = Some(asset),
            }
            summaries.extend(made.into_iter().map(|summary| (part, summary)));
        }
        contract.id = contract.identity()?;
        let written = |file: &str, text: String| {
            std::fs::write(dir.join(file), text).with_context(|| format!("cannot write `{}`", dir.join(file).display()))
        };
        written(FILE, contract.to_json()?)?;
        written(CARD, card(&contract, &estimate(&contract, dir), &[]))?;
        // What was read first is of the same checkpoint as what was read last.
        for (_, checkpoint) in self.components.iter().flat_map(|component| &component.checkpoints) {
            checkpoint.check_unchanged()?;
        }
        Ok(Made { contract, summaries })
    }
}

/// What the contract says of a compiled component.
fn asset(dir: &Path, component: &Component, made: &[Summary]) -> Result<Asset> {
    let checkpoints = component.checkpoints.iter().zip(made);
    let first = &component.checkpoints[0].1;
    Ok(Asset {
        path: component.file.clone(),
        class: first.model().family().class().into(),
        checkpoints: checkpoints
            .map(|((name, _), summary)| MadeFrom { component: name.clone(), hash: summary.checkpoint.clone() })
            .collect(),
        precision: component.precision,
        compute: component.compute.map(|compute| compute.to_string()),
        compression: made[0].quantize.as_ref().map(ToString::to_string),
        weight_bytes: made.iter().map(|summary| summary.weight_bytes).sum(),
        files: files(dir, &component.file)?,
    })
}

/// The files of an artifact of the name `path` in the folder `dir`, in the order of their names: an ONNX model has its weights beside it.
fn files(dir: &Path, path: &str) -> Result<Vec<AssetFile>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read `{}`", dir.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let is_data = name.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        if name == path || is_data {
            walk(dir, &name, &mut names)?;
        }
    }
    names.sort_unstable();
    Ok(names.iter().map(|name| AssetFile::of(dir, name)).collect::<Result<_, _>>()?)
}

/// Adds the names of all files at or below a name in `dir`.
fn walk(dir: &Path, name: &str, names: &mut Vec<String>) -> Result<()> {
    let path = dir.join(name);
    if !path.is_dir() {
        names.push(name.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(&path).with_context(|| format!("cannot read `{}`", path.display()))? {
        let inner = entry?.file_name().to_string_lossy().into_owned();
        walk(dir, &format!("{name}/{inner}"), names)?;
    }
    Ok(())
}

/// Whether a path below the folder is of a compiled pipeline.
fn is_part(path: &str) -> bool {
    if [FILE, CARD].contains(&path) {
        return true;
    }
    if let Some(file) = path.strip_prefix(TOKENIZER).and_then(|rest| rest.strip_prefix('/')) {
        return tokenizer::FILES.contains(&file);
    }
    Part::ALL.into_iter().any(|part| {
        let Some(rest) = path.strip_prefix(part.stem()) else { return false };
        let inside = rest.strip_prefix('/').unwrap_or_default();
        let model = experts::is_of(path, part.stem());
        let expert = [TRANSFORMER, TRANSFORMER_2].iter().any(|name| experts::is_of(inside, name));
        let step =
            inside == partition::FILE || inside == s2dit_runtime::experts::FILE || parts::is_in_part(inside, "part");
        model || expert || step || (functions::CONTENTS.part)(inside)
    })
}

/// The components of a pipeline folder, as diffusers calls them.
const TEXT_ENCODER: &str = "text_encoder";
const TOKENIZER_FOLDER: &str = "tokenizer";
const TRANSFORMER: &str = "transformer";
const TRANSFORMER_2: &str = "transformer_2";
const VAE: &str = "vae";

/// The name of an artifact, if it is one file or package.
fn file_of(part: Part, target: Target) -> String {
    format!("{}.{}", part.stem(), target.extension())
}
