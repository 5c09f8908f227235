//! The kind of an error says what a caller can do; the text names the place.

use std::fs;
use std::path::Path;

use prost::Message;
use s2dit_backends::coreml::{self, Package};
use s2dit_backends::{Error, ErrorKind, onnx};
use s2dit_ir::weights::NoWeights;
use s2dit_ir::{Module, text};

#[track_caller]
fn is(error: Error, kind: ErrorKind, says: &str) {
    assert_eq!(error.kind(), kind, "{error:?}");
    let told = format!("{error:#}");
    assert_eq!(told, format!("{:#}", anyhow::Error::new(error)), "the same from either crate");
    assert!(told.contains(says), "expected `{says}` in: {told}");
}

/// A function of one parameter `x` that returns `y`.
fn module(parameter: &str, body: &str) -> Module {
    text::parse(&format!("module {{ func @main(%x: {parameter}) {{\n{body}\nreturn y = %y\n}} }}")).unwrap()
}

fn write_package(module: &Module, dir: &Path) -> Result<coreml::Summary, Error> {
    coreml::write_package(module, &NoWeights, &coreml::Options::default(), Default::default, dir, &mut |_, _| {})
}

fn write_model(module: &Module, path: &Path) -> Result<onnx::Summary, Error> {
    let no_data = || unreachable!("nothing large");
    let models = [(&module.functions[0], path)];
    onnx::write_models(&models, &NoWeights, Default::default, no_data, |_| String::new(), &mut |_, _| {})
}

#[test]
fn errors_of_reading_have_a_kind() {
    let work = tempfile::tempdir().unwrap();
    let at = |name: &str| work.path().join(name);
    is(onnx::read::Model::open(&at("none.onnx")).unwrap_err(), ErrorKind::Io, "none.onnx");
    fs::write(at("text.onnx"), "not a model").unwrap();
    is(onnx::read::Model::open(&at("text.onnx")).unwrap_err(), ErrorKind::Malformed, "text.onnx");

    let softmax = module("f16[1, 4]", "%y = softmax(%x) {axis = 1} : f16[1, 4]");
    fs::create_dir(at("x.mlpackage")).unwrap();
    write_package(&softmax, &at("x.mlpackage")).unwrap();
    let file = at("x.mlpackage/Data/com.apple.CoreML/model.mlmodel");
    let mut model = coreml::proto::Model::decode(fs::read(&file).unwrap().as_slice()).unwrap();
    let program = model.ml_program.as_mut().unwrap();
    let block = program.functions.get_mut("main").unwrap().block_specializations.values_mut().next().unwrap();
    block.operations.iter_mut().filter(|op| op.r#type == "softmax").for_each(|op| op.r#type = "crystal_ball".into());
    fs::write(&file, model.encode_to_vec()).unwrap();
    let package = Package::open(&at("x.mlpackage")).unwrap();
    is(coreml::raise(&package, None).unwrap_err(), ErrorKind::Unsupported, "crystal_ball (1)");

    fs::write(&file, "not a model").unwrap();
    is(Package::open(&at("x.mlpackage")).unwrap_err(), ErrorKind::Malformed, "model.mlmodel");
}

#[test]
fn errors_of_writing_have_a_kind() {
    let work = tempfile::tempdir().unwrap();
    let at = |name: &str| work.path().join(name);
    let softmax = module("f32[1, 4]", "%y = softmax(%x) {axis = 1} : f32[1, 4]");
    fs::write(at("file"), "").unwrap();
    is(write_package(&softmax, &at("file/below")).unwrap_err(), ErrorKind::Io, "file/below");
    is(write_model(&softmax, &at("none/x.onnx")).unwrap_err(), ErrorKind::Io, "cannot write");

    let double = module("f64[1, 4]", "%y = softmax(%x) {axis = 1} : f64[1, 4]");
    is(write_package(&double, &at("double")).unwrap_err(), ErrorKind::Unsupported, "f64");

    let weight = module("f32[1, 4]", "%0 = load {tensor = \"gone\"} : f32[1, 4]\n%y = add(%x, %0) : f32[1, 4]");
    is(write_package(&weight, &at("weight")).unwrap_err(), ErrorKind::Weight, "gone");
    is(write_model(&weight, &at("weight.onnx")).unwrap_err(), ErrorKind::Weight, "gone");
}
