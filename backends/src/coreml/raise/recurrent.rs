//! Recurrent layers, unrolled over time: `lstm`, `gru`, `rnn`.
//!
//! x is `[S, B, I]`. The products with x are made for all steps at once, so that a step is one product with the hidden state and a few
//! elementwise ops. `reverse` walks x from its end and returns its states in the order in which they were made.

use anyhow::{Context, Result, bail};
use s2dit_ir::ValueId;
use s2dit_ir::ops::{Binary, Unary};

use super::activation::hard_sigmoid;
use super::{Handler, Raise};
use crate::coreml::proto::Operation;

/// Steps that are unrolled.
const LONGEST: usize = 1 << 14;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "lstm" => lstm,
        "gru" => gru,
        "rnn" => rnn,
        _ => return None,
    })
}

/// A weight or bias in the dtype of x.
fn parameter(r: &mut Raise, op: &Operation, input: &str, x: ValueId) -> Result<Option<ValueId>> {
    let Some(v) = r.operand_if(op, input)? else { return Ok(None) };
    Ok(Some(r.b.cast(v, r.b.f.dtype(x))?))
}

fn required(r: &mut Raise, op: &Operation, input: &str, x: ValueId) -> Result<ValueId> {
    parameter(r, op, input, x)?.with_context(|| format!("input `{input}` is missing"))
}

/// An activation by its name.
fn activated(r: &mut Raise, name: &str, x: ValueId) -> Result<ValueId> {
    Ok(match name.to_ascii_lowercase().as_str() {
        // The scales of `scaled_tanh` are 1 here.
        "tanh" | "scaled_tanh" => r.b.unary(Unary::Tanh, x)?,
        "sigmoid" => r.b.unary(Unary::Sigmoid, x)?,
        "relu" => r.b.unary(Unary::Relu, x)?,
        "linear" => x,
        "hard_sigmoid" | "sigmoid_hard" => hard_sigmoid(r, x, 0.2, 0.5)?,
        other => bail!("unknown activation `{other}`"),
    })
}

/// x·Wᵀ + b of every step, `[S, B, gates·H]`.
fn projected(r: &mut Raise, x: ValueId, weight: ValueId, bias: Option<ValueId>) -> Result<ValueId> {
    let &[steps, _, _] = r.b.shape(x) else { bail!("x is {}, expected rank 3", r.b.f.ty(x)) };
    if steps == 0 || steps > LONGEST {
        bail!("{steps} steps; 1 to {LONGEST} can be run here");
    }
    Ok(r.b.linear(x, weight, bias)?)
}

/// Step `t` of `[S, B, n]`, as `[B, n]`.
fn step(r: &mut Raise, x: ValueId, t: usize) -> Result<ValueId> {
    let shape = r.b.shape(x)[1..].to_vec();
    let y = r.b.slice(x, 0, t, t + 1)?;
    Ok(r.b.reshape(y, &shape)?)
}

/// Gate number `i` of `[B, gates·H]`.
fn gate(r: &mut Raise, x: ValueId, i: usize, hidden: usize) -> Result<ValueId> {
    Ok(r.b.slice(x, 1, i * hidden, (i + 1) * hidden)?)
}

/// The states of all steps, or the last one's, as `[S, B, H]`.
fn sequence(r: &mut Raise, states: &[ValueId], all: bool) -> Result<ValueId> {
    let kept = if all { states } else { &states[states.len() - 1..] };
    super::shape::along(r, kept, 0)
}

fn hidden(r: &Raise, h: ValueId) -> Result<usize> {
    match *r.b.shape(h) {
        [_, hidden] if hidden > 0 => Ok(hidden),
        _ => bail!("a hidden state of {}, expected rank 2", r.b.f.ty(h)),
    }
}

fn is_reverse(direction: &str) -> Result<bool> {
    match direction {
        "forward" => Ok(false),
        "reverse" => Ok(true),
        other => bail!("unknown direction `{other}`"),
    }
}

fn rnn(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let mut h = required(r, op, "initial_h", x)?;
    let (wx, wh) = (required(r, op, "weight_ih", x)?, required(r, op, "weight_hh", x)?);
    let bias = parameter(r, op, "bias", x)?;
    let act = r.text(op, "activation", "tanh")?;
    let reverse = is_reverse(&r.text(op, "direction", "forward")?)?;
    let all = r.flag(op, "output_sequence", false)?;
    let px = projected(r, x, wx, bias)?;
    let steps = r.b.shape(x)[0];
    let mut states = Vec::with_capacity(steps);
    for t in 0..steps {
        let xt = step(r, px, if reverse { steps - 1 - t } else { t })?;
        let ph = r.b.matmul_t(h, wh)?;
        let sum = r.b.add(xt, ph)?;
        h = activated(r, &act, sum)?;
        states.push(h);
    }
    let y = sequence(r, &states, all)?;
    Ok(vec![y, r.b.unary(Unary::Identity, h)?])
}

