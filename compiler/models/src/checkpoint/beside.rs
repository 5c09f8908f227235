//! Fields of a configuration that diffusers keeps beside a transformer: in its pipeline's index and its scheduler.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use s2dit_files::problems::{Problems, quoted};
use serde::Serialize;
use serde_json::Value;

use super::pipeline::{PIPELINE_FILE, SCHEDULER_FILE, entries};
use crate::config;
use crate::model::{Model, PipelineFile};

/// A field that a transformer's own configuration need not have, and where its value is from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FieldOrigin {
    /// The field of `config.json`.
    pub field: &'static str,
    /// Its value.
    pub value: Value,
    /// The file that says it; `None` for a default.
    pub file: Option<PathBuf>,
}

/// A configuration that was read, with what lies beside it.
pub(super) struct Read {
    pub model: Arc<dyn Model>,
    pub origins: Vec<FieldOrigin>,
}

/// Reads a configuration. A field that it lacks is taken from the pipeline's files beside the folder of the `weights`, or else beside
/// its own, if they are there and the family says that they have it. `weights` is a folder or a file.
///
/// # Errors
/// Every problem of the configuration; a value of another file is a problem of that file.
pub(super) fn read(path: &Path, weights: &Path) -> Result<Read, Problems> {
    let place = path.display().to_string();
    let mut own = config::entries(path)?;
    let family = config::family_of(&own, &place)?;
    let mut origins = Vec::new();
    let mut taken: Vec<(String, String)> = Vec::new();
    for kept in family.map(|family| family.pipeline_fields()).unwrap_or_default() {
        let mut file = own.iter().any(|(name, _)| name == kept.field).then(|| path.to_owned());
        if let (None, Some((of, keys))) = (&file, kept.kept)
            && let Some(Found { at, key, value }) = find(&folders(path, weights), of, keys)?
        {
            taken.push((format!("{place}: {}", kept.field), format!("{}: {key}", at.display())));
            own.push((kept.field.to_owned(), value));
            file = Some(at);
        }
        if file.is_none()
            && !kept.code.is_empty()
            && let Some(Found { at, value: class, .. }) =
                find(&folders(path, weights), PipelineFile::Index, &["_class_name"])?
            && let Some((_, value)) = kept.code.iter().find(|(of, _)| class == *of)
            && let Ok(value) = serde_json::from_str(value)
        {
            own.push((kept.field.to_owned(), value));
            file = Some(at);
        }
        origins.push(FieldOrigin { field: kept.field, value: Value::Null, file });
    }
    let model = config::parse_entries(own, &place).map_err(|mut problems| {
        for problem in &mut problems.0 {
            if let Some((_, there)) = taken.iter().find(|(here, _)| *here == problem.place) {
                problem.place.clone_from(there);
            }
        }
        problems
    })?;
    check_class(&*model, path, weights)?;
    let values = model.config();
    for origin in &mut origins {
        origin.value = values[origin.field].clone();
    }
    Ok(Read { model, origins })
}

/// Checks that the index of the pipeline around a transformer has it under the class of its configuration. A configuration may say the causal form of its class,
/// which no pipeline knows.
fn check_class(model: &dyn Model, config: &Path, weights: &Path) -> Result<(), Problems> {
    let family = model.family();
    let is_own = |class: &str| class == family.class() || Some(class) == family.original_class();
    for folder in folders(config, weights) {
        let Some(component) = folder.file_name().and_then(|name| name.to_str()) else { continue };
        let at = beside(&folder, PipelineFile::Index);
        let listed = entries(&at)?.unwrap_or_default().into_iter().find(|(name, _)| name == component);
        let class = listed.as_ref().and_then(|(_, value)| value.get(1)?.as_str());
        if let Some(class) = class.filter(|class| !is_own(class) && model.streaming().is_err()) {
            return Err(Problems::one(
                format!("{}: {component}", at.display()),
                format!("the class {}", quoted(class)),
                format!("{}, as `{}` says", family.class(), config.display()),
            ));
        }
    }
    Ok(())
}

/// A value that a pipeline's file has.
struct Found {
    at: PathBuf,
    key: &'static str,
    value: Value,
}

/// The first of `keys` in the first of the files that has one.
fn find(folders: &[PathBuf], file: PipelineFile, keys: &[&'static str]) -> Result<Option<Found>, Problems> {
    for folder in folders {
        let at = beside(folder, file);
        let entries = entries(&at)?.unwrap_or_default();
        let said = |key: &&'static str| {
            let value = entries.iter().find(|(name, value)| name == key && !value.is_null());
            value.map(|(_, value)| (*key, value.clone()))
        };
        if let Some((key, value)) = keys.iter().find_map(said) {
            return Ok(Some(Found { at, key, value }));
        }
    }
    Ok(None)
}

/// The files that may say something of a configuration and its weights.
pub(super) fn files(config: &Path, weights: &Path) -> Vec<PathBuf> {
    let both = |folder: PathBuf| [PipelineFile::Index, PipelineFile::Scheduler].map(|file| beside(&folder, file));
    folders(config, weights).into_iter().flat_map(both).collect()
}

/// The folders that may be a transformer's in a pipeline: that of the weights, and that of the configuration if it is another one.
fn folders(config: &Path, weights: &Path) -> Vec<PathBuf> {
    let parent = |file: &Path| file.parent().unwrap_or(Path::new("")).to_owned();
    let own = if weights.is_dir() { weights.to_owned() } else { parent(weights) };
    let other = parent(config);
    if own == other { vec![own] } else { vec![own, other] }
}

/// A file of the pipeline that a transformer's folder lies in.
fn beside(dir: &Path, file: PipelineFile) -> PathBuf {
    let folder = match (dir.file_name(), dir.parent()) {
        (Some(_), Some(parent)) => parent.to_owned(),
        _ => dir.join(".."),
    };
    folder.join(match file {
        PipelineFile::Index => PIPELINE_FILE,
        PipelineFile::Scheduler => SCHEDULER_FILE,
    })
}
