//! A message as the wire reader of the crate `protobuf` and a table of field numbers see it.

use std::collections::BTreeSet;

use protobuf::CodedInputStream;

use super::schema::{Kind, Schema};

/// A message: its fields by their published names, in the order of the file.
#[derive(Debug, Default)]
pub struct Message {
    fields: Vec<(String, Value)>,
}

/// The value of a field.
#[derive(Debug)]
pub enum Value {
    Integer(i64),
    Number(f64),
    Text(String),
    Bytes(Vec<u8>),
    Message(Message),
    Entry(String, Box<Value>),
}

impl Message {
    /// Reads a whole file.
    ///
    /// # Errors
    /// Anything but known fields of the right wire type: an unknown number, text that is no UTF-8, a field twice that may be there once.
    pub fn read(bytes: &[u8], schema: &Schema, root: &str) -> Result<Message, String> {
        let mut stream = CodedInputStream::from_bytes(bytes);
        message(&mut stream, schema, root)
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Value> {
        self.fields.iter().filter(move |(field, _)| field == name).map(|(_, value)| value)
    }

    fn first(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value)
    }

    pub fn has(&self, name: &str) -> bool {
        self.first(name).is_some()
    }

    /// The names of the fields that are there.
    pub fn names(&self) -> BTreeSet<&str> {
        self.fields.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// A number; 0 if the field is absent, as the format has it.
    pub fn integer(&self, name: &str) -> i64 {
        self.first(name).map_or(0, Value::integer)
    }

    pub fn integers(&self, name: &str) -> Vec<i64> {
        self.all(name).map(Value::integer).collect()
    }

    /// A text; empty if the field is absent.
    pub fn text(&self, name: &str) -> &str {
        self.first(name).map_or("", Value::text)
    }

    pub fn texts<'a>(&'a self, name: &'a str) -> Vec<&'a str> {
        self.all(name).map(Value::text).collect()
    }

    pub fn message(&self, name: &str) -> Result<&Message, String> {
        self.first(name).map(Value::message).ok_or_else(|| format!("no `{name}`"))
    }

    pub fn messages<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Message> {
        self.all(name).map(Value::message)
    }

    /// The entries of a map.
    pub fn entries<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, &'a Value)> {
        self.all(name).map(|value| match value {
            Value::Entry(key, value) => (key.as_str(), value.as_ref()),
            other => panic!("{other:?}: the table says that this is an entry"),
        })
    }
}

impl Value {
    fn integer(&self) -> i64 {
        let Value::Integer(x) = self else { panic!("{self:?}: the table says that this is an integer") };
        *x
    }

    pub fn text(&self) -> &str {
        let Value::Text(x) = self else { panic!("{self:?}: the table says that this is a text") };
        x
    }

    pub fn message(&self) -> &Message {
        let Value::Message(x) = self else { panic!("{self:?}: the table says that this is a message") };
        x
    }

    pub fn bytes(&self) -> &[u8] {
        let Value::Bytes(x) = self else { panic!("{self:?}: the table says that these are bytes") };
        x
    }
}

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const DELIMITED: u32 = 2;
const FIXED32: u32 = 5;

