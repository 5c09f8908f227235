//! Ops that change no element: casts between floats, copies, dropout in evaluation, what only checks or marks.

use s2dit_ir::{DType, OpError};

use super::super::call::Call;
use super::super::walk::{Slot, Walk};
use super::Group;

pub(super) const OPS: Group = &[
    ("aten.alias.default", same),
    ("aten.detach.default", same),
    ("aten.detach_.default", same),
    ("aten.clone.default", same),
    ("aten.contiguous.default", same),
    ("aten.lift.default", same),
    ("aten.lift_fresh.default", same),
    ("aten.lift_fresh_copy.default", same),
    ("aten.to.device", cast),
    ("aten.to.dtype", cast),
    ("aten.to.dtype_layout", cast),
    ("aten.to.other", cast_like),
    ("aten.type_as.default", cast_like),
    ("aten._to_copy.default", cast),
    ("aten.copy.default", copy),
    ("aten.dropout.default", dropout),
    ("aten.feature_dropout.default", dropout),
    ("aten._assert_tensor_metadata.default", nothing),
    ("aten._assert_async.msg", nothing),
    ("aten._assert_scalar.default", nothing),
    ("aten.sym_constrain_range_for_size.default", nothing),
    ("aten.sym_constrain_range.default", nothing),
    ("aten.requires_grad_.default", same),
];

type Read = Result<Vec<Slot>, OpError>;

fn same(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    Ok(c.one(x))
}

fn cast(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let from = w.t.ty(&x).dtype;
    match c.dtype("dtype")? {
        // A tensor of truth values lies in the graph as zeros and ones.
        Some(DType::Bool) if from != DType::Bool => Ok(c.one(w.truth(&x)?)),
        Some(to) => Ok(c.one(w.cast(&x, to)?)),
        None => Ok(c.one(x)),
    }
}

fn cast_like(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let (x, other) = (c.tensor(w, "self")?, c.tensor(w, "other")?);
    let to = c.dtype.unwrap_or(w.t.ty(&other).dtype);
    match to {
        DType::Bool => Ok(c.one(w.truth(&x)?)),
        to => Ok(c.one(w.cast(&x, to)?)),
    }
}

/// `src` with the shape and type of `self`.
fn copy(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let (x, src) = (c.tensor(w, "self")?, c.tensor(w, "src")?);
    let ty = w.t.ty(&x);
    let src = w.cast(&src, ty.dtype)?;
    Ok(c.one(w.t.broadcast(&src, &ty.shape)?))
}

fn dropout(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let p = c.number(w, "p", Some(0.5))?;
    if p != 0.0 && c.flag(w, "train", true)? {
        return Err(OpError::new("it drops elements: call model.eval() before the export"));
    }
    let x = c.tensor(w, "input")?;
    Ok(c.one(x))
}

fn nothing(_: &mut Walk<'_>, c: &Call<'_>) -> Read {
    match c.outputs.iter().flatten().next() {
        None => Ok(Vec::new()),
        Some(_) => Err(OpError::new("it has a result")),
    }
}
