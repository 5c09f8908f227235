//! What a package's `model.mlmodel` must say, in terms of the published fields: every value is made once and before its use,
//! every constant has the elements of its type, in place or in the weight file, and the description is that of the program.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::tree::{Message, Value};

/// `MILSpec.DataType`: bits of an element, the field of `TensorValue` that holds it in place, and its code in the weight file
/// (`BlobDataType` of MIL's blob storage, version 2).
const TYPES: [(i64, u64, &str, u32); 18] = [
    (1, 8, "bools", 0),
    (2, 0, "strings", 0),
    (10, 16, "bytes", 1),
    (11, 32, "floats", 2),
    (13, 16, "bytes", 5),
    (21, 8, "bytes", 4),
    (22, 16, "ints", 6),
    (23, 32, "ints", 14),
    (24, 64, "longInts", 0),
    (25, 4, "bytes", 8),
    (31, 8, "bytes", 3),
    (32, 16, "ints", 7),
    (33, 32, "bytes", 15),
    (35, 4, "bytes", 11),
    (36, 2, "bytes", 10),
    (37, 1, "bytes", 9),
    (38, 6, "bytes", 13),
    (39, 3, "bytes", 12),
];

/// `ArrayFeatureType.ArrayDataType`: the MIL type that it stands for.
const FEATURES: [(i64, i64); 4] = [(65552, 10), (65568, 11), (131_104, 23), (131_080, 21)];

type Checked = Result<(), String>;
/// A MIL type code and a shape.
type Type = (i64, Vec<i64>);

/// Judges a `Model` whose file lies in `folder`.
pub fn judge(model: &Message, folder: &Path) -> Checked {
    let version = model.integer("specificationVersion");
    ensure(version >= 9, || format!("specificationVersion {version}: iOS 18 came with version 9"))?;
    let program = model.message("mlProgram")?;
    ensure(program.integer("version") == 1, || format!("MIL version {}", program.integer("version")))?;
    let weights = Weights { folder: folder.to_owned() };
    let description = model.message("description")?;
    let described: Vec<&Message> = match description.has("functions") {
        true => description.messages("functions").collect(),
        false => vec![description],
    };
    let functions: Vec<(&str, &Value)> = program.entries("functions").collect();
    ensure(functions.len() == described.len(), || {
        format!("{} functions, {} described", functions.len(), described.len())
    })?;
    for (name, function) in functions {
        let of = |e: String| format!("function {name}: {e}");
        let held = described.iter().find(|d| described.len() == 1 || d.text("name") == name);
        let held = held.ok_or_else(|| of("not described".into()))?;
        self::function(function.message(), held, &weights).map_err(of)?;
    }
    let default = description.text("defaultFunctionName");
    ensure(!description.has("functions") || program.entries("functions").any(|(name, _)| name == default), || {
        format!("defaultFunctionName `{default}`")
    })
}

fn ensure(holds: bool, says: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(says()) }
}

fn function(f: &Message, described: &Message, weights: &Weights) -> Checked {
    let opset = f.text("opset");
    let blocks: Vec<(&str, &Value)> = f.entries("block_specializations").collect();
    let [(key, block)] = blocks[..] else { return Err(format!("{} blocks, expected one", blocks.len())) };
    ensure(key == opset && opset.starts_with("CoreML"), || format!("opset `{opset}`, block `{key}`"))?;
    let mut known: BTreeMap<&str, Type> = BTreeMap::new();
    for input in f.messages("inputs") {
        define(&mut known, input)?;
    }
    let inputs: Vec<&Message> = described.messages("input").chain(described.messages("state")).collect();
    ensure(inputs.len() == known.len(), || format!("{} inputs, {} described", known.len(), inputs.len()))?;
    for feature in inputs {
        agree(feature, &known)?;
    }
    let known = self::block(block.message(), known, weights)?;
    let outputs: BTreeSet<&str> = block.message().texts("outputs").into_iter().collect();
    let told: BTreeSet<&str> = described.messages("output").map(|o| o.text("name")).collect();
    ensure(outputs == told && !outputs.is_empty(), || format!("outputs {outputs:?}, described {told:?}"))?;
    described.messages("output").try_for_each(|feature| agree(feature, &known))
}

/// A feature's name, dtype and shape are those of a value.
fn agree(feature: &Message, known: &BTreeMap<&str, Type>) -> Checked {
    let name = feature.text("name");
    let ty = feature.message("type")?;
    let array = match ty.has("stateType") {
        true => ty.message("stateType")?.message("arrayType")?,
        false => ty.message("multiArrayType")?,
    };
    let dtype = FEATURES.iter().find(|(code, _)| *code == array.integer("dataType")).map(|(_, mil)| *mil);
    let told = dtype.map(|dtype| (dtype, array.integers("shape")));
    ensure(told.is_some() && told.as_ref() == known.get(name), || {
        format!("feature `{name}` is described as {told:?}, the program has {:?}", known.get(name))
    })
}

