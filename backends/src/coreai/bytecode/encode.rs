//! Attributes, types, properties and ops as bytes.

use std::collections::HashMap;

use super::super::program::{Attribute, Operation, Property, Region, Type};
use super::number::Numbering;
use super::varint::{put, zigzag};
use super::{attribute, has, kind, section};

/// Strings in the order of their first use.
#[derive(Default)]
pub(super) struct Strings {
    pub(super) all: Vec<String>,
    index: HashMap<String, u64>,
}

impl Strings {
    /// The number of a string.
    pub(super) fn number(&mut self, text: &str) -> u64 {
        if let Some(&at) = self.index.get(text) {
            return at;
        }
        let at = self.all.len() as u64;
        self.all.push(text.to_string());
        self.index.insert(text.to_string(), at);
        at
    }
}

/// Encodes a program whose numbers are known.
pub(super) struct Encoder<'a> {
    pub(super) numbers: &'a Numbering,
    pub(super) strings: Strings,
    /// Properties of ops, equal ones once.
    pub(super) properties: Vec<Vec<u8>>,
    by_bytes: HashMap<Vec<u8>, u64>,
}

impl<'a> Encoder<'a> {
    pub(super) fn new(numbers: &'a Numbering, strings: Strings) -> Self {
        Encoder { numbers, strings, properties: Vec::new(), by_bytes: HashMap::new() }
    }

    pub(super) fn attribute(&mut self, attribute: &Attribute) -> Vec<u8> {
        let mut out = Vec::new();
        match attribute {
            Attribute::String(text) => {
                put(&mut out, attribute::STRING);
                put(&mut out, self.strings.number(text));
            }
            Attribute::Integer { width, value } | Attribute::Signed { width, value } => {
                put(&mut out, attribute::INTEGER);
                put(&mut out, *width);
                out.push(u8::from(matches!(attribute, Attribute::Integer { .. })));
                match width {
                    0..=8 => out.push(*value as u8),
                    _ => put(&mut out, zigzag(*value)),
                }
            }
            Attribute::Float(bits) => {
                put(&mut out, attribute::FLOAT);
                put(&mut out, 32);
                put(&mut out, zigzag(i64::from(*bits as i32)));
            }
            Attribute::Type(ty) => {
                put(&mut out, attribute::TYPE);
                put(&mut out, self.numbers.types.of(ty));
            }
            Attribute::Array(values) => {
                put(&mut out, attribute::ARRAY);
                self.list(&mut out, values);
            }
            Attribute::Dense { splat, bytes } => {
                put(&mut out, attribute::DENSE);
                out.push(u8::from(*splat));
                put(&mut out, bytes.len() as u64);
                out.extend(bytes);
            }
            Attribute::Resource(index) => {
                put(&mut out, attribute::RESOURCE);
                put(&mut out, *index as u64);
            }
            Attribute::Opaque { name, values } => {
                put(&mut out, attribute::OPAQUE);
                put(&mut out, self.strings.number(name));
                self.list(&mut out, values);
            }
            Attribute::Dictionary(values) => {
                put(&mut out, attribute::DICTIONARY);
                self.list(&mut out, values);
            }
            Attribute::Symbol(name) => {
                put(&mut out, attribute::SYMBOL);
                // Not within another.
                put(&mut out, 1);
                put(&mut out, self.strings.number(name));
            }
            Attribute::Callee(name) => {
                put(&mut out, attribute::CALLEE);
                put(&mut out, self.numbers.attributes.of(&Attribute::Symbol(name.clone())));
                put(&mut out, self.numbers.types.of(&Type::Callable));
            }
            Attribute::Choice { code, value } => {
                put(&mut out, *code);
                put(&mut out, *value);
            }
            Attribute::Unit => put(&mut out, attribute::UNIT),
            Attribute::File(name) => {
                put(&mut out, attribute::FILE);
                // The file, its folder, its text.
                for text in [&**name, "", ""] {
                    put(&mut out, self.strings.number(text));
                }
            }
            Attribute::Range(file) => {
                put(&mut out, attribute::RANGE);
                put(&mut out, self.numbers.attributes.of(&Attribute::File(file.clone())));
                // First and last line and column.
                out.extend([1; 4]);
            }
            Attribute::Location(file) => {
                put(&mut out, attribute::LOCATION);
                put(&mut out, self.numbers.attributes.of(&Attribute::Range(file.clone())));
                put(&mut out, self.numbers.attributes.of(&Attribute::Unit));
                out.extend([1; 2]);
            }
        }
        out
    }

