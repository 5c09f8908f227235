//! onnx's own node tests as the judge of the ONNX importer: each model is imported and evaluated in float64, and its results are compared with those that
//! the package onnx brings. The tests give shapes, axes and the like as inputs of the model, which an importer must know: so each model
//! is read as it is, and with some of its inputs as constants.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{python, repo};
use prost::Message;
use s2dit_backends::onnx::proto::{ModelProto, TensorProto, dtype_of};
use s2dit_import::{Ask, import, importer_of};
use s2dit_ir::interp::{Bindings, run};
use s2dit_ir::{DType, Tensor, TensorType};

/// So many node tests pass, of those that onnx 1.23 has; a change that reads more may raise the number.
const PASSED: usize = 840;

/// A folder of tests that are written already, so that no Python is needed.
const FOLDER: &str = "ONNX_NODE_TESTS";

#[test]
fn node_tests_of_onnx_pass_or_are_refused() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let tests = std::env::var_os(FOLDER).map_or_else(|| written(work.path()), PathBuf::from);
    let mut folders: Vec<PathBuf> = fs::read_dir(&tests).expect("tests").map(|e| e.expect("an entry").path()).collect();
    folders.sort();
    let mut counts = Counts::default();
    for folder in &folders {
        counts.add(folder, judge(folder, work.path()));
    }
    println!("{counts}");
    assert!(counts.wrong.is_empty(), "{} wrong:\n{}", counts.wrong.len(), counts.wrong.join("\n"));
    assert!(counts.passed >= PASSED, "{} of {} pass, expected {PASSED}", counts.passed, folders.len());
}

/// The node tests of the package onnx as files.
fn written(work: &Path) -> PathBuf {
    let out = work.join("nodes");
    let script = repo().join("tests/conformance/onnx_node_tests.py");
    let done = Command::new(python::interpreter()).arg(script).arg(&out).output().expect("python runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    out
}

#[derive(Default)]
struct Counts {
    passed: usize,
    /// Tests that are refused, by op.
    refused: BTreeMap<String, usize>,
    wrong: Vec<String>,
}

impl Counts {
    fn add(&mut self, folder: &Path, verdict: Verdict) {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        match verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Refused { op, why } => {
                if std::env::var_os("ONNX_NODE_REASONS").is_some() {
                    println!("{name}: {why}");
                }
                *self.refused.entry(op).or_default() += 1;
            }
            Verdict::Wrong(why) => self.wrong.push(format!("{name}: {why}")),
        }
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let refused: usize = self.refused.values().sum();
        writeln!(f, "passed {}, refused {refused}, wrong {}", self.passed, self.wrong.len())?;
        let list: Vec<String> = self.refused.iter().map(|(op, n)| format!("{op} {n}")).collect();
        write!(f, "refused: {}", list.join(", "))
    }
}

enum Verdict {
    Passed,
    Refused { op: String, why: String },
    Wrong(String),
}

/// Which inputs become constants.
const LEVELS: [fn(usize, DType) -> bool; 4] =
    [|_, _| false, |input, dtype| input > 0 && !dtype.is_float(), |input, _| input > 0, |_, _| true];

fn judge(folder: &Path, work: &Path) -> Verdict {
    let model = fs::read(folder.join("model.onnx")).expect("a model");
    let model = ModelProto::decode(model.as_slice()).expect("a model");
    let graph = model.graph.as_ref().expect("a graph");
    let op = graph.node.iter().map(|n| n.op_type.as_str()).next_back().unwrap_or("").to_owned();
    let mut why = String::new();
    let mut passed = false;
    for level in LEVELS {
        for set in 0.. {
            let data = folder.join(format!("test_data_set_{set}"));
            if !data.exists() {
                break;
            }
            match judge_with(&model, &data, level, work) {
                Ok(Ok(())) => passed = true,
                Ok(Err(wrong)) => return Verdict::Wrong(wrong),
                Err(refused) => why = refused,
            }
        }
    }
    if passed { Verdict::Passed } else { Verdict::Refused { op, why } }
}

