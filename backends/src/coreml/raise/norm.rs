//! Normalisations.

use anyhow::{Result, bail};
use s2dit_ir::ops::{Binary, LayerNorm, ReduceKind, Unary};
use s2dit_ir::{TensorType, ValueId};

use super::{Handler, Raise};
use crate::coreml::proto::Operation;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "layer_norm" => layer_norm,
        "batch_norm" => batch_norm,
        "instance_norm" => instance_norm,
        "l2_norm" => l2_norm,
        "local_response_norm" => local_response_norm,
        _ => return None,
    })
}

fn layer_norm(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let axes = r.axes(op, "axes", r.rank(x))?;
    let eps = r.float(op, "epsilon", 1e-5)?;
    let mut operands = vec![x];
    if r.has(op, "gamma") || r.has(op, "beta") {
        let extents: Vec<usize> = axes.iter().map(|&a| r.b.shape(x)[a]).collect();
        let ty = TensorType::new(r.b.f.dtype(x), extents);
        for (input, absent) in [("gamma", 1.0), ("beta", 0.0)] {
            let v = r.operand_if(op, input)?;
            operands.push(v.map_or_else(|| r.b.literal(&ty, vec![absent]), Ok)?);
        }
    }
    Ok(vec![r.in_one_dtype(&operands, |r, v| Ok(r.b.op(LayerNorm { axes, eps }, v)?))?])
}

/// A vector over the channels (axis 1), shaped to broadcast with x.
fn channels(r: &mut Raise, x: ValueId, v: ValueId) -> Result<ValueId> {
    let &[_, count, ref spatial @ ..] = r.b.shape(x) else { bail!("{}: expected channels on axis 1", r.b.f.ty(x)) };
    if r.b.shape(v) != [count] {
        bail!("a vector {} for {count} channels of {}", r.b.f.ty(v), r.b.f.ty(x));
    }
    let shape: Vec<usize> = [1, count].into_iter().chain(spatial.iter().map(|_| 1)).collect();
    Ok(r.b.reshape(v, &shape)?)
}

/// y·gamma + beta over the channels; either may be absent.
fn affine(r: &mut Raise, mut y: ValueId, gamma: Option<ValueId>, beta: Option<ValueId>) -> Result<ValueId> {
    if let Some(gamma) = gamma {
        let gamma = channels(r, y, gamma)?;
        y = r.b.mul(y, gamma)?;
    }
    if let Some(beta) = beta {
        let beta = channels(r, y, beta)?;
        y = r.b.add(y, beta)?;
    }
    Ok(y)
}

/// (x − mean)/√(variance + epsilon)·gamma + beta, all given.
fn batch_norm(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let (x, mean, variance) = (r.operand(op, "x")?, r.operand(op, "mean")?, r.operand(op, "variance")?);
    let (gamma, beta) = (r.operand_if(op, "gamma")?, r.operand_if(op, "beta")?);
    let eps = r.float(op, "epsilon", 1e-5)?;
    let operands: Vec<ValueId> = [x, mean, variance].into_iter().chain(gamma).chain(beta).collect();
    let y = r.in_one_dtype(&operands, |r, v| {
        let [x, mean, variance, rest @ ..] = v else { bail!("too few operands") };
        let mean = channels(r, *x, *mean)?;
        let variance = channels(r, *x, *variance)?;
        let variance = r.b.add_scalar(variance, eps)?;
        let scale = r.b.unary(Unary::Rsqrt, variance)?;
        let centred = r.b.sub(*x, mean)?;
        let y = r.b.mul(centred, scale)?;
        let mut rest = rest.iter().copied();
        let (gamma, beta) = (gamma.and_then(|_| rest.next()), beta.and_then(|_| rest.next()));
        affine(r, y, gamma, beta)
    })?;
    Ok(vec![y])
}

/// A layer norm over the spatial axes, gamma and beta over the channels.
fn instance_norm(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let (gamma, beta) = (r.operand_if(op, "gamma")?, r.operand_if(op, "beta")?);
    let eps = r.float(op, "epsilon", 1e-5)?;
    let operands: Vec<ValueId> = [x].into_iter().chain(gamma).chain(beta).collect();
    let y = r.in_one_dtype(&operands, |r, v| {
        let [x, rest @ ..] = v else { bail!("too few operands") };
        let axes: Vec<usize> = (2..r.rank(*x)).collect();
        let y = r.b.layer_norm(*x, &axes, eps, None)?;
        let mut rest = rest.iter().copied();
        let (gamma, beta) = (gamma.and_then(|_| rest.next()), beta.and_then(|_| rest.next()));
        affine(r, y, gamma, beta)
    })?;
    Ok(vec![y])
}

/// x/√(Σ x² + epsilon) over the last three axes.
fn l2_norm(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let rank = r.rank(x);
    if rank < 3 {
        bail!("{}: expected rank 3 or more", r.b.f.ty(x));
    }
    let eps = r.float(op, "epsilon", 1e-6)?;
    let square = r.b.unary(Unary::Square, x)?;
    let sum = r.b.reduce(ReduceKind::Sum, square, &[rank - 3, rank - 2, rank - 1], true)?;
    let sum = r.b.add_scalar(sum, eps)?;
    let scale = r.b.unary(Unary::Rsqrt, sum)?;
    Ok(vec![r.b.mul(x, scale)?])
}

/// x/(k + alpha/size·Σ x²)^beta, the sum over `size` channels around each one.
fn local_response_norm(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let size = usize::try_from(r.int(op, "size", None)?)?;
    let (alpha, beta, k) = (r.float(op, "alpha", 1e-4)?, r.float(op, "beta", 0.75)?, r.float(op, "k", 1.0)?);
    let shape = r.b.shape(x).to_vec();
    let &[_, channels, ..] = &shape[..] else { bail!("{}: expected channels on axis 1", r.b.f.ty(x)) };
    if size == 0 || size > 2 * channels + 1 {
        bail!("a window of {size} for {channels} channels");
    }
    let square = r.b.unary(Unary::Square, x)?;
    let border = |count: usize| (0..shape.len()).map(|i| if i == 1 { count } else { 0 }).collect::<Vec<_>>();
    let padded = r.b.pad(square, &border(size / 2), &border((size - 1) / 2), 0.0)?;
    let mut sum = r.b.slice(padded, 1, 0, channels)?;
    for shift in 1..size {
        let next = r.b.slice(padded, 1, shift, shift + channels)?;
        sum = r.b.add(sum, next)?;
    }
    let sum = r.b.mul_scalar(sum, alpha / size as f64)?;
    let sum = r.b.add_scalar(sum, k)?;
    let beta = r.b.scalar_like(sum, beta)?;
    let below = r.b.binary(Binary::Pow, sum, beta)?;
    Ok(vec![r.b.div(x, below)?])
}
