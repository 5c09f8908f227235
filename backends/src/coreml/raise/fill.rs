//! Tensors made of numbers: fills, ranges, shapes, one-hot codes.

use anyhow::{Context, Result, bail};
use s2dit_ir::ops::{Compare, Select};
use s2dit_ir::{DType, Tensor, TensorType, ValueId};

use super::select::elements;
use super::{Handler, Raise};
use crate::coreml::proto::Operation;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "shape" => shape,
        "fill" => fill,
        "fill_like" => fill_like,
        "range_1d" => range,
        "one_hot" => one_hot,
        "band_part" => band_part,
        "non_zero" => non_zero,
        _ => return None,
    })
}

/// The extents of x.
fn shape(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let extents: Vec<f64> = r.b.shape(x).iter().map(|d| *d as f64).collect();
    let ty = TensorType::new(r.declared(op)?.dtype, [extents.len()]);
    Ok(vec![r.b.literal(&ty, extents)?])
}

/// Extents that an op names.
fn extents(r: &Raise, op: &Operation, input: &str) -> Result<Vec<usize>> {
    let extents = r.sizes(op, input)?.with_context(|| format!("input `{input}` is missing"))?;
    elements(&extents)?;
    Ok(extents)
}

fn fill(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let shape = extents(r, op, "shape")?;
    filled(r, op, &shape)
}

fn fill_like(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let like = r.operand(op, "ref_tensor")?;
    let shape = r.b.shape(like).to_vec();
    filled(r, op, &shape)
}

fn filled(r: &mut Raise, op: &Operation, shape: &[usize]) -> Result<Vec<ValueId>> {
    let value = if r.has(op, "value") {
        r.operand(op, "value")?
    } else {
        r.b.literal(&TensorType::new(r.declared(op)?.dtype, []), vec![0.0])?
    };
    Ok(vec![r.b.broadcast_to(value, shape)?])
}

/// start, start + step, … up to but without end.
fn range(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let bound: Vec<ValueId> =
        ["start", "end", "step"].iter().map(|input| r.operand(op, input)).collect::<Result<_>>()?;
    let number = |v: ValueId| -> Result<f64> { r.known(v)?.data.first().copied().context("an empty bound") };
    let (start, end, step) = (number(bound[0])?, number(bound[1])?, number(bound[2])?);
    let count = ((end - start) / step).ceil();
    if step == 0.0 || !count.is_finite() || count > f64::from(1 << 28) {
        bail!("a range from {start} to {end} by {step}");
    }
    let ty = TensorType::new(r.b.f.dtype(bound[0]), [count.max(0.0) as usize]);
    let values = (0..ty.elements()).map(|i| start + i as f64 * step).collect();
    let value = Tensor::from_values(&ty, values).context("a range of another length")?;
    Ok(vec![r.computed_here(value, &bound)?])
}

/// `on_value` where an index is its position on the new axis, `off_value` elsewhere.
fn one_hot(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let indices = r.operand(op, "indices")?;
    let size = usize::try_from(r.int(op, "one_hot_vector_size", None)?)?;
    let rank = r.rank(indices) + 1;
    let axis = r.axis(r.int(op, "axis", Some(-1))?, rank)?;
    let mut choices = Vec::new();
    for (input, default) in [("on_value", 1.0), ("off_value", 0.0)] {
        choices.push(match r.operand_if(op, input)? {
            Some(v) => v,
            None => r.b.literal(&TensorType::new(DType::I32, []), vec![default])?,
        });
    }
    let mut wide = r.b.shape(indices).to_vec();
    wide.insert(axis, 1);
    let indices = r.b.reshape(indices, &wide)?;
    let indices = r.b.cast(indices, DType::I32)?;
    let extents: Vec<usize> = (0..rank).map(|i| if i == axis { size } else { 1 }).collect();
    let positions = r.b.literal(&TensorType::new(DType::I32, extents), (0..size).map(|i| i as f64).collect())?;
    let on = r.b.op(Compare::Equal, &[indices, positions])?;
    let chosen = r.b.op(Select {}, &[on, choices[0], choices[1]])?;
    let dtype = r.declared(op)?.dtype;
    Ok(vec![r.b.cast(chosen, dtype)?])
}

/// x within `lower` diagonals below and `upper` above the main one, and 0 elsewhere; a negative number is all of them.
fn band_part(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let (lower, upper) = (r.int(op, "lower", Some(-1))?, r.int(op, "upper", Some(-1))?);
    let &[.., rows, columns] = r.b.shape(x) else { bail!("{}: expected rank 2 or more", r.b.f.ty(x)) };
    let ty = TensorType::new(DType::Bool, [rows, columns]);
    elements(&ty.shape)?;
    let inside = |i: usize| {
        let below = (i / columns) as i64 - (i % columns) as i64;
        (lower < 0 || below <= lower) && (upper < 0 || -below <= upper)
    };
    let band = r.b.literal(&ty, (0..ty.elements()).map(|i| f64::from(u8::from(inside(i)))).collect())?;
    let zero = r.b.scalar_like(x, 0.0)?;
    Ok(vec![r.b.op(Select {}, &[band, x, zero])?])
}

/// Positions of the elements that are not 0, one a row.
fn non_zero(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let value = r.known(x)?;
    let rank = value.data.ndim();
    let mut positions = Vec::new();
    for (at, element) in value.data.indexed_iter() {
        if *element != 0.0 {
            positions.extend((0..rank).map(|i| at[i] as f64));
        }
    }
    let ty = TensorType::new(DType::I32, [positions.len() / rank.max(1), rank]);
    let value = Tensor::from_values(&ty, positions).context("positions of another rank")?;
    Ok(vec![r.computed_here(value, &[x])?])
}
