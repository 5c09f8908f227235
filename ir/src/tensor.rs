//! Values of the reference interpreter.

use half::f16;
use ndarray::{ArrayD, IxDyn};

use crate::{DType, TensorType, rounding};

/// A dense tensor of the reference interpreter: float64 storage whatever the dtype, so that results are
/// the exact mathematics; only `cast` and leaves round to the dtype's grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// The dtype that the IR gives this value.
    pub dtype: DType,
    /// The elements.
    pub data: ArrayD<f64>,
}

impl Tensor {
    /// A tensor from row-major values, or `None` if their number is not that of `ty`'s elements.
    pub fn from_values(ty: &TensorType, values: Vec<f64>) -> Option<Self> {
        let data = ArrayD::from_shape_vec(IxDyn(&ty.shape), values).ok()?;
        Some(Tensor { dtype: ty.dtype, data })
    }

    /// A tensor whose elements are all `value`.
    pub fn splat(ty: &TensorType, value: f64) -> Self {
        Tensor { dtype: ty.dtype, data: ArrayD::from_elem(IxDyn(&ty.shape), value) }
    }

    /// Decodes little-endian row-major bytes, or `None` if their number is not `ty.bytes()`.
    pub fn from_le_bytes(ty: &TensorType, bytes: &[u8]) -> Option<Self> {
        if bytes.len() != ty.bytes() {
            return None;
        }
        fn each<const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> f64) -> Vec<f64> {
            bytes.as_chunks::<N>().0.iter().map(|c| f(*c)).collect()
        }
        let values = match ty.dtype {
            DType::F64 => each(bytes, f64::from_le_bytes),
            DType::F32 => each(bytes, |b| f64::from(f32::from_le_bytes(b))),
            DType::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f64()),
            DType::BF16 => each(bytes, |b| half::bf16::from_le_bytes(b).to_f64()),
            DType::I64 => each(bytes, |b| i64::from_le_bytes(b) as f64),
            DType::I32 => each(bytes, |b| f64::from(i32::from_le_bytes(b))),
            DType::I16 => each(bytes, |b| f64::from(i16::from_le_bytes(b))),
            DType::I8 => each(bytes, |b: [u8; 1]| f64::from(b[0] as i8)),
            DType::U32 => each(bytes, |b| f64::from(u32::from_le_bytes(b))),
            DType::U16 => each(bytes, |b| f64::from(u16::from_le_bytes(b))),
            DType::U8 => each(bytes, |b: [u8; 1]| f64::from(b[0])),
            DType::Bool => each(bytes, |b: [u8; 1]| f64::from(u8::from(b[0] != 0))),
        };
        Tensor::from_values(ty, values)
    }

    /// Little-endian row-major bytes of the elements in the tensor's dtype (rounded to it).
    pub fn to_le_bytes(&self) -> Vec<u8> {
        let values = self.data.as_standard_layout();
        let values = values.as_slice().unwrap_or_default();
        fn each<const N: usize>(values: &[f64], f: impl Fn(f64) -> [u8; N]) -> Vec<u8> {
            values.iter().map(|x| f(*x)).collect::<Vec<_>>().into_flattened()
        }
        match self.dtype {
            DType::F64 => each(values, f64::to_le_bytes),
            DType::F32 => each(values, |x| (x as f32).to_le_bytes()),
            DType::F16 => {
                rounding::to_f16s(values).into_iter().map(f16::to_le_bytes).collect::<Vec<_>>().into_flattened()
            }
            DType::BF16 => each(values, |x| rounding::to_bf16(x).to_le_bytes()),
            DType::I64 => each(values, |x| (x as i64).to_le_bytes()),
            DType::I32 => each(values, |x| (x as i32).to_le_bytes()),
            DType::I16 => each(values, |x| (x as i16).to_le_bytes()),
            DType::I8 => each(values, |x| (x as i8).to_le_bytes()),
            DType::U32 => each(values, |x| (x as u32).to_le_bytes()),
            DType::U16 => each(values, |x| (x as u16).to_le_bytes()),
            DType::U8 => each(values, |x| [x as u8]),
            DType::Bool => each(values, |x| [u8::from(x != 0.0)]),
        }
    }

    /// Shape and dtype.
    pub fn ty(&self) -> TensorType {
        TensorType::new(self.dtype, self.data.shape())
    }
}
