//! Which weights a model goes with. The data ends with a hash that the models' metadata holds too, so that weights of one compile
//! beside the model of another are found out. The hash is of the models themselves, metadata included and before they name
//! the data's file: of the graph, the checkpoint's hash and every option, without a second look at the weights. Other
//! readers ignore both: tensors lie in front, at their offsets.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::proto::{ModelProto, StringStringEntryProto};
use crate::input::check_regular;
use prost::Message;

/// The metadata property: `blake3:HASH BYTES`, the hash and the data's length.
pub const KEY: &str = "s2ditc.data";
const MAGIC: &[u8; 16] = b"s2ditc weights:\n";
const TRAILER: u64 = (MAGIC.len() + blake3::OUT_LEN) as u64;

/// Digits of the identity in the name of a data file.
pub(super) const DIGITS: usize = 16;

/// The identity of weights.
pub(super) struct Identity(blake3::Hash);

impl Identity {
    /// The identity that models with one data file share.
    pub(super) fn of<'a>(models: impl IntoIterator<Item = &'a ModelProto>) -> Identity {
        let mut hasher = blake3::Hasher::new();
        for model in models {
            let bytes = model.encode_to_vec();
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(&bytes);
        }
        Identity(hasher.finalize())
    }

    /// Its first digits, for a file's name.
    pub(super) fn short(&self) -> String {
        self.0.to_hex()[..DIGITS].to_string()
    }

    /// The bytes at the end of the data file.
    pub(super) fn trailer(&self) -> Vec<u8> {
        [&MAGIC[..], self.0.as_bytes()].concat()
    }

    /// The models' metadata entry for a data file that takes `bytes` without the trailer.
    pub(super) fn entry(&self, bytes: u64) -> StringStringEntryProto {
        let value = format!("blake3:{} {}", self.0.to_hex(), bytes + TRAILER);
        StringStringEntryProto { key: KEY.into(), value }
    }
}

/// Checks that data is what a model's metadata says.
///
/// # Errors
/// Metadata that says nothing of the kind; data of another length, or of another compile; data that cannot be read.
pub(super) fn check(said: &str, data: &mut File) -> Result<()> {
    let parts = said.split_once(' ').and_then(|(hash, bytes)| Some((hash, bytes.parse::<u64>().ok()?)));
    let Some((expected, bytes)) = parts else {
        bail!("metadata `{KEY}`: found `{said}`, expected a hash and a number of bytes")
    };
    let length = data.seek(SeekFrom::End(0)).context("cannot read it")?;
    let found = identity_at_end(data, length).context("cannot read it")?;
    if found.as_deref() != Some(expected) {
        let found = found.map_or("data without an identity".into(), |found| format!("those of {found}"));
        bail!(
            "expected the weights of {expected}, found {found}: model and weights are not of one compile; compile again"
        );
    }
    if length != bytes {
        bail!("expected {bytes} bytes, found {length}");
    }
    Ok(())
}

/// Whether a file is data that we wrote.
pub(super) fn is_ours(path: &Path) -> bool {
    let identity = check_regular(path).and_then(|()| {
        let mut file = File::open(path)?;
        let length = file.seek(SeekFrom::End(0))?;
        identity_at_end(&mut file, length)
    });
    identity.is_ok_and(|identity| identity.is_some())
}

fn identity_at_end(data: &mut File, length: u64) -> io::Result<Option<String>> {
    let Some(start) = length.checked_sub(TRAILER) else { return Ok(None) };
    let mut trailer = Vec::new();
    data.seek(SeekFrom::Start(start))?;
    data.take(TRAILER).read_to_end(&mut trailer)?;
    let hash = trailer.strip_prefix(MAGIC).and_then(|hash| <[u8; blake3::OUT_LEN]>::try_from(hash).ok());
    Ok(hash.map(|hash| format!("blake3:{}", blake3::Hash::from(hash).to_hex())))
}
