//! An asset's ops under the names that MIL has for them: what is known of the Neural Engine is told in MIL's names, and holds of the ops whatever file they lie in.
//!
//! What no op of MIL is like keeps its name, so that nothing is known of it.

use std::collections::BTreeMap;

use super::op;
use super::program::{Attribute, Element, Operation, Property, Type, UNKNOWN};
use super::read::{Asset, Graph, graphs};
use crate::coreml::proto::{
    self, Argument, Binding, Block, DataType, NamedValueType, Value, ValueType, binding, dimension, value_type,
};

/// A function of an asset.
pub struct MilFunction {
    /// Its name.
    pub name: String,
    /// Its inputs and states.
    pub source: proto::Function,
    /// Its ops.
    pub block: Block,
}

/// The functions of an asset, the default one first.
#[must_use]
pub fn functions(asset: &Asset) -> Vec<MilFunction> {
    let formulas: BTreeMap<&str, &str> =
        graphs(asset.root()).filter_map(|graph| Some((graph.name, graph.formula?))).collect();
    let names: Vec<&str> = asset.functions().collect();
    let of_functions = graphs(asset.root()).filter(|graph| names.contains(&graph.name));
    let mut all: Vec<MilFunction> = of_functions.map(|graph| function(&graph, &formulas)).collect();
    all.sort_by_key(|f| f.name != asset.main());
    all
}

