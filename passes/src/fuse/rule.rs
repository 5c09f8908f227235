//! A rule, and what several rules ask of a match.

use s2dit_ir::ops::OpError;
use s2dit_ir::{Function, ValueId};

use crate::pattern::Match;

/// A formula and what takes its place.
pub(super) struct Rule {
    /// The op that it makes.
    pub name: &'static str,
    /// Ways to write it, the most complete first.
    pub formulas: &'static [&'static str],
    /// Ops that must have matched for a failure to be worth telling.
    pub near: usize,
    /// Adds the op; an error says why this match is not one.
    pub build: fn(&mut Function, &Match, &str) -> Result<ValueId, OpError>,
}

/// A constant that broadcasts along `axes` of `like` only, with just the extents of these axes.
pub(super) fn along(
    f: &mut Function,
    v: ValueId,
    like: ValueId,
    axes: &[usize],
    scope: &str,
) -> Result<ValueId, OpError> {
    let (shape, full) = (f.shape(v).to_vec(), f.shape(like).to_vec());
    let wanted: Vec<usize> = axes.iter().map(|&a| full[a]).collect();
    let offset = full.len().checked_sub(shape.len());
    let fits = offset.is_some_and(|offset| {
        (0..full.len()).all(|i| {
            let extent = if i < offset { 1 } else { shape[i - offset] };
            extent == if axes.contains(&i) { full[i] } else { 1 }
        })
    });
    if !fits {
        return Err(OpError::new(format!("expected a gain along axes {axes:?} of {full:?}, found {shape:?}")));
    }
    if shape == wanted { Ok(v) } else { f.add(s2dit_ir::ops::Reshape { shape: wanted }.into(), &[v], scope) }
}

/// The one axis of a list.
pub(super) fn one_axis(axes: &[usize]) -> Result<usize, OpError> {
    match axes {
        [axis] => Ok(*axis),
        _ => Err(OpError::new(format!("expected one axis, found {axes:?}"))),
    }
}
