//! The folder: `Manifest.json`, `model.mlmodel` and `weights/weight.bin`.

use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Serialize;
use serde_json::json;

const AUTHOR: &str = "com.apple.CoreML";
const MODEL: &str = "model.mlmodel";
const WEIGHTS: &str = "weights";

/// The file whose presence makes a folder a package.
pub const MANIFEST: &str = "Manifest.json";

/// How a model refers to its blob file.
pub const WEIGHT_REFERENCE: &str = "@model_path/weights/weight.bin";

/// Paths inside a package.
#[derive(Clone, Debug)]
pub struct Package {
    root: PathBuf,
}

impl Package {
    /// The package at `root`, which need not exist.
    pub fn new(root: &Path) -> Self {
        Package { root: root.into() }
    }

    fn data(&self) -> PathBuf {
        self.root.join("Data").join(AUTHOR)
    }

    /// `Manifest.json`.
    pub fn manifest(&self) -> PathBuf {
        self.root.join(MANIFEST)
    }

    /// The serialised model.
    pub fn model(&self) -> PathBuf {
        self.data().join(MODEL)
    }

    /// The folder of the blob file.
    pub fn weights(&self) -> PathBuf {
        self.data().join(WEIGHTS)
    }

    /// The blob file.
    pub fn weight_bin(&self) -> PathBuf {
        self.weights().join("weight.bin")
    }

    /// Makes the folders inside `root`.
    ///
    /// # Errors
    /// The file system's.
    pub fn create_folders(&self) -> io::Result<()> {
        fs::create_dir_all(self.weights())
    }
}

/// The text of `Manifest.json`. The ids of the two items are derived from the serialised model, so that equal packages
/// have equal manifests.
///
/// # Errors
/// The serialiser's.
pub fn manifest(model: &[u8]) -> serde_json::Result<String> {
    let hash = blake3::hash(model);
    let [root, weights] = [MODEL, WEIGHTS].map(|item| {
        let key = blake3::Hasher::new_derive_key("s2ditc mlpackage item")
            .update(hash.as_bytes())
            .update(item.as_bytes())
            .finalize();
        uuid(key.as_bytes())
    });
    let mut items = [(&root, MODEL, "CoreML Model Specification"), (&weights, WEIGHTS, "CoreML Model Weights")];
    items.sort();
    let entries: serde_json::Map<_, _> = items
        .into_iter()
        .map(|(id, name, description)| {
            let entry = json!({
                "author": AUTHOR,
                "description": description,
                "name": name,
                "path": format!("{AUTHOR}/{name}"),
            });
            (id.clone(), entry)
        })
        .collect();
    let manifest = json!({
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": entries,
        "rootModelIdentifier": root,
    });
    let mut text = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    manifest.serialize(&mut serde_json::Serializer::with_formatter(&mut text, indent))?;
    text.push(b'\n');
    String::from_utf8(text).map_err(serde::ser::Error::custom)
}

/// The first 16 bytes as a UUID of version 8 (RFC 9562: custom contents).
fn uuid(bytes: &[u8; 32]) -> String {
    let mut b = [0; 16];
    b.copy_from_slice(&bytes[..16]);
    b[6] = b[6] & 0x0f | 0x80;
    b[8] = b[8] & 0x3f | 0x80;
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    format!("{}-{}-{}-{}-{}", hex(&b[..4]), hex(&b[4..6]), hex(&b[6..8]), hex(&b[8..10]), hex(&b[10..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_names_both_items() {
        let text = manifest(b"model").unwrap();
        assert_eq!(text, manifest(b"model").unwrap());
        assert_ne!(text, manifest(b"other").unwrap());
        assert!(text.ends_with("}\n"));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let items = value["itemInfoEntries"].as_object().unwrap();
        assert_eq!(items.len(), 2);
        let root = value["rootModelIdentifier"].as_str().unwrap();
        assert_eq!(items[root]["path"], "com.apple.CoreML/model.mlmodel");
        assert_eq!(root.len(), 36);
        assert_eq!(&root[14..15], "8");
        let keys: Vec<_> = items.keys().collect();
        assert!(keys.is_sorted());
    }
}
