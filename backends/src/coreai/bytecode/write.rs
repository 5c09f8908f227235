//! A program as the bytes of a file, with room for its resources.

use super::super::program::{Attribute, Operation, UNKNOWN};
use super::encode::{Encoder, Strings};
use super::number::Numbering;
use super::varint::{encoded, put};
use super::{ALIGNMENT, DIALECT, DIALECT_VERSION, MAGIC, PADDING, VERSION, section};

/// Bytes that a program refers to by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// A file whose resources are yet to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Parts of the file that are known: (offset, bytes). What lies between are resources.
    pub parts: Vec<(u64, Vec<u8>)>,
    /// Where each resource begins.
    pub resources: Vec<u64>,
    /// Size of the file.
    pub bytes: u64,
}

/// Lays out a program, `root`, whose resources have these names and sizes.
#[must_use]
pub fn layout(root: &Operation, resources: &[Resource], producer: &str) -> Layout {
    let numbers = Numbering::of(root);
    let mut file = [MAGIC.as_slice(), &encoded(VERSION), producer.as_bytes(), &[0]].concat();
    let mut strings = Strings::default();
    let dialects = dialects(&numbers, &mut strings);
    let mut encoder = Encoder::new(&numbers, strings);
    let attributes: Vec<Vec<u8>> = numbers.attributes.in_order().map(|a| encoder.attribute(a)).collect();
    let types: Vec<Vec<u8>> = numbers.types.in_order().map(|ty| encoder.ty(ty)).collect();
    // A block with one op, the program.
    let mut ir = encoded(1 << 1);
    encoder.operation(&mut ir, root);
    let Encoder { mut strings, properties, .. } = encoder;

    put_section(&mut file, section::DIALECTS, &dialects);
    put_section(&mut file, section::ATTRIBUTE_SIZES, &attribute_sizes(&attributes, &types));
    put_section(&mut file, section::ATTRIBUTES, &[attributes, types].concat().concat());
    put_section(&mut file, section::IR, &ir);

    let places = Places::new(resources);
    put_section(&mut file, section::RESOURCE_SIZES, &resource_sizes(resources, &places, &mut strings));
    file.push(section::RESOURCES | if resources.is_empty() { 0 } else { ALIGNED });
    put(&mut file, places.end);
    if !resources.is_empty() {
        put(&mut file, ALIGNMENT);
        file.resize(file.len().next_multiple_of(ALIGNMENT as usize), PADDING);
    }
    let begin = file.len() as u64;
    let mut parts = vec![(0, file)];
    parts.extend(places.entries.iter().map(|e| (begin + e.at, e.head.clone())));
    let tail = begin + places.end;
    let mut file = Vec::new();
    put_section(&mut file, section::STRINGS, &string_table(&strings));
    put_section(&mut file, section::PROPERTIES, &property_table(&properties));
    let bytes = tail + file.len() as u64;
    parts.push((tail, file));
    let resources = places.entries.iter().map(|e| begin + e.at + e.head.len() as u64).collect();
    Layout { parts, resources, bytes }
}

/// The flag of a section that begins at a multiple.
const ALIGNED: u8 = 0x80;
/// A resource is a blob.
const BLOB: u8 = 0;

fn put_section(file: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    file.push(number);
    put(file, bytes.len() as u64);
    file.extend(bytes);
}

fn dialects(numbers: &Numbering, strings: &mut Strings) -> Vec<u8> {
    let mut out = encoded(1);
    // It has a version.
    put(&mut out, strings.number(DIALECT) << 1 | 1);
    put_section(&mut out, section::DIALECT_VERSION, &encoded(DIALECT_VERSION));
    let names: Vec<u64> = numbers.names.in_order().map(|name| strings.number(name)).collect();
    put(&mut out, names.len() as u64);
    // One group, of the first dialect.
    put(&mut out, 0);
    put(&mut out, names.len() as u64);
    for name in names {
        // The dialect knows the op.
        put(&mut out, name << 1 | 1);
    }
    out
}

fn attribute_sizes(attributes: &[Vec<u8>], types: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, attributes.len() as u64);
    put(&mut out, types.len() as u64);
    for group in [attributes, types] {
        put(&mut out, 0);
        put(&mut out, group.len() as u64);
        for bytes in group {
            // In the dialect's own encoding.
            put(&mut out, (bytes.len() as u64) << 1 | 1);
        }
    }
    out
}

/// Where resources lie in their section.
struct Places {
    entries: Vec<Entry>,
    end: u64,
}

struct Entry {
    at: u64,
    /// Alignment, size and padding, before the bytes.
    head: Vec<u8>,
    /// All of it.
    bytes: u64,
}

impl Places {
    fn new(resources: &[Resource]) -> Places {
        let (mut entries, mut end) = (Vec::new(), 0);
        for resource in resources {
            let mut head = encoded(ALIGNMENT);
            put(&mut head, resource.bytes);
            let data = (end + head.len() as u64).next_multiple_of(ALIGNMENT);
            head.resize((data - end) as usize, PADDING);
            let bytes = head.len() as u64 + resource.bytes;
            entries.push(Entry { at: end, head, bytes });
            end += bytes;
        }
        Places { entries, end }
    }
}

fn resource_sizes(resources: &[Resource], places: &Places, strings: &mut Strings) -> Vec<u8> {
    // None from outside.
    let mut out = encoded(0);
    if resources.is_empty() {
        return out;
    }
    put(&mut out, 0);
    put(&mut out, resources.len() as u64);
    for (resource, entry) in resources.iter().zip(&places.entries) {
        put(&mut out, strings.number(&resource.name));
        put(&mut out, entry.bytes);
        out.push(BLOB);
    }
    out
}

/// Sizes with a final zero, the last string's first; then the strings.
fn string_table(strings: &Strings) -> Vec<u8> {
    let mut out = encoded(strings.all.len() as u64);
    for text in strings.all.iter().rev() {
        put(&mut out, text.len() as u64 + 1);
    }
    for text in &strings.all {
        out.extend(text.as_bytes());
        out.push(0);
    }
    out
}

fn property_table(properties: &[Vec<u8>]) -> Vec<u8> {
    let mut out = encoded(properties.len() as u64);
    for bytes in properties {
        put(&mut out, bytes.len() as u64);
        out.extend(bytes);
    }
    out
}

/// The location of ops whose origin is not known.
#[must_use]
pub fn unknown() -> Attribute {
    Attribute::Location(UNKNOWN.into())
}
