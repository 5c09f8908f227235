use std::collections::{BTreeMap, BTreeSet};

use prost::Message;

use super::*;
use crate::coreml::proto as mil;
use crate::onnx::proto as onnx;

/// A field of a struct: whose, its tag, whether it is a map, and what it holds.
type FieldOf = (String, u32, &'static str, String);

/// The last name in a type: `Option<Box<ValueType>>` holds a `ValueType`, `BTreeMap<String, Function>` a `Function`.
fn held(ty: &str) -> String {
    let between = |c: char| !c.is_alphanumeric() && c != '_';
    ty.trim_matches(between).rsplit(between).next().unwrap_or_default().into()
}

/// The fields of the messages in a file of `prost` structs that hold messages or maps.
fn declared(source: &str) -> BTreeSet<FieldOf> {
    let tag = |attribute: &str| attribute.split("tag = \"").nth(1)?.split('"').next()?.parse::<u32>().ok();
    // What a `oneof` of a name holds.
    let mut alternatives: BTreeMap<String, Vec<(u32, String)>> = BTreeMap::new();
    let mut fields = BTreeSet::new();
    let mut oneofs: Vec<(String, String)> = Vec::new();
    let (mut owner, mut is_enum, mut modules, mut attribute) = (String::new(), false, String::new(), "");
    for line in source.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("pub mod ") {
            modules = held(name);
        } else if let Some(name) = line.strip_prefix("pub struct ").or(line.strip_prefix("pub enum ")) {
            is_enum = line.starts_with("pub enum");
            owner = held(name.split('{').next().unwrap_or_default());
        } else if line.starts_with("#[prost(") {
            attribute = line;
        } else if !attribute.is_empty() && !line.starts_with("//") {
            let value = held(line.split(" //").next().unwrap_or_default());
            let map = if attribute.contains("btree_map") { "map" } else { "message" };
            if is_enum {
                let names = [owner.clone(), format!("{modules}::{owner}")];
                for name in names.into_iter().filter(|_| attribute.contains("(message") && value != "Opaque") {
                    alternatives.entry(name).or_default().push((tag(attribute).expect("a tag"), value.clone()));
                }
            } else if let Some(name) = attribute.split("oneof = \"").nth(1) {
                oneofs.push((owner.clone(), name.split('"').next().expect("a name").into()));
            } else if attribute.contains("(message") || attribute.contains("btree_map") {
                fields.insert((owner.clone(), tag(attribute).expect("a tag"), map, value));
            }
            attribute = "";
        }
    }
    for (owner, name) in oneofs {
        for (tag, value) in alternatives.get(&name).into_iter().flatten() {
            fields.insert((owner.clone(), *tag, "message", value.clone()));
        }
    }
    fields
}

/// The same of a table of costs.
fn tabled(source: &str) -> BTreeSet<FieldOf> {
    let tables = || source.split("static ").skip(1).filter(|table| table.contains("kind::<"));
    let message =
        |table: &str| held(table.split("kind::<").nth(1).unwrap_or_default().split('>').next().unwrap_or_default());
    let messages: BTreeMap<&str, String> =
        tables().map(|t| (t.split(':').next().unwrap_or_default(), message(t))).collect();
    let mut fields = BTreeSet::new();
    for table in tables() {
        for entry in table.split("(&[").nth(1).expect("fields").split("])").next().expect("fields").split('(').skip(1) {
            let Some((tag, what)) = entry.split_once(", ") else { continue };
            let Ok(tag) = tag.parse::<u32>() else { continue };
            let inner = table.split(&format!("({tag}, {}(&", what.trim_end())).nth(1);
            let inner = inner.and_then(|rest| rest.split(')').next()).unwrap_or_default();
            match what.trim_end().trim_end_matches([')', ',']) {
                "Message" => fields.insert((message(table), tag, "message", messages[inner].clone())),
                "Map" => fields.insert((message(table), tag, "map", messages[inner].clone())),
                "Strings" => fields.insert((message(table), tag, "map", "String".into())),
                _ => false,
            };
        }
    }
    fields
}

