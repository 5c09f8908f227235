//! Numbers and texts of a GGUF header, one after the other, and what is wrong where one cannot be read.

use crate::problems::Problem;

/// What to do about a file that was cut short or changed.
pub(super) const WAY_OUT: &str = "download the file again if it is shorter than it should be";
/// The types of values, by ggml's numbers, with the bytes of one; texts and lists have no fixed size.
const TYPES: [(&str, usize); 13] = [
    ("uint8", 1),
    ("int8", 1),
    ("uint16", 2),
    ("int16", 2),
    ("uint32", 4),
    ("int32", 4),
    ("float32", 4),
    ("bool", 1),
    ("a text", 0),
    ("a list", 0),
    ("uint64", 8),
    ("int64", 8),
    ("float64", 8),
];
const TEXT: u32 = 8;
const LIST: u32 = 9;
/// Integers of a list that are kept: only sizes of tensors are of use, and those lists are short.
const MOST_KEPT: usize = 8;

/// Why something in the header cannot be read.
#[derive(Debug)]
pub(super) struct Fault {
    /// First byte of what cannot be read.
    at: usize,
    found: String,
    expected: String,
}

impl Fault {
    pub(super) fn new(at: usize, found: impl Into<String>, expected: impl Into<String>) -> Fault {
        Fault { at, found: found.into(), expected: expected.into() }
    }

    /// The problem, of `what` in the file `place`.
    pub(super) fn of(self, place: &str, what: &str) -> Problem {
        Problem {
            place: format!("{place}: {what} at byte {}", self.at),
            found: self.found,
            expected: format!("{} ({WAY_OUT})", self.expected),
        }
    }
}

/// A value of the metadata.
#[derive(Debug)]
pub(super) struct Value<'a> {
    /// Its type, by ggml's number, which is a known one.
    kind: u32,
    /// The bytes of a value that is no list.
    bytes: &'a [u8],
    /// The first integers of a list of integers.
    integers: Vec<u64>,
}

impl Value<'_> {
    /// The number, if it is of the type uint32.
    pub(super) fn uint32(&self) -> Option<u32> {
        (self.kind == 4).then(|| unsigned(self.bytes) as u32)
    }

    /// The integers of a list.
    pub(super) fn into_integers(self) -> Vec<u64> {
        self.integers
    }

    /// Its type and, if it is a number, the number: for messages.
    pub(super) fn described(&self) -> String {
        let wide = unsigned(self.bytes);
        let number = match self.kind {
            0 | 2 | 4 | 10 => wide.to_string(),
            1 => (wide as i8).to_string(),
            3 => (wide as i16).to_string(),
            5 => (wide as i32).to_string(),
            11 => (wide as i64).to_string(),
            6 => f32::from_bits(wide as u32).to_string(),
            12 => f64::from_bits(wide).to_string(),
            7 => (wide != 0).to_string(),
            _ => return TYPES[self.kind as usize].0.to_owned(),
        };
        format!("{number} of type {}", TYPES[self.kind as usize].0)
    }
}

/// Up to eight bytes as a number, little-endian.
fn unsigned(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |wide, byte| wide << 8 | u64::from(*byte))
}

/// A place in a file.
pub(super) struct Reader<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a [u8], at: usize) -> Self {
        Reader { file, at }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Bytes up to the end of the file.
    fn left(&self) -> usize {
        self.file.len().saturating_sub(self.at)
    }

    fn bytes(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let end = self.at.checked_add(len);
        let Some(bytes) = end.and_then(|end| self.file.get(self.at..end)) else {
            return Err(Fault::new(
                self.at,
                format!("the end of the file after {} of {len} bytes", self.left()),
                "a whole GGUF file",
            ));
        };
        self.at += len;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Fault> {
        Ok(unsigned(self.bytes(4)?) as u32)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Fault> {
        Ok(unsigned(self.bytes(8)?))
    }

    /// A number of things, of which each takes at least `least` bytes of the file.
    pub(super) fn count(&mut self, least: usize) -> Result<u64, Fault> {
        let at = self.at;
        let count = self.u64()?;
        let most = self.left() / least;
        if count > most as u64 {
            let expected = format!("at most {most}, for which the rest of the file has room");
            return Err(Fault::new(at, format!("the number {count}"), expected));
        }
        Ok(count)
    }

    /// A text: its length, and UTF-8.
    pub(super) fn text(&mut self) -> Result<&'a str, Fault> {
        let at = self.at;
        let len = self.u64()?;
        if len > self.left() as u64 {
            let expected = format!("at most the {} that the file has from there on", self.left());
            return Err(Fault::new(at, format!("a text of {len} bytes"), expected));
        }
        let text = std::str::from_utf8(self.bytes(len as usize)?);
        text.map_err(|_| Fault::new(at, format!("{len} bytes that are no UTF-8"), "text in UTF-8"))
    }

    /// A value of the metadata: its type, and what follows.
    pub(super) fn value(&mut self) -> Result<Value<'a>, Fault> {
        let kind = self.kind()?;
        if kind != LIST {
            return Ok(Value { kind, bytes: self.plain(kind)?, integers: Vec::new() });
        }
        let at = self.at;
        let inside = self.kind()?;
        if inside == LIST {
            return Err(Fault::new(at, "a list of lists", "a list of numbers or texts"));
        }
        // A text has its length, at least.
        let len = self.count(if inside == TEXT { 8 } else { TYPES[inside as usize].1 })?;
        let mut integers = Vec::new();
        for _ in 0..len {
            let bytes = self.plain(inside)?;
            if integers.len() < MOST_KEPT && !matches!(inside, 6 | 8 | 12) {
                integers.push(unsigned(bytes));
            }
        }
        Ok(Value { kind, bytes: &[], integers })
    }

    /// The number of a type that is known.
    fn kind(&mut self) -> Result<u32, Fault> {
        let at = self.at;
        let kind = self.u32()?;
        if kind as usize >= TYPES.len() {
            return Err(Fault::new(at, format!("type {kind}"), format!("one from 0 to {}", TYPES.len() - 1)));
        }
        Ok(kind)
    }

    /// The bytes of a value that is no list; of a text none.
    fn plain(&mut self, kind: u32) -> Result<&'a [u8], Fault> {
        match kind {
            TEXT => self.text().map(|_| &[][..]),
            _ => self.bytes(TYPES[kind as usize].1),
        }
    }
}