/// Gates in the order reset, new, update. h' = (1 − z)·o + z·h.
fn gru(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let mut h = required(r, op, "initial_h", x)?;
    let (wx, wh) = (required(r, op, "weight_ih", x)?, required(r, op, "weight_hh", x)?);
    let (bias, input_bias) = (parameter(r, op, "bias", x)?, parameter(r, op, "input_bias", x)?);
    let inner = r.text(op, "recurrent_activation", "sigmoid")?;
    let act = r.text(op, "activation", "tanh")?;
    let reverse = is_reverse(&r.text(op, "direction", "forward")?)?;
    let all = r.flag(op, "output_sequence", false)?;
    let after = r.flag(op, "reset_after", false)?;
    let n = hidden(r, h)?;
    let mut px = projected(r, x, wx, input_bias)?;
    if let (Some(bias), false) = (bias, after) {
        px = r.b.add(px, bias)?;
    }
    // The product with the new gate's weights comes before or after the reset.
    let whole = [r.b.slice(wh, 0, 0, n)?, r.b.slice(wh, 0, 2 * n, 3 * n)?];
    let gates = r.b.concat(&whole, 0)?;
    let new = r.b.slice(wh, 0, n, 2 * n)?;
    let steps = r.b.shape(x)[0];
    let mut states = Vec::with_capacity(steps);
    for t in 0..steps {
        let xt = step(r, px, if reverse { steps - 1 - t } else { t })?;
        let [xr, xo, xz] = [gate(r, xt, 0, n)?, gate(r, xt, 1, n)?, gate(r, xt, 2, n)?];
        let (update, candidate) = if after {
            let ph = r.b.linear(h, wh, bias)?;
            let [hr, ho, hz] = [gate(r, ph, 0, n)?, gate(r, ph, 1, n)?, gate(r, ph, 2, n)?];
            let reset = r.b.add(xr, hr)?;
            let reset = activated(r, &inner, reset)?;
            (r.b.add(xz, hz)?, r.b.mul(reset, ho)?)
        } else {
            let ph = r.b.matmul_t(h, gates)?;
            let [hr, hz] = [gate(r, ph, 0, n)?, gate(r, ph, 1, n)?];
            let reset = r.b.add(xr, hr)?;
            let reset = activated(r, &inner, reset)?;
            let kept = r.b.mul(reset, h)?;
            (r.b.add(xz, hz)?, r.b.matmul_t(kept, new)?)
        };
        let z = activated(r, &inner, update)?;
        let o = r.b.add(xo, candidate)?;
        let o = activated(r, &act, o)?;
        let difference = r.b.sub(h, o)?;
        let moved = r.b.mul(z, difference)?;
        h = r.b.add(o, moved)?;
        states.push(h);
    }
    let y = sequence(r, &states, all)?;
    Ok(vec![y, r.b.unary(Unary::Identity, h)?])
}

/// What one direction of an LSTM has of its own.
struct Lstm {
    weight_ih: ValueId,
    weight_hh: ValueId,
    bias: Option<ValueId>,
    peephole: Option<ValueId>,
    h: ValueId,
    c: ValueId,
    reverse: bool,
}

struct Activations {
    recurrent: String,
    cell: String,
    output: String,
    clip: Option<f64>,
}

