//! Whether an artifact was made from a checkpoint: by its tensors' hash, then by its configuration, field by field.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};
use s2dit_runtime::first_difference;
use serde_json::Value;

use s2dit_files::json::compact;
use s2dit_files::problems::shown;
use s2dit_models::checkpoint::Checkpoint;

/// What an artifact says of the checkpoint that it was made from.
#[derive(Clone, Copy)]
pub(crate) struct Said<'a> {
    /// `blake3:` and the hash of the tensors.
    pub hash: Option<&'a str>,
    /// The configuration.
    pub config: Option<&'a Value>,
    /// The adapters that were merged into the tensors, as JSON.
    pub loras: Option<&'a str>,
}

/// How the metadata of an artifact says which adapters were merged into its weights.
pub(crate) fn loras(metadata: &BTreeMap<String, String>) -> Option<&str> {
    metadata.get("s2ditc.lora").map(String::as_str)
}

/// Compares what an artifact says it was made from with a checkpoint; what it does not say is not compared.
///
/// # Errors
/// Another checkpoint, or another configuration of the same tensors.
pub(crate) fn check(artifact: &Path, said: Said<'_>, checkpoint: &Checkpoint) -> Result<()> {
    let (at, dir) = (artifact.display(), checkpoint.path().display());
    let ours = format!("blake3:{}", checkpoint.content_hash().to_hex());
    if let Some(made_from) = said.hash.filter(|hash| *hash != ours) {
        let given: String = checkpoint.loras().map(|lora| format!(" --lora {}:{}", lora.file, lora.scale)).collect();
        let way_out = match (said.loras.map(flags), given.is_empty()) {
            (Some(flags), _) => format!("it was made with{flags}"),
            (None, false) => "it was made without --lora".to_owned(),
            (None, true) => {
                "name the weights that it was made from (a GGUF file has others than the model it was made of)"
                    .to_owned()
            }
        };
        bail!("`{at}` was made from checkpoint {made_from}, but `{dir}`{given} is {ours}: {way_out}");
    }
    let ours = checkpoint.model().config();
    if let Some(d) = said.config.and_then(|config| first_difference(&ours, config)) {
        let way_out = match checkpoint.model().graph() {
            Some(_) => ": the weights are the same, so give the --input, --result and --bind that it was compiled with",
            None => "",
        };
        bail!(
            "`{}`: field `{}`: found {}, expected {}, which `{at}` was made from{way_out}",
            checkpoint.config_file().display(),
            d.field,
            d.found,
            d.expected
        );
    }
    Ok(())
}

/// The flags that name adapters, of what an artifact says of them: ` --lora fast.safetensors:0.5`.
fn flags(loras: &str) -> String {
    let list: Vec<Value> = serde_json::from_str(loras).unwrap_or_default();
    let flag = |lora: &Value| {
        format!(" --lora {}:{}", shown(lora["file"].as_str().unwrap_or("FILE")), compact(&lora["scale"]))
    };
    if list.is_empty() { " --lora".to_owned() } else { list.iter().map(flag).collect() }
}
