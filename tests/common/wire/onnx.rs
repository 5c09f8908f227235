//! What an ONNX file must say, in terms of the published fields: every value is made once and before its use, every attribute
//! is of its type, every tensor has the bytes of its shape.

use std::collections::BTreeSet;
use std::path::Path;

use super::tree::Message;

/// `AttributeProto.AttributeType`: the field that holds the value.
const ATTRIBUTES: [(i64, &str); 10] = [
    (1, "f"),
    (2, "i"),
    (3, "s"),
    (4, "t"),
    (5, "g"),
    (6, "floats"),
    (7, "ints"),
    (8, "strings"),
    (9, "tensors"),
    (10, "graphs"),
];

/// `TensorProto.DataType`: bits of an element. Strings and complex numbers are never written.
const BITS: [(i64, u64); 15] = [
    (1, 32),
    (2, 8),
    (3, 8),
    (4, 16),
    (5, 16),
    (6, 32),
    (7, 64),
    (9, 8),
    (10, 16),
    (11, 64),
    (12, 32),
    (13, 64),
    (16, 16),
    (21, 4),
    (22, 4),
];

type Checked = Result<(), String>;

/// Judges a `ModelProto` whose file lies in `folder`.
pub fn judge(model: &Message, folder: &Path) -> Checked {
    let version = model.integer("ir_version");
    ensure(version >= 10, || format!("ir_version {version}: opset 21 came with version 10"))?;
    ensure(model.text("producer_name") == "s2ditc", || format!("producer_name {}", model.text("producer_name")))?;
    let functions: BTreeSet<(&str, &str)> =
        model.messages("functions").map(|f| (f.text("domain"), f.text("name"))).collect();
    for function in model.messages("functions") {
        opset(function)?;
        let mut known = BTreeSet::new();
        known.extend(function.texts("input"));
        body(function, known, &function.texts("output"), &functions, folder)
            .map_err(|e| format!("function {}: {e}", function.text("name")))?;
    }
    opset(model)?;
    keys(model, "metadata_props")?;
    graph(model.message("graph")?, &BTreeSet::new(), &functions, folder)
}

fn ensure(holds: bool, says: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(says()) }
}

/// The operator set of the default domain is there once and is 21 or later.
fn opset(of: &Message) -> Checked {
    let default: Vec<i64> =
        of.messages("opset_import").filter(|o| o.text("domain").is_empty()).map(|o| o.integer("version")).collect();
    ensure(default.len() == 1 && default[0] >= 21, || format!("opset_import of the default domain: {default:?}"))
}

fn keys(of: &Message, field: &str) -> Checked {
    let mut seen = BTreeSet::new();
    for entry in of.messages(field) {
        let key = entry.text("key");
        ensure(!key.is_empty() && seen.insert(key), || format!("{field}: the key `{key}` is empty or there twice"))?;
    }
    Ok(())
}

fn graph(g: &Message, outer: &BTreeSet<&str>, functions: &BTreeSet<(&str, &str)>, folder: &Path) -> Checked {
    let mut known = outer.clone();
    for input in g.messages("input") {
        typed(input)?;
        define(&mut known, input.text("name"))?;
    }
    for weight in g.messages("initializer") {
        let name = weight.text("name");
        tensor(weight, folder).map_err(|e| format!("tensor {name}: {e}"))?;
        define(&mut known, name)?;
    }
    for output in g.messages("output") {
        typed(output)?;
    }
    let outputs: Vec<&str> = g.messages("output").map(|o| o.text("name")).collect();
    body(g, known, &outputs, functions, folder)
}

