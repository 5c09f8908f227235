//! Activations: functions of single elements with parameters of their own.

use anyhow::{Result, bail};
use s2dit_ir::ValueId;
use s2dit_ir::ops::{Binary, Compare, Select, Unary};

use super::{Handler, Raise};
use crate::coreml::proto::Operation;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "clamped_relu" => clamped_relu,
        "elu" => elu,
        "leaky_relu" => leaky_relu,
        "linear_activation" => linear_activation,
        "prelu" => prelu,
        "relu6" => relu6,
        "scaled_tanh" => scaled_tanh,
        "sigmoid_hard" => sigmoid_hard,
        "softplus_parametric" => softplus_parametric,
        "softsign" => softsign,
        "threshold" => threshold,
        "thresholded_relu" => thresholded_relu,
        _ => return None,
    })
}

/// x where it is not negative, and elsewhere `negative`.
fn sides(r: &mut Raise, x: ValueId, positive: ValueId, negative: ValueId) -> Result<ValueId> {
    let zero = r.b.scalar_like(x, 0.0)?;
    let is_positive = r.b.op(Compare::GreaterEqual, &[x, zero])?;
    Ok(r.b.op(Select {}, &[is_positive, positive, negative])?)
}

/// min(x, beta) where x ≥ 0, min(alpha·x, beta) elsewhere.
fn clamped_relu(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let (alpha, beta) = (r.float(op, "alpha", 0.0)?, r.float(op, "beta", 0.0)?);
    let sloped = r.b.mul_scalar(x, alpha)?;
    let y = sides(r, x, x, sloped)?;
    let beta = r.b.scalar_like(x, beta)?;
    Ok(vec![r.b.binary(Binary::Minimum, y, beta)?])
}

/// alpha·(e^x − 1) where x is negative.
fn elu(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let alpha = r.float(op, "alpha", 1.0)?;
    let exp = r.b.unary(Unary::Exp, x)?;
    let less = r.b.add_scalar(exp, -1.0)?;
    let negative = r.b.mul_scalar(less, alpha)?;
    Ok(vec![sides(r, x, x, negative)?])
}

fn leaky_relu(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let alpha = r.float(op, "alpha", 0.01)?;
    let negative = r.b.mul_scalar(x, alpha)?;
    Ok(vec![sides(r, x, x, negative)?])
}

/// alpha·x + beta
fn linear_activation(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let (alpha, beta) = (r.float(op, "alpha", 1.0)?, r.float(op, "beta", 0.0)?);
    let y = r.b.mul_scalar(x, alpha)?;
    Ok(vec![r.b.add_scalar(y, beta)?])
}

/// A parameter with one number a channel, shaped to broadcast with x. Channels are on axis 1.
fn of_channels(r: &mut Raise, op: &Operation, input: &str, x: ValueId) -> Result<ValueId> {
    let v = r.operand(op, input)?;
    let &[_, channels, ref spatial @ ..] = r.b.shape(x) else { bail!("{}: expected rank 2 or more", r.b.f.ty(x)) };
    if r.b.shape(v) != [channels] && r.b.f.ty(v).elements() != 1 {
        bail!("input `{input}`: found {}, expected a number for each of {channels} channels", r.b.f.ty(v));
    }
    let count = r.b.f.ty(v).elements();
    let shape: Vec<usize> = [1, count].into_iter().chain(spatial.iter().map(|_| 1)).collect();
    Ok(r.b.reshape(v, &shape)?)
}

fn prelu(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let alpha = of_channels(r, op, "alpha", x)?;
    let negative = r.b.mul(x, alpha)?;
    Ok(vec![sides(r, x, x, negative)?])
}

fn relu6(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let y = r.b.unary(Unary::Relu, x)?;
    let six = r.b.scalar_like(x, 6.0)?;
    Ok(vec![r.b.binary(Binary::Minimum, y, six)?])
}

/// alpha·tanh(beta·x)
fn scaled_tanh(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let (alpha, beta) = (r.float(op, "alpha", 1.0)?, r.float(op, "beta", 1.0)?);
    let y = r.b.mul_scalar(x, beta)?;
    let y = r.b.unary(Unary::Tanh, y)?;
    Ok(vec![r.b.mul_scalar(y, alpha)?])
}

/// alpha·x + beta between 0 and 1.
fn sigmoid_hard(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let (alpha, beta) = (r.float(op, "alpha", 0.2)?, r.float(op, "beta", 0.5)?);
    Ok(vec![hard_sigmoid(r, x, alpha, beta)?])
}

/// min(max(alpha·x + beta, 0), 1)
pub(super) fn hard_sigmoid(r: &mut Raise, x: ValueId, alpha: f64, beta: f64) -> Result<ValueId> {
    let y = r.b.mul_scalar(x, alpha)?;
    let y = r.b.add_scalar(y, beta)?;
    let y = r.b.unary(Unary::Relu, y)?;
    let one = r.b.scalar_like(x, 1.0)?;
    Ok(r.b.binary(Binary::Minimum, y, one)?)
}

/// alpha·softplus(beta·x), with a pair of numbers a channel.
fn softplus_parametric(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let (alpha, beta) = (of_channels(r, op, "alpha", x)?, of_channels(r, op, "beta", x)?);
    let y = r.b.mul(x, beta)?;
    let y = r.b.unary(Unary::Softplus, y)?;
    Ok(vec![r.b.mul(y, alpha)?])
}

/// x/(1 + |x|)
fn softsign(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let size = r.b.unary(Unary::Abs, x)?;
    let below = r.b.add_scalar(size, 1.0)?;
    Ok(vec![r.b.div(x, below)?])
}

/// max(x, alpha)
fn threshold(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let alpha = r.float(op, "alpha", 0.0)?;
    let alpha = r.b.scalar_like(x, alpha)?;
    Ok(vec![r.b.binary(Binary::Maximum, x, alpha)?])
}

/// x where it is at least alpha, and elsewhere 0.
fn thresholded_relu(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let alpha = r.float(op, "alpha", 1.0)?;
    let (alpha, zero) = (r.b.scalar_like(x, alpha)?, r.b.scalar_like(x, 0.0)?);
    let kept = r.b.op(Compare::GreaterEqual, &[x, alpha])?;
    Ok(vec![r.b.op(Select {}, &[kept, x, zero])?])
}
