//! Whether the artifacts of a kernel folder are of one compile: each carries the contract that it was made for.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use s2dit_backends::coreml::Package;
use s2dit_backends::input::read_text;
use s2dit_backends::onnx;
use serde_json::Value;

use super::contract::{self, Contract, Target};
use crate::first_difference;

/// The metadata field that holds an artifact's contract.
pub const CONTRACT: &str = "s2ditc.contract";

/// Compares the contract of each artifact with `contract.json`, field by field. An artifact without one is refused if s2ditc
/// made the kernel; kernels made by hand need none.
///
/// # Errors
/// An artifact that is not there or cannot be read; one that was made for another contract.
pub fn check(dir: &Path, contract: &Contract) -> Result<()> {
    let place = dir.join(contract::FILE);
    let text = read_text(&place).with_context(|| format!("cannot read `{}`", place.display()))?;
    // As it is written, so that a field that the contract does not know is seen too.
    let ours: Value = serde_json::from_str(&text).with_context(|| format!("`{}`", place.display()))?;
    let mut files: Vec<&str> = contract.functions.all().iter().map(|(_, f)| f.file.as_str()).collect();
    files.extend(contract.functions.all().iter().flat_map(|(_, f)| &f.parts).map(|part| part.file.as_str()));
    let mut seen = HashSet::new();
    files.retain(|file| seen.insert(*file));
    for file in files {
        let path = dir.join(file);
        let shown = path.display();
        if !path.exists() {
            bail!("`{shown}`: the contract names this artifact, but it is not there");
        }
        let metadata = match contract.target {
            Target::Onnx => onnx::read::Model::open(&path)?.metadata(),
            Target::CoreMl => Package::open(&path)?.metadata(),
        };
        let Some(theirs) = metadata.get(CONTRACT) else {
            if contract.compiler.starts_with("s2ditc ") {
                bail!("`{shown}`: found no `{CONTRACT}` in its metadata, expected a function of this kernel");
            }
            continue;
        };
        let theirs: Value = serde_json::from_str(theirs)
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
