//! `reduce_sum`, `reduce_mean`, `reduce_max`, `reduce_min`, `reduce_prod`, `reduce_l2_norm`.

use ndarray::{ArrayD, Axis};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Attrs, Cost, OpDef, OpError, TensorOp, arity, check_axes, require};
use crate::{Tensor, TensorType};

/// The function that combines elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReduceKind {
    /// Σ x
    Sum,
    /// Σ x / n
    Mean,
    /// greatest
    Max,
    /// least
    Min,
    /// Π x
    Prod,
    /// √Σ x², the squares and their sum wider than the elements
    #[serde(rename = "l2_norm")]
    L2Norm,
}

/// Combines the elements along `axes`.
///
/// - C1: axes ascending, not empty, in range.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reduce {
    /// Kind of the reduction, which is the op's name in the text form.
    pub kind: ReduceKind,
    /// Axes that are combined.
    pub axes: Vec<usize>,
    /// Keep the combined axes with extent 1.
    pub keep_dims: bool,
}

impl Reduce {
    const KINDS: [(ReduceKind, &'static str); 6] = [
        (ReduceKind::Sum, "reduce_sum"),
        (ReduceKind::Mean, "reduce_mean"),
        (ReduceKind::Max, "reduce_max"),
        (ReduceKind::Min, "reduce_min"),
        (ReduceKind::Prod, "reduce_prod"),
        (ReduceKind::L2Norm, "reduce_l2_norm"),
    ];
}

impl OpDef for Reduce {
    fn name(&self) -> &'static str {
        match self.kind {
            ReduceKind::Sum => "reduce_sum",
            ReduceKind::Mean => "reduce_mean",
            ReduceKind::Max => "reduce_max",
            ReduceKind::Min => "reduce_min",
            ReduceKind::Prod => "reduce_prod",
            ReduceKind::L2Norm => "reduce_l2_norm",
        }
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 1..=1)?;
        let x = operands[0];
        require!(!self.axes.is_empty(), "axes must not be empty");
        check_axes(&self.axes, x.rank())?;
        let shape = x
            .shape
            .iter()
            .enumerate()
            .filter_map(|(i, &s)| match (self.axes.contains(&i), self.keep_dims) {
                (false, _) => Some(s),
                (true, true) => Some(1),
                (true, false) => None,
            })
            .collect::<Vec<_>>();
        Ok(TensorType::new(x.dtype, shape))
    }

    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        let each = if self.kind == ReduceKind::L2Norm { 2 } else { 1 };
        Cost::with_flops(each * operands[0].elements() as u64, operands, ty)
    }

    fn attrs(&self) -> Attrs {
        let mut attrs = match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            _ => Attrs::new(),
        };
        attrs.shift_remove("kind");
        attrs
    }

    fn parse(name: &str, mut attrs: Attrs) -> Result<Self, OpError> {
        let kind = Reduce::KINDS.iter().find(|(_, n)| *n == name).map(|(k, _)| *k);
        let kind = kind.ok_or_else(|| OpError::new(format!("unknown op `{name}`")))?;
        attrs.insert("kind".into(), serde_json::to_value(kind).unwrap_or_default());
        serde_json::from_value(Value::Object(attrs)).map_err(|e| OpError::new(e.to_string()))
    }
}

impl TensorOp for Reduce {
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let x = &operands[0].data;
        let mut data: ArrayD<f64> = if self.kind == ReduceKind::L2Norm { x.mapv(|x| x * x) } else { x.clone() };
        for &axis in self.axes.iter().rev() {
            data = match self.kind {
                ReduceKind::Sum | ReduceKind::Mean | ReduceKind::L2Norm => data.sum_axis(Axis(axis)),
                ReduceKind::Max => data.fold_axis(Axis(axis), f64::NEG_INFINITY, |a, b| a.max(*b)),
                ReduceKind::Min => data.fold_axis(Axis(axis), f64::INFINITY, |a, b| a.min(*b)),
                ReduceKind::Prod => data.fold_axis(Axis(axis), 1.0, |a, b| a * b),
            };
            if self.keep_dims {
                data = data.insert_axis(Axis(axis));
            }
        }
        if self.kind == ReduceKind::Mean {
            data /= self.axes.iter().map(|&a| x.shape()[a]).product::<usize>() as f64;
        }
        if self.kind == ReduceKind::L2Norm {
            data.mapv_inplace(f64::sqrt);
        }
        Ok(Tensor { dtype: ty.dtype, data })
    }
}