fn tensors(data: &Path, kind: &str) -> Vec<TensorProto> {
    let read = |i: usize| fs::read(data.join(format!("{kind}_{i}.pb"))).ok();
    (0..).map_while(read).map(|bytes| TensorProto::decode(bytes.as_slice()).expect("a tensor")).collect()
}

/// The numbers of a tensor; `None` for a type that the IR does not have.
fn numbers(tensor: &TensorProto) -> Option<Tensor> {
    let shape: Vec<usize> = tensor.dims.iter().map(|d| *d as usize).collect();
    let ty = TensorType::new(dtype_of(tensor.data_type)?, shape);
    if !tensor.raw_data.is_empty() || ty.elements() == 0 {
        return Tensor::from_le_bytes(&ty, &tensor.raw_data);
    }
    let numbers: Vec<f64> = match ty.dtype {
        DType::F32 => tensor.float_data.iter().map(|x| f64::from(*x)).collect(),
        DType::I64 => tensor.int64_data.iter().map(|x| *x as f64).collect(),
        DType::F64 => tensor.double_data.clone(),
        _ => tensor.int32_data.iter().map(|x| f64::from(*x)).collect(),
    };
    Tensor::from_values(&ty, numbers)
}

/// Outer error: not read. Inner error: read, and wrong.
fn judge_with(
    model: &ModelProto,
    data: &Path,
    constant: fn(usize, DType) -> bool,
    work: &Path,
) -> Result<Result<(), String>, String> {
    let (inputs, outputs) = (tensors(data, "input"), tensors(data, "output"));
    let mut model = model.clone();
    let graph = model.graph.as_mut().expect("a graph");
    let mut given: Vec<Tensor> = Vec::new();
    for (i, input) in inputs.iter().enumerate() {
        let value = numbers(input).ok_or("an input of another type")?;
        if constant(i, value.dtype) {
            graph.initializer.push(TensorProto { name: graph.input[i].name.clone(), ..input.clone() });
        } else {
            given.push(value);
        }
    }
    let path = work.join("model.onnx");
    fs::write(&path, model.encode_to_vec()).expect("a file");
    let importer = importer_of(&path).expect("an importer");
    let imported = import(importer, &path, &Ask::default()).map_err(|e| e.to_string())?;
    let f = &imported.module.functions[0];
    if f.params().len() != given.len() {
        return Err("other inputs".into());
    }
    let named = |(p, value): (&s2dit_ir::ValueId, Tensor)| {
        let ty = f.ty(*p);
        (f.node(*p).name.as_deref().unwrap_or_default().to_owned(), Tensor { dtype: ty.dtype, data: value.data })
    };
    let params: HashMap<String, Tensor> = f.params().iter().zip(given).map(named).collect();
    let found = run(f, &imported.weights, &Bindings { params, ..Bindings::default() });
    let found = match found {
        Ok(found) => found,
        // An index that counts from the end, which only a known one may do.
        Err(error) if error.to_string().contains("is out of range") => return Err(error.to_string()),
        Err(error) => return Ok(Err(format!("does not run: {error}"))),
    };
    for (found, expected) in found.iter().zip(&outputs) {
        let Some(expected) = numbers(expected) else { return Err("an output of another type".into()) };
        if let Err(wrong) = same(found, &expected) {
            return Ok(Err(wrong));
        }
    }
    Ok(if found.len() == outputs.len() { Ok(()) } else { Err(format!("{} results", found.len())) })
}

fn same(found: &Tensor, expected: &Tensor) -> Result<(), String> {
    if found.data.shape() != expected.data.shape() {
        return Err(format!("found {:?}, expected {:?}", found.data.shape(), expected.data.shape()));
    }
    let relative = match expected.dtype {
        DType::F16 => 2e-3,
        DType::BF16 => 2e-2,
        _ => 1e-4,
    };
    for (i, (x, y)) in found.data.iter().zip(&expected.data).enumerate() {
        let near = (x - y).abs() <= 1e-5 + relative * y.abs();
        if !(near || x == y || x.is_nan() && y.is_nan()) {
            return Err(format!("element {i}: found {x}, expected {y}"));
        }
    }
    Ok(())
}
