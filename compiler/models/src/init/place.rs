//! Where a new checkpoint may go: what a random one must not replace.

use std::path::Path;
use std::{fs, io};

use s2dit_backends::input::{LARGEST_JSON, read_file};

use super::MARK;
use crate::checkpoint::CONFIG_FILE;
use s2dit_files::INDEX_FILE;
use s2dit_files::problems::Problems;

/// Checks that a target may be replaced: it does not exist, is empty, or is a checkpoint and nothing else; and that
/// `init` made that checkpoint, unless forced.
pub(super) fn check_replaceable(target: &Path, force: bool) -> Result<(), Problems> {
    let problem = |found: String, expected: &str| Err(Problems::one(target.display().to_string(), found, expected));
    let is_folder = match fs::symlink_metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return problem(error.to_string(), "a folder to write"),
        Ok(meta) if meta.is_symlink() => {
            return problem("a symbolic link".into(), "a new or empty folder");
        }
        Ok(meta) => meta.is_dir(),
    };
    if !is_folder {
        return problem("a file".into(), "a new or empty folder");
    }
    let mut names = match fs::read_dir(target).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
        Ok(entries) => {
            entries.into_iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
        }
        Err(error) => return problem(error.to_string(), "a folder to write"),
    };
    names.sort();
    if let Some(foreign) = names.iter().find(|name| !is_checkpoint_file(name)) {
        return problem(
            format!("a folder with `{foreign}` in it"),
            "a new or empty folder, or a checkpoint to replace",
        );
    }
    if names.is_empty() || force || was_made_here(target) {
        return Ok(());
    }
    problem("a checkpoint that `s2ditc init` did not make".into(), "a new or empty folder (or --force, to replace it)")
}

fn is_checkpoint_file(name: &str) -> bool {
    let weights = name.starts_with("diffusion_pytorch_model") && name.ends_with(".safetensors");
    weights || name == CONFIG_FILE || name == INDEX_FILE
}

fn was_made_here(target: &Path) -> bool {
    let text = read_file(&target.join(CONFIG_FILE), LARGEST_JSON).unwrap_or_default();
    serde_json::from_slice::<serde_json::Value>(&text).is_ok_and(|config| !config[MARK].is_null())
}
