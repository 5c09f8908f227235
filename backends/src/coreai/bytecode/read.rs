//! The bytes of a file as a program. Everything that the file says is checked: a file that is cut or damaged is an error.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};

use super::super::program::{Argument, Attribute, Element, Operation, Property, Region, Type, UNKNOWN};
use super::varint::{take, unzigzag};
use super::{DIALECT, MAGIC, attribute, kind, section};

/// A program that was read, and where its resources lie.
#[derive(Clone, Debug)]
pub struct Read {
    /// The program that wrote the file.
    pub producer: String,
    /// The op of the whole asset.
    pub root: Operation,
    /// Name and bytes of each resource, by number.
    pub resources: Vec<(String, Range<usize>)>,
}

/// Reads a whole file.
///
/// # Errors
/// Bytes that are no such file, a version or an encoding that is not known here, an end too early.
pub fn read(bytes: &[u8]) -> Result<Read> {
    let mut rest = bytes.strip_prefix(MAGIC).context("found no MLIR bytecode")?;
    let version = number(&mut rest)?;
    ensure!(version == super::VERSION, "found version {version} of the bytecode, expected {}", super::VERSION);
    let end = rest.iter().position(|b| *b == 0).context("found no end of the producer's name")?;
    let producer = String::from_utf8_lossy(&rest[..end]).into_owned();
    rest = &rest[end + 1..];
    let sections = Sections::read(bytes, rest)?;
    let strings = strings(sections.get(bytes, section::STRINGS)?)?;
    let names = op_names(sections.get(bytes, section::DIALECTS)?, &strings)?;
    let properties = properties(sections.get(bytes, section::PROPERTIES)?)?;
    let resources = resources(bytes, &sections, &strings)?;
    let encoded = encoded(sections.get(bytes, section::ATTRIBUTE_SIZES)?, sections.get(bytes, section::ATTRIBUTES)?)?;
    let mut reader = Reader {
        strings,
        names,
        properties,
        attributes: encoded.0,
        types: encoded.1,
        resources: resources.len(),
        known_attributes: HashMap::new(),
        known_types: HashMap::new(),
    };
    let mut ir = sections.get(bytes, section::IR)?;
    ensure!(number(&mut ir)? == 1 << 1, "expected a program with one op");
    let root = reader.operation(&mut ir, 0)?;
    Ok(Read { producer, root, resources })
}

fn number(bytes: &mut &[u8]) -> Result<u64> {
    take(bytes).context("the file ends within a number")
}

fn count(bytes: &mut &[u8]) -> Result<usize> {
    let count = usize::try_from(number(bytes)?).context("a count that is too large")?;
    // Each of the things takes a byte at least.
    ensure!(count <= bytes.len(), "found a count of {count} before {} bytes", bytes.len());
    Ok(count)
}

fn byte(bytes: &mut &[u8]) -> Result<u8> {
    let (first, rest) = bytes.split_first().context("the file ends early")?;
    *bytes = rest;
    Ok(*first)
}

fn part<'a>(bytes: &mut &'a [u8], len: u64) -> Result<&'a [u8]> {
    let len = usize::try_from(len).context("a size that is too large")?;
    let (head, rest) = bytes.split_at_checked(len).context("the file ends early")?;
    *bytes = rest;
    Ok(head)
}

/// Where the sections of a file lie.
struct Sections(HashMap<u8, Range<usize>>);

/// The flag of a section that begins at a multiple.
const ALIGNED: u8 = 0x80;

impl Sections {
    fn read(file: &[u8], mut rest: &[u8]) -> Result<Sections> {
        let mut sections = HashMap::new();
        while !rest.is_empty() {
            let id = byte(&mut rest)?;
            let len = number(&mut rest)?;
            if id & ALIGNED != 0 {
                let alignment = usize::try_from(number(&mut rest)?).unwrap_or(0);
                ensure!(alignment.is_power_of_two(), "a section at multiples of {alignment}");
                let at = file.len() - rest.len();
                part(&mut rest, (at.next_multiple_of(alignment) - at) as u64)?;
            }
            let begin = file.len() - rest.len();
            let bytes = part(&mut rest, len)?;
            let id = id & !ALIGNED;
            ensure!(sections.insert(id, begin..begin + bytes.len()).is_none(), "section {id} is there twice");
        }
        Ok(Sections(sections))
    }

    /// The bytes of a section; none if it is not there.
    fn get<'a>(&self, file: &'a [u8], id: u8) -> Result<&'a [u8]> {
        let range = self.0.get(&id).cloned().unwrap_or(0..0);
        file.get(range).with_context(|| format!("section {id} lies beyond the file"))
    }

    fn begin(&self, id: u8) -> usize {
        self.0.get(&id).map_or(0, |range| range.start)
    }
}