fn function(graph: &Graph<'_>, formulas: &BTreeMap<&str, &str>) -> MilFunction {
    let names = Names::of(graph, formulas);
    let value = |number: usize, ty: &Type| NamedValueType { name: names.get(number), r#type: value_type(ty) };
    let mut number = 0;
    let mut next = |ty: &Type| {
        number += 1;
        value(number - 1, ty)
    };
    let inputs = graph.region.arguments.iter().map(|argument| next(&argument.ty)).collect();
    let mut block = Block::default();
    for operation in &graph.region.operations {
        let outputs: Vec<NamedValueType> = operation.results.iter().map(&mut next).collect();
        match &*operation.name {
            op::OUTPUT => block.outputs = operation.operands.iter().map(|v| names.get(*v)).collect(),
            // Tokens are no values.
            op::CREATE_TOKEN => {}
            _ => block.operations.push(like(operation, outputs, &names, formulas)),
        }
    }
    MilFunction {
        name: graph.name.to_string(),
        source: proto::Function { inputs, ..proto::Function::default() },
        block,
    }
}

/// Names of values: arguments have their own; results are called as this compiler calls ops of packages, by module, op and number.
struct Names(Vec<String>);

impl Names {
    fn of(graph: &Graph<'_>, formulas: &BTreeMap<&str, &str>) -> Names {
        let mut names = graph.input_names();
        for operation in &graph.region.operations {
            let (ty, from) = (mil(operation, formulas).0, operation.file.replace('.', "_"));
            let from = if &*operation.file == UNKNOWN { String::new() } else { from + "_" };
            for _ in &operation.results {
                names.push(format!("{from}{ty}_{}", names.len()));
            }
        }
        Names(names)
    }

    fn get(&self, value: usize) -> String {
        self.0.get(value).cloned().unwrap_or_default()
    }
}

/// An op as MIL has it.
fn like(
    operation: &Operation,
    outputs: Vec<NamedValueType>,
    names: &Names,
    formulas: &BTreeMap<&str, &str>,
) -> proto::Operation {
    let (ty, parameters) = mil(operation, formulas);
    let mut inputs = BTreeMap::new();
    for (at, value) in operation.operands.iter().enumerate() {
        // The last parameter takes all that are left.
        let Some(parameter) = parameters.get(at).or(parameters.last()) else { continue };
        let argument: &mut Argument = inputs.entry((*parameter).to_string()).or_default();
        argument.arguments.push(Binding { binding: Some(binding::Binding::Name(names.get(*value))) });
    }
    let literal = match (&operation.properties[..], outputs.first()) {
        ([Property::Required(value)], Some(output)) if operation.name == op::CONSTANT => literal(value, output),
        _ => None,
    };
    let attributes = literal.map(|value| ("val".to_string(), value)).into_iter().collect();
    // The token that an op of a state gives is no value.
    let outputs = outputs.into_iter().filter(|output| output.r#type.is_some()).collect();
    proto::Operation { r#type: ty, inputs, outputs, attributes, ..proto::Operation::default() }
}

/// MIL's name of an op, and those of its parameters. A call has the name of the formula that the graph says it is.
fn mil(operation: &Operation, formulas: &BTreeMap<&str, &str>) -> (String, &'static [&'static str]) {
    let name = &*operation.name;
    if let Some(callee) = operation.callee() {
        let formula = formulas.get(callee).copied().unwrap_or("call");
        let parameters: &[&str] = match formula {
            "scaled_dot_product_attention" => &["query", "key", "value", "attn_mask"],
            "layer_norm" => &["x", "gamma", "beta"],
            _ => &["x", "y"],
        };
        return (formula.to_string(), parameters);
    }
    let base = name.strip_prefix("primitive.").or(name.strip_prefix("dataflow.")).unwrap_or(name);
    let base = base.rsplit_once("_v").map_or(base, |(base, _)| base);
    let base = base.strip_prefix("broadcasting_").unwrap_or(base);
    let (ty, parameters): (&str, &[&str]) = match base {
        "constant" => ("const", &[]),
        "batch_matmul" => ("matmul", &["x", "y"]),
        "divide" => ("real_div", &["x", "y"]),
        "floor_divide" => ("floor_div", &["x", "y"]),
        "conv2d" | "conv3d" => ("conv", &["x", "weight", "strides", "dilations", "groups"]),
        "concat" => ("concat", &["axis", "values"]),
        "gather_along_axis" => ("gather_along_axis", &["x", "indices", "axis"]),
        "gather_nd" => ("gather_nd", &["x", "indices"]),
        "where" => ("select", &["cond", "a", "b"]),
        "slice" => ("slice_by_index", &["x", "begin", "end", "stride"]),
        "softmax" => ("softmax", &["x", "axis"]),
        "reduce_sum" | "reduce_mean" | "reduce_max" | "reduce_min" => (base, &["x", "axes"]),
        "reduce_product" => ("reduce_prod", &["x", "axes"]),
        "reshape" => ("reshape", &["x", "shape"]),
        "transpose" => ("transpose", &["x", "perm"]),
        "pad" => ("pad", &["x", "pad", "constant_val"]),
        "lut_to_dense" => ("constexpr_lut_to_dense", &["indices", "lut", "vector_axis"]),
        "blockwise_shift_scale" => ("constexpr_blockwise_shift_scale", &["data", "scale", "offset"]),
        "read_handle" => ("read_state", &["input", "token"]),
        "write_handle" => ("write_state", &["input", "data", "token"]),
        _ => (base, &["x", "y"]),
    };
    (ty.to_string(), parameters)
}

/// A constant: its type, and its elements if they are in the program.
fn literal(value: &Attribute, output: &NamedValueType) -> Option<Value> {
    let ty = output.r#type.clone();
    let Some(value_type::Type::TensorType(tensor)) = ty.as_ref().and_then(|ty| ty.r#type.as_ref()) else { return None };
    let elements = match value {
        Attribute::Dense { splat: false, bytes } => Some(bytes.clone()),
        Attribute::Dense { splat: true, bytes } => {
            let extent = |d: &proto::Dimension| match &d.dimension {
                Some(dimension::Dimension::Constant(constant)) => constant.size as usize,
                _ => 1,
            };
            // Where all are equal, one says as much as many.
            let count = tensor.dimensions.iter().map(extent).fold(1, usize::saturating_mul).clamp(1, 64);
            Some(bytes.repeat(count))
        }
        _ => None,
    };
    let words = |bytes: &[u8]| bytes.as_chunks::<4>().0.to_vec();
    let held = |bytes: Vec<u8>| match DataType::try_from(tensor.data_type) {
        Ok(DataType::Int32 | DataType::Uint32) => {
            let values = words(&bytes).into_iter().map(i32::from_le_bytes).collect();
            proto::TensorValues::Ints(proto::RepeatedInts { values })
        }
        Ok(DataType::Float32) => {
            let values = words(&bytes).into_iter().map(f32::from_le_bytes).collect();
            proto::TensorValues::Floats(proto::RepeatedFloats { values })
        }
        _ => proto::TensorValues::Bytes(proto::RepeatedBytes { values: bytes }),
    };
    let value = elements.map(|bytes| {
        let tensor = proto::TensorValue { value: Some(held(bytes)) };
        proto::value::Value::ImmediateValue(proto::ImmediateValue { tensor: Some(tensor) })
    });
    Some(Value { r#type: ty, value, ..Value::default() })
}

/// A type as MIL has it; a token has none.
fn value_type(ty: &Type) -> Option<ValueType> {
    let (shape, element, is_state) = match ty {
        Type::Tensor { shape, element } => (shape, *element, false),
        Type::Handle { shape, element } => (shape, *element, true),
        _ => return None,
    };
    let dimension = |extent: &i64| {
        let known =
            u64::try_from(*extent).map(|size| dimension::Dimension::Constant(dimension::ConstantDimension { size }));
        let open = || dimension::Dimension::Unknown(dimension::UnknownDimension::default());
        proto::Dimension { dimension: Some(known.unwrap_or_else(|_| open())) }
    };
    let tensor = proto::TensorType {
        data_type: data_type(element) as i32,
        rank: shape.len() as i64,
        dimensions: shape.iter().map(dimension).collect(),
        ..proto::TensorType::default()
    };
    let tensor = ValueType { r#type: Some(value_type::Type::TensorType(tensor)) };
    Some(match is_state {
        false => tensor,
        true => {
            let state = proto::StateType { wrapped_type: Some(Box::new(tensor)) };
            ValueType { r#type: Some(value_type::Type::StateType(state)) }
        }
    })
}

fn data_type(element: Element) -> DataType {
    match element {
        Element::Bool => DataType::Bool,
        Element::F64 => DataType::Float64,
        Element::F32 => DataType::Float32,
        Element::F16 => DataType::Float16,
        Element::BF16 => DataType::Bfloat16,
        Element::Si64 => DataType::Int64,
        Element::Si32 => DataType::Int32,
        Element::Si16 => DataType::Int16,
        Element::Si8 => DataType::Int8,
        Element::Si4 => DataType::Int4,
        Element::Ui64 => DataType::Uint64,
        Element::Ui32 => DataType::Uint32,
        Element::Ui16 => DataType::Uint16,
        Element::Ui8 => DataType::Uint8,
        Element::Ui4 => DataType::Uint4,
        Element::Ui2 => DataType::Uint2,
        Element::Ui1 => DataType::Uint1,
        Element::Ui6 => DataType::Uint6,
        Element::Ui3 => DataType::Uint3,
    }
}
