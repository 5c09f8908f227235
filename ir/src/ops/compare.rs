//! `equal`, `less`, … and the logical functions of two operands: results are bools.

use ndarray::{ArrayD, IxDyn, Zip};
use serde::{Deserialize, Serialize};

use super::{Attrs, OpDef, OpError, TensorOp, arity, broadcast_shapes, require};
use crate::{DType, Tensor, TensorType};

/// A relation of two operands of one dtype, with numpy broadcasting; the result is bool.
///
/// - C1: `logical_…` takes bools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compare {
    /// x = y
    Equal,
    /// x ≠ y
    NotEqual,
    /// x < y
    Less,
    /// x ≤ y
    LessEqual,
    /// x > y
    Greater,
    /// x ≥ y
    GreaterEqual,
    /// both
    And,
    /// at least one
    Or,
    /// exactly one
    Xor,
}

impl Compare {
    /// Every relation with its name in the text form.
    pub const ALL: [(Compare, &'static str); 9] = [
        (Compare::Equal, "equal"),
        (Compare::NotEqual, "not_equal"),
        (Compare::Less, "less"),
        (Compare::LessEqual, "less_equal"),
        (Compare::Greater, "greater"),
        (Compare::GreaterEqual, "greater_equal"),
        (Compare::And, "logical_and"),
        (Compare::Or, "logical_or"),
        (Compare::Xor, "logical_xor"),
    ];

    /// Whether the relation holds.
    pub fn holds(self, x: f64, y: f64) -> bool {
        match self {
            Compare::Equal => x == y,
            Compare::NotEqual => x != y,
            Compare::Less => x < y,
            Compare::LessEqual => x <= y,
            Compare::Greater => x > y,
            Compare::GreaterEqual => x >= y,
            Compare::And => x != 0.0 && y != 0.0,
            Compare::Or => x != 0.0 || y != 0.0,
            Compare::Xor => (x != 0.0) != (y != 0.0),
        }
    }

    fn is_logical(self) -> bool {
        matches!(self, Compare::And | Compare::Or | Compare::Xor)
    }
}

impl OpDef for Compare {
    fn name(&self) -> &'static str {
        Compare::ALL.iter().find(|(kind, _)| kind == self).map_or("", |(_, name)| name)
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 2..=2)?;
        let (x, y) = (operands[0], operands[1]);
        require!(x.dtype == y.dtype, "operands must have one dtype, found {x} and {y}");
        require!(!self.is_logical() || x.dtype == DType::Bool, "operands must be bools, found {x}");
        Ok(TensorType::new(DType::Bool, broadcast_shapes(&x.shape, &y.shape)?))
    }

    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn parse(name: &str, attrs: Attrs) -> Result<Self, OpError> {
        require!(attrs.is_empty(), "`{name}` has no attributes");
        let found = Compare::ALL.iter().find(|(_, n)| *n == name).map(|(kind, _)| *kind);
        found.ok_or_else(|| OpError::new(format!("unknown op `{name}`")))
    }
}

impl TensorOp for Compare {
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let shape = IxDyn(&ty.shape);
        let mismatch = || OpError::new("operands do not broadcast");
        let x = operands[0].data.broadcast(shape.clone()).ok_or_else(mismatch)?;
        let y = operands[1].data.broadcast(shape.clone()).ok_or_else(mismatch)?;
        let mut data = ArrayD::zeros(shape);
        Zip::from(&mut data).and(&x).and(&y).for_each(|o, &x, &y| *o = f64::from(u8::from(self.holds(x, y))));
        Ok(Tensor { dtype: ty.dtype, data })
    }
}
