//! Stages of low resolution: a convolution that takes s×s tokens to one, and a product that takes one to s×s and is added to
//! what entered, unless the stage ends the network.

use std::collections::HashSet;

use s2dit_ir::ops::Binary;
use s2dit_ir::{Function, Op, ValueId};

/// A stage of SSA blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The tokens that enter, at high resolution, under reshapes and transposes.
    pub entered: ValueId,
    /// The convolution on the way down.
    pub down: ValueId,
    /// Tokens inside.
    pub tokens: usize,
    /// The value on the way up: the sum with what entered, or, at the end of a network, the tokens alone. None in a function that
    /// ends inside.
    pub up: Option<ValueId>,
}

/// The value under all reshapes and transposes.
pub(super) fn under_layout(f: &Function, mut v: ValueId) -> ValueId {
    while let Op::Reshape(_) | Op::Transpose(_) = f.op(v) {
        v = f.operands(v)[0];
    }
    v
}

/// Every stage, in order.
pub(super) fn stages(f: &Function) -> Vec<Stage> {
    let order = f.order();
    let downs = order.iter().filter_map(|&v| down(f, v));
    downs.map(|s| Stage { up: order.iter().find_map(|&v| up(f, v, &s)), ..s }).collect()
}

/// A 2-D convolution whose step is its kernel, over tokens.
fn down(f: &Function, v: ValueId) -> Option<Stage> {
    let Op::Conv(c) = f.op(v) else { return None };
    let operands = f.operands(v);
    let (x, w) = (operands[0], f.shape(operands[1]));
    let entered = under_layout(f, x);
    let shrinks = c.strides.len() == 2 && w[2..] == c.strides[..] && c.strides.iter().any(|&s| s > 1);
    let width = f.shape(v)[1];
    let tokens = f.ty(v).elements() / width.max(1);
    (shrinks && c.groups == 1 && entered != x).then_some(Stage { entered, down: v, tokens, up: None })
}

/// What becomes of the product `linear` if it leads out of the stage: s² times its width on the stage's tokens, moved to where the tokens
/// are, cut to their grid, and added to what entered if it is.
fn up(f: &Function, linear: ValueId, stage: &Stage) -> Option<ValueId> {
    let Op::Linear(_) = f.op(linear) else { return None };
    let x = f.operands(linear)[0];
    let (low, high) = (f.shape(x), f.shape(linear));
    let squared: usize = f.shape(f.operands(stage.down)[1])[2..].iter().product();
    let leads_out = tokens_of(low) == stage.tokens
        && high.last() == low.last().map(|d| d * squared).as_ref()
        && before(f, x).contains(&stage.down);
    if !leads_out {
        return None;
    }
    let mut v = linear;
    let mut moved = false;
    loop {
        let users = f.users(v);
        match users[..] {
            [(user, _)] if matches!(f.op(user), Op::Reshape(_) | Op::Transpose(_) | Op::Slice(_)) => {
                moved |= matches!(f.op(user), Op::Transpose(_));
                v = user;
            }
            [(user, at)] if matches!(f.op(user), Op::Binary(Binary::Add)) => {
                let other = f.operands(user)[1 - at];
                return (moved && under_layout(f, other) == stage.entered).then_some(user);
            }
            _ => return moved.then_some(v),
        }
    }
}

fn tokens_of(shape: &[usize]) -> usize {
    shape[..shape.len().saturating_sub(1)].iter().product()
}

/// `v` and all that it depends on.
fn before(f: &Function, v: ValueId) -> HashSet<ValueId> {
    let mut seen = HashSet::new();
    let mut stack = vec![v];
    while let Some(at) = stack.pop() {
        if seen.insert(at) {
            stack.extend(f.operands(at));
        }
    }
    seen
}

/// The innermost stage that `v` lies in: the last one with its number of tokens that it depends on, before the way up.
pub(super) fn of(f: &Function, stages: &[Stage], v: ValueId) -> Option<usize> {
    let tokens = tokens_of(f.shape(v));
    let seen = before(f, v);
    let inside = |s: &Stage| seen.contains(&s.down) && s.up.is_none_or(|up| !seen.contains(&up));
    (0..stages.len()).rev().find(|&i| stages[i].tokens == tokens && inside(&stages[i]))
}
