//! The second codec is not blind, and its tables are the published ones.
//!
//! Every file that a command of the other tests writes is judged where it is written (`crate::common::ok`); here are damaged ones.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::wire::{TABLES, judge_coreml, judge_onnx};
use crate::common::{arg, golden, ok, python, repo};
use prost::Message;
use protobuf::CodedOutputStream;
use protobuf::rt::WireType;
use s2dit_backends::coreml::proto as mil;
use s2dit_backends::onnx::proto::{GraphProto, ModelProto};
use tempfile::TempDir;

/// The lines of the tables are those of the descriptors in the Python packages `onnx` and `coremltools`.
#[test]
fn the_tables_are_the_published_ones() {
    let tables = TABLES.map(|(name, _)| repo().join(format!("tests/common/wire/{name}.fields")));
    let output = Command::new(python::interpreter())
        .arg(repo().join("tests/conformance/check_wire_tables.py"))
        .args(tables)
        .output()
        .expect("python starts");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
}

/// A compiled golden: its folder, and the file with the messages.
fn compiled(target: &str, output: &str, file: &str) -> (TempDir, PathBuf) {
    let work = tempfile::tempdir().expect("a temporary folder");
    let out = arg(&work.path().join(output));
    let checkpoint = arg(&golden("tiny").join("checkpoint"));
    ok(&["compile", "-q", &checkpoint, "--target", target, "--latent", "3x8x8", "-o", &out]);
    let file = work.path().join(file);
    (work, file)
}

type Judge = fn(&[u8], &Path) -> Result<(), String>;

/// `bytes` are refused, with a message that has `says`.
#[track_caller]
fn refused(judge: Judge, bytes: &[u8], folder: &Path, says: &str) {
    let error = judge(bytes, folder).expect_err(says);
    assert!(error.contains(says), "expected `{says}` in: {error}");
}