fn lstm(r: &mut Raise, op: &Operation) -> Result<Vec<ValueId>> {
    let x = r.operand(op, "x")?;
    let (h, c) = (required(r, op, "initial_h", x)?, required(r, op, "initial_c", x)?);
    let direction = r.text(op, "direction", "forward")?;
    let all = r.flag(op, "output_sequence", false)?;
    let activations = Activations {
        recurrent: r.text(op, "recurrent_activation", "sigmoid")?,
        cell: r.text(op, "cell_activation", "tanh")?,
        output: r.text(op, "activation", "tanh")?,
        clip: r.floats(op, "clip")?.and_then(|clip| clip.first().copied()),
    };
    let one = |r: &mut Raise, suffix: &str, h: ValueId, c: ValueId, reverse: bool| -> Result<Lstm> {
        Ok(Lstm {
            weight_ih: required(r, op, &format!("weight_ih{suffix}"), x)?,
            weight_hh: required(r, op, &format!("weight_hh{suffix}"), x)?,
            bias: parameter(r, op, &format!("bias{suffix}"), x)?,
            peephole: parameter(r, op, &format!("peephole{suffix}"), x)?,
            h,
            c,
            reverse,
        })
    };
    if direction != "bidirectional" {
        let layer = one(r, "", h, c, is_reverse(&direction)?)?;
        let (states, h, c) = layer.run(r, x, &activations)?;
        let y = sequence(r, &states, all)?;
        return Ok(vec![y, r.b.unary(Unary::Identity, h)?, r.b.unary(Unary::Identity, c)?]);
    }
    let width = hidden(r, h)?;
    if !width.is_multiple_of(2) {
        bail!("a hidden state of {} for two directions", r.b.f.ty(h));
    }
    let mut ends = Vec::new();
    for (side, suffix) in ["", "_back"].into_iter().enumerate() {
        let (h, c) = (gate(r, h, side, width / 2)?, gate(r, c, side, width / 2)?);
        let layer = one(r, suffix, h, c, side == 1)?;
        ends.push(layer.run(r, x, &activations)?);
    }
    let [(forward, fh, fc), (backward, bh, bc)] = &ends[..] else { bail!("two directions") };
    let (h, c) = (r.b.concat(&[*fh, *bh], 1)?, r.b.concat(&[*fc, *bc], 1)?);
    let mut states = Vec::with_capacity(forward.len());
    // Both directions' states of one position of x stand together.
    for (f, b) in forward.iter().zip(backward.iter().rev()) {
        states.push(r.b.concat(&[*f, *b], 1)?);
    }
    let y = if all { sequence(r, &states, true)? } else { sequence(r, &[h], true)? };
    Ok(vec![y, r.b.unary(Unary::Identity, h)?, r.b.unary(Unary::Identity, c)?])
}

impl Lstm {
    /// The hidden states in the order in which they are made, the last one, and the last cell state. Gates in the order input, forget,
    /// output, cell.
    fn run(self, r: &mut Raise, x: ValueId, act: &Activations) -> Result<(Vec<ValueId>, ValueId, ValueId)> {
        let (mut h, mut c) = (self.h, self.c);
        let n = hidden(r, h)?;
        let px = projected(r, x, self.weight_ih, self.bias)?;
        let steps = r.b.shape(x)[0];
        let mut states = Vec::with_capacity(steps);
        let peephole = |r: &mut Raise, i: usize| -> Result<Option<ValueId>> {
            Ok(match self.peephole {
                Some(p) => Some(r.b.slice(p, 0, i * n, (i + 1) * n)?),
                None => None,
            })
        };
        let peepholes = [peephole(r, 0)?, peephole(r, 1)?, peephole(r, 2)?];
        let peeked = |r: &mut Raise, gate: ValueId, i: usize, c: ValueId| -> Result<ValueId> {
            let Some(p) = peepholes[i] else { return Ok(gate) };
            let seen = r.b.mul(c, p)?;
            Ok(r.b.add(gate, seen)?)
        };
        for t in 0..steps {
            let xt = step(r, px, if self.reverse { steps - 1 - t } else { t })?;
            let ph = r.b.matmul_t(h, self.weight_hh)?;
            let sum = r.b.add(xt, ph)?;
            let [i, f, o, z] = [gate(r, sum, 0, n)?, gate(r, sum, 1, n)?, gate(r, sum, 2, n)?, gate(r, sum, 3, n)?];
            let i = peeked(r, i, 0, c)?;
            let i = activated(r, &act.recurrent, i)?;
            let f = peeked(r, f, 1, c)?;
            let f = activated(r, &act.recurrent, f)?;
            let z = activated(r, &act.cell, z)?;
            let (kept, new) = (r.b.mul(f, c)?, r.b.mul(i, z)?);
            c = r.b.add(kept, new)?;
            if let Some(clip) = act.clip {
                let (low, high) = (r.b.scalar_like(c, -clip)?, r.b.scalar_like(c, clip)?);
                c = r.b.binary(Binary::Maximum, c, low)?;
                c = r.b.binary(Binary::Minimum, c, high)?;
            }
            let o = peeked(r, o, 2, c)?;
            let o = activated(r, &act.recurrent, o)?;
            let shown = activated(r, &act.output, c)?;
            h = r.b.mul(o, shown)?;
            states.push(h);
        }
        Ok((states, h, c))
    }
}
