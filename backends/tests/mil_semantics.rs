//! Programs that coremltools wrote, raised and evaluated: what an op means here is what it means to Apple's tools, numpy and
//! PyTorch. `tests/conformance/mil_semantics.py` makes the programs and compares the results.
//!
//! `S2DITC_PYTHON` names another interpreter; one that has torch adds the programs converted from PyTorch.

#[path = "../../tests/common/python.rs"]
mod python;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use s2dit_backends::coreml::{Package, raise};
use s2dit_ir::interp::{self, Bindings};
use s2dit_ir::{Tensor, TensorType, ValueId, verify};
use serde_json::{Value, json};

fn repo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().into()
}

fn python(command: &str, folder: &Path) {
    let interpreter = std::env::var_os("S2DITC_PYTHON").map_or_else(python::interpreter, PathBuf::from);
    let script = repo().join("tests/conformance/mil_semantics.py");
    let output = Command::new(interpreter).arg(script).arg(command).arg(folder).output().expect("python starts");
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "mil_semantics.py {command}\n{}", String::from_utf8_lossy(&output.stderr));
}

fn tensor(ty: &TensorType, given: &Value) -> Result<Tensor> {
    let numbers = |key: &str| given[key].as_array().with_context(|| format!("no `{key}`"));
    let shape: Vec<usize> = numbers("shape")?.iter().filter_map(|d| d.as_u64().map(|d| d as usize)).collect();
    let data: Vec<f64> = numbers("data")?.iter().filter_map(Value::as_f64).collect();
    anyhow::ensure!(shape == ty.shape, "given shape {shape:?}, the program takes {ty}");
    Tensor::from_values(ty, data).context("too few numbers")
}

/// Evaluates a case and writes its results and state updates.
fn evaluate(case: &Path) -> Result<()> {
    let about: Value = serde_json::from_slice(&fs::read(case.join("case.json"))?)?;
    let package = Package::open(&case.join("model.mlpackage"))?;
    let module = raise(&package, about["function"].as_str())?;
    verify::verify(&module).map_err(|e| anyhow::anyhow!("{e}"))?;
    let f = module.functions.first().context("no function")?;
    let mut bindings = Bindings::default();
    for &v in f.params() {
        let name = f.node(v).name.as_deref().unwrap_or_default().to_string();
        let value = tensor(f.ty(v), &about["inputs"][&name]).with_context(|| format!("input `{name}`"))?;
        bindings.params.insert(name, value);
    }
    for state in &module.states {
        let value = match &about["inputs"][&state.name] {
            Value::Null => Tensor::splat(&state.ty, 0.0),
            given => tensor(&state.ty, given).with_context(|| format!("state `{}`", state.name))?,
        };
        bindings.states.insert(state.name.clone(), value);
    }
    let wanted: Vec<&(String, ValueId)> = f.results.iter().chain(&f.updates).collect();
    let values: Vec<ValueId> = wanted.iter().map(|(_, v)| *v).collect();
    let results = interp::evaluate(f, &values, &package, &bindings)?;
    let mut listed = Vec::new();
    for (i, ((name, _), result)) in wanted.iter().zip(&results).enumerate() {
        let bytes: Vec<u8> = result.data.iter().flat_map(|x| x.to_le_bytes()).collect();
        fs::write(case.join(format!("out.{i}.f64")), bytes)?;
        listed.push(json!({ "name": name, "shape": result.data.shape() }));
    }
    fs::write(case.join("out.json"), serde_json::to_vec(&listed)?)?;
    Ok(())
}

#[test]
fn programs_of_coremltools_mean_what_they_meant() {
    let work = tempfile::tempdir().unwrap();
    let folder = work.path().join("cases");
    python("make", &folder);
    for entry in fs::read_dir(&folder).unwrap() {
        let case = entry.unwrap().path();
        if let Err(error) = evaluate(&case) {
            fs::write(case.join("error.txt"), format!("{error:#}")).unwrap();
        }
    }
    python("compare", &folder);
}
