//! Reading a source, with what it gives checked.

use std::borrow::Cow;
use std::ops::Range;

use super::{WeightError, WeightSource};
use crate::TensorType;

/// The bytes of a tensor, as many as its type has.
pub(crate) fn load_bytes<'a>(
    source: &'a dyn WeightSource,
    tensor: &str,
    ty: &TensorType,
) -> Result<Cow<'a, [u8]>, WeightError> {
    let bytes = source.bytes(tensor)?;
    if bytes.len() != ty.bytes() {
        return Err(WeightError::Size { name: tensor.into(), expected: ty.clone(), found: bytes.len() });
    }
    Ok(bytes)
}

/// Some bytes of a tensor that is computed, which the source has [visited](WeightSource::visit); `None` if it is stored as it is.
pub(crate) fn load_part(
    source: &dyn WeightSource,
    tensor: &str,
    range: Range<usize>,
) -> Option<Result<Vec<u8>, WeightError>> {
    let part = source.part(tensor, range.clone())?;
    Some(part.and_then(|bytes| {
        if bytes.len() != range.len() {
            let message = format!("{} bytes of {} in it", bytes.len(), range.len());
            return Err(WeightError::Read { name: tensor.into(), message });
        }
        source.visit(tensor, range.start as u64, &bytes);
        Ok(bytes)
    }))
}
