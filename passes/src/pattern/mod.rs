//! Patterns that read like the formula they match.
//!
//! ```text
//! x * rsqrt(mean[axis](x^2) + eps) * gain where eps: number, gain: const
//! ```
//! | syntax | matches |
//! |---|---|
//! | `x` | any value; the same one wherever the name stands. `x: number` a scalar literal, `x: const` a weight expression |
//! | `0.5` | a scalar literal of that value |
//! | `a + b + c`, `a * b` | sums and products in any order and grouping |
//! | `a - b`, `a / b`, `x^2` | difference, ratio, power by a whole number |
//! | `a @ b`, `a @ b.T`, `a.T @ b` | matrix products, `.T` over the last two axes |
//! | `rsqrt(e)`, `linear(x, ..)` | an op by its name; `..` stands for any further operands |
//! | `mean[axis](e)`, `softmax[axis](e)` | the op's axes get a name: the same axes wherever it stands |
//! | `~e` | `e` up to reshapes and transposes |
//! | `even(x)`, `odd(x)`, `interleave(a, b)` | every second element of the last axis, and back |
//! | `first(x)`, `second(x)`, `beside(a, b)` | the halves of the last axis, and back |
//!
//! Ways to write the same mathematics count as equal: `x·x` and `x^2`, `a/√b` and `a·rsqrt(b)`, a division by a number and a product with its inverse, a
//! transposed operand and a product's transposition flag, a reduction that keeps its axes and one that is reshaped back.
//! A pattern that does not match says how far it got ([`Miss`]).

mod matcher;
mod syntax;
mod views;

use std::collections::BTreeMap;

use s2dit_ir::ops::{OpError, Reshape, Transpose};
use s2dit_ir::{Function, Op, ValueId};

pub use matcher::Matcher;
pub use syntax::{Pattern, SyntaxError};
pub use views::permutation;

/// A value that a name stands for, seen through a layout change that the formula does not care about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// The value in the graph.
    pub value: ValueId,
    /// View of the value that the pattern saw.
    pub view: View,
}

/// A layout change that is not in the graph as an op of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    /// None.
    Direct,
    /// The last two axes change places.
    Swap,
    /// The shape is this.
    Reshape(Vec<usize>),
}

/// A formula found in a graph.
#[derive(Clone, Debug, Default)]
pub struct Match {
    values: BTreeMap<String, Capture>,
    numbers: BTreeMap<String, f64>,
    axes: BTreeMap<String, Vec<usize>>,
    /// Values inside the formula, its root first; what names stand for is outside.
    pub interior: Vec<ValueId>,
}

impl Match {
    /// The value that `name` stands for, if the pattern has that name.
    pub fn get(&self, name: &str) -> Option<&Capture> {
        self.values.get(name)
    }

    /// The value of `name`, with its layout change made.
    ///
    /// # Errors
    /// A name that the pattern does not have.
    pub fn value(&self, f: &mut Function, name: &str) -> Result<ValueId, OpError> {
        let Some(Capture { value, view }) = self.values.get(name) else {
            return Err(OpError::new(format!("the pattern has no value `{name}`")));
        };
        let (value, scope) = (*value, f.node(*value).scope.clone());
        match view {
            View::Direct => Ok(value),
            View::Reshape(shape) => f.add(Reshape { shape: shape.clone() }.into(), &[value], &scope),
            View::Swap => {
                let rank = f.ty(value).rank();
                let mut perm: Vec<usize> = (0..rank).collect();
                perm.swap(rank - 2, rank - 1);
                match f.op(value).clone() {
                    // Two transposes in a row are one.
                    Op::Transpose(Transpose { perm: first }) => {
                        let inner = f.operands(value)[0];
                        let perm = perm.iter().map(|&p| first[p]).collect();
                        f.add(Transpose { perm }.into(), &[inner], &scope)
                    }
                    _ => f.add(Transpose { perm }.into(), &[value], &scope),
                }
            }
        }
    }

    /// The number that `name` stands for.
    ///
    /// # Errors
    /// A name that the pattern does not have as a number.
    pub fn number(&self, name: &str) -> Result<f64, OpError> {
        self.numbers.get(name).copied().ok_or_else(|| OpError::new(format!("the pattern has no number `{name}`")))
    }

    /// The axes that `name` stands for.
    ///
    /// # Errors
    /// A name that the pattern does not have as axes.
    pub fn axes(&self, name: &str) -> Result<&[usize], OpError> {
        let axes = self.axes.get(name).map(Vec::as_slice);
        axes.ok_or_else(|| OpError::new(format!("the pattern has no axes `{name}`")))
    }
}

/// The deepest place at which a pattern stopped matching.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// Ops that had matched.
    pub matched: usize,
    /// The value that did not.
    pub at: ValueId,
    /// The part of the formula that it should have been.
    pub expected: String,
    /// The op that is there.
    pub found: String,
}

impl std::fmt::Display for Miss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "expected `{}`, found {}", self.expected, self.found)
    }
}
