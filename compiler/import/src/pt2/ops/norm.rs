//! Norms.

use s2dit_ir::ops::{Binary, LayerNorm, ReduceKind, Unary};
use s2dit_ir::{DType, OpError};

use super::super::call::Call;
use super::super::walk::{Slot, Walk};
use super::Group;
use crate::{Traced, Value};

pub(super) const OPS: Group = &[
    ("aten.layer_norm.default", |w, c| layer_norm(w, c)),
    ("aten.native_layer_norm.default", |w, c| layer_norm(w, c)),
    ("aten.rms_norm.default", rms_norm),
    ("aten._fused_rms_norm.default", rms_norm),
    ("aten.group_norm.default", group_norm),
    ("aten.native_group_norm.default", native_group_norm),
    ("aten.instance_norm.default", instance_norm),
    ("aten._native_batch_norm_legit.no_stats", of_one_batch),
    ("aten.batch_norm.default", batch_norm),
    ("aten._native_batch_norm_legit_no_training.default", batch_norm),
    ("aten.linalg_vector_norm.default", vector_norm),
    ("aten.norm.ScalarOpt_dim", vector_norm),
    ("aten.frobenius_norm.dim", vector_norm),
];

type Read = Result<Vec<Slot>, OpError>;

/// The axes of a shape that is normalised: the last ones.
fn normalised(w: &mut Walk<'_>, c: &Call<'_>, x: &Value) -> Result<Vec<usize>, OpError> {
    let (list, rank) = (c.ints(w, "normalized_shape")?.unwrap_or_default(), w.t.shape(x).len());
    match list.len() {
        n if (1..=rank).contains(&n) => Ok((rank - n..rank).collect()),
        n => Err(OpError::new(format!("a norm over {n} axes of {rank}"))),
    }
}

/// The norm; what torch returns beside it (mean, reciprocal of the deviation) nothing may use.
fn layer_norm(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "input")?;
    let x = w.cast(&x, DType::F32)?;
    let axes = normalised(w, c, &x)?;
    let (gain, bias) = (c.tensor_or_none(w, "weight")?, c.tensor_or_none(w, "bias")?);
    let eps = c.epsilon(w, "eps", Some(1e-5))?;
    let y = match (gain, bias) {
        (Some(gain), bias) => {
            let bias = match bias {
                Some(bias) => bias,
                None => Value::Filled(w.t.ty(&gain).with_dtype(DType::F32), 0.0),
            };
            w.t.op(LayerNorm { axes, eps }, &[&x, &gain, &bias])?
        }
        (None, bias) => {
            let y = w.t.op(LayerNorm { axes, eps }, &[&x])?;
            match bias {
                Some(bias) => w.binary(Binary::Add, &y, &bias)?,
                None => y,
            }
        }
    };
    Ok(vec![Slot::Tensor(y)])
}

/// `x / √(mean(x²) + eps) · weight`
fn rms_norm(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "input")?;
    let x = w.cast(&x, DType::F32)?;
    let axes = normalised(w, c, &x)?;
    // Without eps torch takes the spacing of its type at 1.
    let default = match c.dtype {
        Some(DType::F16) => 2f64.powi(-10),
        Some(DType::BF16) => 2f64.powi(-7),
        Some(DType::F64) => f64::EPSILON,
        _ => f64::from(f32::EPSILON),
    };
    let eps = c.epsilon(w, "eps", Some(default))?;
    let square = w.unary(Unary::Square, &x)?;
    let mean = w.reduced(ReduceKind::Mean, &square, &axes, true)?;
    let mean = w.with_number(Binary::Add, &mean, eps)?;
    let inverse = w.unary(Unary::Rsqrt, &mean)?;
    let mut y = w.binary(Binary::Mul, &x, &inverse)?;
    if let Some(gain) = c.tensor_or_none(w, "weight")? {
        y = w.binary(Binary::Mul, &y, &gain)?;
    }
    Ok(c.one(y))
}

/// A layer norm over each group of channels, with a gain and a bias for each channel.
fn grouped(w: &mut Walk<'_>, x: &Value, groups: usize, eps: f64, affine: [Option<Value>; 2]) -> Traced {
    let x = w.cast(x, DType::F32)?;
    let shape = w.t.shape(&x);
    let [batch, channels, ..] = shape[..] else { return Err(OpError::new("a norm of what has no channels")) };
    if groups == 0 || channels % groups != 0 {
        return Err(OpError::new(format!("{groups} groups of {channels} channels")));
    }
    let all: usize = shape[1..].iter().product();
    let flat = w.t.reshape(&x, &[batch, groups, all / groups])?;
    let y = w.t.op(LayerNorm { axes: vec![2], eps }, &[&flat])?;
    let y = w.t.reshape(&y, &shape)?;
    by_channel(w, &y, affine)
}

