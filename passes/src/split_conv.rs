//! A depthwise convolution over time and space becomes sums of plane convolutions, a frame and a time tap at a time.
//!
//! ```text
//! %c = conv(%x, %w) : f32[1, 8, 2, 4, 4]      %c1 = add(conv(%x1, %w[2]), conv(%x0, %w[1])) : f32[1, 8, 4, 4]
//!      (kernel 3×3×3, two frames before)   →  %c0 = conv(%x0, %w[2])                        : f32[1, 8, 4, 4]
//!                                             %c  = concat of the frames
//! ```
//! ONNX Runtime has fast depthwise kernels for planes only: 3.9 ms became 1.5 for 3×18×32 tokens of width 512 and a 3×3×3 kernel (2 threads, 1.31).
//! Where the frames come from a transpose of tokens, or go to one, the frames themselves are transposed, which touches less memory; taps
//! that meet nothing but padding are left out.

use std::collections::HashMap;

use s2dit_ir::ops::{Concat, Conv, OpError, Transpose};
use s2dit_ir::{Builder, Function, Module, Op, ValueId};

use crate::Property;
use crate::pass::{PassKind, Run};

/// The pass.
pub static PASS: PassKind = PassKind {
    name: "split-conv3d",
    doc: "no depthwise convolution over time",
    needs: &[Property::TokensFirst, Property::Uncompressed],
    run: Run::Plain(run),
    ..PassKind::PLAIN
};

/// Runs on every function; returns the number of convolutions split.
///
/// # Errors
/// None in practice: the new ops have the old ones' types.
pub fn run(module: &mut Module) -> Result<usize, OpError> {
    let mut changes = 0;
    for f in &mut module.functions {
        let depthwise: Vec<ValueId> = f.order().into_iter().filter(|&v| splits(f, v)).collect();
        for v in depthwise {
            split(f, v)?;
            changes += 1;
        }
        f.remove_dead();
    }
    Ok(changes)
}

/// Tokens [1, F, h, w, D] as [1, D, F, h, w], and back.
const TO_CHANNELS: [usize; 5] = [0, 4, 1, 2, 3];
const TO_TOKENS: [usize; 5] = [0, 2, 3, 4, 1];

fn splits(f: &Function, v: ValueId) -> bool {
    let Op::Conv(c) = f.op(v) else { return false };
    let operands = f.operands(v);
    let (x, w) = (f.shape(operands[0]), f.shape(operands[1]));
    let plain = c.strides.iter().chain(&c.dilations).all(|&n| n == 1);
    x.len() == 5 && x[0] == 1 && w[0] == c.groups && w[1] == 1 && w[2] > 1 && plain && f.is_const(operands[1])
}

fn split(f: &mut Function, v: ValueId) -> Result<(), OpError> {
    let Op::Conv(conv) = f.op(v).clone() else { return Ok(()) };
    let operands = f.operands(v);
    let (x, w, bias) = (operands[0], operands[1], operands.get(2).copied());
    let [_, width, frames, rows, cols] = f.shape(v)[..] else { return Ok(()) };
    let kernel = f.shape(w).to_vec();
    let taps = kernel[2];
    let plane = Conv {
        strides: vec![1, 1],
        pad_before: conv.pad_before[1..].to_vec(),
        pad_after: conv.pad_after[1..].to_vec(),
        dilations: vec![1, 1],
        groups: conv.groups,
    };
    // Tokens again, if no other op takes channels first.
    let is_tokens = |user: &ValueId| matches!(f.op(*user), Op::Transpose(t) if t.perm == TO_TOKENS);
    let tokens = f.only_use(v).map(|(user, _)| user).filter(is_tokens);
    let scope = f.node(v).scope.clone();
    let extent = f.shape(x)[2];

    let mut source = Frames::default();
    let mut weights = Vec::with_capacity(taps);
    let mut b = Builder::new(f);
    b.enter(&scope);
    for tap in 0..taps {
        let one = b.slice(w, 2, tap, tap + 1)?;
        weights.push(b.reshape(one, &[kernel[0], 1, kernel[3], kernel[4]])?);
    }
    b.leave();
    let mut made = Vec::with_capacity(frames);
    for frame in 0..frames {
        let mut sum = None;
        // The frame's own tap first: it takes the bias.
        for tap in (0..taps).rev() {
            let Some(at) = (frame + tap).checked_sub(conv.pad_before[0]).filter(|&at| at < extent) else { continue };
            let input = source.frame(f, x, at, &scope)?;
            let mut b = Builder::new(f);
            b.enter(&scope);
            let term = b.conv(plane.clone(), input, weights[tap], if sum.is_none() { bias } else { None })?;
            sum = Some(match sum {
                Some(so_far) => b.add(so_far, term)?,
                None => term,
            });
        }
        made.push(sum.ok_or_else(|| OpError::new("a frame that no tap reaches"))?);
    }
    let mut b = Builder::new(f);
    b.enter(&scope);
    let planes = b.concat(&made, 0)?;
    if let Some(user) = tokens {
        let y = b.transpose(planes, &[0, 2, 3, 1])?;
        let y = b.reshape(y, &[1, frames, rows, cols, width])?;
        f.replace_uses(user, y);
    } else {
        let y = b.transpose(planes, &[1, 0, 2, 3])?;
        let y = b.reshape(y, &[1, width, frames, rows, cols])?;
        f.replace_uses(v, y);
    }
    Ok(())
}

/// Frames of values [1, D, F, h, w] as [1, D, h, w], each made once.
#[derive(Default)]
struct Frames {
    made: HashMap<(ValueId, usize), ValueId>,
    planes: HashMap<ValueId, ValueId>,
}

impl Frames {
    fn frame(&mut self, f: &mut Function, x: ValueId, at: usize, scope: &str) -> Result<ValueId, OpError> {
        if let Some(&made) = self.made.get(&(x, at)) {
            return Ok(made);
        }
        let (op, operands) = (f.op(x).clone(), f.operands(x));
        let [_, width, _, rows, cols] = f.shape(x)[..] else { return Err(OpError::new("frames of another rank")) };
        let mut b = Builder::new(f);
        b.enter(scope);
        let made = match op {
            Op::Concat(Concat { axis: 2 }) => {
                let mut at = at;
                let mut part = operands[0];
                for &operand in &operands {
                    part = operand;
                    let extent = f.shape(operand)[2];
                    if at < extent {
                        break;
                    }
                    at -= extent;
                }
                self.frame(f, part, at, scope)?
            }
            Op::Transpose(Transpose { perm }) if perm == TO_CHANNELS => {
                let planes = match self.planes.get(&x) {
                    Some(&planes) => planes,
                    None => {
                        let tokens = b.shape(operands[0])[1..].to_vec();
                        let y = b.reshape(operands[0], &tokens)?;
                        let y = b.transpose(y, &[0, 3, 1, 2])?;
                        self.planes.insert(x, y);
                        y
                    }
                };
                b.slice(planes, 0, at, at + 1)?
            }
            _ => {
                let y = b.slice(x, 2, at, at + 1)?;
                b.reshape(y, &[1, width, rows, cols])?
            }
        };
        self.made.insert((x, at), made);
        Ok(made)
    }
}
