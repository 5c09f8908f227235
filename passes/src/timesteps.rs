//! Tables for a known list of timesteps.
//!
//! A distilled sampler asks for four timesteps and no others. What depends on the timestep and constants alone is then a table with
//! one row a timestep; the row is chosen by a one-hot product, which a Neural Engine does in fp16 where sinusoids of 1000 rad need
//! fp32 and its CPU:
//!
//! ```text
//! %e = … cos, sin, linear, silu of %t          %d = abs(sub(%t, [t₁ … t_K]))
//! %y = linear(%e, %w) : f32[1, W]         →    %h = relu(minimum(2 − %d·4/gap, 1)) : f32[1, K]
//!                                              %y = matmul(%h, [y(t₁); …; y(t_K)]) : f32[1, W]
//! ```
//! `gap` is the smallest distance between two listed timesteps: a timestep within a quarter of it is the listed one, so that one rounded
//! to fp16 selects its row exactly. The rows are the same graph on literal timesteps, a constant that a backend evaluates in float64.
//!
//! The tables lie behind the last op that is more than arithmetic and shape (in S2DiT `linear_2` and `time_proj`): each block's sum with
//! its own table stays a sum, because the sums of 24 blocks would be 24 tables.

mod rows;

use std::collections::{HashMap, HashSet};

use s2dit_ir::ops::{Binary, OpError, Unary};
use s2dit_ir::{Builder, DType, Function, Module, Op, TensorType, ValueId};

use crate::Property;
use crate::pass::{Pass, PassKind, Run};

use rows::Rows;

/// The pass.
pub static PASS: PassKind = PassKind {
    name: "timesteps",
    doc: "what depends on the timestep alone is a table with a row for each timestep of a list",
    options: "T,…: the timesteps",
    needs: &[Property::Fp32],
    run: Run::Options(|written| {
        let read = |text: &&str| text.parse().map_err(|_| format!("found `{text}`, expected a timestep such as 750"));
        Ok(pass(&written.iter().map(read).collect::<Result<Vec<f64>, String>>()?))
    }),
    ..PassKind::PLAIN
};

/// The pass for a list of timesteps.
pub fn pass(listed: &[f64]) -> Pass {
    let (listed, written) = (listed.to_vec(), listed.iter().map(f64::to_string).collect::<Vec<_>>());
    Pass::new(&PASS, written.join(","), move |module, _| Ok(run(module, &listed)?))
}

/// Runs on every function that has the time of the module's interface as a parameter, one f32 element; returns the number of tables.
///
/// # Errors
/// No timesteps, or some too near to be told apart in fp16.
pub fn run(module: &mut Module, timesteps: &[f64]) -> Result<usize, OpError> {
    let gap = gap(timesteps)?;
    let Some(parameter) = module.interface.time().map(str::to_owned) else { return Ok(0) };
    let mut changes = 0;
    for f in &mut module.functions {
        let named = |p: &ValueId| f.node(*p).name.as_deref() == Some(parameter.as_str());
        let Some(t) = f.params().iter().copied().find(named) else { continue };
        if f.dtype(t) != DType::F32 || f.ty(t).elements() != 1 {
            continue;
        }
        let depends = dependence(f, t);
        let frontier = frontier(f, t, &depends);
        if frontier.is_empty() {
            continue;
        }
        let one_hot = one_hot(f, t, timesteps, gap)?;
        let mut rows = Rows::new(t, timesteps, &depends);
        // All of them before the first is replaced: they share what they are made of.
        let tables = frontier.iter().map(|&v| rows.table(f, v)).collect::<Result<Vec<_>, _>>()?;
        for (v, table) in frontier.into_iter().zip(tables) {
            let scope = f.node(v).scope.clone();
            let shape = f.shape(v).to_vec();
            let mut b = Builder::new(f);
            b.enter(&scope);
            let mut y = b.matmul(one_hot, table)?;
            if b.shape(y) != shape {
                y = b.reshape(y, &shape)?;
            }
            f.replace_uses(v, y);
            changes += 1;
        }
        f.remove_dead();
    }
    Ok(changes)
}

/// Whether a list of timesteps can be tables.
///
/// # Errors
/// No timesteps, or some too near to be told apart in fp16.
pub fn check(timesteps: &[f64]) -> Result<(), OpError> {
    gap(timesteps).map(|_| ())
}

/// The inputs that a value depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depends {
    /// Nothing: it is a constant.
    Constant,
    /// The timestep.
    Timestep,
    /// The value depends on other parameters or states too.
    More,
}

