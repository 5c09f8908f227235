//! Repositories of the Hugging Face hub: which files of one make a checkpoint, taken from the cache or fetched into it.

use std::path::PathBuf;

use s2dit_files::hub::{Fetching, Hub, RepositoryName, Snapshot};
use s2dit_files::problems::{Problem, Problems, shown};
use s2dit_files::{INDEX_ENDING, INDEX_FILE, TRANSFORMERS_FILE, WEIGHTS_FILE, shards};

use super::pipeline::SCHEDULER_FILE;
use super::{CONFIG_FILE, PIPELINE_FILE, PipelineFolder};

/// The folder of the one transformer of a pipeline.
const TRANSFORMER: &str = "transformer";
/// Names of a repository's files that an error lists.
const MOST_NAMES: usize = 8;

/// What of a pipeline is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// All of its transformers.
    Transformers,
    /// Its one transformer: of several, none.
    OnlyTransformer,
    /// A model by its name: a transformer, a text encoder, a decoder.
    Component(&'a str),
    /// All of it: transformers, text encoder, decoder, tokenizer.
    Pipeline,
}

/// The folder of a repository: a checkpoint or a pipeline folder. What is wanted of it and not in the cache is fetched; nothing is asked of
/// the hub if nothing is missing. `watch` is told of each fetch.
///
/// # Errors
/// Files that are missing while nothing may be fetched; what goes wrong on the way; a repository without a checkpoint.
pub fn locate(
    name: &RepositoryName,
    wanted: Wanted<'_>,
    hub: &Hub,
    watch: &mut dyn FnMut(Fetching<'_>),
) -> Result<PathBuf, Problems> {
    let mut snapshot = Snapshot::find(hub, name)?;
    let alone = format!("{TRANSFORMER}/{CONFIG_FILE}");
    let roots = [CONFIG_FILE, PIPELINE_FILE, &alone];
    let mut root = roots.into_iter().find(|file| snapshot.has(file));
    if root.is_none() {
        snapshot.ask(&roots[..2])?;
        root = roots.into_iter().find(|file| snapshot.knows(file));
    }
    let Some(root) = root else { return Err(no_checkpoint(name, &snapshot).into()) };
    snapshot.fetch(&[root.to_owned()], watch)?;
    let path = snapshot.path().unwrap_or_default();
    if root != PIPELINE_FILE {
        let folder = root.strip_suffix(CONFIG_FILE).unwrap_or_default();
        checkpoints(&mut snapshot, &[folder.to_owned()], watch)?;
        return Ok(if folder.is_empty() { path } else { path.join(folder) });
    }
    let pipeline = PipelineFolder::open(&path)?;
    let transformers = pipeline.iter().flat_map(PipelineFolder::transformers).map(|(name, _)| name);
    // What is wanted and not there is the opener's to say.
    let folders: Vec<String> = match wanted {
        Wanted::Transformers => transformers.map(|name| format!("{name}/")).collect(),
        Wanted::OnlyTransformer => {
            let all: Vec<&str> = transformers.collect();
            if all.len() == 1 { vec![format!("{}/", all[0])] } else { Vec::new() }
        }
        Wanted::Pipeline => {
            let others = pipeline.iter().flat_map(PipelineFolder::components).map(|(name, _)| name);
            let others = others.filter(|name| ["text_encoder", "vae"].contains(name));
            transformers.chain(others).map(|name| format!("{name}/")).collect()
        }
        Wanted::Component(wanted) => {
            let components = pipeline.iter().flat_map(PipelineFolder::components).map(|(name, _)| name);
            components.filter(|name| *name == wanted).map(|name| format!("{name}/")).collect()
        }
    };
    checkpoints(&mut snapshot, &folders, watch)?;
    if wanted == Wanted::Pipeline {
        tokenizer(&mut snapshot, watch)?;
    }
    Ok(path)
}

/// Puts the tokenizer's files into a snapshot, and the README, which names the licence.
fn tokenizer(snapshot: &mut Snapshot<'_>, watch: &mut dyn FnMut(Fetching<'_>)) -> Result<(), Problems> {
    const FOLDER: &str = "tokenizer/";
    if ["tokenizer.json", "vocab.json"].iter().any(|file| snapshot.has(&format!("{FOLDER}{file}"))) {
        return Ok(());
    }
    snapshot.ask(&[&format!("{FOLDER}tokenizer.json")])?;
    let wanted = |name: &&str| name.starts_with(FOLDER) || *name == "README.md";
    let files: Vec<String> = snapshot.names().filter(wanted).map(str::to_owned).collect();
    Ok(snapshot.fetch(&files, watch)?)
}

