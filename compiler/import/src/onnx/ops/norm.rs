//! Norms and softmax.

use s2dit_ir::ops::{Binary, LayerNorm, ReduceKind, Softmax, Unary};

use super::Handler;
use crate::Value;
use crate::onnx::node::{Made, Node, Stop, axes, axis, broken, not_read, size};
use crate::onnx::walk::Walk;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "BatchNormalization" => batch_norm,
        "GroupNormalization" => group_norm,
        "InstanceNormalization" => instance_norm,
        "LayerNormalization" => layer_norm,
        "LpNormalization" => lp_norm,
        "MeanVarianceNormalization" => mean_variance,
        "RMSNormalization" => rms_norm,
        // ONNX Runtime's own, which it puts into the standard domain.
        "SimplifiedLayerNormalization" => rms_norm,
        "Softmax" | "LogSoftmax" => softmax,
        _ => return None,
    })
}

impl Walk<'_> {
    /// Layer norm over the axes from `first` on, with gain and bias of their extents, as far as they are given.
    pub(super) fn layer_norm(
        &mut self,
        x: &Value,
        first: usize,
        eps: f64,
        gain: Option<&Value>,
        bias: Option<&Value>,
    ) -> Result<Value, Stop> {
        let shape = self.t.shape(x);
        let norm = LayerNorm { axes: (first..shape.len()).collect(), eps };
        let extents = &shape[first..];
        let fits = |w: &Walk, v: &Value| w.t.shape(v) == extents;
        // The format wants a gain where PyTorch has none: exporters write ones.
        let ones = match gain {
            Some(gain) => self.numbers(gain)?.is_some_and(|t| t.data.iter().all(|x| *x == 1.0)),
            None => false,
        };
        match (gain, bias) {
            (None, None) => Ok(self.t.op(norm, &[x])?),
            (Some(_), None) if ones => Ok(self.t.op(norm, &[x])?),
            (Some(gain), Some(bias)) if fits(self, gain) && fits(self, bias) => {
                let (gain, bias) = (gain.clone(), bias.clone());
                Ok(self.t.op(norm, &[x, &gain, &bias])?)
            }
            (gain, bias) => {
                let mut y = self.t.op(norm, &[x])?;
                if let Some(gain) = gain {
                    y = self.binary(Binary::Mul, &y, gain)?;
                }
                match bias {
                    Some(bias) => self.binary(Binary::Add, &y, bias),
                    None => Ok(y),
                }
            }
        }
    }

    /// `x · rsqrt(mean(x²) + eps) · gain` over the axes from `first` on.
    pub(super) fn rms_norm(&mut self, x: &Value, first: usize, eps: f64, gain: Option<&Value>) -> Result<Value, Stop> {
        let over: Vec<usize> = (first..self.t.shape(x).len()).collect();
        let square = self.unary(Unary::Square, x)?;
        let mean = self.reduce(ReduceKind::Mean, &square, &over, true)?;
        let mean = self.with(Binary::Add, &mean, eps)?;
        let inverse = self.unary(Unary::Rsqrt, &mean)?;
        let y = self.binary(Binary::Mul, x, &inverse)?;
        match gain {
            Some(gain) => self.binary(Binary::Mul, &y, gain),
            None => Ok(y),
        }
    }

    /// A tensor of the channels of `x`, along its axis 1.
    fn channels(&mut self, x: &Value, v: &Value) -> Result<Value, Stop> {
        let mut shape = vec![1; self.t.shape(x).len()];
        shape[1] = self.t.ty(v).elements();
        Ok(self.t.reshape(v, &shape)?)
    }

    /// Norm over groups of channels `[N, C, …]` and all places, without gain and bias.
    pub(super) fn grouped(&mut self, x: &Value, groups: usize, eps: f64) -> Result<Value, Stop> {
        let shape = self.t.shape(x);
        let [batch, channels, places @ ..] = &shape[..] else { broken!("an operand of rank {}", shape.len()) };
        if groups == 0 || channels % groups != 0 {
            broken!("{groups} groups of {channels} channels");
        }
        let all = places.iter().product::<usize>();
        let y = self.t.reshape(x, &[*batch, groups, channels / groups * all])?;
        let y = self.t.op(LayerNorm { axes: vec![2], eps }, &[&y])?;
        Ok(self.t.reshape(&y, &shape)?)
    }

    /// `x·gain + bias`, both a number a channel.
    fn affine(&mut self, x: &Value, gain: &Value, bias: &Value) -> Result<Value, Stop> {
        let (gain, bias) = (self.channels(x, gain)?, self.channels(x, bias)?);
        let y = self.binary(Binary::Mul, x, &gain)?;
        self.binary(Binary::Add, &y, &bias)
    }
}

/// The norm of a finished model: with means and variances that are known.
fn batch_norm(w: &mut Walk, n: &Node) -> Made {
    if n.int("training_mode", 0)? != 0 {
        not_read!("a model that is being trained");
    }
    let x = n.input(0)?;
    if w.t.shape(x).len() < 2 {
        broken!("an operand of rank {}", w.t.shape(x).len());
    }
    let (gain, bias, mean, variance) = (n.input(1)?, n.input(2)?, n.input(3)?, n.input(4)?);
    let deviation = w.with(Binary::Add, variance, n.epsilon(1e-5)?)?;
    let inverse = w.unary(Unary::Rsqrt, &deviation)?;
    let gain = w.binary(Binary::Mul, gain, &inverse)?;
    let shift = w.binary(Binary::Mul, mean, &gain)?;
    let bias = w.binary(Binary::Sub, bias, &shift)?;
    Ok(vec![w.affine(x, &gain, &bias)?])
}