    fn list(&self, out: &mut Vec<u8>, values: &[Attribute]) {
        put(out, values.len() as u64);
        for value in values {
            put(out, self.numbers.attributes.of(value));
        }
    }

    pub(super) fn ty(&self, ty: &Type) -> Vec<u8> {
        let mut out = Vec::new();
        match ty {
            Type::Element(element) => put(&mut out, element.code()),
            Type::Tensor { shape, element } => {
                put(&mut out, kind::TENSOR);
                put(&mut out, shape.len() as u64);
                for extent in shape {
                    put(&mut out, zigzag(*extent));
                }
                put(&mut out, self.numbers.types.of(&Type::Element(*element)));
            }
            Type::Function { inputs, results } => {
                put(&mut out, kind::FUNCTION);
                // Results come first.
                for types in [results, inputs] {
                    put(&mut out, types.len() as u64);
                    for ty in types {
                        put(&mut out, self.numbers.types.of(ty));
                    }
                }
            }
            Type::Handle { shape, element } => {
                put(&mut out, kind::HANDLE);
                put(&mut out, self.numbers.types.of(&Type::Tensor { shape: shape.clone(), element: *element }));
            }
            Type::Token => put(&mut out, kind::TOKEN),
            Type::Callable => put(&mut out, kind::CALLABLE),
            Type::Other { code } => put(&mut out, *code),
        }
        out
    }

    /// The number of an op's properties.
    fn properties(&mut self, properties: &[Property]) -> u64 {
        let mut out = Vec::new();
        for property in properties {
            match property {
                Property::Required(attribute) => put(&mut out, self.numbers.attributes.of(attribute)),
                Property::Optional(None) => put(&mut out, 0),
                Property::Optional(Some(attribute)) => {
                    put(&mut out, self.numbers.attributes.of(attribute) << 1 | 1);
                }
            }
        }
        if let Some(&at) = self.by_bytes.get(&out) {
            return at;
        }
        let at = self.properties.len() as u64;
        self.properties.push(out.clone());
        self.by_bytes.insert(out, at);
        at
    }

    pub(super) fn operation(&mut self, out: &mut Vec<u8>, op: &Operation) {
        put(out, self.numbers.names.of(&op.name.to_string()));
        let flags = [
            (!op.results.is_empty(), has::RESULTS),
            (!op.operands.is_empty(), has::OPERANDS),
            (!op.regions.is_empty(), has::REGIONS),
            (!op.properties.is_empty(), has::PROPERTIES),
        ];
        out.push(flags.iter().filter(|(given, _)| *given).map(|(_, flag)| flag).sum());
        put(out, self.numbers.attributes.of(&Attribute::Location(op.file.clone())));
        if !op.properties.is_empty() {
            let number = self.properties(&op.properties);
            put(out, number);
        }
        if !op.results.is_empty() {
            put(out, op.results.len() as u64);
            for ty in &op.results {
                put(out, self.numbers.types.of(ty));
            }
        }
        if !op.operands.is_empty() {
            put(out, op.operands.len() as u64);
            for &value in &op.operands {
                put(out, value as u64);
            }
        }
        if !op.regions.is_empty() {
            // They see no values from outside.
            put(out, (op.regions.len() as u64) << 1 | 1);
            for region in &op.regions {
                let mut inside = Vec::new();
                self.region(&mut inside, region);
                out.push(section::IR);
                put(out, inside.len() as u64);
                out.extend(inside);
            }
        }
    }

    fn region(&mut self, out: &mut Vec<u8>, region: &Region) {
        // One block.
        put(out, 1);
        put(out, region.values() as u64);
        let with_arguments = !region.arguments.is_empty();
        put(out, (region.operations.len() as u64) << 1 | u64::from(with_arguments));
        if with_arguments {
            put(out, region.arguments.len() as u64);
            for argument in &region.arguments {
                put(out, self.numbers.types.of(&argument.ty) << 1 | 1);
                put(out, self.numbers.attributes.of(&Attribute::Location(argument.file.clone())));
            }
            // No order of uses.
            out.push(0);
        }
        for op in &region.operations {
            self.operation(out, op);
        }
    }
}