/// The nodes of a graph or function, in order.
fn body<'a>(
    of: &'a Message,
    mut known: BTreeSet<&'a str>,
    outputs: &[&str],
    functions: &BTreeSet<(&str, &str)>,
    folder: &Path,
) -> Checked {
    for node in of.messages("node") {
        let (domain, op) = (node.text("domain"), node.text("op_type"));
        let says = |e: String| format!("node `{}` ({op}): {e}", node.text("name"));
        let capital = op.starts_with(|c: char| c.is_ascii_uppercase());
        ensure(capital && (domain.is_empty() || functions.contains(&(domain, op))), || {
            says(format!("no op of ONNX and no function of the model: `{domain}` `{op}`"))
        })?;
        for input in node.texts("input").into_iter().filter(|name| !name.is_empty()) {
            ensure(known.contains(input), || says(format!("`{input}` is used and not made before")))?;
        }
        for held in node.messages("attribute") {
            attribute(held, &known, functions, folder)
                .map_err(|e| says(format!("attribute {}: {e}", held.text("name"))))?;
        }
        ensure(!node.texts("output").is_empty(), || says("it makes nothing".into()))?;
        for output in node.texts("output").into_iter().filter(|name| !name.is_empty()) {
            define(&mut known, output).map_err(says)?;
        }
    }
    ensure(!outputs.is_empty(), || "no outputs".into())?;
    outputs.iter().try_for_each(|name| ensure(known.contains(name), || format!("the output `{name}` is not made")))
}

fn define<'a>(known: &mut BTreeSet<&'a str>, name: &'a str) -> Checked {
    ensure(!name.is_empty() && known.insert(name), || format!("the value `{name}` is empty or made twice"))
}

fn attribute(held: &Message, known: &BTreeSet<&str>, functions: &BTreeSet<(&str, &str)>, folder: &Path) -> Checked {
    let ty = held.integer("type");
    let Some((_, field)) = ATTRIBUTES.iter().find(|(code, _)| *code == ty) else { return Err(format!("type {ty}")) };
    let mut others = held.names();
    for known in ["name", "type", "doc_string", *field] {
        others.remove(known);
    }
    let referred = others.remove("ref_attr_name");
    ensure(others.is_empty(), || format!("type {ty} is for `{field}`, found {others:?}"))?;
    ensure(!referred || !held.has(field), || "a value and a reference".into())?;
    for t in held.messages("tensors").chain(held.messages("t")) {
        tensor(t, folder)?;
    }
    held.messages("g").chain(held.messages("graphs")).try_for_each(|g| graph(g, known, functions, folder))
}

/// An input or output has a dtype and a shape.
fn typed(value: &Message) -> Checked {
    let name = value.text("name");
    let of = |e: String| format!("`{name}`: {e}");
    let ty = value.message("type").and_then(|ty| ty.message("tensor_type")).map_err(of)?;
    bits(ty.integer("elem_type")).map_err(of)?;
    for dim in ty.message("shape").map_err(of)?.messages("dim") {
        ensure(dim.integer("dim_value") > 0, || of("a dimension that is not a positive number".into()))?;
    }
    Ok(())
}

fn bits(dtype: i64) -> Result<u64, String> {
    let known = BITS.iter().find(|(code, _)| *code == dtype);
    known.map(|(_, bits)| *bits).ok_or_else(|| format!("data_type {dtype}"))
}

/// The elements, wherever they are, fill the shape.
fn tensor(t: &Message, folder: &Path) -> Checked {
    let dims = t.integers("dims");
    let elements: u64 = dims.iter().map(|d| u64::try_from(*d).expect("a dimension that is not negative")).product();
    let expected = (elements * bits(t.integer("data_type"))?).div_ceil(8);
    if t.integer("data_location") == 1 {
        keys(t, "external_data")?;
        let entry = |key: &str| {
            let found = t.messages("external_data").find(|e| e.text("key") == key);
            found.map(|e| e.text("value")).ok_or_else(|| format!("external data without {key}"))
        };
        let number = |key: &str| entry(key)?.parse::<u64>().map_err(|e| format!("{key}: {e}"));
        let (offset, length) = (number("offset")?, number("length")?);
        ensure(length == expected, || format!("length {length}, expected {expected} for {dims:?}"))?;
        let file = folder.join(entry("location")?);
        let there = file.metadata().map_err(|e| format!("{}: {e}", file.display()))?.len();
        return ensure(offset + length <= there && !t.has("raw_data"), || {
            format!("{offset} + {length} bytes of {there} in {}", file.display())
        });
    }
    let raw = t.all("raw_data").next().map_or(0, |bytes| bytes.bytes().len() as u64);
    let lists = ["float_data", "int32_data", "int64_data", "double_data", "uint64_data"];
    let listed: u64 = lists.iter().map(|list| t.all(list).count() as u64).sum();
    ensure(if listed > 0 { listed == elements && raw == 0 } else { raw == expected }, || {
        format!("{raw} bytes and {listed} elements, expected {expected} bytes for {dims:?}")
    })
}
