//! Two transformers of a pipeline that share the timesteps, in one folder.

use std::path::Path;

use anyhow::{Context, Result};
use s2dit_backends::coreml;
use s2dit_backends::output::{Contents, Destination, Staged};
use s2dit_runtime::experts::{Description, Expert, FILE, FORMAT};
use s2dit_runtime::pipeline;

use crate::format::has_format;
use crate::parts::is_in_part;
use crate::{Options, Summary, Watch, compile};
use s2dit_models::checkpoint::Checkpoint;

/// An expert that is compiled.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The component of the pipeline.
    pub name: &'a str,
    /// Its checkpoint.
    pub checkpoint: &'a Checkpoint,
    /// How it is compiled: both to the same target.
    pub options: &'a Options,
}

/// Compiles two experts, that of high noise first, to the folder `out`, which appears whole or not at all. `boundary` is the timestep
/// from which on the first one is asked. `progress` gets the expert, bytes written and bytes in all.
///
/// # Errors
/// See [`compile`].
pub fn compile_experts(
    jobs: [Job<'_>; 2],
    boundary: f64,
    out: Destination<'_>,
    watch: &mut Watch,
    progress: &mut dyn FnMut(usize, u64, u64),
) -> Result<Vec<Summary>> {
    let files = jobs.map(|job| match job.options.partition {
        Some(_) => job.name.to_owned(),
        None => format!("{}.{}", job.name, job.options.target.extension()),
    });
    let contents = Contents {
        kind: "a pair of experts",
        marker: FILE,
        part: &|path| path == FILE || jobs.iter().any(|job| is_of(path, job.name)),
        ours: &|folder| has_format(&folder.join(FILE), FORMAT),
    };
    let folder = Staged::folder(out, &contents)?;
    let mut summaries = Vec::new();
    for (index, (job, file)) in jobs.iter().zip(&files).enumerate() {
        let inner = folder.path().join(file);
        let mut shown = |done: u64, all: u64| progress(index, done, all);
        let made = compile(job.checkpoint, job.options, Destination::new(&inner), watch, &mut shown)
            .map_err(|error| folder.unwritten(&error))?;
        summaries.push(Summary { path: out.path.join(file), ..made });
    }
    let [high, low] = files;
    let expert = |job: &Job<'_>, file: String| Expert { name: job.name.into(), file };
    let description = Description::new(boundary, [expert(&jobs[0], high), expert(&jobs[1], low)]);
    let text = serde_json::to_string_pretty(&description)? + "\n";
    std::fs::write(folder.path().join(FILE), text)
        .with_context(|| format!("cannot write `{}`", out.path.join(FILE).display()))?;
    // The first one was whole before the second one was read.
    for job in jobs {
        job.checkpoint.check_unchanged()?;
    }
    folder.commit()?;
    Ok(summaries)
}

/// Whether a path below the folder is of the expert `name`: an ONNX model and its weights, a package, or packages of a partition.
fn is_of(path: &str, name: &str) -> bool {
    let Some(rest) = path.strip_prefix(name) else { return false };
    let onnx =
        rest == ".onnx" || (rest.starts_with(".onnx.") && Path::new(rest).extension().is_some_and(|e| e == "data"));
    let package = rest.strip_prefix(".mlpackage/").is_some_and(coreml::package::is_part);
    let parts = rest.strip_prefix('/').is_some_and(|path| path == pipeline::FILE || is_in_part(path, "part"));
    onnx || package || parts
}

#[cfg(test)]
mod tests {
    use super::is_of;

    #[test]
    fn files_of_an_expert() {
        for ours in [
            "low.onnx",
            "low.onnx.0123456789abcdef.data",
            "low.mlpackage/Manifest.json",
            "low/pipeline.json",
            "low/part0.mlpackage/Manifest.json",
        ] {
            assert!(is_of(ours, "low"), "{ours}");
        }
        for other in ["low", "lower.onnx", "low.txt", "low/x", "low/part.mlpackage/Manifest.json", "x/low.onnx"] {
            assert!(!is_of(other, "low"), "{other}");
        }
    }
}
