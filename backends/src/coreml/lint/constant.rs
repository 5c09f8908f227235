//! Constants, in the model or in the weight file.

use half::f16;

use super::literal::immediate;
use super::program::{Function, Op, Operand};
use crate::coreml::Package;
use crate::coreml::proto::{DataType, TensorValues, Value, value, value_type};

/// The element type that a constant declares.
pub(super) fn dtype(literal: &Value) -> DataType {
    match literal.r#type.as_ref().and_then(|t| t.r#type.as_ref()) {
        Some(value_type::Type::TensorType(t)) => DataType::try_from(t.data_type).unwrap_or(DataType::Unused),
        _ => DataType::Unused,
    }
}

/// Integers of an op's parameter; `None` if it is absent, computed at run time, or no list of integers in the model.
pub(super) fn ints(function: &Function, op: &Op, input: &str) -> Option<Vec<i64>> {
    let [operand] = op.operands(input)[..] else { return None };
    match immediate(function.constant(operand)?)? {
        TensorValues::Ints(list) => Some(list.values.iter().map(|x| i64::from(*x)).collect()),
        TensorValues::LongInts(list) => Some(list.values.clone()),
        _ => None,
    }
}

/// A flag of an op's parameter.
pub(super) fn flag(function: &Function, op: &Op, input: &str) -> Option<bool> {
    flags(function, op, input)?.first().copied()
}

/// Flags of an op's parameter.
pub(super) fn flags(function: &Function, op: &Op, input: &str) -> Option<Vec<bool>> {
    let [operand] = op.operands(input)[..] else { return None };
    match immediate(function.constant(operand)?)? {
        TensorValues::Bools(list) => Some(list.values.clone()),
        _ => None,
    }
}

/// Whether an operand is known before run time.
pub(super) fn is_constant(function: &Function, operand: Operand) -> bool {
    function.constant(operand).is_some() || function.constexpr(operand).is_some()
}

/// The smallest and the largest element of a float constant, and whether all are finite; `None` for what is not float.
pub(super) fn range(package: Option<&Package>, literal: &Value) -> Option<Range> {
    let dtype = dtype(literal);
    match literal.value.as_ref()? {
        value::Value::ImmediateValue(_) => match immediate(literal)? {
            TensorValues::Floats(list) => Range::of(list.values.iter().map(|x| f64::from(*x))),
            TensorValues::Bytes(bytes) if dtype == DataType::Float16 => Range::of(halves(&bytes.values)),
            _ => None,
        },
        value::Value::BlobFileValue(blob) => {
            let weights = package?.weights()?;
            let record = weights.record(blob.offset).ok()?;
            let data = weights.data(&record);
            match dtype {
                DataType::Float16 => Range::of(halves(data)),
                DataType::Float32 => {
                    let value = |b: &[u8; 4]| f64::from(f32::from_le_bytes(*b));
                    Range::of(data.as_chunks::<4>().0.iter().map(value))
                }
                _ => None,
            }
        }
    }
}

fn halves(bytes: &[u8]) -> impl Iterator<Item = f64> {
    bytes.as_chunks::<2>().0.iter().map(|b| f64::from(f16::from_le_bytes(*b)))
}

/// Bounds of a constant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Range {
    /// The smallest element that is a number.
    pub(super) low: f64,
    /// The largest element that is a number.
    pub(super) high: f64,
    /// Whether no element is NaN or infinite.
    pub(super) finite: bool,
}

impl Range {
    fn of(values: impl Iterator<Item = f64>) -> Option<Range> {
        let start = Range { low: f64::INFINITY, high: f64::NEG_INFINITY, finite: true };
        let all = values.fold(start, |r, x| Range {
            low: r.low.min(x),
            high: r.high.max(x),
            finite: r.finite && x.is_finite(),
        });
        (all != start).then_some(all)
    }
}
