//! Recognises whole blocks in a fused graph: LCHA, SSA with its stage, linear attention, full attention, cross-attention.
//!
//! A region is found again whenever it is asked for and is not stored in the graph. An op `lcha` would need some twenty
//! operands and, in a stream, more than one result (its means are state updates); and every fold that reaches inside would have to
//! take it apart again. A region is a set of values with a root; what happens inside stays visible to all passes.
//!
//! Regions are patterns over the composites that [`crate::fuse`] makes, up to reshapes and transposes.

mod attention;
mod lcha;
mod linear;
mod parts;
mod stage;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use s2dit_ir::ops::{Binary, OpError, Unary};
use s2dit_ir::{Function, Op, ValueId};

use crate::fuse::NearMiss;
use crate::pattern::{Match, Matcher, Miss, Pattern};

pub use stage::Stage;

/// The kind of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// LinConv hybrid attention: linear attention and a causal depthwise convolution behind a gate.
    Lcha,
    /// Linear attention on its own.
    Linear,
    /// Softmax self-attention at the low resolution of a [`Stage`], by the stage's number.
    Ssa(usize),
    /// Softmax self-attention at token resolution.
    Full,
    /// Softmax attention to keys and values of another stream, or of two, without rotation.
    Cross,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Lcha => "lcha",
            Kind::Linear => "linear",
            Kind::Ssa(_) => "ssa",
            Kind::Full => "full",
            Kind::Cross => "cross",
        })
    }
}

/// A recognised part of a block.
#[derive(Clone, Debug)]
pub struct Region {
    /// Kind of the region.
    pub kind: Kind,
    /// Provenance that its ops share, such as `blocks.3.attn1`.
    pub scope: Arc<str>,
    /// The tokens that go in.
    pub input: ValueId,
    /// The value that comes out.
    pub root: ValueId,
    /// The values inside, the root among them; its weights and what other regions share are outside.
    pub interior: Vec<ValueId>,
}

/// The regions of a function.
#[derive(Clone, Debug, Default)]
pub struct Regions {
    /// Regions, in order of the function.
    pub regions: Vec<Region>,
    /// Stages of low resolution, in order of the function.
    pub stages: Vec<Stage>,
    /// Parts that look like a region and are none.
    pub misses: Vec<NearMiss>,
}

impl Regions {
    /// Regions of one kind; the number of an SSA stage does not matter.
    pub fn count(&self, kind: Kind) -> usize {
        let same = |r: &&Region| std::mem::discriminant(&r.kind) == std::mem::discriminant(&kind);
        self.regions.iter().filter(same).count()
    }
}

/// Recognises the regions of a fused function.
///
/// # Errors
/// A defect of a pattern.
pub fn recognise(f: &Function) -> Result<Regions, OpError> {
    let consts = f.constants();
    let mut found = Regions { stages: stage::stages(f), ..Regions::default() };
    let mut on = Finder { f, consts: &consts };
    // Before LCHA, which says why linear attention is in none.
    linear::recognise(&mut on, &mut found)?;
    lcha::recognise(&mut on, &mut found)?;
    attention::recognise(&mut on, &mut found)?;
    let order = f.order();
    let place = |r: &Region| order.iter().position(|v| *v == r.root);
    found.regions.sort_by_key(place);
    Ok(found)
}

/// Ops of a formula that stand alone: what fusion should have taken and did not.
pub fn leftovers(f: &Function) -> Vec<ValueId> {
    let consts = f.constants();
    let part_of_a_formula = |op: &Op| match op {
        Op::Matmul(_) | Op::Softmax(_) | Op::Binary(Binary::Div) => true,
        Op::Unary(u) => matches!(
            u,
            Unary::Square
                | Unary::Rsqrt
                | Unary::Sqrt
                | Unary::Softplus
                | Unary::Sigmoid
                | Unary::Tanh
                | Unary::Erf
                | Unary::Exp
        ),
        _ => false,
    };
    // A product with a constant is a layer or a choice from a table, whatever op it is written as.
    let with_a_constant =
        |v: ValueId| matches!(f.op(v), Op::Matmul(_)) && f.operands(v).iter().any(|o| consts.contains(o));
    let left = |v: &ValueId| !consts.contains(v) && part_of_a_formula(f.op(*v)) && !with_a_constant(*v);
    f.order().into_iter().filter(left).collect()
}

fn parsed(patterns: &[String]) -> Result<Vec<Pattern>, OpError> {
    patterns.iter().map(|text| text.parse().map_err(|e| OpError::new(format!("{e}")))).collect()
}

/// Looks for any of several patterns.
struct Finder<'f> {
    f: &'f Function,
    consts: &'f HashSet<ValueId>,
}

impl Finder<'_> {
    /// The first match of the first pattern that has one, else the miss that got furthest.
    fn any(&mut self, patterns: &[Pattern], root: ValueId) -> Result<Match, Option<Miss>> {
        let mut furthest: Option<Miss> = None;
        for pattern in patterns {
            match Matcher::new(self.f, self.consts).find(pattern, root) {
                Ok(matches) => {
                    if let Some(m) = matches.into_iter().next() {
                        return Ok(m);
                    }
                }
                Err(Some(miss)) if furthest.as_ref().is_none_or(|f| f.matched < miss.matched) => furthest = Some(miss),
                Err(_) => {}
            }
        }
        Err(furthest)
    }

    fn region(&self, kind: Kind, root: ValueId, m: &Match) -> Option<Region> {
        let input = m.get("u")?.value;
        let mut interior = m.interior.clone();
        interior.sort_unstable();
        interior.dedup();
        let common = self.scope(&interior);
        let scope = if common.is_empty() { self.f.node(root).scope.clone() } else { common };
        Some(Region { kind, scope, input, root, interior })
    }

    /// The path that the values' scopes share; a package writes `_` where a checkpoint writes `.`.
    fn scope(&self, values: &[ValueId]) -> Arc<str> {
        let paths: Vec<&str> = values.iter().map(|&v| &*self.f.node(v).scope).filter(|s| !s.is_empty()).collect();
        let separator = if paths.iter().any(|p| p.contains('.')) { "." } else { "_" };
        let mut paths = paths.into_iter();
        let mut common: Vec<&str> = paths.next().map(|s| s.split(separator).collect()).unwrap_or_default();
        for path in paths {
            let same = common.iter().zip(path.split(separator)).take_while(|(a, b)| **a == *b).count();
            common.truncate(same);
        }
        common.join(separator).into()
    }

    fn miss(&self, rule: &'static str, root: ValueId, miss: Option<Miss>) -> Option<NearMiss> {
        let miss = miss?;
        let scope = self.f.node(root).scope.clone();
        Some(NearMiss { rule, scope, reason: miss.to_string(), matched: miss.matched })
    }
}