/// Sizes from the last string to the first, then the strings.
fn strings(mut bytes: &[u8]) -> Result<Vec<Arc<str>>> {
    let count = count(&mut bytes)?;
    let mut sizes = Vec::with_capacity(count);
    for _ in 0..count {
        sizes.push(number(&mut bytes)?);
    }
    let mut strings = Vec::with_capacity(count);
    for size in sizes.into_iter().rev() {
        let text = part(&mut bytes, size)?.strip_suffix(&[0]).context("a string without its end")?;
        strings.push(std::str::from_utf8(text).context("a string that is not UTF-8")?.into());
    }
    Ok(strings)
}

fn op_names(mut bytes: &[u8], strings: &[Arc<str>]) -> Result<Vec<String>> {
    let dialects = count(&mut bytes)?;
    ensure!(dialects == 1, "found {dialects} dialects, expected `{DIALECT}` alone");
    let name = number(&mut bytes)?;
    let dialect = string(strings, name >> 1)?;
    ensure!(&**dialect == DIALECT, "found the dialect `{dialect}`, expected `{DIALECT}`");
    if name & 1 == 1 {
        ensure!(byte(&mut bytes)? == section::DIALECT_VERSION, "expected the version of the dialect");
        let len = number(&mut bytes)?;
        part(&mut bytes, len)?;
    }
    let all = count(&mut bytes)?;
    let mut names = Vec::with_capacity(all);
    while names.len() < all {
        ensure!(number(&mut bytes)? == 0, "an op of an unknown dialect");
        for _ in 0..count(&mut bytes)? {
            names.push(string(strings, number(&mut bytes)? >> 1)?.to_string());
        }
    }
    Ok(names)
}

fn string(strings: &[Arc<str>], index: u64) -> Result<&Arc<str>> {
    let found = usize::try_from(index).ok().and_then(|i| strings.get(i));
    found.with_context(|| format!("string {index} of {}", strings.len()))
}

fn properties(mut bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let count = count(&mut bytes)?;
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        let len = number(&mut bytes)?;
        all.push(part(&mut bytes, len)?.to_vec());
    }
    Ok(all)
}

fn resources(file: &[u8], sections: &Sections, strings: &[Arc<str>]) -> Result<Vec<(String, Range<usize>)>> {
    let mut sizes = sections.get(file, section::RESOURCE_SIZES)?;
    let mut found = Vec::new();
    if sizes.is_empty() {
        return Ok(found);
    }
    ensure!(number(&mut sizes)? == 0, "resources of another kind than the dialect's");
    let all = sections.get(file, section::RESOURCES)?;
    let (begin, mut rest) = (sections.begin(section::RESOURCES), all);
    while !sizes.is_empty() {
        ensure!(number(&mut sizes)? == 0, "resources of an unknown dialect");
        for _ in 0..count(&mut sizes)? {
            let name = string(strings, number(&mut sizes)?)?.to_string();
            let size = number(&mut sizes)?;
            ensure!(byte(&mut sizes)? == 0, "the resource `{name}` is no blob");
            let mut entry = part(&mut rest, size)?;
            let alignment = usize::try_from(number(&mut entry)?).unwrap_or(0);
            ensure!(alignment.is_power_of_two(), "the resource `{name}` lies at multiples of {alignment}");
            let len = number(&mut entry)?;
            let at = begin + all.len() - rest.len() - entry.len();
            part(&mut entry, (at.next_multiple_of(alignment) - at) as u64)?;
            let at = begin + all.len() - rest.len() - entry.len();
            let bytes = part(&mut entry, len)?;
            found.push((name, at..at + bytes.len()));
        }
    }
    Ok(found)
}

type Encoded = Vec<Vec<u8>>;

/// The bytes of each attribute and each type.
fn encoded(mut sizes: &[u8], mut bytes: &[u8]) -> Result<(Encoded, Encoded)> {
    let counts = [count(&mut sizes)?, count(&mut sizes)?];
    let mut both = counts.map(Vec::with_capacity);
    for (all, out) in counts.into_iter().zip(&mut both) {
        while out.len() < all {
            ensure!(number(&mut sizes)? == 0, "an attribute of an unknown dialect");
            for _ in 0..count(&mut sizes)? {
                let size = number(&mut sizes)?;
                ensure!(size & 1 == 1, "an attribute as text");
                out.push(part(&mut bytes, size >> 1)?.to_vec());
            }
        }
    }
    let [attributes, types] = both;
    Ok((attributes, types))
}

struct Reader {
    strings: Vec<Arc<str>>,
    names: Vec<String>,
    properties: Vec<Vec<u8>>,
    attributes: Encoded,
    types: Encoded,
    /// How many there are.
    resources: usize,
    known_attributes: HashMap<u64, Attribute>,
    known_types: HashMap<u64, Type>,
}

/// Attributes and regions are nested at most so deep.
const DEPTH: usize = 32;

