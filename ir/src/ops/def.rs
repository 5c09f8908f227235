//! What every op has, and the constraints that many share.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Tensor, TensorType};

/// Attributes of an op in the text form.
pub type Attrs = Map<String, Value>;

/// A constraint of an op that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OpError(pub String);

impl OpError {
    /// An error with this message.
    pub fn new(message: impl Into<String>) -> Self {
        OpError(message.into())
    }
}

/// Returns an [`OpError`] unless the condition holds.
macro_rules! require {
    ($cond:expr, $($message:tt)+) => {
        if !$cond {
            return Err($crate::ops::OpError::new(format!($($message)+)));
        }
    };
}
pub(crate) use require;

/// Arithmetic and memory traffic of one op.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Floating-point operations; a multiply-add counts two.
    pub flops: u64,
    /// Bytes of operands read and of the result written.
    pub bytes: u64,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.flops += other.flops;
        self.bytes += other.bytes;
    }
}

impl Cost {
    /// A cost whose bytes are those of all operands and the result.
    pub fn with_flops(flops: u64, operands: &[&TensorType], ty: &TensorType) -> Cost {
        let bytes = operands.iter().map(|t| t.bytes()).sum::<usize>() + ty.bytes();
        Cost { flops, bytes: bytes as u64 }
    }
}

/// The definition of an op, tensor op or composite.
pub trait OpDef: Clone + Debug + PartialEq + Serialize + DeserializeOwned {
    /// Name in the text form.
    fn name(&self) -> &'static str;

    /// The result's type. `declared` is the type written beside a leaf op; other ops ignore it.
    ///
    /// # Errors
    /// The first constraint that does not hold.
    fn infer(&self, operands: &[&TensorType], declared: Option<&TensorType>) -> Result<TensorType, OpError>;

    /// Cost; by default one operation an element of the result.
    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops(ty.elements() as u64, operands, ty)
    }

    /// Attributes as the text form writes them.
    fn attrs(&self) -> Attrs {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            _ => Attrs::new(),
        }
    }

    /// The inverse of [`OpDef::name`] and [`OpDef::attrs`].
    ///
    /// # Errors
    /// Missing, unknown or ill-typed attributes.
    fn parse(_name: &str, attrs: Attrs) -> Result<Self, OpError> {
        serde_json::from_value(Value::Object(attrs)).map_err(|e| OpError::new(e.to_string()))
    }
}

/// An op with a value of its own. (That of a composite is its decomposition's.)
pub trait TensorOp: OpDef {
    /// The result in float64. Operand types have been checked by [`OpDef::infer`].
    ///
    /// # Errors
    /// If the op has no value without its surroundings (`input`, `load`, `state`).
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError>;
}

/// `require!` for the number of operands.
pub(super) fn arity(operands: &[&TensorType], range: std::ops::RangeInclusive<usize>) -> Result<(), OpError> {
    let n = operands.len();
    require!(
        range.contains(&n),
        "takes {} operand(s), found {n}",
        if range.start() == range.end() {
            format!("{}", range.start())
        } else {
            format!("{}–{}", range.start(), range.end())
        }
    );
    Ok(())
}

pub(super) fn same_float(operands: &[&TensorType]) -> Result<(), OpError> {
    let first = operands[0].dtype;
    require!(first.is_float(), "operand 0 must be a float tensor, found {}", operands[0]);
    for (i, t) in operands.iter().enumerate() {
        require!(t.dtype == first, "operands must have one dtype: operand 0 is {first}, operand {i} is {}", t.dtype);
    }
    Ok(())
}

pub(super) fn check_axis(axis: usize, rank: usize) -> Result<(), OpError> {
    require!(axis < rank, "axis {axis} is out of range for rank {rank}");
    Ok(())
}

/// Axes must be strictly ascending and in range.
pub(super) fn check_axes(axes: &[usize], rank: usize) -> Result<(), OpError> {
    for (i, &a) in axes.iter().enumerate() {
        check_axis(a, rank)?;
        require!(i == 0 || axes[i - 1] < a, "axes must be ascending and distinct, found {axes:?}");
    }
    Ok(())
}

pub(super) fn leaf_has_no_value(name: &str) -> OpError {
    OpError::new(format!("`{name}` has no value of its own: it comes from the caller"))
}
