//! The header of a GGUF file: metadata, of which little counts here, and where each tensor lies.

use std::collections::BTreeMap;

use s2dit_ir::TensorType;

use super::Stored;
use super::blocks::Kind;
use crate::problems::{Problems, quoted, shown};

const EXPECTED: &str = "a whole GGUF file";
/// Key of the alignment of tensors' data, and what it is without the key.
const ALIGNMENT: &str = "general.alignment";
const DEFAULT_ALIGNMENT: u64 = 32;
/// Prefix of keys with the sizes of tensors that were stored with others, because ggml has no more than four axes.
const ORIGINAL_SHAPE: &str = "comfy.gguf.orig_shape.";
/// Axes of a tensor; ggml itself has four, and files of video models have five.
const MOST_AXES: u32 = 8;

/// Reads the header of a whole file; `place` names it in problems.
///
/// # Errors
/// A damaged header; another version or byte order; types of blocks that are not known; tensors beyond the end of the file.
pub(super) fn read(file: &[u8], place: &str) -> Result<BTreeMap<String, Stored>, Problems> {
    let mut reader = Reader { file, at: 4 };
    let damaged = |at: usize| Problems::one(format!("{place} at byte {at}"), "a bad header", EXPECTED);
    let version = reader.u32().ok_or_else(|| damaged(4))?;
    if !(2..=3).contains(&version) {
        let found = match version.swap_bytes() {
            2..=3 => "numbers in big-endian order".to_owned(),
            _ => format!("version {version}"),
        };
        return Err(Problems::one(place, found, "a GGUF file of version 2 or 3 in little-endian order"));
    }
    let header = Header::read(&mut reader).ok_or_else(|| damaged(reader.at))?;
    let alignment = header.alignment.filter(|n| n.is_power_of_two()).unwrap_or(DEFAULT_ALIGNMENT) as usize;
    let start = reader.at.checked_next_multiple_of(alignment).ok_or_else(|| damaged(reader.at))?;

    let mut problems = Problems::new();
    let mut tensors = BTreeMap::new();
    let mut unknown: BTreeMap<u32, (usize, &str)> = BTreeMap::new();
    for tensor in &header.tensors {
        let Some(kind) = Kind::of(tensor.kind) else {
            unknown.entry(tensor.kind).or_insert((0, tensor.name)).0 += 1;
            continue;
        };
        match tensor.stored(kind, header.shapes.get(tensor.name), start, file.len()) {
            Ok(stored) if !tensors.contains_key(tensor.name) => drop(tensors.insert(tensor.name.to_owned(), stored)),
            Ok(_) => problems.push(format!("{place}: {}", shown(tensor.name)), "the tensor twice", "it once"),
            Err((found, expected)) => problems.push(format!("{place}: {}", shown(tensor.name)), found, expected),
        }
    }
    for (kind, (count, name)) in unknown {
        problems.push(
            place,
            format!("{count} tensor(s) of type {kind}, such as {}", quoted(name)),
            format!("one of {}", Kind::ALL.map(Kind::name).join(", ")),
        );
    }
    problems.into_result().map(|()| tensors)
}

/// What the header says.
struct Header<'a> {
    alignment: Option<u64>,
    /// Sizes of tensors that were stored with others.
    shapes: BTreeMap<&'a str, Vec<u64>>,
    tensors: Vec<Entry<'a>>,
}

/// What the header says of a tensor.
struct Entry<'a> {
    name: &'a str,
    /// Sizes, slowest axis first.
    shape: Vec<u64>,
    kind: u32,
    /// First byte after the start of the data.
    offset: u64,
}

