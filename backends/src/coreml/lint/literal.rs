//! Literals of MIL, as they stand in the model.

use crate::coreml::proto::{TensorValues, Value, value};

/// The elements that stand in the model.
pub(super) fn immediate(literal: &Value) -> Option<&TensorValues> {
    match literal.value.as_ref()? {
        value::Value::ImmediateValue(v) => v.tensor.as_ref()?.value.as_ref(),
        value::Value::BlobFileValue(_) => None,
    }
}

/// A string.
pub(super) fn text(literal: &Value) -> Option<&str> {
    match immediate(literal)? {
        TensorValues::Strings(list) => list.values.first().map(String::as_str),
        _ => None,
    }
}
