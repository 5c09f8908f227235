//! How the contract of a folder is read: its file, its format and version, and then its fields.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use s2dit_backends::input::{LARGEST_JSON, read_text};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Error, ErrorKind};

/// The contract of one kind of folder.
pub(crate) struct ContractFile {
    /// The name of the file.
    pub(crate) file: &'static str,
    /// The value of the field `format`.
    pub(crate) format: &'static str,
    /// The version that this build reads.
    pub(crate) version: u32,
    /// What the folder is: `kernel`.
    pub(crate) what: &'static str,
    /// What is said of a folder that has no such file.
    pub(crate) expected: &'static str,
}

impl ContractFile {
    /// Whether a folder has a contract of this format, whole or not.
    pub(crate) fn is_in(&self, dir: &Path) -> bool {
        let text = read_text(&dir.join(self.file), LARGEST_JSON).ok();
        let value: Option<Value> = text.and_then(|text| serde_json::from_str(&text).ok());
        value.is_some_and(|value| value["format"] == self.format)
    }

    /// Reads and checks the contract of the folder `dir`.
    ///
    /// # Errors
    /// A folder without the file; a contract of another format or version, with other fields, or one that `check` refuses.
    pub(crate) fn read<T: DeserializeOwned>(&self, dir: &Path, check: fn(&T) -> Result<()>) -> Result<T, Error> {
        let path = dir.join(self.file);
        if !path.is_file() {
            return Err(Error::new(ErrorKind::Io, anyhow!("`{}`: {}", dir.display(), self.expected)));
        }
        let parsed = || {
            let shown = path.display();
            let text = read_text(&path, LARGEST_JSON).with_context(|| format!("cannot read `{shown}`"))?;
            self.parse(&text, check).with_context(|| format!("`{shown}`"))
        };
        parsed().map_err(Error::artifact)
    }

    /// Parses and checks a contract.
    ///
    /// # Errors
    /// As [`ContractFile::read`].
    pub(crate) fn parse<T: DeserializeOwned>(&self, text: &str, check: fn(&T) -> Result<()>) -> Result<T> {
        let value: Value = serde_json::from_str(text).context("not JSON")?;
        // Before the fields: another version may have others.
        match value.get("format") {
            Some(found) if *found == self.format => {}
            Some(found) => bail!("field `format`: found {found}, expected \"{}\"", self.format),
            None => bail!("field `format`: missing, expected \"{}\"", self.format),
        }
        match value.get("version") {
            Some(found) if *found == self.version => {}
            Some(found) => bail!(
                "field `version`: found {found}, expected {}: this {} is of another generation of s2ditc; compile it again",
                self.version,
                self.what
            ),
            None => bail!("field `version`: missing, expected {}", self.version),
        }
        let contract: T = serde_path_to_error::deserialize(value).map_err(|error| {
            let (path, error) = (error.path().to_string(), error.inner());
            match path.as_str() {
                "." => anyhow!("not the contract of a {}: {error}", self.what),
                _ => anyhow!("field `{path}`: {error}"),
            }
        })?;
        check(&contract)?;
        Ok(contract)
    }
}
