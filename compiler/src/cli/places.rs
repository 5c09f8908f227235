//! Outputs against inputs: nothing that a command reads is written over, and no two outputs share a place.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use s2dit_backends::onnx::read::Model;
use s2dit_backends::{coreai, coreml};
use s2dit_runtime::{experts, partition, pipeline, stream::contract};

use s2dit_models::checkpoint::CONFIG_FILE;

/// The paths of a command, under the names that a user knows them by.
#[derive(Default)]
pub(super) struct Places<'a> {
    inputs: Vec<(&'static str, &'a Path)>,
    outputs: Vec<(&'static str, &'a Path)>,
}

impl<'a> Places<'a> {
    /// Adds an input: a file, or a folder with all that is in it.
    pub(super) fn input(mut self, name: &'static str, path: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        self.inputs.extend(path.into_iter().map(|path| (name, path.as_path())));
        self
    }

    /// Adds a file to be written.
    pub(super) fn output(mut self, name: &'static str, path: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        self.outputs.extend(path.into_iter().map(|path| (name, path.as_path())));
        self
    }

    /// Checks the outputs, links followed.
    ///
    /// # Errors
    /// An output that is an input, or lies in a kernel or package that is one; two outputs in one place.
    pub(super) fn check(self) -> Result<()> {
        let outputs: Vec<(&str, &Path, PathBuf)> = self.outputs.iter().map(|(n, p)| (*n, *p, real(p))).collect();
        for (i, (name, path, place)) in outputs.iter().enumerate() {
            if let Some((other, there, _)) = outputs[..i].iter().find(|(_, _, taken)| taken == place) {
                let (path, there) = (path.display(), there.display());
                bail!("{name}: found `{path}`, which {other} `{there}` writes too; expected a place of its own");
            }
        }
        if outputs.is_empty() {
            return Ok(());
        }
        for (input, at) in &self.inputs {
            let mut taken = Vec::new();
            files(at, DEEPEST, &mut taken);
            let folder = fs::canonicalize(at).ok().filter(|p| is_artifact(p));
            let hit = outputs.iter().find(|(_, _, place)| {
                taken.contains(place) || folder.as_ref().is_some_and(|folder| place.starts_with(folder))
            });
            if let Some((name, path, place)) = hit {
                let (path, at) = (path.display(), at.display());
                let what = if taken.contains(place) { "is" } else { "lies in" };
                bail!("{name}: found `{path}`, which {what} the input {input} (`{at}`); expected a place of its own");
            }
        }
        Ok(())
    }
}

/// The path of a file with links followed; its last part is left as it is if nothing is there.
fn real(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let new = || Some(fs::canonicalize(parent).ok()?.join(path.file_name()?));
    fs::canonicalize(path).ok().or_else(new).unwrap_or_else(|| path.into())
}

/// Whether a folder is one thing: a kernel, a pair of experts, parts, a pipeline, a package or an asset. A checkpoint's folder is the user's, and other things may lie in it.
fn is_artifact(folder: &Path) -> bool {
    [contract::FILE, experts::FILE, partition::FILE, pipeline::FILE, coreml::MANIFEST, coreai::asset::PROGRAM]
        .iter()
        .any(|name| folder.join(name).exists())
}

/// The weights of a package in a kernel, and a level to spare: links may go round in circles.
const DEEPEST: usize = 6;

/// The files of an input: of an artifact those in its folder, of a checkpoint's folder the checkpoint's, of an ONNX model its
/// weights too.
fn files(at: &Path, depth: usize, out: &mut Vec<PathBuf>) {
    let Ok(place) = fs::canonicalize(at) else { return };
    if place.is_dir() {
        let (all, checkpoint) = (is_artifact(&place) || depth < DEEPEST, place.join(CONFIG_FILE).exists());
        let kept = |p: &Path| all || checkpoint && p.extension().is_some_and(|e| e == "json" || e == "safetensors");
        let entries = fs::read_dir(&place).into_iter().flatten().flatten().map(|e| e.path());
        if depth > 0 {
            entries.filter(|path| kept(path)).for_each(|path| files(&path, depth - 1, out));
        }
        return;
    }
    if place.extension().is_some_and(|e| e == "onnx")
        && let Ok(model) = Model::open(at)
    {
        let weights = model.external_files().into_keys().map(|file| at.with_file_name(file));
        out.extend(weights.filter_map(|path| fs::canonicalize(path).ok()));
    }
    out.push(place);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(input: &Path, output: &Path) -> bool {
        let (input, output) = (input.to_path_buf(), output.to_path_buf());
        Places::default().input("INPUT", [&input]).output("-o", [&output]).check().is_err()
    }

    #[cfg(unix)]
    #[test]
    fn an_input_is_known_under_every_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (file, link, folder) = (at("x.safetensors"), at("link"), at("kernel"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        fs::create_dir_all(folder.join("a")).unwrap();
        std::os::unix::fs::symlink(&folder, folder.join("a/round")).unwrap();
        assert!(!refused(&folder, &folder.join("a/new")), "neither a kernel nor a package");
        fs::write(folder.join("contract.json"), "{}").unwrap();
        assert!(refused(&file, &at("./kernel/../x.safetensors")));
        assert!(refused(&file, &link) && refused(&link, &file));
        assert!(refused(&folder, &folder.join("a/new")));
        assert!(!refused(&file, &at("y.safetensors")) && !refused(&at("none"), &at("y")));
        // In a checkpoint's folder only the checkpoint's files are inputs.
        fs::rename(folder.join("contract.json"), folder.join("config.json")).unwrap();
        assert!(refused(&folder, &folder.join("config.json")) && !refused(&folder, &folder.join("error.svg")));
    }

    #[test]
    fn two_outputs_do_not_share_a_place() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b, c) = (dir.path().join("x"), dir.path().join("./x"), dir.path().join("y"));
        assert!(Places::default().output("-o", [&a]).output("--state-out", [&c]).check().is_ok());
        let error = Places::default().output("-o", [&a]).output("--state-out", [&b]).check().unwrap_err().to_string();
        assert!(error.contains("--state-out") && error.contains("-o"), "{error}");
    }
}
