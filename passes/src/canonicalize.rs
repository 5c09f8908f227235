//! Removes ops that do nothing.
//!
//! ```text
//! reshape(reshape(x)) → reshape(x)        reshape(x) to its own shape → x
//! transpose(transpose(x)) → transpose(x)  transpose by the identity → x
//! cast(x) to its own dtype → x            identity(x) → x
//! slice of everything → x                 concat of one → x
//! slice(slice(x)) → slice(x)
//! ```
//! A named value (`block0`) is left alone: its name must keep meaning the same value. Afterwards dead ops are gone.

use s2dit_ir::ops::{OpError, Reshape, Slice, Transpose, Unary};
use s2dit_ir::{Function, Module, Op, ValueId};

use crate::pass::{PassKind, Run};

/// The pass.
pub static PASS: PassKind = PassKind {
    name: "canonicalize",
    doc: "no op that does nothing, no reshape of a reshape",
    run: Run::Plain(run),
    ..PassKind::PLAIN
};

/// Runs on every function; returns the number of ops removed or replaced.
///
/// # Errors
/// None in practice: the rewrites keep types.
pub fn run(module: &mut Module) -> Result<usize, OpError> {
    let mut changes = 0;
    for f in &mut module.functions {
        for v in f.order() {
            if let Some(new) = simpler(f, v)? {
                f.replace_uses(v, new);
                changes += 1;
            }
        }
        changes += f.remove_dead();
    }
    Ok(changes)
}

fn simpler(f: &mut Function, v: ValueId) -> Result<Option<ValueId>, OpError> {
    if f.node(v).name.is_some() {
        return Ok(None);
    }
    let Some(&x) = f.operands(v).first() else { return Ok(None) };
    let same_type = f.ty(x) == f.ty(v);
    let scope = f.node(v).scope.clone();
    Ok(match f.op(v).clone() {
        Op::Reshape(_) | Op::Cast(_) | Op::Slice(_) | Op::BroadcastTo(_) if same_type => Some(x),
        Op::Unary(Unary::Identity) => Some(x),
        Op::Concat(_) if f.operands(v).len() == 1 => Some(x),
        Op::Transpose(Transpose { perm }) if perm.iter().copied().eq(0..perm.len()) => Some(x),
        Op::Reshape(Reshape { shape }) => match f.op(x) {
            Op::Reshape(_) if f.node(x).name.is_none() => {
                let inner = f.operands(x)[0];
                if f.shape(inner) == shape {
                    Some(inner)
                } else {
                    Some(f.add(Reshape { shape }.into(), &[inner], &scope)?)
                }
            }
            _ => None,
        },
        Op::Slice(outer) => match f.op(x).clone() {
            Op::Slice(inner) if f.node(x).name.is_none() && steps_of_one(&inner) && steps_of_one(&outer) => {
                let from = |ends: &[usize]| ends.iter().zip(&inner.begin).map(|(e, b)| e + b).collect();
                let (begin, end) = (from(&outer.begin), from(&outer.end));
                let whole = f.operands(x)[0];
                Some(f.add(Slice { begin, end, stride: outer.stride }.into(), &[whole], &scope)?)
            }
            _ => None,
        },
        Op::Transpose(Transpose { perm }) => match f.op(x).clone() {
            Op::Transpose(Transpose { perm: first }) if f.node(x).name.is_none() => {
                let inner = f.operands(x)[0];
                let perm: Vec<usize> = perm.iter().map(|&p| first[p]).collect();
                if perm.iter().copied().eq(0..perm.len()) {
                    Some(inner)
                } else {
                    Some(f.add(Transpose { perm }.into(), &[inner], &scope)?)
                }
            }
            _ => None,
        },
        _ => None,
    })
}

fn steps_of_one(slice: &Slice) -> bool {
    slice.stride.iter().all(|&s| s == 1)
}
