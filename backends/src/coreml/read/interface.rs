//! The model description: what Core ML says a function takes and returns. It repeats the program's own signature, and a
//! package in which the two differ does not load.

use anyhow::{Context, Result, bail};

use super::Package;
use crate::Error;
use crate::coreml::proto::{
    ArrayFeatureType, Block, DataType, FeatureDescription, FeatureType, Function, FunctionDescription, NamedValueType,
    TensorType, ValueType, dimension, feature_type, value_type,
};

/// An input, output or state of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Name.
    pub name: String,
    /// Element type, as the IR names it.
    pub dtype: String,
    /// Shape.
    pub shape: Vec<i64>,
    /// Whether arrays of other shapes are taken too.
    pub flexible: bool,
}

impl Package {
    fn description(&self, function: &str) -> FunctionDescription {
        let Some(d) = &self.model.description else { return FunctionDescription::default() };
        match d.functions.iter().find(|f| f.name == function) {
            Some(f) => f.clone(),
            None => FunctionDescription {
                name: function.into(),
                input: d.input.clone(),
                output: d.output.clone(),
                state: d.state.clone(),
            },
        }
    }

    /// The description of a function's inputs.
    pub(in crate::coreml) fn described_inputs(&self, function: &str) -> &[FeatureDescription] {
        let Some(d) = &self.model.description else { return &[] };
        d.functions.iter().find(|f| f.name == function).map_or(&d.input, |f| &f.input)
    }

    /// Inputs, outputs and states of a function.
    ///
    /// # Errors
    /// No function of this name.
    pub fn interface(&self, function: impl AsRef<str>) -> Result<[Vec<Feature>; 3], Error> {
        let (name, _) = self.function(Some(function.as_ref())).map_err(Error::reading)?;
        let described = self.description(&name);
        Ok([&described.input, &described.output, &described.state].map(|list| list.iter().map(feature).collect()))
    }

    /// Inputs of the default function.
    pub fn inputs(&self) -> Vec<Feature> {
        self.description(&self.default_function()).input.iter().map(feature).collect()
    }

    /// Outputs of the default function.
    pub fn outputs(&self) -> Vec<Feature> {
        self.description(&self.default_function()).output.iter().map(feature).collect()
    }

    /// States of the default function.
    pub fn states(&self) -> Vec<Feature> {
        self.description(&self.default_function()).state.iter().map(feature).collect()
    }

    /// The description must be that of the function: names, element types, shapes.
    pub(super) fn check_description(&self, name: &str, function: &Function) -> Result<()> {
        let description = self.description(name);
        let block = self.block(name, function)?;
        let is_state = |v: &&NamedValueType| state_of(v.r#type.as_ref()).is_some();
        let inputs: Vec<&NamedValueType> = function.inputs.iter().filter(|v| !is_state(v)).collect();
        let states: Vec<&NamedValueType> = function.inputs.iter().filter(is_state).collect();
        let outputs = results(block).with_context(|| format!("function `{name}`"));
        let outputs = outputs.with_context(|| self.path.display().to_string())?;
        for (kind, found, wanted) in [
            ("inputs", inputs, &description.input),
            ("states", states, &description.state),
            ("outputs", outputs, &description.output),
        ] {
            agree(&found, wanted).with_context(|| {
                format!("`{}`: {kind} of function `{name}` and of its description differ", self.path.display())
            })?;
        }
        Ok(())
    }
}

/// The values that a block returns, with the types that their definitions declare.
fn results(block: &Block) -> Result<Vec<&NamedValueType>> {
    let defined = || block.operations.iter().flat_map(|op| &op.outputs);
    let find = |name: &String| {
        defined().find(|v| v.name == *name).with_context(|| format!("returns `{name}`, which no operation defines"))
    };
    block.outputs.iter().map(find).collect()
}

fn agree(found: &[&NamedValueType], described: &[FeatureDescription]) -> Result<()> {
    let mut names: Vec<&str> = found.iter().map(|v| v.name.as_str()).collect();
    let mut described_names: Vec<&str> = described.iter().map(|f| f.name.as_str()).collect();
    names.sort_unstable();
    described_names.sort_unstable();
    if names != described_names {
        bail!("the program has {names:?}, the description {described_names:?}");
    }
    for value in found {
        let feature = described.iter().find(|f| f.name == value.name).and_then(|f| f.r#type.as_ref());
        // Images, flexible shapes and shapes left out have no tensor type to compare.
        let Some(array) = feature.and_then(array_of).filter(|a| a.shape_flexibility.is_none()) else { continue };
        let ty = value.r#type.as_ref();
        let Some(tensor) = state_of(ty).or_else(|| tensor_of(ty)) else { continue };
        let (dtype, described_dtype) = (dtype_of(tensor.data_type), array_dtype(array));
        if dtype != described_dtype {
            bail!("`{}` is {dtype} in the program, {described_dtype} in the description", value.name);
        }
        let Some(shape) = static_shape(tensor) else { continue };
        // Multi-arrays have no rank 0.
        let scalar = shape.is_empty() && array.shape == [1];
        if !array.shape.is_empty() && array.shape != shape && !scalar {
            bail!("`{}` is {shape:?} in the program, {:?} in the description", value.name, array.shape);
        }
    }
    Ok(())
}

fn tensor_of(ty: Option<&ValueType>) -> Option<&TensorType> {
    match ty?.r#type.as_ref()? {
        value_type::Type::TensorType(t) => Some(t),
        _ => None,
    }
}

fn state_of(ty: Option<&ValueType>) -> Option<&TensorType> {
    match ty?.r#type.as_ref()? {
        value_type::Type::StateType(s) => tensor_of(s.wrapped_type.as_deref()),
        _ => None,
    }
}

fn static_shape(t: &TensorType) -> Option<Vec<i64>> {
    let extent = |d: &dimension::Dimension| match d {
        dimension::Dimension::Constant(c) => i64::try_from(c.size).ok(),
        dimension::Dimension::Unknown(_) => None,
    };
    t.dimensions.iter().map(|d| d.dimension.as_ref().and_then(extent)).collect()
}

fn dtype_of(code: i32) -> &'static str {
    match DataType::try_from(code) {
        Ok(DataType::Float32) => "f32",
        Ok(DataType::Float64) => "f64",
        Ok(DataType::Float16) => "f16",
        Ok(DataType::Int32) => "i32",
        Ok(DataType::Int8) => "i8",
        _ => "a type that no multi-array has",
    }
}

fn array_dtype(array: &ArrayFeatureType) -> &'static str {
    match array.data_type {
        65568 => "f32",
        65600 => "f64",
        65552 => "f16",
        131_104 => "i32",
        131_080 => "i8",
        _ => "?",
    }
}

fn feature(f: &FeatureDescription) -> Feature {
    let array = f.r#type.as_ref().and_then(array_of);
    Feature {
        name: f.name.clone(),
        dtype: array.map_or("?", array_dtype).into(),
        shape: array.map(|a| a.shape.clone()).unwrap_or_default(),
        flexible: array.is_some_and(|a| a.shape_flexibility.is_some()),
    }
}

/// The array of a feature or of a state.
fn array_of(ty: &FeatureType) -> Option<&ArrayFeatureType> {
    match ty.r#type.as_ref()? {
        feature_type::Type::MultiArrayType(array) => Some(array),
        feature_type::Type::StateType(state) => state.array_type.as_ref(),
        _ => None,
    }
}