/// Adds a named value.
fn define<'a>(known: &mut BTreeMap<&'a str, Type>, value: &'a Message) -> Checked {
    let name = value.text("name");
    let ty = value.message("type").and_then(type_of).map_err(|e| format!("`{name}`: {e}"))?;
    ensure(!name.is_empty() && known.insert(name, ty).is_none(), || {
        format!("the value `{name}` is empty or made twice")
    })
}

/// The operations in order; returns what is known after the last.
fn block<'a>(
    b: &'a Message,
    mut known: BTreeMap<&'a str, Type>,
    weights: &Weights,
) -> Result<BTreeMap<&'a str, Type>, String> {
    for input in b.messages("inputs") {
        define(&mut known, input)?;
    }
    for op in b.messages("operations") {
        let ty = op.text("type");
        let first = op.messages("outputs").next().map_or("", |o| o.text("name"));
        let of = |e: String| format!("op `{ty}` that makes `{first}`: {e}");
        let plain = !ty.is_empty() && ty.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        ensure(plain, || of("no op's name".into()))?;
        for (parameter, argument) in op.entries("inputs") {
            let bindings: Vec<&Message> = argument.message().messages("arguments").collect();
            ensure(!bindings.is_empty(), || of(format!("nothing is bound to {parameter}")))?;
            for binding in bindings {
                match binding.has("value") {
                    true => {
                        constant(binding.message("value")?, weights).map_err(|e| of(format!("{parameter}: {e}")))?;
                    }
                    false => ensure(known.contains_key(binding.text("name")), || {
                        of(format!("{parameter}: `{}` is used and not made before", binding.text("name")))
                    })?,
                }
            }
        }
        for (name, value) in op.entries("attributes") {
            constant(value.message(), weights).map_err(|e| of(format!("attribute {name}: {e}")))?;
        }
        for inner in op.messages("blocks") {
            block(inner, known.clone(), weights).map_err(of)?;
        }
        for output in op.messages("outputs") {
            define(&mut known, output).map_err(of)?;
        }
    }
    let absent = b.texts("outputs").into_iter().find(|name| !known.contains_key(name));
    ensure(absent.is_none(), || format!("the output {absent:?} is not made"))?;
    Ok(known)
}

fn type_of(ty: &Message) -> Result<Type, String> {
    if ty.has("stateType") {
        return type_of(ty.message("stateType")?.message("wrappedType")?);
    }
    let tensor = ty.message("tensorType")?;
    let (dtype, rank) = (tensor.integer("dataType"), tensor.integer("rank"));
    ensure(TYPES.iter().any(|t| t.0 == dtype), || format!("dataType {dtype}"))?;
    let size = |d: &Message| d.message("constant").map(|c| c.integer("size"));
    let shape: Vec<i64> = tensor.messages("dimensions").map(size).collect::<Result<_, _>>()?;
    ensure(shape.len() as i64 == rank && shape.iter().all(|d| *d > 0), || {
        format!("rank {rank}, dimensions {shape:?}")
    })?;
    Ok((dtype, shape))
}

/// A constant has the elements of its type.
fn constant(value: &Message, weights: &Weights) -> Checked {
    let (dtype, shape) = type_of(value.message("type")?)?;
    let (_, bits, field, code) = TYPES.into_iter().find(|t| t.0 == dtype).expect("checked with the type");
    let elements: u64 = shape.iter().map(|d| *d as u64).product();
    let bytes = (elements * bits).div_ceil(8);
    if value.has("blobFileValue") {
        return weights.record(value.message("blobFileValue")?, code, bytes);
    }
    let tensor = value.message("immediateValue")?.message("tensor")?;
    let list = tensor.message(field).map_err(|e| format!("dataType {dtype}: {e}"))?;
    let (found, expected) = match field {
        "bytes" => (list.all("values").next().map_or(0, |v| v.bytes().len() as u64), bytes),
        _ => (list.all("values").count() as u64, elements),
    };
    ensure(found == expected, || format!("{found} of {field}, expected {expected} for {shape:?}"))
}

/// The weight files that values refer to.
struct Weights {
    folder: PathBuf,
}

impl Weights {
    /// The record is there, of the type and the size that the value has.
    fn record(&self, blob: &Message, code: u32, bytes: u64) -> Checked {
        let name = blob.text("fileName");
        let inside = name.strip_prefix("@model_path/").ok_or_else(|| format!("fileName `{name}`"))?;
        let path = self.folder.join(inside);
        let shown = path.display();
        let file = fs::File::open(&path).map_err(|e| format!("{shown}: {e}"))?;
        let size = file.metadata().map_err(|e| format!("{shown}: {e}"))?.len();
        let offset = blob.integer("offset") as u64;
        let mut header = [0; 64];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut header, offset).map_err(|e| format!("{shown}: {e}"))?;
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        let says = || {
            format!("{shown}, record at {offset}: {:#x}, type {}, {} bytes at {}", word(0), word(4), long(8), long(16))
        };
        ensure(word(0) == 0xDEAD_BEEF && word(4) == code && code != 0, says)?;
        ensure(long(8) == bytes && long(16) % 64 == 0 && long(16) + bytes <= size, || {
            format!("{}; expected {bytes} bytes", says())
        })
    }
}
