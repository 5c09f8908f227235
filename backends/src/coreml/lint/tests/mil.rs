//! Tiny packages from text, through the protobuf messages:
//!
//! ```text
//! function main            (may be left out)
//! input x fp16[1,4]        (`flexible` behind it: several shapes)
//! state s fp16[2,32]
//! const k int32[1] = 7     (blob instead of const: in the weight file)
//! y = add(x=x, y=k) fp16[1,4]
//! write_state(input=s, data=y)
//! return y
//! ```

use std::collections::BTreeMap;

use half::f16;
use prost::Message;
use tempfile::TempDir;

use crate::coreml::proto::*;
use crate::coreml::{OPSET, Package, SPECIFICATION_VERSION, package};

/// A package on disk.
pub(super) struct OnDisk {
    _dir: TempDir,
    pub(super) package: Package,
}

struct Text {
    functions: BTreeMap<String, Function>,
    described: Vec<FunctionDescription>,
    blobs: Vec<u8>,
    count: u32,
}

pub(super) fn write(source: &str) -> OnDisk {
    let mut text = Text { functions: BTreeMap::new(), described: Vec::new(), blobs: vec![0; 64], count: 0 };
    let start = if source.contains("function ") { String::new() } else { "function main\n".into() };
    let source = start + source;
    for part in source.split("function ").filter(|p| !p.trim().is_empty()) {
        text.function(part);
    }
    let described = text.described.iter().find(|d| d.name == "main").cloned().unwrap_or_default();
    let several = text.described.len() > 1;
    let description = ModelDescription {
        input: if several { Vec::new() } else { described.input },
        output: if several { Vec::new() } else { described.output },
        state: if several { Vec::new() } else { described.state },
        functions: if several { text.described.clone() } else { Vec::new() },
        default_function_name: "main".into(),
        ..Default::default()
    };
    let program = Program { version: 1, functions: text.functions, ..Default::default() };
    let model = Model {
        specification_version: SPECIFICATION_VERSION,
        description: Some(description),
        ml_program: Some(program),
        ..Default::default()
    };
    let dir = tempfile::tempdir().unwrap();
    package::create(dir.path(), false).unwrap();
    package::finish(dir.path(), &model.encode_to_vec()).unwrap();
    if text.count > 0 {
        text.blobs[..4].copy_from_slice(&text.count.to_le_bytes());
        text.blobs[4] = 2;
        std::fs::write(dir.path().join(package::WEIGHTS), &text.blobs).unwrap();
    }
    let package = Package::open(dir.path()).unwrap_or_else(|e| panic!("{e:#}\n{source}"));
    OnDisk { _dir: dir, package }
}

