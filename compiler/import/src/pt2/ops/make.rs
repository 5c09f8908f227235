//! Tensors that are made of numbers.

use s2dit_ir::{DType, OpError, TensorType};

use super::super::call::Call;
use super::super::walk::{Slot, Walk};
use super::Group;
use crate::trace::check_size;
use crate::{Traced, Value};

pub(super) const OPS: Group = &[
    ("aten.arange.*", arange),
    ("aten.linspace.default", linspace),
    ("aten.full.default", |w, c| filled(w, c, "size", None)),
    ("aten.zeros.default", |w, c| filled(w, c, "size", Some(0.0))),
    ("aten.ones.default", |w, c| filled(w, c, "size", Some(1.0))),
    ("aten.empty.memory_format", |w, c| filled(w, c, "size", Some(0.0))),
    ("aten.empty_permuted.default", |w, c| filled(w, c, "size", Some(0.0))),
    ("aten.empty_strided.default", |w, c| filled(w, c, "size", Some(0.0))),
    ("aten.new_full.default", |w, c| filled(w, c, "size", None)),
    ("aten.new_zeros.default", |w, c| filled(w, c, "size", Some(0.0))),
    ("aten.new_ones.default", |w, c| filled(w, c, "size", Some(1.0))),
    ("aten.new_empty.default", |w, c| filled(w, c, "size", Some(0.0))),
    ("aten.full_like.default", |w, c| like(w, c, None)),
    ("aten.zeros_like.default", |w, c| like(w, c, Some(0.0))),
    ("aten.ones_like.default", |w, c| like(w, c, Some(1.0))),
    ("aten.empty_like.default", |w, c| like(w, c, Some(0.0))),
    ("aten.fill.Scalar", |w, c| like_value(w, c)),
    ("aten.fill.Tensor", |w, c| like_value(w, c)),
    ("aten.zero.default", |w, c| like(w, c, Some(0.0))),
    ("aten.scalar_tensor.default", scalar),
    ("aten.eye.*", eye),
    ("aten.tril.default", |w, c| triangle(w, c, |row, column, k| column <= row + k)),
    ("aten.triu.default", |w, c| triangle(w, c, |row, column, k| column >= row + k)),
    ("aten.meshgrid.*", meshgrid),
];

type Read = Result<Vec<Slot>, OpError>;

/// A known value of numbers.
pub(super) fn known(w: &mut Walk<'_>, dtype: DType, shape: &[usize], values: impl Iterator<Item = f64>) -> Traced {
    w.t.spend(&TensorType::new(dtype, shape))?;
    let values = values.collect();
    w.t.known(dtype, shape, values).ok_or_else(|| OpError::new(format!("no tensor of {shape:?}")))
}

fn arange(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let start = c.number(w, "start", Some(0.0))?;
    let (end, step) = (c.number(w, "end", None)?, c.number(w, "step", Some(1.0))?);
    let count = ((end - start) / step).ceil();
    if !(1.0..1e8).contains(&count) {
        return Err(OpError::new(format!("{count} elements")));
    }
    let dtype = c.made_dtype()?;
    let values = (0..count as usize).map(|i| start + i as f64 * step);
    Ok(c.one(known(w, dtype, &[count as usize], values)?))
}

fn linspace(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let (start, end) = (c.number(w, "start", None)?, c.number(w, "end", None)?);
    let steps = c.int(w, "steps", None)?;
    let count = usize::try_from(steps).map_err(|_| OpError::new(format!("{steps} elements")))?;
    check_size(&[count])?;
    let step = if count > 1 { (end - start) / (count - 1) as f64 } else { 0.0 };
    let dtype = c.made_dtype()?;
    Ok(c.one(known(w, dtype, &[count], (0..count).map(|i| start + i as f64 * step))?))
}

fn filled(w: &mut Walk<'_>, c: &Call<'_>, size: &str, value: Option<f64>) -> Read {
    let shape = super::shape::sizes(&c.ints(w, size)?.unwrap_or_default())?;
    let value = value.map_or_else(|| c.number(w, "fill_value", None), Ok)?;
    Ok(c.one(Value::Filled(TensorType::new(c.made_dtype()?, shape), value)))
}

fn like(w: &mut Walk<'_>, c: &Call<'_>, value: Option<f64>) -> Read {
    let x = c.tensor(w, "self")?;
    let value = value.map_or_else(|| c.number(w, "fill_value", None), Ok)?;
    let dtype = c.dtype("dtype")?.or(c.dtype).unwrap_or(w.t.ty(&x).dtype);
    Ok(c.one(Value::Filled(TensorType::new(dtype, w.t.shape(&x)), value)))
}

fn like_value(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let (x, value) = (c.tensor(w, "self")?, c.tensor_or_number(w, "value")?);
    let ty = w.t.ty(&x);
    let value = w.cast(&value, ty.dtype)?;
    Ok(c.one(w.t.broadcast(&value, &ty.shape)?))
}

fn scalar(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let value = c.number(w, "s", None)?;
    Ok(c.one(w.t.scalar(c.made_dtype()?, value)))
}

fn eye(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let rows = c.int(w, "n", None)?;
    let columns = c.int(w, "m", Some(rows))?;
    let &[rows, columns] = &super::shape::sizes(&[rows, columns])?[..] else { return Err(OpError::new("no matrix")) };
    let values = (0..rows * columns).map(|i| f64::from(u8::from(i / columns == i % columns)));
    let dtype = c.made_dtype()?;
    Ok(c.one(known(w, dtype, &[rows, columns], values)?))
}

/// A triangle of the last two axes; zeros elsewhere.
fn triangle(w: &mut Walk<'_>, c: &Call<'_>, keeps: fn(i64, i64, i64) -> bool) -> Read {
    let x = c.tensor(w, "self")?;
    let diagonal = c.int(w, "diagonal", Some(0))?;
    let shape = w.t.shape(&x);
    let &[.., rows, columns] = &shape[..] else { return Err(OpError::new("it takes matrices")) };
    let kept = |i: usize| f64::from(u8::from(keeps((i / columns) as i64, (i % columns) as i64, diagonal)));
    let dtype = w.t.ty(&x).dtype;
    let mask = known(w, DType::Bool, &[rows, columns], (0..rows * columns).map(kept))?;
    // −∞ outside of the triangle would make NaN of zeros.
    let zero = w.t.scalar(dtype, 0.0);
    let y = w.select(&mask, &x, &zero)?;
    Ok(c.one(w.cast(&y, dtype)?))
}

fn meshgrid(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let tensors = c.tensors(w, "tensors")?;
    let by_columns = c.text("indexing", "ij")? == "xy";
    let mut axes: Vec<usize> = (0..tensors.len()).collect();
    if by_columns && tensors.len() > 1 {
        axes.swap(0, 1);
    }
    let mut grid = vec![0; tensors.len()];
    for (tensor, axis) in tensors.iter().zip(&axes) {
        grid[*axis] = w.t.shape(tensor).iter().product();
    }
    let mut slots = Vec::new();
    for (tensor, axis) in tensors.iter().zip(&axes) {
        let mut shape = vec![1; grid.len()];
        shape[*axis] = grid[*axis];
        let column = w.t.reshape(tensor, &shape)?;
        slots.push(Slot::Tensor(w.t.broadcast(&column, &grid)?));
    }
    Ok(slots)
}
