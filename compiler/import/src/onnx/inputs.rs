//! Inputs and results: their names, types and sizes.

use std::collections::{BTreeSet, HashMap, HashSet};

use s2dit_backends::onnx::proto::{Dimension, DimensionValue, ValueInfoProto, data_type_name, dtype_of};
use s2dit_backends::onnx::read::Model;
use s2dit_files::problems::{Problems, quoted, shown};
use s2dit_ir::ops::Unary;
use s2dit_ir::{DType, TensorType};

use super::walk::Walk;
use crate::trace::check_size;
use crate::{Ask, Tracer, Value};

/// The first name of its kind that is free: letters, digits and underscores, as Core ML wants names.
fn identifier(name: &str, taken: &mut HashSet<String>) -> String {
    let mut plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if !plain.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        plain.insert(0, '_');
    }
    let mut free = plain.clone();
    let mut n = 1;
    while !taken.insert(free.clone()) {
        free = format!("{plain}_{n}");
        n += 1;
    }
    free
}

/// Whether a symbolic size counts examples, of which a graph here has one.
fn is_batch(axis: usize, size: &str) -> bool {
    axis == 0 && size.to_ascii_lowercase().contains("batch")
}

/// Adds a parameter for each input of the graph; returns their values.
///
/// # Errors
/// Every symbolic size without a value; an input that is no tensor of numbers; a value for a size that no input has.
pub(super) fn declare<'m>(
    walk: &mut Walk<'m>,
    model: &'m Model,
    ask: &Ask,
    place: &str,
) -> Result<HashMap<&'m str, Value>, Problems> {
    let stored: HashSet<&str> = model.graph().initializer.iter().map(|t| t.name.as_str()).collect();
    let bound = ask.sizes();
    let (mut problems, mut used, mut open) = (Problems::new(), BTreeSet::new(), BTreeSet::new());
    let (mut values, mut taken) = (HashMap::new(), HashSet::new());
    for input in model.graph().input.iter().filter(|input| !stored.contains(input.name.as_str())) {
        let at = format!("{place}: input {}", quoted(&input.name));
        let Some(ty) = tensor(input) else {
            problems.push(at, kind(input), "a tensor of floats, integers or booleans with a shape");
            continue;
        };
        let mut shape = Vec::new();
        for (axis, dim) in ty.dims.iter().enumerate() {
            match &dim.value {
                Some(DimensionValue::Value(n)) => match usize::try_from(*n) {
                    Ok(n @ 1..) => shape.push(n),
                    _ => problems.push(&at, format!("an extent of {n}"), "1 or more"),
                },
                Some(DimensionValue::Param(size)) if !size.is_empty() => match bound.get(size.as_str()) {
                    Some(value) => {
                        used.insert(size.as_str());
                        shape.push(*value);
                    }
                    None if is_batch(axis, size) => shape.push(1),
                    None => {
                        open.insert(size.as_str());
                        problems.push(&at, format!("the symbolic size {}", quoted(size)), bind(size));
                    }
                },
                _ => problems.push(&at, format!("no size of axis {axis}"), "a number, or a name for --bind"),
            }
        }
        if shape.len() != ty.dims.len() {
            continue;
        }
        if let Err(error) = check_size(&shape) {
            problems.push(&at, error.0, "a size that fits into memory");
            continue;
        }
        let name = identifier(&input.name, &mut taken);
        let v = walk.t.f.add_param(&name, TensorType::new(Tracer::graph_dtype(ty.dtype), shape));
        if ty.dtype == DType::Bool {
            walk.bools.insert(v);
        }
        values.insert(input.name.as_str(), Value::Graph(v));
    }
    for size in bound.keys().filter(|size| !used.contains(*size)) {
        let known: Vec<String> = sizes(model).iter().map(|size| shown(size)).collect();
        let expected = if known.is_empty() {
            "no --bind: its sizes are numbers".into()
        } else {
            format!("one of {}", known.join(", "))
        };
        problems.push(format!("{place}: --bind"), quoted(size), expected);
    }
    problems.into_result().map(|()| values)
}

fn bind(size: &str) -> String {
    format!("--bind {}=N", shown(size))
}

/// The symbolic sizes of inputs.
fn sizes(model: &Model) -> BTreeSet<&str> {
    let dims = model.graph().input.iter().filter_map(tensor).flat_map(|ty| ty.dims);
    dims.filter_map(|dim| match &dim.value {
        Some(DimensionValue::Param(size)) => Some(size.as_str()),
        _ => None,
    })
    .collect()
}

/// A tensor that an input is declared as.
struct Declared<'m> {
    dtype: DType,
    dims: &'m [Dimension],
}

fn tensor(input: &ValueInfoProto) -> Option<Declared<'_>> {
    let ty = input.r#type.as_ref()?.tensor_type.as_ref()?;
    Some(Declared { dtype: dtype_of(ty.elem_type)?, dims: &ty.shape.as_ref()?.dim })
}

/// What an input is that is no such tensor.
fn kind(input: &ValueInfoProto) -> String {
    match input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()) {
        None => "no tensor".into(),
        Some(ty) if ty.shape.is_none() => "a tensor without a shape".into(),
        Some(ty) => format!("elements of type {} ({})", ty.elem_type, data_type_name(ty.elem_type).0),
    }
}

/// Makes results of the graph's outputs.
///
/// # Errors
/// Two outputs of one name; a graph without outputs; an output without elements.
pub(super) fn give(walk: &mut Walk, results: Vec<(String, Value)>, place: &str) -> Result<(), Problems> {
    if results.is_empty() {
        return Err(Problems::one(place, "a graph without outputs", "one or more"));
    }
    let params: Vec<_> = walk.t.f.params().to_vec();
    let mut taken: HashSet<String> =
        params.iter().filter_map(|p| walk.t.f.node(*p).name.as_deref().map(str::to_owned)).collect();
    let mut given = HashSet::new();
    for (output, value) in results {
        let at = || format!("{place}: output {}", quoted(&output));
        let mut v = walk.t.graph(&value).map_err(|error| Problems::one(at(), error.0, "numbers"))?;
        if params.contains(&v) || !given.insert(v) {
            // An output has a value of its own.
            let copy = walk.t.f.add(Unary::Identity.into(), &[v], "");
            v = copy.map_err(|error| Problems::one(at(), error.0, "a value that can be copied"))?;
        }
        let name = identifier(&output, &mut taken);
        walk.t.f.results.push((name, v));
    }
    Ok(())
}
