//! Two transformers of a pipeline that share the timesteps, in one folder.

use std::path::Path;

use anyhow::{Context, Result, bail};
use s2dit_backends::output::{Contents, Destination, Staged};
use s2dit_runtime::experts::{Description, Expert, FILE, FORMAT};
use s2dit_runtime::partition;

use crate::folder::is_inside;
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
/// Two experts whose class, inputs, velocity or sampler differ; see [`compile`].
pub fn compile_experts(
    jobs: [Job<'_>; 2],
    boundary: f64,
    out: Destination<'_>,
    watch: &mut Watch,
    progress: &mut dyn FnMut(usize, u64, u64),
) -> Result<Vec<Summary>> {
    check_alike(&jobs)?;
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

/// Refuses experts that cannot take each other's place: a clip gives both the same inputs and steps.
fn check_alike([first, second]: &[Job<'_>; 2]) -> Result<()> {
    let class = |job: &Job<'_>| vec![("class".to_owned(), job.checkpoint.model().family().class().to_owned())];
    let differ = |ours: &[Trait], theirs: &[Trait]| {
        let of = |traits: &[Trait], what: &str| {
            traits.iter().find(|(name, _)| name == what).map_or("none".to_owned(), |(_, value)| value.clone())
        };
        let mut names = ours.iter().chain(theirs).map(|(name, _)| name);
        let what = names.find(|name| of(ours, name) != of(theirs, name))?;
        Some(format!("{what}: found {}, expected {}", of(theirs, what), of(ours, what)))
    };
    // A latent of one class may be refused by another, so that the graphs come second.
    let found = match differ(&class(first), &class(second)) {
        None => differ(&first.traits()?, &second.traits()?),
        found => found,
    };
    let Some(found) = found else { return Ok(()) };
    bail!(
        "component `{}` (`{}`): {found}, as `{}` has: two transformers that share the steps of a clip are of one model; compile others \
         one by one, with --component",
        second.name,
        second.checkpoint.path().display(),
        first.name
    )
}

/// Something that experts have in common: its name, and what it is in words.
type Trait = (String, String);

impl Job<'_> {
    /// The inputs, the results and the sampler.
    fn traits(&self) -> Result<Vec<Trait>> {
        let model = self.checkpoint.model();
        let module = model.build(self.checkpoint, self.options.size)?;
        let step = &module.functions[0];
        let inputs = module.interface.inputs.iter().filter_map(|input| {
            let value = step.by_name(&input.name)?;
            Some((format!("input `{}`", input.name), step.ty(value).to_string()))
        });
        let results =
            step.results.iter().map(|(name, value)| (format!("result `{name}`"), step.ty(*value).to_string()));
        let sampler = model.sampler().ok().map(|sampler| ("sampler".to_owned(), sampler.to_string()));
        Ok(inputs.chain(results).chain(sampler).collect())
    }
}

/// Whether a path below the folder is of the expert `name`: an ONNX model and its weights, a package, an asset, or parts of a partition.
pub(crate) fn is_of(path: &str, name: &str) -> bool {
    let Some(rest) = path.strip_prefix(name) else { return false };
    let onnx =
        rest == ".onnx" || (rest.starts_with(".onnx.") && Path::new(rest).extension().is_some_and(|e| e == "data"));
    let parts = rest.strip_prefix('/').is_some_and(|path| path == partition::FILE || is_in_part(path, "part"));
    onnx || is_inside(rest) || parts
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
            "low/partition.json",
            "low/part0.mlpackage/Manifest.json",
            "low.aimodel/main.mlirb",
            "low/part10.aimodel/main.hash",
        ] {
            assert!(is_of(ours, "low"), "{ours}");
        }
        for other in [
            "low",
            "lower.onnx",
            "low.txt",
            "low/x",
            "low/part.mlpackage/Manifest.json",
            "low/part1.aimodel/x",
            "x/low.onnx",
        ] {
            assert!(!is_of(other, "low"), "{other}");
        }
    }
}
