//! The header of a safetensors file, checked against everything that the file says and is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use s2dit_ir::{DType, TensorType};
use serde::Deserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde_json::Value;

use crate::json::{Entries, compact};
use crate::problems::{Problems, not_read, quoted, shown};

/// The limit of the reference implementation.
const LARGEST_HEADER: u64 = 100_000_000;

/// Type and place of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Element type and shape.
    pub ty: TensorType,
    /// First byte of the tensor's data in the file.
    pub offset: u64,
}

impl TensorInfo {
    /// The byte after the tensor's data in the file.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + self.ty.bytes() as u64
    }
}

/// The header of a file: its tensors and what is wrong with them.
#[derive(Debug)]
pub(super) struct Header {
    pub tensors: BTreeMap<String, TensorInfo>,
    /// Tensors whose entries say nothing that could be used.
    pub damaged: BTreeSet<String>,
    pub metadata: BTreeMap<String, String>,
}

/// Reads the header of a whole file; `place` names it in problems.
#[cfg(test)]
pub(super) fn parse(place: &str, file: &[u8]) -> Result<Header, Problems> {
    let (header, problems) = scan(place, file)?;
    problems.into_result().map(|()| header)
}

/// Reads what can be read of the header of a whole file, and what is wrong with the rest: if that is anything, nothing may
/// be read from the file. `place` names it in problems.
pub(super) fn scan(place: &str, file: &[u8]) -> Result<(Header, Problems), Problems> {
    let size = file.len() as u64;
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(Problems::one(
            place,
            format!("{size} bytes"),
            "a safetensors file (8 bytes of header length, the header, the data)",
        ));
    };
    let length = u64::from_le_bytes(*length);
    if length > LARGEST_HEADER || length > rest.len() as u64 {
        let most = LARGEST_HEADER.min(rest.len() as u64);
        return Err(Problems::one(
            place,
            format!("a header length of {length} in a file of {size} bytes"),
            format!("at most {most} (is the file truncated, or not safetensors?)"),
        ));
    }
    let (header, data) = rest.split_at(length as usize);
    let text = std::str::from_utf8(header).map_err(|error| {
        let found = format!("a header that is not UTF-8 at byte {}", 8 + error.valid_up_to());
        Problems::one(place, found, "JSON text")
    })?;
    let mut reader = Reader {
        place,
        data_start: 8 + length,
        data_len: data.len() as u64,
        header: Header { tensors: BTreeMap::new(), damaged: BTreeSet::new(), metadata: BTreeMap::new() },
        unread: BTreeMap::new(),
        beyond: Vec::new(),
        problems: Problems::new(),
    };
    let mut json = serde_json::Deserializer::from_str(text);
    json.deserialize_map(&mut reader)
        .and_then(|()| json.end())
        .map_err(|error| Problems::one(place, format!("a bad header ({error})"), "a JSON object of tensors"))?;
    reader.tell_unread();
    reader.tell_beyond();
    reader.check_layout();
    Ok((reader.header, reader.problems))
}

/// Checks each entry as it is parsed, so that a hostile header costs little more memory than it has bytes.
struct Reader<'a> {
    place: &'a str,
    data_start: u64,
    data_len: u64,
    header: Header,
    /// Types that are known and not read, with the number of their tensors and the first one.
    unread: BTreeMap<&'static str, (usize, String)>,
    /// Tensors whose data lie beyond the end of the file, with the offsets that they say.
    beyond: Vec<(String, u64, u64)>,
    problems: Problems,
}

/// Types of the format that are not read, as a file names them.
const UNREAD: &[(&str, &str)] = &[
    ("F8_E4M3", "fp8"),
    ("F8_E5M2", "fp8"),
    ("F8_E4M3FNUZ", "fp8"),
    ("F8_E5M2FNUZ", "fp8"),
    ("F8_E8M0", "fp8"),
    ("F6_E2M3", "fp6"),
    ("F6_E3M2", "fp6"),
    ("F4", "fp4"),
];

