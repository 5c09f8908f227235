//! A model and its weights as one output. They are two files, and nothing renames two files at once: so the weights' name holds the
//! [identity](super::identity) of what it belongs to. New weights come beside the old ones, then the model is renamed, which refers
//! to the new ones; at every moment the model in place has its own weights beside it. Weights that no model refers to any more go
//! last.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::identity::{DIGITS, is_ours};
use super::read::Model;
use crate::Error;
use crate::output::{Destination, OutputError, Staged, is_staged, made};

/// A model that is being written, with weights if it turns out to need them.
#[derive(Debug)]
pub struct Pair {
    names: Names,
    model: Staged,
    data: Option<Staged>,
}

/// What the files of a pair are called.
#[derive(Clone, Debug)]
pub struct Names {
    model: String,
}

impl Names {
    /// The name of the weights, which the model refers to; `identity` is its first 16 digits.
    #[must_use]
    pub fn data(&self, identity: &str) -> String {
        format!("{}.{identity}.data", self.model)
    }
}

impl Pair {
    /// Stages a model.
    ///
    /// # Errors
    /// A name that is not UTF-8; see [`Staged::file`].
    pub fn stage(to: Destination<'_>) -> Result<Pair, Error> {
        let model = Staged::file(to, &made::onnx).map_err(|e| Error::writing(e.into()))?;
        // With links followed: the weights lie beside the file, not beside the link.
        let name = model.place().file_name().and_then(OsStr::to_str);
        let name = name.with_context(|| format!("cannot write `{}`: the name is not UTF-8", to.path.display()));
        let name = name.map_err(Error::writing)?;
        Ok(Pair { names: Names { model: name.into() }, model, data: None })
    }

    /// What the files are called.
    #[must_use]
    pub fn names(&self) -> Names {
        self.names.clone()
    }

    /// The model that is staged.
    #[must_use]
    pub fn model(&self) -> &Staged {
        &self.model
    }

    /// Stages the weights beside the model, and returns where to write them.
    ///
    /// # Errors
    /// A name that is too long; see [`Staged::file`].
    pub fn stage_data(&mut self) -> Result<PathBuf, OutputError> {
        // The name that is right is known when the weights are written. This one is as long.
        let place = self.model.place().with_file_name(self.names.data(&"0".repeat(DIGITS)));
        let staged = Staged::file(Destination::new(&place), &is_ours)?;
        let path = staged.path().to_path_buf();
        self.data = Some(staged);
        Ok(path)
    }

    /// Puts both in place, and removes weights that were the model's before. `location` is the name of the weights, if some were
    /// written.
    ///
    /// # Errors
    /// See [`Staged::commit_all`].
    pub fn commit(self, location: Option<&str>) -> Result<(), OutputError> {
        let place = self.model.place().to_path_buf();
        let data = match (self.data, location) {
            (Some(data), Some(location)) => Some(data.renamed(location, &is_ours)?),
            _ => None,
        };
        let folder = place.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Held until the old weights are gone: another process may not come with a model for them in between, nor with weights that it has no
        // model for yet. A folder that is staged is locked by its own writer.
        let lock = if is_staged(folder) { None } else { lock(folder) };
        Staged::commit_all(data.into_iter().chain([self.model]).collect())?;
        if lock.is_some() {
            sweep(folder, &place, location);
        }
        Ok(())
    }
}

/// Longer than any commit takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Locks a folder against other processes that put a model there; `None` where that cannot be had, and then nothing is removed.
fn lock(folder: &Path) -> Option<File> {
    let file = File::open(folder).ok()?;
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Some(file),
            Err(fs::TryLockError::WouldBlock) if start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(_) => return None,
        }
    }
}

/// Weights in a folder that are named after the model at `place`; `fresh` are those of its new self.
fn stale(folder: &Path, place: &Path, fresh: Option<&str>) -> Vec<PathBuf> {
    let Some(name) = place.file_name().and_then(OsStr::to_str) else { return Vec::new() };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
    let is_stale = |path: &PathBuf| file_name(path).is_some_and(|file| is_data_of(file, name) && Some(file) != fresh);
    entries.filter(is_stale).collect()
}

fn file_name(path: &Path) -> Option<&str> {
    path.file_name().and_then(OsStr::to_str)
}

/// Removes weights named after the model at `place` that we wrote and that no model in the folder refers to; `fresh` are those just put
/// there. What cannot be removed is in nobody's way, and is looked at again the next time.
fn sweep(folder: &Path, place: &Path, fresh: Option<&str>) {
    let mut stale = stale(folder, place, fresh);
    if stale.is_empty() {
        return;
    }
    let entries: Vec<PathBuf> = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    for model in entries.iter().filter(|p| p.extension().is_some_and(|e| e == "onnx")) {
        let used = Model::open(model).map(|m| m.external_files()).unwrap_or_default();
        stale.retain(|path| !file_name(path).is_some_and(|file| used.contains_key(file)));
    }
    for path in stale {
        // Locked by whoever is writing it.
        let free = File::open(&path).is_ok_and(|file| file.try_lock().is_ok());
        if free && is_ours(&path) {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Whether a file has the name of weights of the model `model`: as they are named now, or were before names had an identity.
fn is_data_of(file: &str, model: &str) -> bool {
    let rest = file.strip_prefix(model).and_then(|rest| rest.strip_prefix('.'));
    rest.is_some_and(|rest| {
        let identity = rest.strip_suffix(".data");
        rest == "data"
            || identity.is_some_and(|digits| {
                digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_weights() {
        for ours in ["x.onnx.data", "x.onnx.0123456789abcdef.data"] {
            assert!(is_data_of(ours, "x.onnx"), "{ours}");
        }
        for other in ["x.onnx", "y.onnx.data", "x.onnx.0123.data", "x.onnx.0123456789ABCDEF.data", "x.onnx.old.data"] {
            assert!(!is_data_of(other, "x.onnx"), "{other}");
        }
        let names = Names { model: "x.onnx".into() };
        assert!(is_data_of(&names.data("0123456789abcdef"), "x.onnx"));
    }
}
