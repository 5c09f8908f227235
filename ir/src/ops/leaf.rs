//! Leaves: values that come from outside the graph.

use serde::{Deserialize, Serialize};

use super::{Cost, OpDef, OpError, TensorOp, arity, leaf_has_no_value, require};
use crate::{Tensor, TensorType};

fn declared(name: &str, operands: &[&TensorType], ty: Option<&TensorType>) -> Result<TensorType, OpError> {
    arity(operands, 0..=0)?;
    ty.cloned().ok_or_else(|| OpError::new(format!("`{name}` needs a declared type")))
}

/// A parameter of the function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {}

impl OpDef for Input {
    fn name(&self) -> &'static str {
        "input"
    }
    fn infer(&self, operands: &[&TensorType], ty: Option<&TensorType>) -> Result<TensorType, OpError> {
        declared("input", operands, ty)
    }
    fn cost(&self, _: &[&TensorType], _: &TensorType) -> Cost {
        Cost::default()
    }
}

impl TensorOp for Input {
    fn eval(&self, _: &[&Tensor], _: &TensorType) -> Result<Tensor, OpError> {
        Err(leaf_has_no_value("input"))
    }
}

/// A tensor of the weight source, by name; the declared type is the stored one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Name in the weight source.
    pub tensor: String,
}

impl OpDef for Load {
    fn name(&self) -> &'static str {
        "load"
    }
    fn infer(&self, operands: &[&TensorType], ty: Option<&TensorType>) -> Result<TensorType, OpError> {
        declared("load", operands, ty)
    }
    fn cost(&self, _: &[&TensorType], _: &TensorType) -> Cost {
        Cost::default()
    }
}

impl TensorOp for Load {
    fn eval(&self, _: &[&Tensor], _: &TensorType) -> Result<Tensor, OpError> {
        Err(leaf_has_no_value("load"))
    }
}

/// A small constant. One value fills the whole tensor, else there is one value an element.
///
/// - C1: `values` has 1 or `elements` entries. C2: every value is finite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Literal {
    /// Row-major values.
    pub values: Vec<f64>,
}

impl Literal {
    /// Appends the number of values and their bits.
    pub(super) fn write_key(&self, out: &mut Vec<u8>) {
        out.extend((self.values.len() as u64).to_le_bytes());
        out.extend(self.values.iter().flat_map(|x| x.to_bits().to_le_bytes()));
    }
}

impl OpDef for Literal {
    fn name(&self) -> &'static str {
        "literal"
    }
    fn infer(&self, operands: &[&TensorType], ty: Option<&TensorType>) -> Result<TensorType, OpError> {
        let ty = declared("literal", operands, ty)?;
        let n = self.values.len();
        require!(n == 1 || n == ty.elements(), "expected 1 or {} values for {ty}, found {n}", ty.elements());
        require!(self.values.iter().all(|v| v.is_finite()), "values must be finite");
        Ok(ty)
    }
    fn cost(&self, _: &[&TensorType], _: &TensorType) -> Cost {
        Cost::default()
    }
}

impl TensorOp for Literal {
    fn eval(&self, _: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let values: Vec<f64> = self.values.iter().map(|&v| ty.dtype.round(v)).collect();
        match values[..] {
            [v] => Ok(Tensor::splat(ty, v)),
            _ => Tensor::from_values(ty, values).ok_or_else(|| OpError::new("literal does not fill its type")),
        }
    }
}

/// The value of a state when the function is entered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Name of the state in the module.
    pub state: String,
}

impl OpDef for State {
    fn name(&self) -> &'static str {
        "state"
    }
    fn infer(&self, operands: &[&TensorType], ty: Option<&TensorType>) -> Result<TensorType, OpError> {
        declared("state", operands, ty)
    }
    fn cost(&self, _: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops(0, &[], ty)
    }
}

impl TensorOp for State {
    fn eval(&self, _: &[&Tensor], _: &TensorType) -> Result<Tensor, OpError> {
        Err(leaf_has_no_value("state"))
    }
}
