//! Fields of a configuration that diffusers keeps beside a transformer: in its pipeline's index and its scheduler.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use s2dit_files::problems::Problems;
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

/// Reads a configuration. A field that it lacks is taken from the pipeline's files beside its folder, if they
/// are there and the family says that they have it.
///
/// # Errors
/// Every problem of the configuration; a value of another file is a problem of that file.
pub(super) fn read(path: &Path) -> Result<Read, Problems> {
    let place = path.display().to_string();
    let mut own = config::entries(path)?;
    let family = config::family_of(&own, &place)?;
    let mut origins = Vec::new();
    let mut taken: Vec<(String, String)> = Vec::new();
    for kept in family.map(|family| family.pipeline_fields()).unwrap_or_default() {
        let mut file = own.iter().any(|(name, _)| name == kept.field).then(|| path.to_owned());
        if let (None, Some((of, keys))) = (&file, kept.kept) {
            let beside = beside(path, of);
            let found = entries(&beside)?.unwrap_or_default();
            let value = keys.iter().find_map(|key| {
                found.iter().find(|(name, value)| name == key && !value.is_null()).map(|(_, value)| (*key, value))
            });
            if let Some((key, value)) = value {
                taken.push((format!("{place}: {}", kept.field), format!("{}: {key}", beside.display())));
                own.push((kept.field.to_owned(), value.clone()));
                file = Some(beside);
            }
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
    let values = model.config();
    for origin in &mut origins {
        origin.value = values[origin.field].clone();
    }
    Ok(Read { model, origins })
}

/// The files beside the folder of a configuration that may say something of it.
pub(super) fn files(config: &Path) -> [PathBuf; 2] {
    [PipelineFile::Index, PipelineFile::Scheduler].map(|file| beside(config, file))
}

/// A file of the pipeline that the folder of a configuration lies in.
fn beside(config: &Path, file: PipelineFile) -> PathBuf {
    let dir = config.parent().unwrap_or(Path::new(""));
    let folder = match (dir.file_name(), dir.parent()) {
        (Some(_), Some(parent)) => parent.to_owned(),
        _ => dir.join(".."),
    };
    folder.join(match file {
        PipelineFile::Index => PIPELINE_FILE,
        PipelineFile::Scheduler => SCHEDULER_FILE,
    })
}
