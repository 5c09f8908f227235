//! Arrays on their way between NumPy and the runtime.

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use s2ditc::files::arrays::Array;
use s2ditc::ir::{DType, TensorType};
use s2ditc::runtime::HostTensor;

use crate::errors::error;

/// Element type, extents and elements of an array that Python hands over.
pub(crate) type Given<'py> = (String, Vec<usize>, PyReadonlyArray1<'py, u8>);

/// Element type, extents and elements of an array that Python gets.
pub(crate) type Made<'py> = (&'static str, Vec<usize>, Bound<'py, PyArray1<u8>>);

/// A copy of an array of Python's.
///
/// # Errors
/// An element type that no tensor of a model has; elements that are not those of the extents.
pub(crate) fn array(py: Python<'_>, name: &str, given: &Given<'_>) -> PyResult<Array> {
    let (dtype, shape, bytes) = given;
    let Some(dtype) = DType::ALL.into_iter().find(|known| known.name() == dtype) else {
        let known = DType::ALL.map(|dtype| dtype.name()).join(", ");
        return Err(error(py, "input", format!("`{name}`: found element type {dtype}, expected one of {known}")));
    };
    let ty = TensorType::new(dtype, shape.clone());
    let bytes = bytes.as_slice()?.to_vec();
    let found = bytes.len();
    Array::new(ty.clone(), bytes)
        .ok_or_else(|| error(py, "input", format!("`{name}`: found {found} bytes, expected {} of {ty}", ty.bytes())))
}

/// An array as Python gets it; its elements are not copied.
pub(crate) fn made(py: Python<'_>, array: Array) -> Made<'_> {
    (array.ty.dtype.name(), array.ty.shape, array.bytes.into_pyarray(py))
}

/// The array as a tensor in f32.
///
/// # Errors
/// See [`array`].
pub(crate) fn tensor(py: Python<'_>, name: &str, given: &Given<'_>) -> PyResult<HostTensor> {
    let array = array(py, name, given)?.cast(DType::F32);
    let data = array.bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    Ok(HostTensor { shape: array.ty.shape, data })
}

/// A tensor as Python gets it.
pub(crate) fn of_tensor<'py>(py: Python<'py>, tensor: &HostTensor) -> Made<'py> {
    let bytes = tensor.data.iter().flat_map(|x| x.to_le_bytes()).collect();
    made(py, Array { ty: TensorType::new(DType::F32, tensor.shape.clone()), bytes })
}