impl Reader {
    fn attribute(&mut self, index: u64, depth: usize) -> Result<Attribute> {
        if let Some(known) = self.known_attributes.get(&index) {
            return Ok(known.clone());
        }
        ensure!(depth < DEPTH, "attributes that are nested too deep");
        let found = usize::try_from(index).ok().and_then(|i| self.attributes.get(i));
        let bytes = found.with_context(|| format!("attribute {index} of {}", self.attributes.len()))?.clone();
        let mut bytes = bytes.as_slice();
        let code = number(&mut bytes)?;
        let read = match code {
            attribute::STRING => Attribute::String(string(&self.strings, number(&mut bytes)?)?.clone()),
            attribute::INTEGER => {
                let width = number(&mut bytes)?;
                let is_signed = byte(&mut bytes)? == 0;
                let value = match width {
                    0..=8 => i64::from(byte(&mut bytes)?),
                    _ => unzigzag(number(&mut bytes)?),
                };
                if is_signed { Attribute::Signed { width, value } } else { Attribute::Integer { width, value } }
            }
            attribute::FLOAT => {
                let width = number(&mut bytes)?;
                let bits = unzigzag(number(&mut bytes)?);
                if width == 32 { Attribute::Float(bits as u32) } else { Attribute::Choice { code, value: width } }
            }
            attribute::DICTIONARY => Attribute::Dictionary(self.list(&mut bytes, depth)?),
            attribute::SYMBOL => {
                ensure!(number(&mut bytes)? == 1, "a name within a name");
                Attribute::Symbol(string(&self.strings, number(&mut bytes)?)?.clone())
            }
            attribute::CALLEE => match self.attribute(number(&mut bytes)?, depth + 1)? {
                Attribute::Symbol(name) => Attribute::Callee(name),
                _ => bail!("a call of what has no name"),
            },
            attribute::TYPE => Attribute::Type(self.ty(number(&mut bytes)?, depth)?),
            attribute::ARRAY => Attribute::Array(self.list(&mut bytes, depth)?),
            attribute::DENSE => {
                let splat = byte(&mut bytes)? != 0;
                let len = number(&mut bytes)?;
                Attribute::Dense { splat, bytes: part(&mut bytes, len)?.to_vec() }
            }
            attribute::RESOURCE => {
                let number = usize::try_from(number(&mut bytes)?).unwrap_or(usize::MAX);
                ensure!(number < self.resources, "resource {number} of {}", self.resources);
                Attribute::Resource(number)
            }
            attribute::OPAQUE => {
                let name = string(&self.strings, number(&mut bytes)?)?.clone();
                Attribute::Opaque { name, values: self.list(&mut bytes, depth)? }
            }
            attribute::UNIT => Attribute::Unit,
            attribute::FILE => Attribute::File(string(&self.strings, number(&mut bytes)?)?.clone()),
            attribute::RANGE => match self.attribute(number(&mut bytes)?, depth + 1)? {
                Attribute::File(name) => Attribute::Range(name),
                _ => Attribute::Range(UNKNOWN.into()),
            },
            attribute::LOCATION => match self.attribute(number(&mut bytes)?, depth + 1)? {
                Attribute::Range(name) => Attribute::Location(name),
                _ => Attribute::Location(UNKNOWN.into()),
            },
            code => Attribute::Choice { code, value: take(&mut bytes).unwrap_or_default() },
        };
        self.known_attributes.insert(index, read.clone());
        Ok(read)
    }

    fn list(&mut self, bytes: &mut &[u8], depth: usize) -> Result<Vec<Attribute>> {
        let count = count(bytes)?;
        (0..count).map(|_| self.attribute(number(bytes)?, depth + 1)).collect()
    }

    fn ty(&mut self, index: u64, depth: usize) -> Result<Type> {
        if let Some(known) = self.known_types.get(&index) {
            return Ok(known.clone());
        }
        ensure!(depth < DEPTH, "types that are nested too deep");
        let found = usize::try_from(index).ok().and_then(|i| self.types.get(i));
        let bytes = found.with_context(|| format!("type {index} of {}", self.types.len()))?.clone();
        let mut bytes = bytes.as_slice();
        let code = number(&mut bytes)?;
        let read = match code {
            kind::TENSOR => {
                let rank = count(&mut bytes)?;
                let shape = (0..rank).map(|_| Ok(unzigzag(number(&mut bytes)?))).collect::<Result<_>>()?;
                match self.ty(number(&mut bytes)?, depth + 1)? {
                    Type::Element(element) => Type::Tensor { shape, element },
                    Type::Other { code } => bail!("a tensor of elements of the unknown type {code}"),
                    _ => bail!("a tensor of what is no element"),
                }
            }
            kind::FUNCTION => {
                let mut types = || {
                    let count = count(&mut bytes)?;
                    (0..count).map(|_| self.ty(number(&mut bytes)?, depth + 1)).collect::<Result<Vec<_>>>()
                };
                let results = types()?;
                Type::Function { inputs: types()?, results }
            }
            kind::HANDLE => match self.ty(number(&mut bytes)?, depth + 1)? {
                Type::Tensor { shape, element } => Type::Handle { shape, element },
                _ => bail!("a handle of what is no tensor"),
            },
            kind::TOKEN => Type::Token,
            kind::CALLABLE => Type::Callable,
            code => Element::of_code(code).map_or(Type::Other { code }, Type::Element),
        };
        self.known_types.insert(index, read.clone());
        Ok(read)
    }

