//! How the weights of a folder or a file are opened.

use std::path::{Path, PathBuf};

use super::WeightStore;
use crate::problems::{Problems, gone, quoted};
use crate::{Door, StateDict, index, open_door};

/// The weights, in one file, as diffusers calls it.
pub const WEIGHTS_FILE: &str = "diffusion_pytorch_model.safetensors";
/// The index of sharded weights, as diffusers calls it.
pub const INDEX_FILE: &str = "diffusion_pytorch_model.safetensors.index.json";
/// The weights, in one file, as transformers calls it.
pub const TRANSFORMERS_FILE: &str = "model.safetensors";
/// What is appended to the name of the weights for that of their index, if they are sharded.
pub const INDEX_ENDING: &str = ".index.json";

/// What libraries call the weights of a folder; those of one row take the place of those of the next.
const NAMES: [[&str; 2]; 2] = [[WEIGHTS_FILE, TRANSFORMERS_FILE], ["diffusion_pytorch_model.bin", "pytorch_model.bin"]];

/// The files of the first row of which there are any: the weights in one file, or an index.
fn found(dir: &Path) -> Vec<String> {
    let files = |row: [&str; 2]| -> Vec<String> {
        let both = row.into_iter().flat_map(|name| [name.to_owned(), format!("{name}{INDEX_ENDING}")]);
        both.filter(|name| dir.join(name).exists()).collect()
    };
    NAMES.into_iter().map(files).find(|files| !files.is_empty()).unwrap_or_default()
}

/// The first name that weights or an index could have and that is a link to nothing, with what is the matter.
fn dangling(dir: &Path) -> Option<String> {
    let names = NAMES.into_iter().flatten().flat_map(|name| [name.to_owned(), format!("{name}{INDEX_ENDING}")]);
    names.into_iter().find_map(|name| Some(format!("{name}, {}", gone(&dir.join(&name))?)))
}

/// The index of the weights of a folder, if they are sharded.
#[must_use]
pub fn index_of(dir: &Path) -> Option<PathBuf> {
    found(dir).into_iter().find(|name| name.ends_with(INDEX_ENDING)).map(|name| dir.join(name))
}

impl WeightStore {
    /// Opens the weights of a folder, whole or sharded, with what is wrong with them: a store with problems is good for finding more of
    /// them, and its data must not be read. `state_dict` chooses one of several dictionaries of tensors in a file of `torch.save`.
    ///
    /// # Errors
    /// No weights, or none that can be read.
    pub fn open_damaged(dir: &Path, state_dict: StateDict<'_>) -> Result<(Self, Problems), Problems> {
        let place = || dir.display().to_string();
        match found(dir).as_slice() {
            [index] if index.ends_with(INDEX_ENDING) => index::open(dir, &dir.join(index), state_dict),
            [whole] => Self::open_file(&dir.join(whole), state_dict),
            [] => Err(Problems::one(
                place(),
                dangling(dir).unwrap_or_else(|| weights_by_another_name(dir)),
                format!(
                    "{WEIGHTS_FILE} or {TRANSFORMERS_FILE}, or shards with {INDEX_FILE}; or name the file of weights itself, with --config"
                ),
            )),
            [first, second, ..] => Err(Problems::one(place(), format!("both {first} and {second}"), "one of them")),
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
