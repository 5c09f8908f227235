//! `scatter_along_axis`: each update names the position of one axis that it goes to.

use serde::{Deserialize, Serialize};

use super::gather_along_axis::{along, position};
use super::{Cost, OpDef, OpError, TensorOp, arity, require};
use crate::{Tensor, TensorType};

/// What an update does to the element that it meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScatterMode {
    /// The update takes the element's place.
    Update,
    /// x + u
    Add,
    /// x·u
    Mul,
    /// max(x, u)
    Max,
    /// min(x, u)
    Min,
}

impl ScatterMode {
    /// The new element.
    pub fn apply(self, x: f64, update: f64) -> f64 {
        match self {
            ScatterMode::Update => update,
            ScatterMode::Add => x + update,
            ScatterMode::Mul => x * update,
            ScatterMode::Max => x.max(update),
            ScatterMode::Min => x.min(update),
        }
    }
}

/// x with `x[p with p[axis] = indices[p]]` combined with `updates[p]`, for each p in turn: `torch.scatter`.
///
/// - C1: indices as those of `gather_along_axis`. C2: updates have the shape of the indices and the dtype of x.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScatterAlongAxis {
    /// The indexed axis.
    pub axis: usize,
    /// How elements and updates combine.
    pub mode: ScatterMode,
}

impl OpDef for ScatterAlongAxis {
    fn name(&self) -> &'static str {
        "scatter_along_axis"
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 3..=3)?;
        let (x, indices, updates) = (operands[0], operands[1], operands[2]);
        along(x, indices, self.axis)?;
        require!(
            updates.shape == indices.shape && updates.dtype == x.dtype,
            "updates must be {}, found {updates}",
            indices.with_dtype(x.dtype)
        );
        Ok(x.clone())
    }

    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops(operands[2].elements() as u64, operands, ty)
    }
}

impl TensorOp for ScatterAlongAxis {
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let mut data = operands[0].data.clone();
        for ((at, index), update) in operands[1].data.indexed_iter().zip(&operands[2].data) {
            let mut to = at.clone();
            to[self.axis] = position(*index, ty.shape[self.axis])?;
            data[&to] = self.mode.apply(data[&to], *update);
        }
        Ok(Tensor { dtype: ty.dtype, data })
    }
}