    fn operation(&mut self, bytes: &mut &[u8], depth: usize) -> Result<Operation> {
        ensure!(depth < DEPTH, "regions that are nested too deep");
        let index = number(bytes)?;
        let name = usize::try_from(index).ok().and_then(|i| self.names.get(i));
        let name = name.with_context(|| format!("op {index} of {}", self.names.len()))?.clone();
        let flags = byte(bytes)?;
        let known = super::has::RESULTS | super::has::OPERANDS | super::has::REGIONS | super::has::PROPERTIES;
        ensure!(flags & !known == 0, "an op `{name}` with what is not known here (flags {flags:#x})");
        let file = match self.attribute(number(bytes)?, 0)? {
            Attribute::Location(file) => file,
            _ => UNKNOWN.into(),
        };
        let properties = match flags & super::has::PROPERTIES {
            0 => Vec::new(),
            _ => self.properties_of(&name, number(bytes)?)?,
        };
        let mut results = Vec::new();
        if flags & super::has::RESULTS != 0 {
            for _ in 0..count(bytes)? {
                results.push(self.ty(number(bytes)?, 0)?);
            }
        }
        let mut operands = Vec::new();
        if flags & super::has::OPERANDS != 0 {
            for _ in 0..count(bytes)? {
                operands.push(usize::try_from(number(bytes)?).context("a value that is too large")?);
            }
        }
        let mut regions = Vec::new();
        if flags & super::has::REGIONS != 0 {
            let head = number(bytes)?;
            ensure!(head & 1 == 1, "an op `{name}` whose regions see values from outside");
            for _ in 0..head >> 1 {
                ensure!(byte(bytes)? == section::IR, "a region without its section");
                let len = number(bytes)?;
                let mut inside = part(bytes, len)?;
                regions.push(self.region(&mut inside, depth + 1)?);
                ensure!(inside.is_empty(), "more than a region where one is");
            }
        }
        Ok(Operation { name: name.into(), operands, results, properties, regions, file })
    }

    /// Which properties are required is known of the ops that are read here; others have none that matter.
    fn properties_of(&mut self, name: &str, index: u64) -> Result<Vec<Property>> {
        let found = usize::try_from(index).ok().and_then(|i| self.properties.get(i));
        let bytes = found.with_context(|| format!("properties {index} of {}", self.properties.len()))?.clone();
        let mut bytes = bytes.as_slice();
        let mut properties = Vec::new();
        let mut place = 0;
        while !bytes.is_empty() {
            let number = number(&mut bytes)?;
            let optional = super::optional(name, place);
            properties.push(match (optional, number) {
                (false, index) => Property::Required(self.attribute(index, 0)?),
                (true, 0) => Property::Optional(None),
                (true, index) => Property::Optional(Some(self.attribute(index >> 1, 0)?)),
            });
            place += 1;
        }
        Ok(properties)
    }

    fn region(&mut self, bytes: &mut &[u8], depth: usize) -> Result<Region> {
        let mut region = Region::default();
        let blocks = number(bytes)?;
        if blocks == 0 {
            return Ok(region);
        }
        ensure!(blocks == 1, "a region of {blocks} blocks");
        let values = number(bytes)?;
        let head = number(bytes)?;
        if head & 1 == 1 {
            for _ in 0..count(bytes)? {
                let ty = number(bytes)?;
                let mut file = UNKNOWN.into();
                if ty & 1 == 1
                    && let Attribute::Location(known) = self.attribute(number(bytes)?, 0)?
                {
                    file = known;
                }
                region.arguments.push(Argument { ty: self.ty(ty >> 1, 0)?, file });
            }
            ensure!(byte(bytes)? == 0, "a block with an order of uses");
        }
        let mut known = region.arguments.len();
        for _ in 0..head >> 1 {
            let op = self.operation(bytes, depth)?;
            let late = op.operands.iter().find(|o| **o >= known);
            ensure!(late.is_none(), "an op `{}` that uses a value before it is there", op.name);
            known += op.results.len();
            region.operations.push(op);
        }
        ensure!(known as u64 == values, "a region of {known} values that says {values}");
        Ok(region)
    }
}
