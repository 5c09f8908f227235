//! How the weights of a folder or a file are opened.

use std::path::Path;

use super::WeightStore;
use crate::problems::{Problems, gone, quoted};
use crate::{Door, SafetensorsFile, StateDict, index, open_door};

/// The weights, in one file.
pub const WEIGHTS_FILE: &str = "diffusion_pytorch_model.safetensors";
/// The index of sharded weights.
pub const INDEX_FILE: &str = "diffusion_pytorch_model.safetensors.index.json";

impl WeightStore {
    /// Opens the weights of a folder, whole or sharded.
    ///
    /// # Errors
    /// Every problem of the files.
    pub fn open(dir: &Path) -> Result<Self, Problems> {
        let (store, problems) = Self::open_damaged(dir)?;
        problems.into_result().map(|()| store)
    }

    /// Opens the weights of a folder with what is wrong with them: a store with problems is good for finding more of
    /// them, and its data must not be read.
    ///
    /// # Errors
    /// No weights, or none that can be read.
    pub fn open_damaged(dir: &Path) -> Result<(Self, Problems), Problems> {
        let whole = dir.join(WEIGHTS_FILE);
        let index = dir.join(INDEX_FILE);
        match (whole.exists(), index.exists()) {
            (true, false) => {
                let (file, problems) = SafetensorsFile::open_damaged(&whole)?;
                Ok((Self::of(Box::new(file)), problems))
            }
            (false, true) => index::open(dir, &index),
            (true, true) => Err(Problems::one(
                dir.display().to_string(),
                format!("both {WEIGHTS_FILE} and {INDEX_FILE}"),
                "one of them",
            )),
            (false, false) => Err(Problems::one(
                dir.display().to_string(),
                [(WEIGHTS_FILE, &whole), (INDEX_FILE, &index)]
                    .into_iter()
                    .find_map(|(name, file)| Some(format!("{name}, {}", gone(file)?)))
                    .unwrap_or_else(|| weights_by_another_name(dir)),
                format!(
                    "{WEIGHTS_FILE}, or shards with {INDEX_FILE}; or name the file of weights itself, with --config"
                ),
            )),
        }
    }

    /// Opens one file of weights with what is wrong with it, see [`WeightStore::open_damaged`]. `state_dict` chooses one of
    /// several dictionaries of tensors in a file of `torch.save`.
    ///
    /// # Errors
    /// A file of another format, or one that cannot be read.
    pub fn open_file(path: &Path, state_dict: StateDict<'_>) -> Result<(Self, Problems), Problems> {
        let (door, problems) = open_door(path, state_dict)?;
        Ok((Self::of(door), problems))
    }

    /// The tensors of one file, by the names that they have there.
    #[must_use]
    pub fn of(door: Box<dyn Door>) -> Self {
        let mut store = WeightStore::default();
        store.damaged.extend(door.damaged().into_iter().map(str::to_owned));
        for name in door.names() {
            if let Some(ty) = door.ty(name) {
                store.hold(name, name, ty);
            }
        }
        store.push(door);
        store
    }
}

/// The weight files of other names in a folder, for the error message.
fn weights_by_another_name(dir: &Path) -> String {
    let endings = [".safetensors", ".safetensors.index.json", ".bin", ".pt", ".pth", ".ckpt", ".gguf"];
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| endings.iter().any(|ending| name.ends_with(ending)))
        .collect();
    names.sort();
    match names.as_slice() {
        [] => "no weights".to_owned(),
        [only] => format!("only {}", quoted(only)),
        [first, ..] => format!("only {} and {} more weight files", quoted(first), names.len() - 1),
    }
}
