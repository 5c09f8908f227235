//! `arg_max`, `arg_min`: where an axis has its extreme.

use ndarray::{ArrayD, Axis, IxDyn};
use serde::{Deserialize, Serialize};

use super::{Attrs, OpDef, OpError, TensorOp, arity, check_axis, require};
use crate::{DType, Tensor, TensorType};

/// Position (`i32`) of the greatest or least element of `axis`, which stays with extent 1; of equal elements the first.
///
/// - C1: the axis is not empty.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArgReduce {
    /// The least element instead of the greatest; it is the op's name in the text form.
    #[serde(skip)]
    pub least: bool,
    /// The axis.
    pub axis: usize,
}

impl OpDef for ArgReduce {
    fn name(&self) -> &'static str {
        if self.least { "arg_min" } else { "arg_max" }
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 1..=1)?;
        let x = operands[0];
        check_axis(self.axis, x.rank())?;
        require!(x.shape[self.axis] > 0, "axis {} of {x} is empty", self.axis);
        let mut shape = x.shape.clone();
        shape[self.axis] = 1;
        Ok(TensorType::new(DType::I32, shape))
    }

    fn parse(name: &str, attrs: Attrs) -> Result<Self, OpError> {
        let op: ArgReduce = serde_json::from_value(attrs.into()).map_err(|e| OpError::new(e.to_string()))?;
        Ok(ArgReduce { least: name == "arg_min", ..op })
    }
}

impl TensorOp for ArgReduce {
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let mut data = ArrayD::zeros(IxDyn(&ty.shape));
        let lanes = operands[0].data.lanes(Axis(self.axis)).into_iter();
        for (lane, out) in lanes.zip(data.iter_mut()) {
            let better = |new: f64, old: f64| if self.least { new < old } else { new > old };
            let best = (1..lane.len()).fold(0, |best, i| if better(lane[i], lane[best]) { i } else { best });
            *out = best as f64;
        }
        Ok(Tensor { dtype: ty.dtype, data })
    }
}
