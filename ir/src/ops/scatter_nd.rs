//! `scatter_nd`: slices put at positions of several axes.

use ndarray::IxDyn;
use serde::{Deserialize, Serialize};

use super::gather_along_axis::position;
use super::{Cost, OpDef, OpError, ScatterMode, TensorOp, arity, require};
use crate::{DType, Tensor, TensorType};

/// x with `x[indices[i…, :], …]` combined with `updates[i…, …]`, for each `i…` in turn: ONNX's `ScatterND`.
///
/// - C1: indices are i32 and name at most as many axes as x has. C2: updates have the shape that `gather_nd` would give.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScatterNd {
    /// How elements and updates combine.
    pub mode: ScatterMode,
}

impl OpDef for ScatterNd {
    fn name(&self) -> &'static str {
        "scatter_nd"
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 3..=3)?;
        let (x, indices, updates) = (operands[0], operands[1], operands[2]);
        require!(
            indices.dtype == DType::I32 && indices.rank() > 0,
            "indices must be i32 of rank 1 or more, found {indices}"
        );
        let lead = indices.rank() - 1;
        let depth = indices.shape[lead];
        require!(depth <= x.rank(), "indices {indices} name {depth} axes of {x}");
        let mut shape = indices.shape[..lead].to_vec();
        shape.extend(&x.shape[depth..]);
        let wanted = TensorType::new(x.dtype, shape);
        require!(*updates == wanted, "updates must be {wanted}, found {updates}");
        Ok(x.clone())
    }

    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops(operands[2].elements() as u64, operands, ty)
    }
}

impl TensorOp for ScatterNd {
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let (indices, updates) = (&operands[1].data, &operands[2].data);
        let lead = indices.ndim() - 1;
        let depth = indices.shape()[lead];
        let mut data = operands[0].data.clone();
        for (at, update) in updates.indexed_iter() {
            let at: Vec<usize> = (0..updates.ndim()).map(|i| at[i]).collect();
            let mut to = Vec::with_capacity(ty.rank());
            for (k, extent) in ty.shape[..depth].iter().enumerate() {
                let mut place = at[..lead].to_vec();
                place.push(k);
                to.push(position(indices[IxDyn(&place)], *extent)?);
            }
            to.extend(&at[lead..]);
            let element = &mut data[IxDyn(&to)];
            *element = self.mode.apply(*element, *update);
        }
        Ok(Tensor { dtype: ty.dtype, data })
    }
}
