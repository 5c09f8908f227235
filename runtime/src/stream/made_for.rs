//! Whether the artifacts of a kernel folder are of one compile: each carries the contract that it was made for.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use s2dit_backends::input::{LARGEST_JSON, check_json, read_text};
use serde_json::Value;

use super::contract;
use crate::first_difference;

/// The metadata field that holds an artifact's contract.
pub const CONTRACT: &str = "s2ditc.contract";

/// Compares the contract in each artifact's metadata with `contract.json`, field by field. An artifact without one is refused if s2ditc
/// made the kernel, as `compiler` says; kernels made by hand need none.
///
/// # Errors
/// A contract that can no longer be read; an artifact that was made for another one.
pub(crate) fn check(
    dir: &Path,
    compiler: &str,
    artifacts: impl IntoIterator<Item = (String, BTreeMap<String, String>)>,
) -> Result<()> {
    let place = dir.join(contract::FILE);
    let text = read_text(&place, LARGEST_JSON).with_context(|| format!("cannot read `{}`", place.display()))?;
    // As it is written, so that a field that the contract does not know is seen too.
    let ours: Value = serde_json::from_str(&text).with_context(|| format!("`{}`", place.display()))?;
    for (file, metadata) in artifacts {
        let path = dir.join(file);
        let shown = path.display();
        let Some(theirs) = metadata.get(CONTRACT) else {
            if compiler.starts_with("s2ditc ") {
                bail!("`{shown}`: found no `{CONTRACT}` in its metadata, expected a function of this kernel");
            }
            continue;
        };
        let theirs: Value = check_json(theirs)
            .map_err(anyhow::Error::from)
            .and_then(|()| Ok(serde_json::from_str(theirs)?))
            .with_context(|| format!("`{shown}`: metadata `{CONTRACT}`: expected a contract as JSON"))?;
        if let Some(d) = first_difference(&ours, &theirs) {
            bail!(
                "`{shown}` was made for another contract than {}: field `{}`: found {} in {}, expected {}, as the artifact \
                 says",
                contract::FILE,
                d.field,
                d.found,
                contract::FILE,
                d.expected
            );
        }
    }
    Ok(())
}
