//! Whether an artifact was made from a checkpoint: by its tensors' hash, then by its configuration, field by field.

use std::path::Path;

use anyhow::{Result, bail};
use s2dit_runtime::first_difference;
use serde_json::Value;

use s2dit_models::checkpoint::Checkpoint;

/// Compares what an artifact says it was made from with a checkpoint; what it does not say is not compared.
///
/// # Errors
/// Another checkpoint, or another configuration of the same tensors.
pub fn check(artifact: &Path, hash: Option<&str>, config: Option<&Value>, checkpoint: &Checkpoint) -> Result<()> {
    let (shown, dir) = (artifact.display(), checkpoint.path().display());
    let ours = format!("blake3:{}", checkpoint.content_hash().to_hex());
    if let Some(made_from) = hash.filter(|hash| *hash != ours) {
        bail!("`{shown}` was made from checkpoint {made_from}, but `{dir}` is {ours}");
    }
    let ours = checkpoint.model().config();
    if let Some(d) = config.and_then(|config| first_difference(&ours, config)) {
        bail!(
            "`{}`: field `{}`: found {}, expected {}, which `{shown}` was made from",
            checkpoint.config_file().display(),
            d.field,
            d.found,
            d.expected
        );
    }
    Ok(())
}
