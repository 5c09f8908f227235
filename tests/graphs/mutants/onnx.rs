//! ONNX files: the models that exporters wrote, and the models of onnx's own node tests if `ONNX_NODE_TESTS` is a folder of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::repo;
use prost::Message;
use s2dit_backends::onnx::proto::{DimensionValue, ModelProto};
use s2dit_ir::{DType, Tensor, TensorType};
use s2dit_runtime::{HostTensor, Session, SessionOptions};

use super::{Draw, Mutant, ODD, mutants_are_read_or_refused};

/// Changes bytes.
fn damaged(bytes: &[u8], draw: &mut Draw) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=draw.next(4) {
        let at = draw.next(bytes.len());
        bytes[at] = draw.next(256) as u8;
    }
    if draw.next(4) == 0 {
        bytes.truncate(draw.next(bytes.len()));
    }
    bytes
}

/// Changes a node, a tensor or an input.
fn mutated(bytes: &[u8], draw: &mut Draw) -> Vec<u8> {
    let mut model = ModelProto::decode(bytes).expect("a model");
    let graph = model.graph.as_mut().expect("a graph");
    for _ in 0..=draw.next(3) {
        let (nodes, tensors) = (graph.node.len(), graph.initializer.len());
        if nodes == 0 || graph.input.is_empty() {
            break;
        }
        let n = draw.next(nodes);
        match draw.next(12) {
            0 => {
                graph.node.remove(n);
            }
            1 => graph.node.swap(n, draw.next(nodes)),
            2 => {
                let inputs = graph.node[n].input.len();
                if inputs > 0 {
                    let name = graph.node[draw.next(nodes)].output.first().cloned().unwrap_or_default();
                    graph.node[n].input[draw.next(inputs)] = name;
                }
            }
            3 => {
                let inputs = graph.node[n].input.len();
                if inputs > 0 {
                    graph.node[n].input.remove(draw.next(inputs));
                }
            }
            4 => graph.node[n].op_type = graph.node[draw.next(nodes)].op_type.clone(),
            5 | 6 => {
                let attributes = graph.node[n].attribute.len();
                if attributes > 0 {
                    let a = &mut graph.node[n].attribute[draw.next(attributes)];
                    let x = draw.of(&ODD);
                    a.i = x;
                    a.f = x as f32;
                    let length = a.ints.len();
                    if length > 0 {
                        a.ints[draw.next(length)] = x;
                    }
                    if draw.next(6) == 0 {
                        a.r#type = draw.next(12) as i32;
                    }
                }
            }
            7 | 8 if tensors > 0 => {
                let t = &mut graph.initializer[draw.next(tensors)];
                let sides = t.dims.len();
                match draw.next(4) {
                    0 if sides > 0 => t.dims[draw.next(sides)] = draw.of(&ODD),
                    1 => t.dims.push(1),
                    2 => t.data_type = draw.next(26) as i32,
                    _ => {
                        // Shapes, axes and positions.
                        if t.data_type == 7 && t.raw_data.len() >= 8 {
                            let mut raw = t.raw_data.to_vec();
                            let at = 8 * draw.next(raw.len() / 8);
                            raw[at..at + 8].copy_from_slice(&draw.of(&ODD).to_le_bytes());
                            t.raw_data = raw.into();
                        }
                    }
                }
            }
            9 if tensors > 0 => {
                graph.initializer.remove(draw.next(tensors));
            }
            10 => {
                let input = draw.next(graph.input.len());
                let ty = graph.input[input].r#type.as_mut().and_then(|t| t.tensor_type.as_mut());
                if let Some(shape) = ty.and_then(|t| t.shape.as_mut()) {
                    let sides = shape.dim.len();
                    if sides > 0 {
                        shape.dim[draw.next(sides)].value = Some(DimensionValue::Value(draw.of(&ODD)));
                    }
                }
            }
            _ => model.opset_import[0].version = 7 + draw.next(17) as i64,
        }
        if graph.node.is_empty() {
            break;
        }
    }
    model.encode_to_vec()
}

/// ONNX Runtime on the file itself.
fn onnx_runtime(bytes: &[u8], inputs: &BTreeMap<String, Tensor>) -> Option<Vec<Tensor>> {
    let options = SessionOptions { quiet: true, ..SessionOptions::default() };
    let mut session = Session::from_bytes(bytes, None, &options).ok()?;
    // What is true is 1 in the graph; the inputs are any numbers.
    if session.inputs().iter().any(|port| port.dtype.to_lowercase().contains("bool")) {
        return None;
    }
    let host = |x: &Tensor| HostTensor::new(x.data.shape(), x.data.iter().map(|x| *x as f32).collect());
    let given: BTreeMap<String, HostTensor> =
        inputs.iter().map(|(name, x)| Some((name.clone(), host(x)?))).collect::<Option<_>>()?;
    let results = session.run_with(|name| given.get(name)).ok()?;
    let tensor = |x: &HostTensor| {
        let ty = TensorType::new(DType::F32, x.shape.clone());
        Tensor::from_values(&ty, x.data.iter().map(|x| f64::from(*x)).collect())
    };
    session.outputs().iter().map(|port| tensor(results.get(&port.name)?)).collect()
}

fn originals() -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut add = |path: PathBuf, name: &Path| {
        found.push((
            name.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            fs::read(path).expect("a file"),
        ));
    };
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let mut list: Vec<PathBuf> =
            fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()).collect();
        list.sort();
        list
    };
    for path in entries(&repo().join("tests/goldens/import")) {
        if path.extension().is_some_and(|e| e == "onnx") {
            add(path.clone(), &path);
        }
    }
    if let Some(folder) = std::env::var_os("ONNX_NODE_TESTS") {
        for path in entries(Path::new(&folder)) {
            add(path.join("model.onnx"), &path);
        }
    }
    found
}

#[test]
fn models() {
    let originals = originals();
    let make = |draw: &mut Draw| {
        let (name, bytes) = &originals[draw.next(originals.len())];
        let judged = draw.next(10) > 0;
        let bytes = if judged { mutated(bytes, draw) } else { damaged(bytes, draw) };
        Mutant { bytes, original: name.clone(), judged }
    };
    mutants_are_read_or_refused("onnx", make, onnx_runtime);
}