fn message(stream: &mut CodedInputStream<'_>, schema: &Schema, name: &str) -> Result<Message, String> {
    let wire = |e: protobuf::Error| format!("{name}: {e}");
    let mut out = Message::default();
    let (mut seen, mut keys) = (BTreeSet::new(), BTreeSet::new());
    while let Some(tag) = stream.read_raw_tag_or_eof().map_err(wire)? {
        let (number, found) = (tag >> 3, tag & 7);
        let field =
            schema.field(name, number).ok_or_else(|| format!("{name}: no published field has number {number}"))?;
        let place = format!("{name}.{}", field.name);
        if !field.repeated && !seen.insert(field.one_of.as_ref().unwrap_or(&field.name)) {
            return Err(format!("{place}: twice, or beside another field of its group"));
        }
        if found == DELIMITED && field.repeated && wire_type(&field.kind) != DELIMITED {
            let length = stream.read_raw_varint64().map_err(wire)?;
            let outer = stream.push_limit(length).map_err(wire)?;
            while !stream.eof().map_err(wire)? {
                out.fields.push((field.name.clone(), value(stream, schema, &field.kind, &place)?));
            }
            stream.pop_limit(outer);
            continue;
        }
        if found != wire_type(&field.kind) {
            return Err(format!("{place}: wire type {found}, expected {}", wire_type(&field.kind)));
        }
        let value = value(stream, schema, &field.kind, &place)?;
        if let Value::Entry(key, _) = &value
            && !keys.insert((number, key.clone()))
        {
            return Err(format!("{place}: the key {key} twice"));
        }
        out.fields.push((field.name.clone(), value));
    }
    Ok(out)
}

fn wire_type(kind: &Kind) -> u32 {
    match kind {
        Kind::Integer | Kind::Bool => VARINT,
        Kind::Double => FIXED64,
        Kind::Float => FIXED32,
        Kind::Text | Kind::Bytes | Kind::Message(_) | Kind::Map(_) => DELIMITED,
    }
}

fn value(stream: &mut CodedInputStream<'_>, schema: &Schema, kind: &Kind, place: &str) -> Result<Value, String> {
    let wire = |e: protobuf::Error| format!("{place}: {e}");
    Ok(match kind {
        Kind::Integer => Value::Integer(stream.read_int64().map_err(wire)?),
        Kind::Bool => match stream.read_raw_varint64().map_err(wire)? {
            bit @ (0 | 1) => Value::Integer(i64::from(bit == 1)),
            other => return Err(format!("{place}: {other} is no bool")),
        },
        Kind::Float => Value::Number(f64::from(stream.read_float().map_err(wire)?)),
        Kind::Double => Value::Number(stream.read_double().map_err(wire)?),
        Kind::Text => Value::Text(stream.read_string().map_err(wire)?),
        Kind::Bytes => Value::Bytes(stream.read_bytes().map_err(wire)?),
        Kind::Message(name) => delimited(stream, place, |stream| Ok(Value::Message(message(stream, schema, name)?)))?,
        Kind::Map(of) => delimited(stream, place, |stream| entry(stream, schema, of, place))?,
    })
}

fn delimited(
    stream: &mut CodedInputStream<'_>,
    place: &str,
    read: impl FnOnce(&mut CodedInputStream<'_>) -> Result<Value, String>,
) -> Result<Value, String> {
    let wire = |e: protobuf::Error| format!("{place}: {e}");
    let length = stream.read_raw_varint64().map_err(wire)?;
    let outer = stream.push_limit(length).map_err(wire)?;
    let value = read(stream)?;
    stream.check_eof().map_err(wire)?;
    stream.pop_limit(outer);
    Ok(value)
}

/// An entry of a map: field 1 is the key, field 2 the value; what is absent is empty.
fn entry(stream: &mut CodedInputStream<'_>, schema: &Schema, of: &Kind, place: &str) -> Result<Value, String> {
    let wire = |e: protobuf::Error| format!("{place}: {e}");
    let (mut key, mut held) = (None, None);
    while let Some(tag) = stream.read_raw_tag_or_eof().map_err(wire)? {
        match (tag >> 3, tag & 7) {
            (1, DELIMITED) if key.is_none() => key = Some(stream.read_string().map_err(wire)?),
            (2, found) if held.is_none() && found == wire_type(of) => held = Some(value(stream, schema, of, place)?),
            (number, found) => {
                return Err(format!("{place}: field {number} of wire type {found} in an entry of a map"));
            }
        }
    }
    let empty = || match of {
        Kind::Text => Value::Text(String::new()),
        _ => Value::Message(Message::default()),
    };
    Ok(Value::Entry(key.unwrap_or_default(), Box::new(held.unwrap_or_else(empty))))
}
