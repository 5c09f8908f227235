//! The folder of an mlpackage: manifest, model, weights.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use prost::Message;

use super::proto::Model;
use crate::input::read_file;
use crate::output::{Contents, made};

/// The file that makes a folder an mlpackage.
pub const MANIFEST: &str = "Manifest.json";
/// The model, below the package.
pub const MODEL: &str = "Data/com.apple.CoreML/model.mlmodel";
/// The weights, below the package.
pub const WEIGHTS: &str = "Data/com.apple.CoreML/weights/weight.bin";
/// The name under which the model refers to its weight file.
pub const WEIGHTS_IN_MODEL: &str = "@model_path/weights/weight.bin";
/// What a package of ours has in it.
pub const CONTENTS: Contents<'static> =
    Contents { kind: "a Core ML package", marker: MANIFEST, part: &is_part, ours: &made_here };

/// Whether a path below a package is one of its files.
#[must_use]
pub fn is_part(path: &str) -> bool {
    [MANIFEST, MODEL, WEIGHTS].contains(&path)
}

/// Whether the package at a path says that we made it.
fn made_here(package: &Path) -> bool {
    let model = read_file(&package.join(MODEL), MODEL_LIMIT as u64).ok();
    let model = model.and_then(|bytes| Model::decode(bytes.as_slice()).ok());
    let metadata = model.and_then(|model| model.description?.metadata);
    metadata.is_some_and(|m| m.author == made::NAME || m.user_defined.keys().any(|k| k.starts_with("s2ditc.")))
}

/// Protobuf readers stop here.
const MODEL_LIMIT: usize = i32::MAX as usize;

/// Makes the package's folders below `dir`, which exists, and opens the weight file.
///
/// A model without weights has the folder but no file: `with_weights` says which.
///
/// # Errors
/// A folder or file that cannot be made.
pub(super) fn create(dir: &Path, with_weights: bool) -> Result<Option<File>> {
    let path = dir.join(WEIGHTS);
    let folder = path.parent().unwrap_or(dir);
    fs::create_dir_all(folder).with_context(|| cannot_write(folder))?;
    if !with_weights {
        return Ok(None);
    }
    File::create(&path).map(Some).with_context(|| cannot_write(&path))
}

/// Makes the package's folders below `dir`, which exists, with the weight file of the package `first`: a hard link, or a copy
/// where the file system has no links.
///
/// # Errors
/// A folder or file that cannot be made.
pub(super) fn link_weights(first: &Path, dir: &Path) -> Result<()> {
    create(dir, false)?;
    let (from, to) = (first.join(WEIGHTS), dir.join(WEIGHTS));
    if from.exists() && fs::hard_link(&from, &to).is_err() {
        fs::copy(&from, &to).with_context(|| cannot_write(&to))?;
    }
    Ok(())
}

/// Writes the serialized model and the manifest.
///
/// # Errors
/// A model of 2 GiB, a file that cannot be written.
pub(super) fn finish(dir: &Path, model: &[u8]) -> Result<()> {
    ensure!(model.len() < MODEL_LIMIT, "the model has {} bytes without its weights; Core ML allows 2 GiB", model.len());
    write(&dir.join(MODEL), model)?;
    write(&dir.join(MANIFEST), manifest(model).as_bytes())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| cannot_write(path))
}

/// The context of every I/O error here.
pub(super) fn cannot_write(path: &Path) -> String {
    format!("cannot write `{}`", path.display())
}

/// `Manifest.json`, in the form that coremltools gives it: four spaces, sorted keys, a final newline. The items' identifiers
/// follow from the model, so that equal models have equal packages.
fn manifest(model: &[u8]) -> String {
    let (root, weights) = (identifier("model", model), identifier("weights", model));
    let mut items =
        [(&root, "CoreML Model Specification", "model.mlmodel"), (&weights, "CoreML Model Weights", "weights")];
    items.sort();
    let entries = items.map(|(id, description, name)| {
        format!(
            r#"        "{id}": {{
            "author": "com.apple.CoreML",
            "description": "{description}",
            "name": "{name}",
            "path": "com.apple.CoreML/{name}"
        }}"#
        )
    });
    format!(
        r#"{{
    "fileFormatVersion": "1.0.0",
    "itemInfoEntries": {{
{}
    }},
    "rootModelIdentifier": "{root}"
}}
"#,
        entries.join(",\n")
    )
}

/// A UUID (version 8: of the maker's own making) from a role and the model's bytes.
fn identifier(role: &str, model: &[u8]) -> String {
    let mut hash = blake3::Hasher::new_derive_key("s2ditc mlpackage item identifier");
    hash.update(role.as_bytes());
    hash.update(model);
    let mut b = [0; 16];
    hash.finalize_xof().fill(&mut b);
    b[6] = b[6] & 0x0f | 0x80;
    b[8] = b[8] & 0x3f | 0x80;
    let hex: String = b.iter().map(|b| format!("{b:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_names_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        assert!(create(dir.path(), false).unwrap().is_none());
        finish(dir.path(), b"model").unwrap();
        let text = fs::read_to_string(dir.path().join(MANIFEST)).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let items = json["itemInfoEntries"].as_object().unwrap();
        assert_eq!(items.len(), 2);
        assert_eq!(items[json["rootModelIdentifier"].as_str().unwrap()]["name"], "model.mlmodel");
        for (id, item) in items {
            assert_eq!(id.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
            assert!(dir.path().join("Data").join(item["path"].as_str().unwrap()).exists());
        }
        assert_eq!(text, manifest(b"model"));
        assert_ne!(text, manifest(b"another"));
    }
}
