//! The JSON of an exported program, as far as it is read: `torch/_export/serde/schema.py`, major version 8.
//!
//! Unions are objects of one key. What is not read (memory formats, devices) is skipped.

use std::collections::{BTreeMap, HashMap};

use s2dit_ir::DType;
use serde::Deserialize;
use serde_json::Value as Json;

/// A program.
#[derive(Debug, Deserialize)]
pub(super) struct Program {
    pub graph_module: GraphModule,
    #[serde(default)]
    pub range_constraints: BTreeMap<String, Range>,
    #[serde(default)]
    pub torch_version: Option<String>,
}

/// The values of a symbolic size for which the program was traced.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Range {
    #[serde(default)]
    pub min_val: Option<i64>,
    #[serde(default)]
    pub max_val: Option<i64>,
}

/// The version alone: another one may have other fields.
#[derive(Debug, Deserialize)]
pub(super) struct Versioned {
    pub schema_version: Version,
    #[serde(default)]
    pub torch_version: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Version {
    pub major: i64,
    #[serde(default)]
    pub minor: i64,
}

#[derive(Debug, Deserialize)]
pub(super) struct GraphModule {
    pub graph: Graph,
    pub signature: Signature,
}

#[derive(Debug, Deserialize)]
pub(super) struct Graph {
    pub nodes: Vec<Node>,
    #[serde(default)]
    pub tensor_values: HashMap<String, TensorMeta>,
    #[serde(default)]
    pub sym_int_values: HashMap<String, SymInt>,
}

/// A call of an op.
#[derive(Debug, Deserialize)]
pub(super) struct Node {
    pub target: String,
    pub inputs: Vec<NamedArgument>,
    pub outputs: Vec<Json>,
    #[serde(default)]
    pub metadata: HashMap<String, Json>,
}

#[derive(Debug, Deserialize)]
pub(super) struct NamedArgument {
    pub name: String,
    pub arg: Json,
}

/// What is known of a tensor.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct TensorMeta {
    pub dtype: i64,
    pub sizes: Vec<SymInt>,
    #[serde(default)]
    pub strides: Vec<SymInt>,
    #[serde(default)]
    pub storage_offset: Option<SymInt>,
}

/// A number, or an expression of symbols.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SymInt {
    AsInt(i64),
    AsExpr(SymExpr),
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct SymExpr {
    pub expr_str: String,
}

/// What the inputs and results of the graph are.
#[derive(Debug, Deserialize)]
pub(super) struct Signature {
    pub input_specs: Vec<Json>,
    pub output_specs: Vec<Json>,
}

/// The key and the value of a union.
pub(super) fn union(json: &Json) -> Option<(&str, &Json)> {
    let object = json.as_object()?;
    let (key, value) = object.iter().next()?;
    (object.len() == 1).then_some((key.as_str(), value))
}

/// The name in `{"as_tensor": {"name": …}}`, `{"name": …}` or `{"arg": {"name": …}}`.
pub(super) fn name_of(json: &Json) -> Option<&str> {
    let inner = |key| json.get(key).and_then(name_of);
    json.get("name").and_then(Json::as_str).or_else(|| inner("as_tensor")).or_else(|| inner("arg"))
}

/// torch's number of an element type, if tensors of it are read.
pub(super) fn dtype(number: i64) -> Option<DType> {
    Some(match number {
        1 => DType::U8,
        2 => DType::I8,
        3 => DType::I16,
        4 => DType::I32,
        5 => DType::I64,
        6 => DType::F16,
        7 => DType::F32,
        8 => DType::F64,
        12 => DType::Bool,
        13 => DType::BF16,
        _ => return None,
    })
}

/// JSON as Python writes it, which has `Infinity` and `NaN`: these become strings.
pub(super) fn strict(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.contains("Infinity") && !text.contains("NaN") {
        return text.into();
    }
    let (mut out, mut rest, mut inside) = (String::with_capacity(text.len() + 64), text, false);
    while let Some(at) = rest.find(['"', '\\', 'I', 'N']) {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let taken = match after.as_bytes()[0] {
            b'"' => {
                inside = !inside;
                out.push('"');
                1
            }
            // An escape is two characters, the second of which may be of several bytes.
            b'\\' => {
                let taken = after.char_indices().nth(2).map_or(after.len(), |(end, _)| end);
                out.push_str(&after[..taken]);
                taken
            }
            _ if inside => {
                out.push_str(&after[..1]);
                1
            }
            _ => match ["Infinity", "NaN"].iter().find(|word| after.starts_with(**word)) {
                Some(word) => {
                    let negative = out.ends_with('-');
                    if negative {
                        out.pop();
                    }
                    out.push_str(if negative { "\"-" } else { "\"" });
                    out.push_str(word);
                    out.push('"');
                    word.len()
                }
                None => {
                    out.push_str(&after[..1]);
                    1
                }
            },
        };
        rest = &after[taken..];
    }
    out.push_str(rest);
    out.into()
}

/// A number that may be one of [`strict`]'s strings.
pub(super) fn number(json: &Json) -> Option<f64> {
    match json {
        Json::Number(n) => n.as_f64(),
        Json::String(text) => match text.as_str() {
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            "NaN" => Some(f64::NAN),
            other => other.parse().ok(),
        },
        Json::Bool(b) => Some(f64::from(u8::from(*b))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_json_lacks_become_strings() {
        let text = r#"{"a": -Infinity, "b": [NaN, Infinity], "-Infinity": "NaN \" Infinity", "c": "\\"}"#;
        let json: Json = serde_json::from_str(&strict(text)).unwrap();
        assert_eq!(number(&json["a"]), Some(f64::NEG_INFINITY));
        assert!(number(&json["b"][0]).unwrap().is_nan());
        assert_eq!(json["-Infinity"], "NaN \" Infinity");
        assert_eq!(json["c"], "\\");
    }
}
