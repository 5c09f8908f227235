//! The places where a new checkpoint may go: it must not replace one that `init` did not make.

use std::path::Path;

use s2dit_backends::input::{LARGEST_JSON, read_file};
use s2dit_backends::output::Contents;

use crate::checkpoint::CONFIG_FILE;
use s2dit_files::{INDEX_ENDING, TRANSFORMERS_FILE, WEIGHTS_FILE};

/// The field of `config.json` by which a checkpoint that `init` made is known.
pub const MARK: &str = "_s2ditc_init";

/// What a checkpoint has in it.
pub(super) const CONTENTS: Contents<'static> =
    Contents { kind: "a checkpoint", marker: CONFIG_FILE, part: &is_checkpoint_file, ours: &was_made_here };

fn is_checkpoint_file(path: &str) -> bool {
    let whole = path.strip_suffix(INDEX_ENDING).unwrap_or(path);
    let is_of = |name: &str| {
        let stem = name.strip_suffix(".safetensors").unwrap_or(name);
        let rest = whole.strip_prefix(stem).and_then(|rest| rest.strip_suffix(".safetensors"));
        // One file, or a shard of several.
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-') && !rest.contains('/'))
    };
    path == CONFIG_FILE || is_of(WEIGHTS_FILE) || is_of(TRANSFORMERS_FILE)
}

fn was_made_here(target: &Path) -> bool {
    let text = read_file(&target.join(CONFIG_FILE), LARGEST_JSON).unwrap_or_default();
    serde_json::from_slice::<serde_json::Value>(&text).is_ok_and(|config| !config[MARK].is_null())
}
