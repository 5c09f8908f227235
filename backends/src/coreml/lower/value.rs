//! Types and constants in MIL's terms.

use anyhow::{Result, bail};
use s2dit_ir::{DType, TensorType};

use crate::coreml::proto::{
    self, BlobFileValue, DataType, Dimension, ImmediateValue, RepeatedBools, RepeatedBytes, RepeatedFloats, RepeatedInts,
    RepeatedStrings, TensorValue, TensorValues, Value, ValueType, dimension, value, value_type,
};

/// MIL's name for an element type.
pub(super) fn data_type(dtype: DType) -> Result<DataType> {
    Ok(match dtype {
        DType::F32 => DataType::Float32,
        DType::F16 => DataType::Float16,
        DType::I32 => DataType::Int32,
        DType::I16 => DataType::Int16,
        DType::I8 => DataType::Int8,
        DType::U32 => DataType::Uint32,
        DType::U16 => DataType::Uint16,
        DType::U8 => DataType::Uint8,
        DType::Bool => DataType::Bool,
        DType::F64 | DType::BF16 | DType::I64 => bail!("Core ML has no ops over {dtype}; cast it first"),
    })
}

/// The name of an element type in a `cast`.
pub(super) fn cast_name(dtype: DType) -> Result<&'static str> {
    Ok(match data_type(dtype)? {
        DataType::Float32 => "fp32",
        DataType::Float16 => "fp16",
        DataType::Int32 => "int32",
        DataType::Int16 => "int16",
        DataType::Int8 => "int8",
        DataType::Uint16 => "uint16",
        DataType::Uint8 => "uint8",
        DataType::Bool => "bool",
        _ => bail!("Core ML cannot cast to {dtype}"),
    })
}

fn tensor(data_type: DataType, shape: &[usize]) -> ValueType {
    let dimensions = shape
        .iter()
        .map(|&size| Dimension {
            dimension: Some(dimension::Dimension::Constant(dimension::ConstantDimension { size: size as u64 })),
        })
        .collect();
    let ty = proto::TensorType {
        data_type: data_type.into(),
        rank: shape.len() as i64,
        dimensions,
        ..proto::TensorType::default()
    };
    ValueType { r#type: Some(value_type::Type::TensorType(ty)) }
}

/// A tensor type.
pub(super) fn tensor_type(ty: &TensorType) -> Result<ValueType> {
    Ok(tensor(data_type(ty.dtype)?, &ty.shape))
}

/// The type of a state that holds a tensor.
pub(super) fn state_type(ty: &TensorType) -> Result<ValueType> {
    let wrapped_type = Some(Box::new(tensor_type(ty)?));
    Ok(ValueType { r#type: Some(value_type::Type::StateType(proto::StateType { wrapped_type })) })
}

fn in_place(ty: ValueType, values: TensorValues) -> Value {
    let tensor = Some(TensorValue { value: Some(values) });
    Value {
        r#type: Some(ty),
        value: Some(value::Value::ImmediateValue(ImmediateValue { tensor })),
        ..Value::default()
    }
}

/// A scalar string.
pub(super) fn text(text: &str) -> Value {
    in_place(tensor(DataType::String, &[]), TensorValues::Strings(RepeatedStrings { values: vec![text.into()] }))
}

/// A constant in the model, from its little-endian bytes.
pub(super) fn immediate(ty: &TensorType, bytes: &[u8]) -> Result<Value> {
    let ints = |values| TensorValues::Ints(RepeatedInts { values });
    let (pairs, quads) = (bytes.as_chunks::<2>().0, bytes.as_chunks::<4>().0);
    let values = match ty.dtype {
        DType::F32 => TensorValues::Floats(RepeatedFloats { values: quads.iter().map(|b| f32::from_le_bytes(*b)).collect() }),
        DType::I32 => ints(quads.iter().map(|b| i32::from_le_bytes(*b)).collect()),
        DType::I16 => ints(pairs.iter().map(|b| i16::from_le_bytes(*b).into()).collect()),
        DType::U16 => ints(pairs.iter().map(|b| u16::from_le_bytes(*b).into()).collect()),
        DType::Bool => TensorValues::Bools(RepeatedBools { values: bytes.iter().map(|&b| b != 0).collect() }),
        _ => TensorValues::Bytes(RepeatedBytes { values: bytes.to_vec() }),
    };
    Ok(in_place(tensor_type(ty)?, values))
}

/// A constant in the blob file.
pub(super) fn blob(ty: &TensorType, file_name: &str, offset: u64) -> Result<Value> {
    Ok(Value {
        r#type: Some(tensor_type(ty)?),
        value: Some(value::Value::BlobFileValue(BlobFileValue { file_name: file_name.into(), offset })),
        ..Value::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(dtype: DType, bytes: &[u8], n: usize) -> TensorValues {
        let value = immediate(&TensorType::new(dtype, [n]), bytes).unwrap();
        let Some(value::Value::ImmediateValue(ImmediateValue { tensor: Some(t) })) = value.value else {
            panic!("not in place")
        };
        t.value.unwrap()
    }

    #[test]
    fn elements_go_to_the_field_of_their_type() {
        assert_eq!(values(DType::F32, &1.5f32.to_le_bytes(), 1), TensorValues::Floats(RepeatedFloats { values: vec![1.5] }));
        assert_eq!(values(DType::I16, &(-2i16).to_le_bytes(), 1), TensorValues::Ints(RepeatedInts { values: vec![-2] }));
        assert_eq!(values(DType::U16, &[0xff, 0xff], 1), TensorValues::Ints(RepeatedInts { values: vec![65535] }));
        assert_eq!(values(DType::Bool, &[1, 0], 2), TensorValues::Bools(RepeatedBools { values: vec![true, false] }));
        assert_eq!(values(DType::F16, &[0, 0x3c], 1), TensorValues::Bytes(RepeatedBytes { values: vec![0, 0x3c] }));
        assert!(immediate(&TensorType::new(DType::I64, [1]), &[0; 8]).is_err());
    }
}