/// Puts the files of checkpoint folders into a snapshot, and what a pipeline keeps beside them. A folder's name ends in a slash, or is empty.
fn checkpoints(
    snapshot: &mut Snapshot<'_>,
    folders: &[String],
    watch: &mut dyn FnMut(Fetching<'_>),
) -> Result<(), Problems> {
    let mut files: Vec<String> = folders.iter().map(|folder| format!("{folder}{CONFIG_FILE}")).collect();
    let mut whole = Vec::new();
    for folder in folders {
        let sharded = format!("{TRANSFORMERS_FILE}{INDEX_ENDING}");
        let names = [INDEX_FILE, WEIGHTS_FILE, &sharded, TRANSFORMERS_FILE].map(|file| format!("{folder}{file}"));
        let mut found = names.iter().find(|file| snapshot.has(file));
        if found.is_none() {
            snapshot.ask(&[&files.last().map_or(CONFIG_FILE, String::as_str).replace(CONFIG_FILE, WEIGHTS_FILE)])?;
            found = names.iter().find(|file| snapshot.knows(file));
        }
        match found {
            Some(index) if index.ends_with(INDEX_ENDING) => files.push(index.clone()),
            Some(weights) => whole.push(weights.clone()),
            None => {
                let place = format!("{}{folder}", snapshot.path().unwrap_or_default().join("").display());
                return Err(Problems::one(
                    place,
                    format!("a repository without weights of the model there: {}", listed(snapshot, folder)),
                    format!("{WEIGHTS_FILE} or {TRANSFORMERS_FILE}, or shards with {INDEX_FILE}"),
                ));
            }
        }
    }
    // Beside a transformer, and wanted only with what is fetched anyway: a pipeline may do without.
    let beside = |file: &&str| !snapshot.has(file) && snapshot.knows(file);
    files.extend([PIPELINE_FILE, SCHEDULER_FILE].iter().filter(|file| beside(file)).map(|file| (*file).to_owned()));
    snapshot.fetch(&files, watch)?;
    let path = snapshot.path().unwrap_or_default();
    for index in files.iter().filter(|file| file.ends_with(INDEX_ENDING)) {
        let folder = index.rfind('/').map_or("", |slash| &index[..=slash]);
        whole.extend(shards(&path.join(index))?.into_iter().map(|shard| format!("{folder}{shard}")));
    }
    Ok(snapshot.fetch(&whole, watch)?)
}

/// A repository in which nothing is a checkpoint.
fn no_checkpoint(name: &RepositoryName, snapshot: &Snapshot<'_>) -> Problem {
    Problem {
        place: name.to_string(),
        found: format!("a repository without {CONFIG_FILE} and without {PIPELINE_FILE}: {}", listed(snapshot, "")),
        expected: "a checkpoint or a pipeline of diffusers; of a repository with single files, fetch one with `hf download` and name it, with --config"
            .into(),
    }
}

/// The first names of files that the hub lists in a folder.
fn listed(snapshot: &Snapshot<'_>, folder: &str) -> String {
    let names: Vec<&str> = snapshot.names().filter(|name| name.starts_with(folder)).collect();
    let first: Vec<String> = names.iter().take(MOST_NAMES).map(|name| shown(name)).collect();
    match names.len() {
        0 => "it is empty".into(),
        n if n > first.len() => format!("it has {} and {} more", first.join(", "), n - first.len()),
        _ => format!("it has {}", first.join(", ")),
    }
}
