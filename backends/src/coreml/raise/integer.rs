//! Activations as int8: `quantize` and `dequantize` with one scale and no zero point.

use anyhow::{Context, Result, bail};
use s2dit_ir::ValueId;
use s2dit_ir::ops::{Dequantize, Quantize};

use super::{Handler, Raise};
use crate::coreml::proto::Operation;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "quantize" => quantize,
        "dequantize" => dequantize,
        _ => return None,
    })
}

fn quantize(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let dtype = r.text(op, "output_dtype", "")?;
    if dtype != "int8" {
        bail!("input `output_dtype`: found `{dtype}`, expected int8: other integers cannot be run here");
    }
    let scale = scale(r, op)?;
    let x = r.operand(op, "input")?;
    Ok(vec![r.b.op(Quantize { scale }, &[x])?])
}

fn dequantize(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let dtype = r.declared(op)?.dtype;
    let scale = scale(r, op)?;
    let x = r.operand(op, "input")?;
    Ok(vec![r.b.op(Dequantize { scale, dtype }, &[x])?])
}

/// The only scale, beside a zero point that is zero.
fn scale(r: &Raise, op: &Operation) -> Result<f64> {
    if r.floats(op, "zero_point")?.is_some_and(|points| points.iter().any(|p| *p != 0.0)) {
        bail!("input `zero_point`: found a number other than 0, expected 0: others cannot be run here");
    }
    match r.floats(op, "scale")?.as_deref() {
        Some([scale]) => Ok(*scale),
        found => {
            let scales = found.context("input `scale` is missing")?;
            bail!("input `scale`: found {} scales, expected one: a scale a channel cannot be run here", scales.len())
        }
    }
}