/// Gain and bias are a number a group below opset 21, a number a channel since.
fn group_norm(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?;
    let groups = size(n.int("num_groups", 0)?, "groups:")?;
    let y = w.grouped(x, groups, n.epsilon(1e-5)?)?;
    let channels = w.t.shape(x)[1];
    let each = |w: &mut Walk, v: &Value| -> Result<Value, Stop> {
        if w.t.ty(v).elements() == channels {
            return Ok(v.clone());
        }
        let v = w.t.reshape(v, &[groups, 1])?;
        let v = w.t.broadcast(&v, &[groups, channels / groups])?;
        Ok(w.t.reshape(&v, &[channels])?)
    };
    let (gain, bias) = (each(w, n.input(1)?)?, each(w, n.input(2)?)?);
    Ok(vec![w.affine(&y, &gain, &bias)?])
}

fn instance_norm(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?;
    let Some(channels) = w.t.shape(x).get(1).copied() else { broken!("an operand of rank 1") };
    let y = w.grouped(x, channels, n.epsilon(1e-5)?)?;
    Ok(vec![w.affine(&y, n.input(1)?, n.input(2)?)?])
}

fn layer_norm(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?;
    let rank = w.t.shape(x).len();
    let first = axis(n.int("axis", -1)?, rank)?;
    let eps = n.epsilon(1e-5)?;
    let y = w.layer_norm(x, first, eps, Some(n.input(1)?), n.optional(2))?;
    if !n.wants(1) && !n.wants(2) {
        return Ok(vec![y]);
    }
    let over: Vec<usize> = (first..rank).collect();
    let mean = w.reduce(ReduceKind::Mean, x, &over, true)?;
    let centred = w.binary(Binary::Sub, x, &mean)?;
    let square = w.unary(Unary::Square, &centred)?;
    let variance = w.reduce(ReduceKind::Mean, &square, &over, true)?;
    let variance = w.with(Binary::Add, &variance, eps)?;
    let inverse = w.unary(Unary::Rsqrt, &variance)?;
    Ok(vec![y, mean, inverse])
}

/// x over its norm along an axis.
fn lp_norm(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?;
    let axis = axis(n.int("axis", -1)?, w.t.shape(x).len())?;
    let norm = match n.int("p", 2)? {
        1 => {
            let y = w.unary(Unary::Abs, x)?;
            w.reduce(ReduceKind::Sum, &y, &[axis], true)?
        }
        2 => {
            let y = w.unary(Unary::Square, x)?;
            let y = w.reduce(ReduceKind::Sum, &y, &[axis], true)?;
            w.unary(Unary::Sqrt, &y)?
        }
        other => broken!("p is {other}, expected 1 or 2"),
    };
    // Nothing over nothing is nothing.
    let norm = w.with(Binary::Maximum, &norm, 1e-12)?;
    Ok(vec![w.binary(Binary::Div, x, &norm)?])
}

fn mean_variance(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?;
    let list = n.ints("axes")?.unwrap_or_else(|| vec![0, 2, 3]);
    let over = axes(&list, w.t.shape(x).len())?;
    // (x − mean) / (√var + 1e-9)
    let mean = w.reduce(ReduceKind::Mean, x, &over, true)?;
    let centred = w.binary(Binary::Sub, x, &mean)?;
    let square = w.unary(Unary::Square, &centred)?;
    let variance = w.reduce(ReduceKind::Mean, &square, &over, true)?;
    let deviation = w.unary(Unary::Sqrt, &variance)?;
    let deviation = w.with(Binary::Add, &deviation, 1e-9)?;
    Ok(vec![w.binary(Binary::Div, &centred, &deviation)?])
}

fn rms_norm(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?;
    let first = axis(n.int("axis", -1)?, w.t.shape(x).len())?;
    if n.wants(1) {
        not_read!("the inverse of the mean square");
    }
    Ok(vec![w.rms_norm(x, first, n.epsilon(1e-5)?, n.optional(1))?])
}

/// Below opset 13 all axes from `axis` on are one.
fn softmax(w: &mut Walk, n: &Node) -> Made {
    let x = n.input(0)?.clone();
    let shape = w.t.shape(&x);
    let flat = n.version < 13;
    let at = axis(n.int("axis", if flat { 1 } else { -1 })?, shape.len())?;
    let (x, at) = if flat && at + 1 < shape.len() {
        let rows = shape[..at].iter().product();
        (w.t.reshape(&x, &[rows, shape[at..].iter().product()])?, 1)
    } else {
        (x, at)
    };
    let y = if n.op() == "Softmax" {
        w.t.op(Softmax { axis: at }, &[&x])?
    } else {
        // x − max − ln Σ e^(x − max)
        let most = w.reduce(ReduceKind::Max, &x, &[at], true)?;
        let centred = w.binary(Binary::Sub, &x, &most)?;
        let y = w.unary(Unary::Exp, &centred)?;
        let y = w.reduce(ReduceKind::Sum, &y, &[at], true)?;
        let y = w.unary(Unary::Log, &y)?;
        w.binary(Binary::Sub, &centred, &y)?
    };
    Ok(vec![w.t.reshape(&y, &shape)?])
}
