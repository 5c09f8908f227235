//! The folder of an `.aimodel`: program, hash, metadata.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::program::Value;
use crate::input::{LARGEST_JSON, read_text};
use crate::output::{Contents, made};

/// The program with its weights.
pub const PROGRAM: &str = "main.mlirb";
/// SHA-256 of the program's file, as 32 bytes: a system caches compiled programs by it.
pub const HASH: &str = "main.hash";
/// What the asset says of itself.
pub const METADATA: &str = "metadata.json";
/// The version of the folder's form.
const ASSET_VERSION: &str = "2.0";

/// What an asset of ours has in it.
pub const CONTENTS: Contents<'static> =
    Contents { kind: "a Core AI asset", marker: PROGRAM, part: &is_part, ours: &made_here };

/// Whether a path below an asset is one of its files.
#[must_use]
pub fn is_part(path: &str) -> bool {
    [PROGRAM, HASH, METADATA].contains(&path)
}

/// Whether the asset at a path says that we made it.
fn made_here(asset: &Path) -> bool {
    Metadata::read(asset).is_ok_and(|m| m.producer.starts_with(made::NAME))
}

/// `metadata.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// The version of the folder's form.
    #[serde(default)]
    pub asset_version: String,
    /// Author of the model.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// A line about the model.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The model's licence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub license: String,
    /// The program that wrote the asset.
    #[serde(default)]
    pub producer: String,
    /// Everything else, by name.
    #[serde(default, rename = "creatorDefinedMetadata", skip_serializing_if = "BTreeMap::is_empty")]
    pub user_defined: BTreeMap<String, serde_json::Value>,
}

impl Metadata {
    /// The metadata of an asset that is written here. There is no date: equal models have equal assets.
    pub(super) fn new(options: &super::Options, user_defined: BTreeMap<String, String>) -> Metadata {
        Metadata {
            asset_version: ASSET_VERSION.into(),
            author: options.author.clone(),
            description: options.short_description.clone(),
            license: options.license.clone(),
            producer: made::by(),
            user_defined: user_defined.into_iter().map(|(k, v)| (k, serde_json::Value::String(v))).collect(),
        }
    }

    /// Reads the metadata of the asset at a path.
    ///
    /// # Errors
    /// No such file, or no JSON of this form in it.
    pub fn read(asset: &Path) -> Result<Metadata> {
        let path = asset.join(METADATA);
        let shown = path.display();
        let text = read_text(&path, LARGEST_JSON).with_context(|| format!("cannot read `{shown}`"))?;
        let read: Metadata =
            serde_json::from_str(&text).with_context(|| format!("`{shown}`: found no metadata of an asset"))?;
        ensure!(
            read.asset_version == ASSET_VERSION,
            "`{shown}`: assetVersion: found {:?}, expected {ASSET_VERSION:?}",
            read.asset_version
        );
        Ok(read)
    }

    /// Those of the user-defined entries that are text.
    #[must_use]
    pub fn texts(&self) -> BTreeMap<String, String> {
        let text = |(key, value): (&String, &serde_json::Value)| Some((key.clone(), value.as_str()?.to_string()));
        self.user_defined.iter().filter_map(text).collect()
    }
}

/// The metadata with the names of values that end blocks: of each graph, which value has which name.
pub(super) const VALUES: &str = "s2ditc.values";

/// Of each graph, names of values with their numbers.
type Names = BTreeMap<String, BTreeMap<String, Value>>;

/// The metadata that names values.
pub(super) fn value_names(names: &Names) -> Result<Option<(String, String)>> {
    if names.is_empty() {
        return Ok(None);
    }
    Ok(Some((VALUES.into(), serde_json::to_string(names)?)))
}

/// The names that the metadata gives to values.
pub(super) fn names_of(metadata: &BTreeMap<String, String>) -> Result<Names> {
    let Some(text) = metadata.get(VALUES) else { return Ok(Names::new()) };
    serde_json::from_str(text).with_context(|| format!("metadata `{VALUES}`: expected numbers of values by name"))
}

/// Writes hash and metadata beside a program that is whole.
pub(super) fn finish(dir: &Path, hash: &[u8; 32], metadata: &Metadata) -> Result<()> {
    write(&dir.join(HASH), hash)?;
    let text = serde_json::to_string_pretty(metadata)? + "\n";
    write(&dir.join(METADATA), text.as_bytes())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| cannot_write(path))
}

/// The context of every I/O error here.
pub(super) fn cannot_write(path: &Path) -> String {
    format!("cannot write `{}`", path.display())
}

/// The SHA-256 of a file.
pub(super) fn hash(path: &Path) -> io::Result<[u8; 32]> {
    let (mut file, mut hasher) = (File::open(path)?, Sha256::new());
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().into()),
            n => hasher.update(&buffer[..n]),
        }
    }
}
