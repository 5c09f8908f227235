//! Convolutions along time: the zeros before the chunk become the frames before it. Zeros behind it stay: what the model sees there
//! ([`super::Options::ahead`]).

use s2dit_ir::ops::{Concat, Conv, Slice};
use s2dit_ir::{Op, ValueId};

use super::{SplitError, Splitter, StateKind};

/// Fires on a 3-D `conv` of step 1 in time that keeps the number of frames, on values that depend on the chunk.
pub(super) fn rewrite(s: &mut Splitter, v: ValueId) -> Result<(), SplitError> {
    let f = &s.f;
    let Op::Conv(conv) = f.op(v).clone() else { return Ok(()) };
    let operands = f.operands(v);
    let (x, w) = (operands[0], operands[1]);
    let reach = f.shape(w).get(2).map_or(0, |kt| (kt - 1) * conv.dilations[0]);
    let along_time = conv.strides.len() == 3 && conv.strides[0] == 1;
    if !along_time || !s.has_frames(x, 2) {
        return Ok(());
    }
    let (before, after) = (conv.pad_before[0], conv.pad_after[0]);
    if before == 0 || before + after != reach || (after > 0 && !s.options.ahead) {
        return Ok(());
    }
    let scope = f.node(v).scope.to_string();
    let mut ty = f.ty(x).clone();
    ty.shape[2] = before;
    let (name, tail) = s.state(&scope, "tail", StateKind::Tail, &ty)?;
    let f = &mut s.f;
    let all = f.add(Concat { axis: 2 }.into(), &[tail, x], &scope)?;
    let frames = f.shape(all)[2];
    let last = f.add(Slice::axis(f.shape(all), 2, frames - before, frames).into(), &[all], &scope)?;
    let mut pad_before = conv.pad_before.clone();
    pad_before[0] = 0;
    let mut inputs = operands.clone();
    inputs[0] = all;
    let y = f.add(Conv { pad_before, ..conv }.into(), &inputs, &scope)?;
    s.replace(v, y);
    s.updates.push((name, last));
    Ok(())
}
