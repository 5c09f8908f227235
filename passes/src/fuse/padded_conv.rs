//! A convolution that pads by itself, which is a tensor op.

use s2dit_ir::ops::{Conv, OpError, Pad};
use s2dit_ir::{Function, Op, ValueId};

use super::Rule;
use crate::pattern::Match;

pub(super) const RULE: Rule =
    Rule { name: "conv", formulas: &["conv(pad(x), w, b)", "conv(pad(x), w)"], near: 2, build };

fn build(f: &mut Function, m: &Match, scope: &str) -> Result<ValueId, OpError> {
    let [conv, pad] = m.interior[..] else { return Err(OpError::new("expected a convolution and its padding")) };
    let (Op::Conv(conv), Op::Pad(Pad { before, after, value })) = (f.op(conv).clone(), f.op(pad).clone()) else {
        return Err(OpError::new("expected a convolution and its padding"));
    };
    if value != 0.0 {
        return Err(OpError::new(format!("the padding is of {value}, a convolution's own is of 0")));
    }
    if before[..2] != [0, 0] || after[..2] != [0, 0] {
        return Err(OpError::new("the padding is of the batch or the channels"));
    }
    let sum = |own: &[usize], more: &[usize]| own.iter().zip(&more[2..]).map(|(a, b)| a + b).collect();
    let conv = Conv { pad_before: sum(&conv.pad_before, &before), pad_after: sum(&conv.pad_after, &after), ..conv };
    let mut operands = vec![m.value(f, "x")?, m.value(f, "w")?];
    if m.get("b").is_some() {
        operands.push(m.value(f, "b")?);
    }
    f.add(conv.into(), &operands, scope)
}