/// `x·gain + bias` with a number for each channel.
fn by_channel(w: &mut Walk<'_>, x: &Value, [gain, bias]: [Option<Value>; 2]) -> Traced {
    let mut column = vec![1; w.t.shape(x).len()];
    column[1] = w.t.shape(x)[1];
    let mut y = x.clone();
    for (factor, function) in [(gain, Binary::Mul), (bias, Binary::Add)] {
        if let Some(factor) = factor {
            let factor = w.t.reshape(&factor, &column)?;
            y = w.binary(function, &y, &factor)?;
        }
    }
    Ok(y)
}

fn affine(w: &mut Walk<'_>, c: &Call<'_>) -> Result<[Option<Value>; 2], OpError> {
    Ok([c.tensor_or_none(w, "weight")?, c.tensor_or_none(w, "bias")?])
}

fn group_norm(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "input")?;
    let (groups, eps) = (c.int(w, "num_groups", None)?, c.epsilon(w, "eps", Some(1e-5))?);
    let affine = affine(w, c)?;
    Ok(c.one(grouped(w, &x, usize::try_from(groups).unwrap_or(0), eps, affine)?))
}

fn native_group_norm(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "input")?;
    let (groups, eps) = (c.int(w, "group", None)?, c.epsilon(w, "eps", None)?);
    let affine = affine(w, c)?;
    Ok(c.one(grouped(w, &x, usize::try_from(groups).unwrap_or(0), eps, affine)?))
}

fn instance_norm(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "input")?;
    if !c.flag(w, "use_input_stats", true)? {
        return Err(OpError::new("an instance norm with running statistics"));
    }
    let channels = w.t.shape(&x).get(1).copied().unwrap_or(0);
    let (eps, affine) = (c.epsilon(w, "eps", Some(1e-5))?, affine(w, c)?);
    Ok(c.one(grouped(w, &x, channels, eps, affine)?))
}

/// A norm of each channel over the batch, which is one: what an instance norm is decomposed into.
fn of_one_batch(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "input")?;
    let shape = w.t.shape(&x);
    match shape[..] {
        [1, channels, ..] => {
            let (eps, affine) = (c.epsilon(w, "eps", Some(1e-5))?, affine(w, c)?);
            Ok(vec![Slot::Tensor(grouped(w, &x, channels, eps, affine)?)])
        }
        _ => Err(OpError::new("statistics of the batch: call model.eval() before the export")),
    }
}

/// `(x − mean) / √(var + eps) · weight + bias` with statistics that are known.
fn batch_norm(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "input")?;
    if c.flag(w, "training", false)? {
        return Err(OpError::new("statistics of the batch: call model.eval() before the export"));
    }
    let (mean, variance) = (c.tensor(w, "running_mean")?, c.tensor(w, "running_var")?);
    let eps = c.epsilon(w, "eps", Some(1e-5))?;
    let variance = w.with_number(Binary::Add, &variance, eps)?;
    let scale = w.unary(Unary::Rsqrt, &variance)?;
    let shift = w.binary(Binary::Mul, &mean, &scale)?;
    let shift = w.unary(Unary::Neg, &shift)?;
    let y = by_channel(w, &x, [Some(scale), Some(shift)])?;
    let affine = affine(w, c)?;
    let y = by_channel(w, &y, affine)?;
    Ok(vec![Slot::Tensor(y)])
}

/// `√Σ x²`, or `Σ |x|`, or `max |x|`
fn vector_norm(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let x = w.cast(&x, DType::F32)?;
    let rank = w.t.shape(&x).len();
    let (axes, keep) = (c.axes(w, "dim", rank)?, c.flag(w, "keepdim", false)?);
    let order = c.number(w, if c.has("ord") { "ord" } else { "p" }, Some(2.0))?;
    let y = match order {
        2.0 => {
            let square = w.unary(Unary::Square, &x)?;
            let sum = w.reduced(ReduceKind::Sum, &square, &axes, keep)?;
            w.unary(Unary::Sqrt, &sum)?
        }
        1.0 => {
            let x = w.unary(Unary::Abs, &x)?;
            w.reduced(ReduceKind::Sum, &x, &axes, keep)?
        }
        f64::INFINITY => {
            let x = w.unary(Unary::Abs, &x)?;
            w.reduced(ReduceKind::Max, &x, &axes, keep)?
        }
        other => return Err(OpError::new(format!("ord {other}"))),
    };
    Ok(c.one(y))
}
