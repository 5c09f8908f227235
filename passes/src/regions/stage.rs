//! Stages of low resolution: a convolution that takes s×s tokens to one, and a product that takes one to s×s and is added to
//! what entered.

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
    /// The sum on the way up; none in a function that ends inside.
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
    order
        .iter()
        .filter_map(|&v| down(f, v))
        .map(|s| Stage { up: order.iter().copied().find(|&v| is_up(f, v, &s)), ..s })
        .collect()
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

fn is_up(f: &Function, v: ValueId, stage: &Stage) -> bool {
    let (Op::Binary(Binary::Add), &[a, b]) = (f.op(v), &f.operands(v)[..]) else { return false };
    [(a, b), (b, a)].into_iter().any(|(x, y)| {
        let y = under_layout(f, y);
        let Op::Linear(_) = f.op(y) else { return false };
        let low = f.shape(f.operands(y)[0]);
        let tokens: usize = low[..low.len() - 1].iter().product();
        under_layout(f, x) == stage.entered && tokens == stage.tokens && f.ty(y).elements() == f.ty(x).elements()
    })
}

/// The innermost stage that `v` lies in: the last one with its number of tokens that it depends on.
pub(super) fn of(f: &Function, stages: &[Stage], v: ValueId) -> Option<usize> {
    let shape = f.shape(v);
    let tokens: usize = shape[..shape.len().saturating_sub(1)].iter().product();
    let mut seen = HashSet::new();
    let mut stack = vec![v];
    while let Some(at) = stack.pop() {
        if seen.insert(at) {
            stack.extend(f.operands(at));
        }
    }
    (0..stages.len()).rev().find(|&i| stages[i].tokens == tokens && seen.contains(&stages[i].down))
}