/// Bytes that another message of the same kind could begin with, and one field more.
fn with_field(bytes: &[u8], write: impl FnOnce(&mut CodedOutputStream<'_>) -> protobuf::Result<()>) -> Vec<u8> {
    let mut all = bytes.to_vec();
    let mut stream = CodedOutputStream::vec(&mut all);
    write(&mut stream).expect("memory takes bytes");
    stream.flush().expect("memory takes bytes");
    drop(stream);
    all
}

/// Damages that have nothing to do with a format: `singular` is a varint field that is there once, `text` a string.
fn the_wire_is_judged(judge: Judge, bytes: &[u8], folder: &Path, singular: u32, text: u32) {
    refused(judge, &with_field(bytes, |s| s.write_int32(99, 1)), folder, "no published field has number 99");
    refused(judge, &with_field(bytes, |s| s.write_int64(singular, 9)), folder, "twice");
    refused(judge, &with_field(bytes, |s| s.write_fixed64(singular + 100_000, 9)), folder, "no published field");
    refused(judge, &with_field(bytes, |s| s.write_bytes(text, &[0xFF, 0xFE])), folder, "");
    refused(judge, &with_field(&[], |s| s.write_string(singular, "x")), folder, "wire type 2, expected 0");
    let cut =
        with_field(bytes, |s| s.write_tag(text, WireType::LengthDelimited).and_then(|()| s.write_raw_varint32(9)));
    refused(judge, &cut, folder, "");
}

#[test]
fn damaged_onnx_files_are_refused() {
    let (_work, file) = compiled("onnx", "x.onnx", "x.onnx");
    let bytes = std::fs::read(&file).expect("a model");
    let folder = file.parent().expect("a folder");
    assert_eq!(judge_onnx(&bytes, folder), Ok(()));
    the_wire_is_judged(judge_onnx, &bytes, folder, 1, 6);

    let edited = |edit: &dyn Fn(&mut ModelProto, &mut GraphProto)| {
        let mut model = ModelProto::decode(bytes.as_slice()).expect("a model");
        let mut graph = model.graph.take().expect("a graph");
        edit(&mut model, &mut graph);
        model.graph = Some(graph);
        model.encode_to_vec()
    };
    let with_attribute = |g: &GraphProto| g.node.iter().position(|n| !n.attribute.is_empty()).expect("an attribute");
    type Edit<'a> = &'a dyn Fn(&mut ModelProto, &mut GraphProto);
    let cases: [(Edit, &str); 11] = [
        (&|_, _| (), ""),
        (&|m, _| m.ir_version = 9, "ir_version"),
        (&|m, _| m.opset_import[0].version = 20, "opset_import"),
        (&|_, g| g.node.reverse(), "not made before"),
        // As if the numbers of the two fields were mixed up.
        (&|_, g| g.node.iter_mut().for_each(|n| std::mem::swap(&mut n.name, &mut n.op_type)), "no op of ONNX"),
        (&|_, g| g.node[1].output = g.node[0].output.clone(), "made twice"),
        (&|_, g| g.output[0].name.push('x'), "is not made"),
        (&|_, g| g.initializer[0].dims[0] += 1, "expected"),
        (&|_, g| g.initializer[0].data_type = 8, "data_type 8"),
        (&|_, g| drop(g.input[0].r#type.take()), "no `type`"),
        (
            &|_, g| {
                let at = with_attribute(g);
                let attribute = &mut g.node[at].attribute[0];
                attribute.r#type = if attribute.r#type == 5 { 6 } else { 5 };
                attribute.i = 7;
            },
            "is for `",
        ),
    ];
    assert_eq!(judge_onnx(&edited(cases[0].0), folder), Ok(()), "re-encoded");
    for (edit, says) in &cases[1..] {
        refused(judge_onnx, &edited(edit), folder, says);
    }
}

#[test]
fn damaged_packages_are_refused() {
    let (_work, file) = compiled("coreml", "x.mlpackage", "x.mlpackage/Data/com.apple.CoreML/model.mlmodel");
    let bytes = std::fs::read(&file).expect("a model");
    let folder = file.parent().expect("a folder");
    assert_eq!(judge_coreml(&bytes, folder), Ok(()));
    the_wire_is_judged(judge_coreml, &bytes, folder, 1, 2);

    type Edit<'a> = &'a dyn Fn(&mut mil::Model);
    fn operations(model: &mut mil::Model) -> &mut Vec<mil::Operation> {
        let program = model.ml_program.as_mut().expect("a program");
        let function = program.functions.get_mut("main").expect("main");
        let block = function.block_specializations.values_mut().next().expect("a block");
        &mut block.operations
    }
    fn offset(value: &mut mil::Value) -> Option<&mut u64> {
        match &mut value.value {
            Some(mil::value::Value::BlobFileValue(blob)) => Some(&mut blob.offset),
            _ => None,
        }
    }
    let cases: [(Edit, &str); 9] = [
        (&|_| (), ""),
        (&|m| m.specification_version = 8, "specificationVersion"),
        (&|m| drop(operations(m).remove(0)), "not made before"),
        (&|m| operations(m)[0].r#type.clear(), "no op's name"),
        (&|m| operations(m)[1].outputs = operations(m)[0].outputs.clone(), "made twice"),
        (&|m| m.description.as_mut().expect("a description").output[0].name.push('x'), "outputs"),
        (
            &|m| m.ml_program.as_mut().expect("a program").functions.get_mut("main").expect("main").opset.push('9'),
            "opset",
        ),
        (
            &|m| {
                let values = operations(m).iter_mut().flat_map(|op| op.attributes.values_mut());
                *values.filter_map(offset).next().expect("a weight in the file") += 64;
            },
            "record at",
        ),
        (
            &|m| {
                let ty = operations(m)[0].outputs[0].r#type.as_mut().expect("a type");
                let Some(mil::value_type::Type::TensorType(tensor)) = &mut ty.r#type else { panic!("a tensor") };
                tensor.rank += 1;
            },
            "rank",
        ),
    ];
    let edited = |edit: Edit| {
        let mut model = mil::Model::decode(bytes.as_slice()).expect("a model");
        edit(&mut model);
        model.encode_to_vec()
    };
    assert_eq!(judge_coreml(&edited(cases[0].0), folder), Ok(()), "re-encoded");
    for (edit, says) in &cases[1..] {
        refused(judge_coreml, &edited(*edit), folder, says);
    }
}
