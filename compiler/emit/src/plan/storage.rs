//! The storage of one weight.

use std::fmt;
use std::str::FromStr;

use s2dit_ir::compress::{EXPECTED, Scheme};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use s2dit_files::problems::shown;

/// The storage of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// The weight itself, in the precision of the model.
    Whole,
    /// Compressed.
    Compressed(Scheme),
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Storage::Whole => f.write_str("fp16"),
            Storage::Compressed(scheme) => scheme.fmt(f),
        }
    }
}

impl FromStr for Storage {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "fp16" => Ok(Storage::Whole),
            _ => text
                .parse()
                .map(Storage::Compressed)
                .map_err(|_: String| format!("`{}`, which is none of fp16, {EXPECTED}", shown(text))),
        }
    }
}

impl Serialize for Storage {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Storage {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Storage {
    /// Bytes of a stored weight of this shape, in an fp16 model.
    ///
    /// # Errors
    /// What of the shape the scheme does not fit.
    pub fn bytes(self, shape: &[usize]) -> Result<u64, String> {
        let elements: usize = shape.iter().product();
        let Storage::Compressed(scheme) = self else { return Ok(2 * elements as u64) };
        let runs = scheme.runs(shape).map_err(|e| e.to_string())?;
        if runs.entries > runs.len {
            return Err(format!(
                "scheme `{scheme}`: found {} elements a palette, expected at least its {} entries",
                runs.len, runs.entries
            ));
        }
        scheme.bytes(shape).map(|n| n as u64).map_err(|e| e.to_string())
    }
}