#[test]
fn the_tables_of_costs_know_every_message() {
    for (what, proto, cost) in [
        ("ONNX", include_str!("../onnx/proto.rs"), include_str!("../onnx/cost.rs")),
        ("Core ML", include_str!("../coreml/proto.rs"), include_str!("../coreml/cost.rs")),
    ] {
        let declared = declared(proto);
        assert!(declared.len() > 20, "{what}: {declared:?}");
        assert_eq!(declared, tabled(cost), "{what}");
    }
}

/// `count` copies of a field with nothing in it.
fn copies(tag: u32, count: usize) -> Vec<u8> {
    let mut one = Vec::new();
    prost::encoding::encode_key(tag, prost::encoding::WireType::LengthDelimited, &mut one);
    one.push(0);
    one.repeat(count)
}

/// A field with this content.
fn field_of(tag: u32, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_key(tag, prost::encoding::WireType::LengthDelimited, &mut out);
    prost::encoding::encode_varint(content.len() as u64, &mut out);
    out.extend(content);
    out
}

#[test]
fn files_of_empty_messages_are_refused() {
    let many = 3_000_000;
    let nodes = field_of(7, &copies(1, many));
    let inputs = field_of(7, &field_of(1, &copies(1, 20_000_000)));
    let values = field_of(7, &copies(13, 9 * many));
    let dims = field_of(7, &field_of(5, &field_of(1, &vec![1; 80 << 20])));
    for (what, bytes, part) in
        [("nodes", nodes, "ops"), ("inputs", inputs, "MiB"), ("values", values, "MiB"), ("dims", dims, "MiB")]
    {
        let error = check(&bytes, &crate::onnx::COST).expect_err(what).to_string();
        assert!(error.contains(part) && error.contains(&bytes.len().to_string()), "{what}: {error}");
    }
    let program = |ops: &[u8]| {
        let function = field_of(3, &[field_of(1, b"CoreML7"), field_of(2, ops)].concat());
        field_of(502, &field_of(2, &[field_of(1, b"main"), field_of(2, &function)].concat()))
    };
    let entry = [field_of(1, b"a"), field_of(2, &[])].concat();
    let attribute = field_of(3, &[field_of(2, &entry), field_of(5, &entry)].concat());
    for (what, ops, part) in [("ops", copies(3, many), "ops"), ("attributes", attribute.repeat(250_000), "MiB")] {
        let error = check(&program(&ops), &crate::coreml::COST).expect_err(what).to_string();
        assert!(error.contains(part), "{what}: {error}");
    }
}

#[test]
fn large_models_pass_and_what_is_no_message_is_left_to_the_decoder() {
    let node = onnx::NodeProto {
        input: vec!["/model/layers.31/self_attn/q_proj/MatMul_output_0".into(), "onnx::MatMul_12345".into()],
        output: vec!["/model/layers.31/self_attn/q_proj/Add_output_0".into()],
        name: "/model/layers.31/self_attn/q_proj/Add".into(),
        op_type: "Add".into(),
        attribute: vec![onnx::AttributeProto { name: "axis".into(), ints: vec![1, 2, 3], ..Default::default() }],
        ..Default::default()
    };
    let graph = onnx::GraphProto { node: vec![node; 100_000], ..Default::default() };
    let model = onnx::ModelProto { graph: Some(graph), ..Default::default() }.encode_to_vec();
    assert_eq!(check(&model, &crate::onnx::COST), Ok(()));
    let operation = mil::Operation {
        r#type: "conv".into(),
        inputs: (0..6).map(|i| (format!("input{i}"), mil::Argument::default())).collect(),
        attributes: [("name".to_string(), mil::Value::default())].into(),
        ..Default::default()
    };
    let block = mil::Block { operations: vec![operation; 100_000], ..Default::default() };
    let function =
        mil::Function { block_specializations: [("CoreML8".to_string(), block)].into(), ..Default::default() };
    let program = mil::Program { functions: [("main".to_string(), function)].into(), ..Default::default() };
    let model = mil::Model { ml_program: Some(program), ..Default::default() }.encode_to_vec();
    assert_eq!(check(&model, &crate::coreml::COST), Ok(()));
    for junk in [&[0xff; 4096][..], &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], &[0x3a, 0x80]] {
        assert_eq!(check(junk, &crate::onnx::COST), Ok(()));
    }
}
