//! The places where a new checkpoint may go: it must not replace one that `init` did not make.

use std::path::Path;

use s2dit_backends::input::{LARGEST_JSON, read_file};
use s2dit_backends::output::Contents;

use crate::checkpoint::CONFIG_FILE;
use s2dit_files::INDEX_FILE;

/// The field of `config.json` by which a checkpoint that `init` made is known.
pub const MARK: &str = "_s2ditc_init";

/// What a checkpoint has in it.
pub(super) const CONTENTS: Contents<'static> =
    Contents { kind: "a checkpoint", marker: CONFIG_FILE, part: &is_checkpoint_file, ours: &was_made_here };

fn is_checkpoint_file(path: &str) -> bool {
    let weights = path.starts_with("diffusion_pytorch_model") && path.ends_with(".safetensors") && !path.contains('/');
    weights || path == CONFIG_FILE || path == INDEX_FILE
}

fn was_made_here(target: &Path) -> bool {
    let text = read_file(&target.join(CONFIG_FILE), LARGEST_JSON).unwrap_or_default();
    serde_json::from_slice::<serde_json::Value>(&text).is_ok_and(|config| !config[MARK].is_null())
}
