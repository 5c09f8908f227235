//! What is compiled: a checkpoint, or the transformers of a pipeline folder.

use std::path::PathBuf;

use anyhow::Result;
use s2dit_models::checkpoint::{Checkpoint, FieldOrigin, Origin, PIPELINE_FILE, PipelineFolder};

use crate::cli::usage::refuse;
use s2dit_files::problems::shown;

/// What is compiled.
pub(super) enum Source {
    /// One checkpoint.
    One(Box<Checkpoint>),
    /// Two transformers of a pipeline.
    Experts(Box<Experts>),
}

/// Two transformers of a pipeline, that of high noise first.
pub(super) struct Experts {
    /// Names of the components.
    pub names: [String; 2],
    /// Their checkpoints.
    pub checkpoints: [Checkpoint; 2],
    /// The timestep from which on the first one is asked.
    pub boundary: f64,
}

impl Source {
    /// Opens what lies at `origin`: of a pipeline folder the transformer `component`, or all of them.
    pub(super) fn open(origin: &Origin, component: Option<&str>) -> Result<Source> {
        let one = |path: PathBuf| {
            let checkpoint = Checkpoint::open_from(&Origin { path, ..origin.clone() })?;
            Ok(Source::One(Box::new(checkpoint)))
        };
        let path = &origin.path;
        let pipeline = match (PipelineFolder::open(path)?, component) {
            (None, None) => return one(path.clone()),
            (None, Some(name)) => {
                refuse!("--component {name} is for a pipeline folder: `{}` has no {PIPELINE_FILE}", path.display())
            }
            (Some(pipeline), Some(name)) => return one(pipeline.component(name)?),
            (Some(pipeline), None) => pipeline,
        };
        let [high, low] = pipeline.transformers()[..] else { return one(pipeline.only_transformer()?) };
        let boundary = pipeline.boundary()?;
        let names = [high.0.to_owned(), low.0.to_owned()];
        let open = |name: &str| -> Result<Checkpoint> { Ok(Checkpoint::open(&pipeline.component(name)?)?) };
        let checkpoints = [open(&names[0])?, open(&names[1])?];
        Ok(Source::Experts(Box::new(Experts { names, checkpoints, boundary })))
    }
}

/// A line that says where fields are from that the checkpoint's configuration does not have; `None` if it has all.
pub(super) fn said(checkpoint: &Checkpoint) -> Option<String> {
    let own = |origin: &&FieldOrigin| origin.file.as_deref() == Some(checkpoint.config_file());
    let mut parts: Vec<String> = Vec::new();
    for origin in checkpoint.origins().iter().filter(|origin| !own(origin)) {
        let from = origin.file.as_ref().map_or("by default".to_owned(), |file| format!("of `{}`", file.display()));
        parts.push(format!("{} {} {from}", origin.field, origin.value));
    }
    (!parts.is_empty()).then(|| {
        let file = checkpoint.config_file().file_name().unwrap_or_default().to_string_lossy().into_owned();
        format!("not in {}: {}", shown(&file), parts.join(", "))
    })
}
