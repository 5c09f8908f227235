//! Types and values in MIL's protobufs.

use s2dit_ir::DType;

use super::super::package::WEIGHTS_IN_MODEL;
use super::super::proto::{
    BlobFileValue, DataType, Dimension, ImmediateValue, RepeatedBools, RepeatedBytes, RepeatedFloats, RepeatedInts,
    RepeatedStrings, StateType, TensorType, TensorValue, TensorValues, Value, ValueType,
    dimension::{self, ConstantDimension},
    value, value_type,
};

/// MIL's name of a dtype, if values may have it.
pub(super) const fn data_type(dtype: DType) -> Option<DataType> {
    Some(match dtype {
        DType::F32 => DataType::Float32,
        DType::F16 => DataType::Float16,
        DType::I32 => DataType::Int32,
        DType::I16 => DataType::Int16,
        DType::I8 => DataType::Int8,
        DType::U32 => DataType::Uint32,
        DType::U16 => DataType::Uint16,
        DType::U8 => DataType::Uint8,
        DType::Bool => DataType::Bool,
        // No op of the iOS 18 opset takes these.
        DType::F64 | DType::BF16 | DType::I64 => return None,
    })
}

pub(super) fn tensor_type(data_type: DataType, shape: &[usize]) -> ValueType {
    let dimension = |&size: &usize| Dimension {
        dimension: Some(dimension::Dimension::Constant(ConstantDimension { size: size as u64 })),
    };
    ValueType {
        r#type: Some(value_type::Type::TensorType(TensorType {
            data_type: data_type.into(),
            rank: shape.len() as i64,
            dimensions: shape.iter().map(dimension).collect(),
            ..TensorType::default()
        })),
    }
}

pub(super) fn state_type(data_type: DataType, shape: &[usize]) -> ValueType {
    let wrapped_type = Some(Box::new(tensor_type(data_type, shape)));
    ValueType { r#type: Some(value_type::Type::StateType(StateType { wrapped_type })) }
}

pub(super) fn string(text: &str) -> Value {
    let values = TensorValues::Strings(RepeatedStrings { values: vec![text.into()] });
    immediate(tensor_type(DataType::String, &[]), values)
}

/// A small constant from its little-endian elements.
pub(super) fn dense(data_type: DataType, shape: &[usize], bytes: &[u8]) -> Value {
    fn each<const N: usize, T>(bytes: &[u8], read: fn([u8; N]) -> T) -> Vec<T> {
        bytes.as_chunks::<N>().0.iter().map(|b| read(*b)).collect()
    }
    let values = match data_type {
        DataType::Float32 => TensorValues::Floats(RepeatedFloats { values: each(bytes, f32::from_le_bytes) }),
        DataType::Int32 => TensorValues::Ints(RepeatedInts { values: each(bytes, i32::from_le_bytes) }),
        DataType::Int16 => {
            TensorValues::Ints(RepeatedInts { values: each(bytes, |b| i32::from(i16::from_le_bytes(b))) })
        }
        DataType::Uint16 => {
            TensorValues::Ints(RepeatedInts { values: each(bytes, |b| i32::from(u16::from_le_bytes(b))) })
        }
        DataType::Bool => TensorValues::Bools(RepeatedBools { values: bytes.iter().map(|b| *b != 0).collect() }),
        _ => TensorValues::Bytes(RepeatedBytes { values: bytes.to_vec() }),
    };
    immediate(tensor_type(data_type, shape), values)
}

/// A constant whose record of the weight file is at `offset`.
pub(super) fn blob(data_type: DataType, shape: &[usize], offset: u64) -> Value {
    let file_name = WEIGHTS_IN_MODEL.into();
    Value {
        r#type: Some(tensor_type(data_type, shape)),
        value: Some(value::Value::BlobFileValue(BlobFileValue { file_name, offset })),
        ..Value::default()
    }
}

fn immediate(ty: ValueType, values: TensorValues) -> Value {
    let tensor = Some(TensorValue { value: Some(values) });
    Value { r#type: Some(ty), value: Some(value::Value::ImmediateValue(ImmediateValue { tensor })), ..Value::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(v: Value) -> TensorValues {
        match v.value {
            Some(value::Value::ImmediateValue(i)) => i.tensor.unwrap().value.unwrap(),
            _ => panic!("not immediate"),
        }
    }

    #[test]
    fn the_field_follows_from_the_type() {
        let cases: [(DataType, &[u8], TensorValues); 5] = [
            (DataType::Float32, &1f32.to_le_bytes(), TensorValues::Floats(RepeatedFloats { values: vec![1.0] })),
            (DataType::Int16, &(-2i16).to_le_bytes(), TensorValues::Ints(RepeatedInts { values: vec![-2] })),
            (DataType::Uint16, &65535u16.to_le_bytes(), TensorValues::Ints(RepeatedInts { values: vec![65535] })),
            (DataType::Bool, &[1], TensorValues::Bools(RepeatedBools { values: vec![true] })),
            (DataType::Float16, &[0, 0x3c], TensorValues::Bytes(RepeatedBytes { values: vec![0, 0x3c] })),
        ];
        for (ty, bytes, expected) in cases {
            assert_eq!(values(dense(ty, &[], bytes)), expected);
        }
    }
}