fn dependence(f: &Function, t: ValueId) -> HashMap<ValueId, Depends> {
    let mut depends: HashMap<ValueId, Depends> = HashMap::new();
    for v in f.order() {
        let operands: Vec<Depends> = f.operands(v).iter().map(|o| depends[o]).collect();
        let on = match f.op(v) {
            _ if v == t => Depends::Timestep,
            Op::Input(_) | Op::State(_) => Depends::More,
            _ if operands.contains(&Depends::More) => Depends::More,
            _ if operands.contains(&Depends::Timestep) => Depends::Timestep,
            _ => Depends::Constant,
        };
        depends.insert(v, on);
    }
    depends
}

/// The values that become tables: seen from outside through arithmetic and shape, the first other ops that depend on the timestep.
fn frontier(f: &Function, t: ValueId, depends: &HashMap<ValueId, Depends>) -> Vec<ValueId> {
    let on_timestep = |v: &ValueId| depends[v] == Depends::Timestep;
    let order = f.order();
    let outside = order.iter().filter(|v| depends[v] == Depends::More).flat_map(|&v| f.operands(v));
    let returned = f.results.iter().chain(&f.updates).map(|(_, v)| *v);
    let mut ahead: Vec<ValueId> = outside.chain(returned).filter(on_timestep).collect();
    let (mut seen, mut tables) = (HashSet::new(), HashSet::new());
    while let Some(v) = ahead.pop() {
        if v == t || !seen.insert(v) {
            continue;
        }
        if is_light(f.op(v)) {
            ahead.extend(f.operands(v).into_iter().filter(on_timestep));
        } else {
            tables.insert(v);
        }
    }
    order.into_iter().filter(|v| tables.contains(v)).collect()
}

/// Arithmetic and shape: cheap to keep, and their results may be many tables where their operands are one.
fn is_light(op: &Op) -> bool {
    match op {
        Op::Binary(_) | Op::Reshape(_) | Op::Transpose(_) | Op::Slice(_) | Op::BroadcastTo(_) | Op::Cast(_) => true,
        Op::Unary(u) => matches!(u, Unary::Neg | Unary::Identity),
        _ => false,
    }
}

/// `[1, K]`: 1 at the listed timestep, 0 elsewhere; 0 everywhere for a timestep that is not near a listed one.
fn one_hot(f: &mut Function, t: ValueId, timesteps: &[f64], gap: f64) -> Result<ValueId, OpError> {
    let scope = f.users(t).first().map(|(user, _)| f.node(*user).scope.clone()).unwrap_or_default();
    let mut b = Builder::new(f);
    b.enter(&scope);
    let t = b.reshape(t, &[1, 1])?;
    let listed = b.literal(&TensorType::new(DType::F32, [1, timesteps.len()]), timesteps.to_vec())?;
    let d = b.sub(t, listed)?;
    let d = b.unary(Unary::Abs, d)?;
    let h = b.mul_scalar(d, -4.0 / gap)?;
    let h = b.add_scalar(h, 2.0)?;
    let one = b.scalar_like(h, 1.0)?;
    let h = b.binary(Binary::Minimum, h, one)?;
    b.unary(Unary::Relu, h)
}

/// Nearer timesteps would scale distances out of fp16.
const LEAST_GAP: f64 = 0.25;
/// The range of timesteps: the gap of a list of one.
const RANGE: f64 = 1000.0;

/// The smallest distance between two timesteps.
fn gap(timesteps: &[f64]) -> Result<f64, OpError> {
    if timesteps.is_empty() || timesteps.iter().any(|t| !t.is_finite()) {
        return Err(OpError::new(format!("timesteps: found {timesteps:?}, expected finite numbers, at least one")));
    }
    let mut sorted = timesteps.to_vec();
    sorted.sort_by(f64::total_cmp);
    let nearest = sorted.windows(2).min_by(|a, b| (a[1] - a[0]).total_cmp(&(b[1] - b[0])));
    let gap = nearest.map_or(RANGE, |pair| pair[1] - pair[0]);
    // Rounding to fp16 must stay within the quarter.
    let rounding = sorted.iter().map(|t| (DType::F16.round(*t) - t).abs()).fold(0.0, f64::max);
    let least = LEAST_GAP.max(4.0 * rounding);
    match nearest {
        Some(pair) if gap < least => Err(OpError::new(format!(
            "timesteps: found {} and {}, expected at least {least:.2} between two: fp16 cannot tell them apart",
            pair[1], pair[0]
        ))),
        _ => Ok(gap),
    }
}
