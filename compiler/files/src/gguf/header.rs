//! The header of a GGUF file: metadata, of which little counts here, and where each tensor lies.

use std::collections::{BTreeMap, BTreeSet};

use s2dit_ir::TensorType;

use super::Stored;
use super::blocks::Kind;
use super::reader::{Fault, Reader, WAY_OUT};
use crate::problems::{Problem, Problems, quoted, shown};

/// Key of the alignment of tensors' data, and what it is without the key.
const ALIGNMENT: &str = "general.alignment";
const DEFAULT_ALIGNMENT: u32 = 32;
/// Prefix of keys with the sizes of tensors that were stored with others, because ggml has no more than four axes.
const ORIGINAL_SHAPE: &str = "comfy.gguf.orig_shape.";
/// Axes of a tensor; ggml itself has four, and files of video models have five.
const MOST_AXES: u32 = 8;
/// Bytes that a key with its value takes at least, and an entry of a tensor.
const LEAST_KEY: usize = 13;
const LEAST_ENTRY: usize = 24;

/// Reads the header of a whole file; `place` names it in problems.
///
/// # Errors
/// A damaged header; another version or byte order; types of blocks that are not known; tensors beyond the end of the file, off the
/// alignment, or over each other.
pub(super) fn read(file: &[u8], place: &str) -> Result<BTreeMap<String, Stored>, Problems> {
    let mut reader = Reader::new(file, 4);
    let version = reader.u32().map_err(|fault| fault.of(place, "the version"))?;
    if !(2..=3).contains(&version) {
        let found = match version.swap_bytes() {
            2..=3 => "numbers in big-endian order".to_owned(),
            _ => format!("version {version}"),
        };
        return Err(Problems::one(place, found, "a GGUF file of version 2 or 3 in little-endian order"));
    }
    let header = Header::read(&mut reader, place)?;
    let alignment = header.alignment as usize;
    let Some(start) = reader.at().checked_next_multiple_of(alignment) else {
        return Err(Problems::one(place, format!("alignment {alignment}"), "one below the size of the file"));
    };

    let mut problems = Problems::new();
    let mut tensors = BTreeMap::new();
    let mut unknown: BTreeMap<u32, (usize, &str)> = BTreeMap::new();
    for tensor in &header.tensors {
        let Some(kind) = Kind::of(tensor.kind) else {
            unknown.entry(tensor.kind).or_insert((0, tensor.name)).0 += 1;
            continue;
        };
        let data = Data { start, len: file.len(), alignment: header.alignment };
        match tensor.stored(kind, header.shapes.get(tensor.name), &data) {
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
    problems.0.extend(overlap(&tensors, start, place));
    problems.into_result().map(|()| tensors)
}

/// The first tensor that lies over another one, whose data starts before it or with it.
fn overlap(tensors: &BTreeMap<String, Stored>, start: usize, place: &str) -> Option<Problem> {
    let mut spans: Vec<_> = tensors.iter().map(|(name, stored)| (stored.all(), name)).collect();
    spans.retain(|(span, _)| !span.is_empty());
    spans.sort_by_key(|(span, _)| (span.start, span.end));
    let over = spans.windows(2).find(|pair| pair[1].0.start < pair[0].0.end)?;
    let (first, second) = (&over[0], &over[1]);
    Some(Problem {
        place: format!("{place}: {}", shown(second.1)),
        found: format!(
            "bytes {} to {} of the data, over those of {}, {} to {}",
            second.0.start - start,
            second.0.end - start,
            quoted(first.1),
            first.0.start - start,
            first.0.end - start
        ),
        expected: "tensors that lie one after the other (a damaged file, or one of a faulty converter)".into(),
    })
}

/// What the header says.
struct Header<'a> {
    /// A power of two.
    alignment: u32,
    /// Sizes of tensors that were stored with others.
    shapes: BTreeMap<&'a str, Vec<u64>>,
    tensors: Vec<Entry<'a>>,
}

/// Where the data of a file lies.
struct Data {
    /// First byte in the file.
    start: usize,
    /// Bytes of the file.
    len: usize,
    /// Each tensor starts at a multiple of it, from `start` on.
    alignment: u32,
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
    fn read(reader: &mut Reader<'a>, place: &str) -> Result<Header<'a>, Problem> {
        let tensors = reader.count(LEAST_ENTRY).map_err(|fault| fault.of(place, "the number of tensors"))?;
        let keys = reader.count(LEAST_KEY).map_err(|fault| fault.of(place, "the number of metadata keys"))?;
        let mut header = Header { alignment: DEFAULT_ALIGNMENT, shapes: BTreeMap::new(), tensors: Vec::new() };
        let mut seen = BTreeSet::new();
        for index in 1..=keys {
            let key = reader.text().map_err(|fault| fault.of(place, &format!("metadata key {index} of {keys}")))?;
            let named = || format!("metadata key {}", quoted(key));
            let value = reader.value().map_err(|fault| fault.of(place, &named()))?;
            if !seen.insert(key) {
                let (found, expected) = ("the key twice".into(), "each key once".into());
                return Err(Problem { place: format!("{place}: {}", named()), found, expected });
            }
            if key == ALIGNMENT {
                let alignment = value.uint32().filter(|alignment| alignment.is_power_of_two());
                header.alignment = alignment.ok_or_else(|| Problem {
                    place: format!("{place}: {}", named()),
                    found: value.described(),
                    expected: "a power of two of type uint32, such as 32".into(),
                })?;
            } else if let Some(name) = key.strip_prefix(ORIGINAL_SHAPE) {
                header.shapes.insert(name, value.into_integers());
            }
        }
        for index in 1..=tensors {
            let name =
                reader.text().map_err(|fault| fault.of(place, &format!("the name of tensor {index} of {tensors}")))?;
            let entry = Entry::read(name, reader);
            header.tensors.push(entry.map_err(|fault| fault.of(place, &format!("tensor {}", quoted(name))))?);
        }
        Ok(header)
    }
}

impl<'a> Entry<'a> {
    /// What follows the name.
    fn read(name: &'a str, reader: &mut Reader<'a>) -> Result<Entry<'a>, Fault> {
        let at = reader.at();
        let axes = reader.u32()?;
        if axes > MOST_AXES {
            return Err(Fault::new(at, format!("{axes} dimensions"), format!("at most {MOST_AXES}")));
        }
        let mut shape = (0..axes).map(|_| reader.u64()).collect::<Result<Vec<u64>, Fault>>()?;
        shape.reverse();
        Ok(Entry { name, shape, kind: reader.u32()?, offset: reader.u64()? })
    }

    /// Where it lies; or what was found, and what was expected.
    fn stored(&self, kind: Kind, original: Option<&Vec<u64>>, data: &Data) -> Result<Stored, (String, String)> {
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
        let alignment = data.alignment;
        if !self.offset.is_multiple_of(u64::from(alignment)) {
            return Err((
                format!("data from byte {} on", self.offset),
                format!("a multiple of the alignment, {alignment}"),
            ));
        }
        let bytes = elements / kind.elements() * kind.bytes();
        let offset = usize::try_from(self.offset).ok().and_then(|offset| offset.checked_add(data.start));
        match offset.filter(|offset| offset.checked_add(bytes).is_some_and(|end| end <= data.len)) {
            Some(offset) => {
                let shape: Vec<usize> = shape.iter().map(|side| *side as usize).collect();
                Ok(Stored { ty: TensorType::new(kind.dtype(), shape), kind, offset })
            }
            None => Err((
                format!("{bytes} bytes from {} on", self.offset),
                format!(
                    "them among the {} bytes of data (is the file truncated? {WAY_OUT})",
                    data.len.saturating_sub(data.start)
                ),
            )),
        }
    }
}
