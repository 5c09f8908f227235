//! Numbers as 8-bit integers: `quantize` and `dequantize`.

use anyhow::{Context, Result, bail};
use s2dit_ir::ops::{Binary, Dequantize, Quantize, Unary};
use s2dit_ir::{DType, TensorType, ValueId};

use super::{Handler, Raise};
use crate::coreml::proto::Operation;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "quantize" => quantize,
        "dequantize" => dequantize,
        _ => return None,
    })
}

/// The numbers of `scale` and `zero_point`: one, or one for each position of `axis`.
struct Grid {
    scales: Vec<f64>,
    zeros: Vec<f64>,
    axis: Option<usize>,
}

impl Grid {
    fn of(r: &Raise, op: &Operation, x: ValueId) -> Result<Grid> {
        let scales = r.floats(op, "scale")?.context("input `scale` is missing")?;
        let zeros = r.floats(op, "zero_point")?.unwrap_or_else(|| vec![0.0; scales.len()]);
        let rank = r.rank(x);
        let axis = if r.has(op, "axis") { Some(r.axis(r.int(op, "axis", None)?, rank)?) } else { None };
        let extent = axis.map_or(1, |a| r.b.shape(x)[a]);
        if scales.len() != zeros.len() || scales.len() != 1 && scales.len() != extent {
            bail!("{} scales and {} zero points for an extent of {extent}", scales.len(), zeros.len());
        }
        Ok(Grid { axis: axis.filter(|_| scales.len() > 1), scales, zeros })
    }

    /// The one scale of a grid around zero.
    fn symmetric(&self) -> Option<f64> {
        match (&self.scales[..], self.zeros.iter().all(|z| *z == 0.0)) {
            (&[scale], true) => Some(scale),
            _ => None,
        }
    }

    /// Numbers shaped to broadcast with x, as a constant of a float type.
    fn constant(&self, r: &mut Raise, x: ValueId, numbers: &[f64], dtype: DType) -> Result<ValueId> {
        let shape: Vec<usize> = match self.axis {
            None => Vec::new(),
            Some(axis) => (0..r.rank(x)).map(|i| if i == axis { numbers.len() } else { 1 }).collect(),
        };
        r.literal(&TensorType::new(dtype, shape), numbers)
    }
}

/// round(x / scale) + zero point, within the integers' range.
fn quantize(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let (dtype, low, high) = match r.text(op, "output_dtype", "")?.as_str() {
        "int8" => (DType::I8, -128.0, 127.0),
        "uint8" => (DType::U8, 0.0, 255.0),
        other => bail!("input `output_dtype`: found `{other}`, expected int8 or uint8"),
    };
    let x = r.operand(op, "input")?;
    let grid = Grid::of(r, op, x)?;
    if let (Some(scale), DType::I8) = (grid.symmetric(), dtype) {
        return Ok(vec![r.b.op(Quantize { scale }, &[x])?]);
    }
    // Quotients that fp16 would round are rounded to integers only.
    let x = r.b.cast(x, DType::F32)?;
    let scale = grid.constant(r, x, &grid.scales, DType::F32)?;
    let zero = grid.constant(r, x, &grid.zeros, DType::F32)?;
    let y = r.b.div(x, scale)?;
    let y = r.b.unary(Unary::Round, y)?;
    let y = r.b.add(y, zero)?;
    let (low, high) = (r.b.scalar_like(y, low)?, r.b.scalar_like(y, high)?);
    let y = r.b.binary(Binary::Maximum, y, low)?;
    let y = r.b.binary(Binary::Minimum, y, high)?;
    Ok(vec![r.b.cast(y, dtype)?])
}

/// scale·(x − zero point)
fn dequantize(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let dtype = r.declared(op)?.dtype;
    let x = r.operand(op, "input")?;
    let grid = Grid::of(r, op, x)?;
    if let (Some(scale), DType::I8) = (grid.symmetric(), r.b.f.dtype(x)) {
        return Ok(vec![r.b.op(Dequantize { scale, dtype }, &[x])?]);
    }
    let y = r.b.cast(x, DType::F32)?;
    let scale = grid.constant(r, y, &grid.scales, DType::F32)?;
    let zero = grid.constant(r, y, &grid.zeros, DType::F32)?;
    let y = r.b.sub(y, zero)?;
    let y = r.b.mul(y, scale)?;
    Ok(vec![r.b.cast(y, dtype)?])
}
