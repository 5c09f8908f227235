//! Indices that are known, and tables of embeddings.

use s2dit_ir::ops::Gather;
use s2dit_ir::{DType, OpError};

use super::super::call::Call;
use super::super::walk::{Slot, Walk};
use super::Group;
use crate::{Traced, Value};

pub(super) const OPS: Group = &[
    ("aten.embedding.default", embedding),
    ("aten.index_select.default", index_select),
    ("aten.index.Tensor", index),
    ("aten.gather.default", gather),
];

type Read = Result<Vec<Slot>, OpError>;

impl Walk<'_> {
    /// Rows at known indices of an axis.
    pub(in super::super) fn gathered(&mut self, x: &Value, axis: usize, indices: &[i64]) -> Traced {
        let first = indices.first().copied().unwrap_or(0);
        // A range is a slice.
        let steps: Option<usize> = match indices {
            [_] => Some(1),
            [a, b, ..] if b > a && indices.windows(2).all(|pair| pair[1] - pair[0] == b - a) => {
                usize::try_from(b - a).ok()
            }
            _ => None,
        };
        if let (Some(stride), Ok(begin)) = (steps, usize::try_from(first)) {
            let end = begin + stride * (indices.len() - 1) + 1;
            if end <= self.t.shape(x)[axis] {
                return super::super::mutation::sliced(x, axis, begin, end, stride, &mut self.t);
            }
        }
        let list = super::make::known(self, DType::I32, &[indices.len()], indices.iter().map(|i| *i as f64))?;
        self.t.op(Gather { axis }, &[x, &list])
    }

    /// Rows at indices of any shape of an axis; the indices' axes take its place.
    fn looked_up(&mut self, x: &Value, axis: usize, indices: &Value) -> Traced {
        let (of, shape) = (self.t.shape(x), self.t.shape(indices));
        let out = [&of[..axis], &shape[..], &of[axis + 1..]].concat();
        crate::trace::check_size(&out)?;
        let extent = of[axis] as i64;
        let rows = match indices {
            Value::Graph(_) => {
                let flat = self.t.reshape(indices, &[shape.iter().product()])?;
                let flat = self.cast(&flat, DType::I32)?;
                self.t.op(Gather { axis }, &[x, &flat])?
            }
            known => {
                let list = self.t.integers(known, "indices")?;
                let list: Vec<i64> = list.into_iter().map(|i| if i < 0 { i + extent } else { i }).collect();
                if list.iter().any(|i| !(0..extent).contains(i)) {
                    return Err(OpError::new(format!("indices beyond {extent}")));
                }
                self.gathered(x, axis, &list)?
            }
        };
        self.t.reshape(&rows, &out)
    }
}

fn embedding(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let (weight, indices) = (c.tensor(w, "weight")?, c.tensor(w, "indices")?);
    Ok(c.one(w.looked_up(&weight, 0, &indices)?))
}

fn index_select(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let (x, indices) = (c.tensor(w, "self")?, c.tensor(w, "index")?);
    let axis = c.axis(w, "dim", 0, w.t.shape(&x).len())?;
    Ok(c.one(w.looked_up(&x, axis, &indices)?))
}

/// `x[i, j, :, k]`: of one index tensor its rows; of several that are known the elements of a flattened axis.
fn index(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let mut x = c.tensor(w, "self")?;
    let mut indices = c.tensors_or_none(w, "indices")?;
    for value in indices.iter().flatten() {
        if w.t.ty(value).dtype == DType::Bool {
            return Err(OpError::new("a mask as an index: shapes that depend on values cannot be compiled"));
        }
    }
    // An axis of extent 1 has one index only.
    let shape = w.t.shape(&x);
    let tensors = indices.iter().flatten().count();
    if tensors > 1 {
        let lone = indices.iter().enumerate().position(|(i, value)| {
            value.as_ref().is_some_and(|value| shape.get(i) == Some(&1) && crate::Tracer::uniform(value) == Some(0.0))
        });
        let first = indices.iter().position(Option::is_some);
        if let (Some(lone), true) = (lone, tensors == 2)
            && first == Some(lone)
            && indices.get(lone + 1).is_some_and(Option::is_some)
            && indices[lone].as_ref().map(|v| w.t.shape(v)) == indices[lone + 1].as_ref().map(|v| w.t.shape(v))
        {
            let mut without = shape.clone();
            without.remove(lone);
            x = w.t.reshape(&x, &without)?;
            indices.remove(lone);
        }
    }
    let shape = w.t.shape(&x);
    let places: Vec<usize> = indices.iter().enumerate().filter(|(_, value)| value.is_some()).map(|(i, _)| i).collect();
    match places.as_slice() {
        [] => Ok(c.one(x)),
        &[only] => {
            let Some(Some(value)) = indices.get(only).cloned() else { return Err(OpError::new("no index")) };
            if only >= shape.len() {
                return Err(OpError::new("too many indices"));
            }
            Ok(c.one(w.looked_up(&x, only, &value)?))
        }
        [first, .., last] if last - first + 1 == places.len() && *last < shape.len() => {
            let values: Vec<Value> = indices.iter().flatten().cloned().collect();
            let mut wide = Vec::new();
            for value in &values {
                wide = s2dit_ir::ops::broadcast_shapes(&wide, &w.t.shape(value))?;
            }
            let mut flat = vec![0i64; wide.iter().product()];
            for (value, place) in values.iter().zip(*first..) {
                let value = w.t.broadcast(value, &wide)?;
                let extent = shape[place] as i64;
                for (at, i) in flat.iter_mut().zip(w.t.integers(&value, "several indices")?) {
                    let i = if i < 0 { i + extent } else { i };
                    if !(0..extent).contains(&i) {
                        return Err(OpError::new(format!("an index beyond {extent}")));
                    }
                    *at = *at * extent + i;
                }
            }
            let merged: usize = shape[*first..=*last].iter().product();
            let x = w.t.reshape(&x, &[&shape[..*first], &[merged], &shape[last + 1..]].concat())?;
            let y = w.gathered(&x, *first, &flat)?;
            let out = [&shape[..*first], &wide[..], &shape[last + 1..]].concat();
            Ok(c.one(w.t.reshape(&y, &out)?))
        }
        _ => Err(OpError::new("indices of axes that are not neighbours")),
    }
}

/// `torch.gather` along an axis where every row takes the same known indices.
fn gather(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let (x, indices) = (c.tensor(w, "self")?, c.tensor(w, "index")?);
    let shape = w.t.shape(&x);
    let axis = c.axis(w, "dim", 0, shape.len())?;
    let Some(table) = w.t.tensor(&indices)? else { return Err(OpError::new("indices that the model computes")) };
    let after: usize = table.data.shape()[axis + 1..].iter().product();
    let n = table.data.shape()[axis];
    let list: Vec<i64> = table.data.iter().map(|x| *x as i64).collect();
    let first: Vec<i64> = (0..n).map(|i| list[i * after]).collect();
    let uneven = list.iter().enumerate().any(|(at, i)| *i != first[at / after % n]);
    if uneven || shape.iter().zip(table.data.shape()).enumerate().any(|(i, (a, b))| i != axis && a != b) {
        return Err(OpError::new("other indices for each row"));
    }
    Ok(c.one(w.gathered(&x, axis, &first)?))
}
