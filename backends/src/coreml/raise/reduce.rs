//! Reductions and norms.

use anyhow::Result;
use s2dit_ir::ops::{ReduceKind, Unary};
use s2dit_ir::{TensorType, ValueId};

use super::{Handler, Raise};
use crate::coreml::proto::Operation;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "reduce_sum" | "reduce_mean" | "reduce_max" | "reduce_min" | "reduce_sum_square" | "reduce_l2_norm" => reduce,
        "softmax" => softmax,
        "layer_norm" => layer_norm,
        _ => return None,
    })
}

fn reduce(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let axes = r.axes(op, "axes", r.rank(x))?;
    let keep = r.flag(op, "keep_dims", false)?;
    Ok(vec![match op.r#type.as_str() {
        "reduce_sum" => r.b.reduce(ReduceKind::Sum, x, &axes, keep)?,
        "reduce_mean" => r.b.reduce(ReduceKind::Mean, x, &axes, keep)?,
        "reduce_max" => r.b.reduce(ReduceKind::Max, x, &axes, keep)?,
        "reduce_min" => r.b.reduce(ReduceKind::Min, x, &axes, keep)?,
        norm => {
            let square = r.b.unary(Unary::Square, x)?;
            let sum = r.b.reduce(ReduceKind::Sum, square, &axes, keep)?;
            if norm == "reduce_l2_norm" { r.b.unary(Unary::Sqrt, sum)? } else { sum }
        }
    }])
}

fn softmax(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let axis = r.axis(r.int(op, "axis", Some(-1))?, r.rank(x))?;
    Ok(vec![r.b.softmax(x, axis)?])
}

fn layer_norm(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let axes = r.axes(op, "axes", r.rank(x))?;
    let eps = r.float(op, "epsilon", 1e-5)?;
    let (gamma, beta) = (r.operand_if(op, "gamma")?, r.operand_if(op, "beta")?);
    let affine = match (gamma, beta) {
        (None, None) => None,
        (gamma, beta) => {
            let extents: Vec<usize> = axes.iter().map(|&a| r.b.shape(x)[a]).collect();
            let ty = TensorType::new(r.b.f.dtype(x), extents);
            let gamma = gamma.map_or_else(|| r.b.literal(&ty, vec![1.0]), Ok)?;
            let beta = beta.map_or_else(|| r.b.literal(&ty, vec![0.0]), Ok)?;
            Some((gamma, beta))
        }
    };
    Ok(vec![r.b.layer_norm(x, &axes, eps, affine)?])
}