impl<'de> Visitor<'de> for &mut Reader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut has_metadata = false;
        while let Some(name) = map.next_key::<String>()? {
            let entry: Entries =
                map.next_value().map_err(|error| A::Error::custom(format!("{}: {error}", quoted(&name))))?;
            if name == "__metadata__" {
                if std::mem::replace(&mut has_metadata, true) {
                    self.problem("__metadata__", "the entry twice", "it once");
                }
                self.metadata(entry);
            } else if self.header.tensors.contains_key(&name) {
                self.problem(&name, "the tensor twice", "it once");
            } else if let Some(info) = self.tensor(&name, entry) {
                self.header.tensors.insert(name, info);
            } else {
                self.header.damaged.insert(name);
            }
        }
        Ok(())
    }
}

impl Reader<'_> {
    fn problem(&mut self, name: &str, found: impl Into<String>, expected: impl Into<String>) {
        self.problems.push(format!("{}: {}", self.place, shown(name)), found, expected);
    }

    fn metadata(&mut self, Entries(entries): Entries) {
        for (key, value) in entries {
            match value {
                Value::String(text) => {
                    self.header.metadata.insert(key, text);
                }
                other => {
                    let name = format!("__metadata__.{}", shown(&key));
                    self.problem(&name, compact(&other), "a string");
                }
            }
        }
    }

    fn tensor(&mut self, name: &str, Entries(fields): Entries) -> Option<TensorInfo> {
        let mut take = |field: &str, expected: &str| {
            let mut values = fields.iter().filter(|(key, _)| key == field).map(|(_, value)| value);
            let value = values.next();
            if value.is_none() || values.next().is_some() {
                let found = if value.is_none() { "no" } else { "more than one" };
                self.problem(name, format!("{found} `{field}`"), expected);
                return None;
            }
            value
        };
        let dtype = take("dtype", "the element type");
        let shape = take("shape", "a list of sizes");
        let offsets = take("data_offsets", "[begin, end]");

        let dtype = dtype.and_then(|value| self.dtype(name, value));
        let shape = shape.and_then(|value| self.integers(name, "shape", value));
        let offsets = offsets.and_then(|value| self.offsets(name, value));
        let (dtype, shape, (begin, end)) = (dtype?, shape?, offsets?);

        let sides: Option<Vec<usize>> = shape.iter().map(|side| usize::try_from(*side).ok()).collect();
        let bytes = shape.iter().try_fold(dtype.size() as u64, |bytes, side| bytes.checked_mul(*side));
        match (sides, bytes) {
            (Some(sides), Some(bytes)) if bytes == end - begin => {
                Some(TensorInfo { ty: TensorType::new(dtype, sides), offset: self.data_start + begin })
            }
            (Some(sides), Some(bytes)) => {
                self.problem(
                    name,
                    format!("{} bytes of data", end - begin),
                    format!("{bytes} ({})", TensorType::new(dtype, sides)),
                );
                None
            }
            _ => {
                let sides: Vec<String> = shape.iter().map(u64::to_string).collect();
                let found = format!("{dtype}[{}], more than 2^64 bytes", sides.join(", "));
                self.problem(name, shown(&found), format!("{} bytes of data", end - begin));
                None
            }
        }
    }

    fn dtype(&mut self, name: &str, value: &Value) -> Option<DType> {
        let dtype = match value.as_str() {
            Some("F64") => DType::F64,
            Some("F32") => DType::F32,
            Some("F16") => DType::F16,
            Some("BF16") => DType::BF16,
            Some("I64") => DType::I64,
            Some("I32") => DType::I32,
            Some("I16") => DType::I16,
            Some("I8") => DType::I8,
            Some("U32") => DType::U32,
            Some("U16") => DType::U16,
            Some("U8") => DType::U8,
            Some("BOOL") => DType::Bool,
            text => {
                if let Some((_, dtype)) = UNREAD.iter().find(|(stored, _)| text == Some(stored)) {
                    self.unread.entry(dtype).or_insert_with(|| (0, name.to_owned())).0 += 1;
                    return None;
                }
                self.problem(
                    name,
                    format!("dtype {}", compact(value)),
                    "BF16, F16 or F32 (or another plain type up to 64 bits)",
                );
                return None;
            }
        };
        Some(dtype)
    }

    /// Every tensor of a type has the same way out: it is told once.
    fn tell_unread(&mut self) {
        for (dtype, (count, first)) in std::mem::take(&mut self.unread) {
            let found = format!("{count} tensor(s) of {dtype}, such as `{}`", shown(&first));
            self.problems.push(self.place, found, not_read(dtype));
        }
    }

    fn integers(&mut self, name: &str, field: &str, value: &Value) -> Option<Vec<u64>> {
        let integers = value.as_array().and_then(|items| items.iter().map(Value::as_u64).collect());
        if integers.is_none() {
            self.problem(name, format!("{field} {}", compact(value)), "a list of integers from 0");
        }
        integers
    }

    fn offsets(&mut self, name: &str, value: &Value) -> Option<(u64, u64)> {
        let offsets = self.integers(name, "data_offsets", value)?;
        match *offsets.as_slice() {
            [begin, end] if begin <= end && end <= self.data_len => Some((begin, end)),
            [begin, end] if begin <= end => {
                self.beyond.push((name.to_owned(), begin, end));
                None
            }
            _ => {
                self.misplaced(name, &compact(value));
                None
            }
        }
    }

    fn misplaced(&mut self, name: &str, offsets: &str) {
        let expected = format!(
            "[begin, end] with begin <= end <= {}, the size of the data (is the file truncated?)",
            self.data_len
        );
        self.problem(name, format!("data_offsets {offsets}"), expected);
    }

    /// A file that is cut short lacks many tensors: that is told once.
    fn tell_beyond(&mut self) {
        match std::mem::take(&mut self.beyond).as_slice() {
            [] => {}
            [(name, begin, end)] => self.misplaced(name, &format!("[{begin},{end}]")),
            several @ [(first, ..), ..] => {
                let end = several.iter().map(|(_, _, end)| *end).max().unwrap_or_default();
                let found = format!("{} bytes", self.data_start + self.data_len);
                let expected = format!(
                    "{} bytes: {} tensors, such as `{}`, lie beyond the end (is the file truncated?)",
                    self.data_start.saturating_add(end),
                    several.len(),
                    shown(first)
                );
                self.problems.push(self.place, found, expected);
            }
        }
    }

    /// The tensors must cover the data, each byte once.
    fn check_layout(&mut self) {
        if !self.problems.is_empty() {
            // With an entry missing, what lies next to it would only repeat the problem.
            return;
        }
        let mut spans: Vec<(u64, u64, &str)> =
            self.header.tensors.iter().map(|(name, info)| (info.offset, info.end(), name.as_str())).collect();
        spans.sort_unstable();
        let file_end = self.data_start + self.data_len;
        let mut covered = self.data_start;
        let mut before = "the header";
        for (begin, end, name) in spans {
            let at = begin - self.data_start;
            if begin < covered {
                self.problems.push(
                    format!("{}: {}", self.place, shown(name)),
                    format!("data that begins at {at}, inside {}", quoted(before)),
                    "data that overlaps no other tensor's",
                );
            } else if begin > covered {
                self.problems.push(
                    format!("{}: {}", self.place, shown(name)),
                    format!("{} unused bytes before it", begin - covered),
                    format!("its data to follow {} at once", quoted(before)),
                );
            }
            if end >= covered {
                (covered, before) = (end, name);
            }
        }
        if covered < file_end {
            self.problems.push(
                self.place,
                format!("{} unused bytes at the end", file_end - covered),
                "the file to end with the last tensor",
            );
        }
    }
}

#[cfg(test)]
mod tests;
