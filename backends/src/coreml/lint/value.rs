//! Values: names with types.

use crate::coreml::proto::{self, DataType, ValueType, dimension, value_type};

/// A value's type. An op output that is no tensor has rank 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value<'p> {
    /// Name.
    pub name: &'p str,
    /// Element type.
    pub dtype: DataType,
    /// Extents; `None` where one is not static.
    pub shape: Vec<Option<u64>>,
}

impl Value<'_> {
    /// Extents, if all are static.
    pub fn extents(&self) -> Option<Vec<u64>> {
        self.shape.iter().copied().collect()
    }

    /// Elements, if static.
    pub fn elements(&self) -> Option<u64> {
        self.extents()?.iter().try_fold(1u64, |n, d| n.checked_mul(*d))
    }

    /// The extent of the last axis, if there is one and it is static.
    pub fn last(&self) -> Option<u64> {
        self.shape.last().copied().flatten()
    }

    /// `fp16[1, 64, 1, 256]`
    pub fn ty(&self) -> String {
        let extent = |d: &Option<u64>| d.map_or("?".into(), |d| d.to_string());
        format!("{}[{}]", dtype_name(self.dtype), self.shape.iter().map(extent).collect::<Vec<_>>().join(", "))
    }
}

/// MIL's name of an element type.
pub fn dtype_name(dtype: DataType) -> &'static str {
    match dtype {
        DataType::Unused => "?",
        DataType::Bool => "bool",
        DataType::String => "string",
        DataType::Float16 => "fp16",
        DataType::Float32 => "fp32",
        DataType::Float64 => "fp64",
        DataType::Bfloat16 => "bf16",
        DataType::Int8 => "int8",
        DataType::Int16 => "int16",
        DataType::Int32 => "int32",
        DataType::Int64 => "int64",
        DataType::Int4 => "int4",
        DataType::Uint8 => "uint8",
        DataType::Uint16 => "uint16",
        DataType::Uint32 => "uint32",
        DataType::Uint64 => "uint64",
        DataType::Uint4 => "uint4",
        DataType::Uint2 => "uint2",
        DataType::Uint1 => "uint1",
        DataType::Uint6 => "uint6",
        DataType::Uint3 => "uint3",
        DataType::Float8E4m3fn => "fp8e4m3fn",
        DataType::Float8E5m2 => "fp8e5m2",
    }
}

/// The alternative of a type.
pub(super) fn inner(ty: Option<&ValueType>) -> Option<&value_type::Type> {
    ty?.r#type.as_ref()
}

/// The tensor of a type, or of the state that it is.
pub(super) fn tensor<'p>(name: &'p str, ty: Option<&'p ValueType>) -> Value<'p> {
    let tensor = match inner(ty) {
        Some(value_type::Type::TensorType(t)) => Some(t),
        Some(value_type::Type::StateType(s)) => match inner(s.wrapped_type.as_deref()) {
            Some(value_type::Type::TensorType(t)) => Some(t),
            _ => None,
        },
        _ => None,
    };
    let extent = |d: &proto::Dimension| match &d.dimension {
        Some(dimension::Dimension::Constant(c)) => Some(c.size),
        _ => None,
    };
    Value {
        name,
        dtype: tensor.and_then(|t| DataType::try_from(t.data_type).ok()).unwrap_or(DataType::Unused),
        shape: tensor.map(|t| t.dimensions.iter().map(extent).collect()).unwrap_or_default(),
    }
}
