//! The published field numbers of a format, from a table in a text file.

use std::collections::BTreeMap;

/// The messages of a format by name, and their fields by number.
pub struct Schema(BTreeMap<String, BTreeMap<u32, Field>>);

/// One field of a message.
pub struct Field {
    pub name: String,
    pub kind: Kind,
    pub repeated: bool,
    /// The group of which at most one field may be there.
    pub one_of: Option<String>,
}

/// The type of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// `int32`, `int64`, `uint64` or an enumeration.
    Integer,
    Bool,
    Float,
    Double,
    Text,
    Bytes,
    Message(String),
    /// Keys are strings.
    Map(Box<Kind>),
}

impl Schema {
    /// Reads a table: a message's name on a line of its own, then a line `number name type` for each field.
    pub fn parse(table: &str) -> Schema {
        let mut messages: BTreeMap<String, BTreeMap<u32, Field>> = BTreeMap::new();
        let mut message = String::new();
        for line in table.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if !line.starts_with(' ') {
                message = line.to_owned();
                assert!(messages.insert(message.clone(), BTreeMap::new()).is_none(), "{message} twice");
                continue;
            }
            let (number, rest) = line.trim().split_once(' ').expect("a number");
            let (name, rest) = rest.split_once(' ').expect("a name");
            let (ty, one_of) = rest.split_once(" in ").map_or((rest, None), |(ty, group)| (ty, Some(group.to_owned())));
            let (ty, repeated) = ty.strip_suffix("[]").map_or((ty, ty.starts_with("map<")), |ty| (ty, true));
            let field = Field { name: name.into(), kind: Kind::parse(ty), repeated, one_of };
            let fields = messages.get_mut(&message).expect("a message");
            assert!(fields.insert(number.parse().expect("a number"), field).is_none(), "{message} {number} twice");
        }
        Schema(messages)
    }

    /// The field of a message with this number, if the format has one.
    pub fn field(&self, message: &str, number: u32) -> Option<&Field> {
        let fields = self.0.get(message).unwrap_or_else(|| panic!("the table lacks the message {message}"));
        fields.get(&number)
    }
}

impl Kind {
    fn parse(text: &str) -> Kind {
        match text {
            "int32" | "int64" | "uint64" | "enum" => Kind::Integer,
            "bool" => Kind::Bool,
            "float" => Kind::Float,
            "double" => Kind::Double,
            "string" => Kind::Text,
            "bytes" => Kind::Bytes,
            _ => match text.strip_prefix("map<string, ").and_then(|rest| rest.strip_suffix('>')) {
                Some(value) => Kind::Map(Box::new(Kind::parse(value))),
                None => Kind::Message(text.to_owned()),
            },
        }
    }
}
