//! `Manifest.json`: where the model specification is.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::input::{LARGEST_JSON, read_file};

/// The path of the model specification.
pub(super) fn specification(package: &Path) -> Result<PathBuf> {
    let path = package.join("Manifest.json");
    let shown = path.display().to_string();
    let text = read_file(&path, LARGEST_JSON)
        .with_context(|| format!("`{}` is not an mlpackage: cannot read its `Manifest.json`", package.display()))?;
    let manifest: Value = serde_json::from_slice(&text).with_context(|| format!("`{shown}` is not JSON"))?;
    let version = manifest["fileFormatVersion"].as_str().unwrap_or_default();
    if version != "1.0.0" {
        bail!("`{shown}`: found fileFormatVersion `{version}`, expected `1.0.0`");
    }
    let items = manifest["itemInfoEntries"].as_object().with_context(|| format!("`{shown}`: no itemInfoEntries"))?;
    for (id, item) in items {
        for key in ["path", "name", "author", "description"] {
            if !item[key].is_string() {
                bail!("`{shown}`: item `{id}` has no `{key}`");
            }
        }
        let place = item_path(package, item["path"].as_str().unwrap_or_default())
            .with_context(|| format!("`{shown}`: item `{id}`"))?;
        if !place.exists() {
            bail!("`{shown}`: item `{id}` is `{}`, which does not exist", place.display());
        }
    }
    let root =
        manifest["rootModelIdentifier"].as_str().with_context(|| format!("`{shown}`: no rootModelIdentifier"))?;
    let item = items.get(root).with_context(|| format!("`{shown}`: rootModelIdentifier `{root}` names no item"))?;
    let place = item_path(package, item["path"].as_str().unwrap_or_default())?;
    if !place.is_file() {
        bail!("`{shown}`: the root model `{}` is not a file", place.display());
    }
    Ok(place)
}

/// An item's path below `Data`; it must not lead out of the package. The file there may be a link to elsewhere, as in the caches of
/// model hubs: who made the folder chose it, not who wrote the manifest.
fn item_path(package: &Path, relative: &str) -> Result<PathBuf> {
    let inside = Path::new(relative).components().all(|c| matches!(c, Component::Normal(_)));
    if relative.is_empty() || !inside {
        bail!("path `{relative}`: expected a path inside the package");
    }
    Ok(package.join("Data").join(relative))
}