impl Text {
    fn function(&mut self, part: &str) {
        let mut lines = part.lines().map(str::trim).filter(|l| !l.is_empty());
        let name = lines.next().unwrap().to_string();
        let (mut f, mut block) = (Function { opset: OPSET.into(), ..Default::default() }, Block::default());
        let mut d = FunctionDescription { name: name.clone(), ..Default::default() };
        for line in lines {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[0] {
                "input" => {
                    let (_, flexible) = (f.inputs.push(named(words[1], words[2])), words.get(3).is_some());
                    d.input.push(feature(words[1], words[2], flexible, false));
                }
                "state" => {
                    let wrapped = Some(Box::new(ty(words[2])));
                    let state = value_type::Type::StateType(StateType { wrapped_type: wrapped });
                    let state = ValueType { r#type: Some(state) };
                    f.inputs.push(NamedValueType { name: words[1].into(), r#type: Some(state) });
                    d.state.push(feature(words[1], words[2], false, true));
                }
                "const" | "blob" => block.operations.push(self.constant(&words)),
                "return" => {
                    for out in words[1..].iter().map(|w| w.trim_end_matches(',')) {
                        let outputs = block.operations.iter().flat_map(|o| &o.outputs);
                        let value = outputs.into_iter().find(|v| v.name == out).unwrap();
                        d.output.push(FeatureDescription { name: value.name.clone(), ..Default::default() });
                        block.outputs.push(out.into());
                    }
                }
                _ => block.operations.push(op(line)),
            }
        }
        f.block_specializations.insert(OPSET.into(), block);
        self.functions.insert(name, f);
        self.described.push(d);
    }

    fn constant(&mut self, words: &[&str]) -> Operation {
        let declared = named(words[1], words[2]);
        let values = words.get(4..).unwrap_or_default();
        let dtype = words[2].split('[').next().unwrap();
        let tensor = tensor_values(dtype, values);
        let value = if words[0] == "blob" {
            value::Value::BlobFileValue(self.blob(dtype, &tensor))
        } else {
            value::Value::ImmediateValue(ImmediateValue { tensor: Some(TensorValue { value: Some(tensor) }) })
        };
        let val = Value { r#type: declared.r#type.clone(), value: Some(value), ..Default::default() };
        let attributes = BTreeMap::from([("val".to_string(), val)]);
        Operation { r#type: "const".into(), outputs: vec![declared], attributes, ..Default::default() }
    }

    fn blob(&mut self, dtype: &str, values: &TensorValues) -> BlobFileValue {
        let (code, data): (u32, Vec<u8>) = match values {
            TensorValues::Bytes(bytes) => (1, bytes.values.clone()),
            TensorValues::Floats(floats) => (2, floats.values.iter().flat_map(|x| x.to_le_bytes()).collect()),
            _ => panic!("{dtype} in a blob"),
        };
        let offset = self.blobs.len().next_multiple_of(64);
        self.blobs.resize(offset, 0);
        self.blobs.extend(0xDEAD_BEEF_u32.to_le_bytes());
        self.blobs.extend(code.to_le_bytes());
        self.blobs.extend((data.len() as u64).to_le_bytes());
        self.blobs.extend((offset as u64 + 64).to_le_bytes());
        self.blobs.resize(offset + 64, 0);
        self.blobs.extend(data);
        self.count += 1;
        BlobFileValue { file_name: package::WEIGHTS_IN_MODEL.into(), offset: offset as u64 }
    }
}

/// `y = add(x=a, y=b) fp16[4]`; operands of a tuple are joined by `+`.
fn op(line: &str) -> Operation {
    let (call, out) = line.rsplit_once(')').unwrap();
    let (head, arguments) = call.split_once('(').unwrap();
    let (names, kind) = head.split_once('=').map_or(("", head), |(n, k)| (n, k));
    let mut inputs = BTreeMap::new();
    for argument in arguments.split(',').filter(|a| !a.trim().is_empty()) {
        let (input, names) = argument.split_once('=').unwrap();
        let name = |n: &str| Binding { binding: Some(binding::Binding::Name(n.trim().into())) };
        inputs.insert(input.trim().to_string(), Argument { arguments: names.split('+').map(name).collect() });
    }
    let outputs = if out.trim().is_empty() { Vec::new() } else { vec![named(names.trim(), out.trim())] };
    Operation { r#type: kind.trim().into(), inputs, outputs, ..Default::default() }
}

fn tensor_values(dtype: &str, values: &[&str]) -> TensorValues {
    match dtype {
        "bool" => TensorValues::Bools(RepeatedBools { values: values.iter().map(|v| *v == "true").collect() }),
        "string" => TensorValues::Strings(RepeatedStrings { values: values.iter().map(|v| v.to_string()).collect() }),
        "fp32" => TensorValues::Floats(RepeatedFloats { values: values.iter().map(|v| v.parse().unwrap()).collect() }),
        "fp16" => {
            let bytes = values.iter().flat_map(|v| f16::from_f64(v.parse().unwrap()).to_le_bytes());
            TensorValues::Bytes(RepeatedBytes { values: bytes.collect() })
        }
        _ => TensorValues::Ints(RepeatedInts { values: values.iter().map(|v| v.parse().unwrap()).collect() }),
    }
}

fn named(name: &str, text: &str) -> NamedValueType {
    NamedValueType { name: name.into(), r#type: Some(ty(text)) }
}

fn dtype(text: &str) -> DataType {
    let all = (0..64).filter_map(|code| DataType::try_from(code).ok());
    all.into_iter().find(|d| super::super::value::dtype_name(*d) == text).unwrap_or_else(|| panic!("{text}"))
}

/// Element type and extents of `fp16[1,?,64]`.
fn parts(text: &str) -> (DataType, Vec<Option<u64>>) {
    let (name, shape) = text.split_once('[').unwrap();
    let extents = shape.trim_end_matches(']').split(',').map(str::trim).filter(|d| !d.is_empty());
    (dtype(name), extents.map(|d| d.parse().ok()).collect())
}

fn ty(text: &str) -> ValueType {
    let (dtype, shape) = parts(text);
    let extent = |d: &Option<u64>| match d {
        Some(size) => dimension::Dimension::Constant(dimension::ConstantDimension { size: *size }),
        None => dimension::Dimension::Unknown(dimension::UnknownDimension { variadic: false }),
    };
    let tensor = TensorType {
        data_type: dtype as i32,
        rank: shape.len() as i64,
        dimensions: shape.iter().map(|d| Dimension { dimension: Some(extent(d)) }).collect(),
        ..Default::default()
    };
    ValueType { r#type: Some(value_type::Type::TensorType(tensor)) }
}

fn feature(name: &str, text: &str, flexible: bool, state: bool) -> FeatureDescription {
    let (dtype, shape) = parts(text);
    let data_type = match dtype {
        DataType::Float16 => ArrayDataType::Float16,
        DataType::Float32 => ArrayDataType::Float32,
        _ => ArrayDataType::Int32,
    };
    let flexibility = array_feature_type::ShapeFlexibility::ShapeRange(Opaque {});
    let array = ArrayFeatureType {
        shape: shape.iter().map(|d| d.map_or(1, |d| d as i64)).collect(),
        data_type: data_type as i32,
        shape_flexibility: flexible.then_some(flexibility),
        ..Default::default()
    };
    let ty = match state {
        true => feature_type::Type::StateType(StateFeatureType { array_type: Some(array) }),
        false => feature_type::Type::MultiArrayType(array),
    };
    let ty = FeatureType { r#type: Some(ty), ..Default::default() };
    FeatureDescription { name: name.into(), r#type: Some(ty), ..Default::default() }
}