impl<'a> Header<'a> {
    fn read(reader: &mut Reader<'a>) -> Option<Header<'a>> {
        let (tensors, keys) = (reader.u64()?, reader.u64()?);
        let mut header = Header { alignment: None, shapes: BTreeMap::new(), tensors: Vec::new() };
        for _ in 0..keys {
            let key = reader.text()?;
            let kind = reader.u32()?;
            let integers = reader.value(kind)?;
            if key == ALIGNMENT {
                header.alignment = integers.first().copied();
            } else if let Some(name) = key.strip_prefix(ORIGINAL_SHAPE) {
                header.shapes.insert(name, integers);
            }
        }
        for _ in 0..tensors {
            let name = reader.text()?;
            let axes = reader.u32().filter(|axes| *axes <= MOST_AXES)?;
            let mut shape = (0..axes).map(|_| reader.u64()).collect::<Option<Vec<u64>>>()?;
            shape.reverse();
            header.tensors.push(Entry { name, shape, kind: reader.u32()?, offset: reader.u64()? });
        }
        Some(header)
    }
}

impl Entry<'_> {
    /// Where it lies; or what was found, and what was expected.
    fn stored(
        &self,
        kind: Kind,
        original: Option<&Vec<u64>>,
        start: usize,
        len: usize,
    ) -> Result<Stored, (String, String)> {
        let count = |shape: &[u64]| shape.iter().try_fold(1u64, |all, side| all.checked_mul(*side));
        let of = |shape: &[u64]| format!("{} of shape {shape:?}", kind.name());
        let elements = count(&self.shape).and_then(|n| usize::try_from(n).ok());
        let Some(elements) = elements.filter(|n| *n < isize::MAX as usize / 8) else {
            return Err((of(&self.shape), "fewer elements than memory has bytes".into()));
        };
        let row = self.shape.last().copied().unwrap_or(1);
        if row % kind.elements() as u64 != 0 {
            return Err((of(&self.shape), format!("rows of a multiple of {} elements", kind.elements())));
        }
        let shape = original.unwrap_or(&self.shape);
        if count(shape) != Some(elements as u64) {
            return Err((format!("the original shape {shape:?}"), format!("one of {elements} elements")));
        }
        let bytes = elements / kind.elements() * kind.bytes();
        let offset = usize::try_from(self.offset).ok().and_then(|offset| offset.checked_add(start));
        match offset.filter(|offset| offset.checked_add(bytes).is_some_and(|end| end <= len)) {
            Some(offset) => {
                let shape: Vec<usize> = shape.iter().map(|side| *side as usize).collect();
                Ok(Stored { ty: TensorType::new(kind.dtype(), shape), kind, offset })
            }
            None => Err((
                format!("{bytes} bytes from {} on", self.offset),
                format!("them among the {} bytes of data (is the file truncated?)", len.saturating_sub(start)),
            )),
        }
    }
}

struct Reader<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let bytes = self.file.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.bytes(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.bytes(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let len = usize::try_from(self.u64()?).ok()?;
        std::str::from_utf8(self.bytes(len)?).ok()
    }

    /// Reads past a value: the integers in it, if it is one or a list of them.
    fn value(&mut self, kind: u32) -> Option<Vec<u64>> {
        const TEXT: u32 = 8;
        const LIST: u32 = 9;
        if kind != LIST {
            return Some(self.plain(kind)?.into_iter().collect());
        }
        let (inside, len) = (self.u32()?, self.u64()?);
        match inside {
            // A list of lists is nothing that anybody writes.
            LIST => None,
            TEXT => (0..len).try_for_each(|_| self.text().map(drop)).map(|()| Vec::new()),
            _ => {
                // Only sizes are of use, and those lists are short.
                let mut kept = Vec::new();
                for _ in 0..len {
                    let value = self.plain(inside)?;
                    if kept.len() < MOST_AXES as usize {
                        kept.extend(value);
                    }
                }
                Some(kept)
            }
        }
    }

    /// A value that is no list; `Some(None)` for one that is no integer.
    fn plain(&mut self, kind: u32) -> Option<Option<u64>> {
        let width = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            8 => {
                self.text()?;
                return Some(None);
            }
            _ => return None,
        };
        let mut wide = [0; 8];
        wide[..width].copy_from_slice(self.bytes(width)?);
        // 6 and 12 are floats.
        Some((!matches!(kind, 6 | 12)).then_some(u64::from_le_bytes(wide)))
    }
}
