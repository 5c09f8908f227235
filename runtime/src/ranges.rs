//! The largest magnitudes of a graph's values, and so whether fp16 holds them.

mod masks;

use std::collections::BTreeMap;

use s2dit_ir::ops::{OpError, ReduceKind, Unary};
use s2dit_ir::{Builder, DType, Function, Op, ValueId};

use crate::{Error, ErrorKind, HostTensor};
use masks::{Masks, unmasked};

/// The start of the names of added results.
const PREFIX: &str = "range:";

/// A value that a graph computes in fp16.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value {
    /// The function.
    pub function: String,
    /// Position of the value in the function's order of execution.
    pub index: usize,
    /// Op that computes the value.
    pub op: String,
    /// Module that the value comes from.
    pub scope: String,
}

/// The largest magnitude of each value so far.
pub type Ranges = BTreeMap<Value, f32>;

/// `f` with the largest magnitude of every value that an op computes in fp16 as a further result. Ops that only move numbers are left
/// out, and attention masks, which are large by design; of masked scores those count that are not masked.
///
/// # Errors
/// None in practice: any tensor has a largest magnitude.
pub fn watched(f: &Function) -> Result<Function, Error> {
    with_magnitudes(f).map_err(|error| Error::new(ErrorKind::Unsupported, error.into()))
}

fn with_magnitudes(f: &Function) -> Result<Function, OpError> {
    let mut g = f.clone();
    let masks = Masks::of(f);
    for (index, v) in f.order().into_iter().enumerate() {
        if f.dtype(v) != DType::F16 || f.is_const(v) || !computes(f.op(v)) || masks.made_of.contains(&v) {
            continue;
        }
        let name = format!("{PREFIX}{}:{index}:{}:{}", f.name, f.op(v).name(), f.node(v).scope);
        let largest = magnitude(&mut g, v, masks.scores.contains(&v))?;
        g.results.push((name, largest));
    }
    Ok(g)
}

fn magnitude(g: &mut Function, v: ValueId, masked: bool) -> Result<ValueId, OpError> {
    let axes: Vec<usize> = (0..g.ty(v).rank()).collect();
    let mut b = Builder::new(g);
    let wide = b.cast(v, DType::F32)?;
    let wide = if masked { unmasked(&mut b, wide)? } else { wide };
    let size = b.unary(Unary::Abs, wide)?;
    if axes.is_empty() { b.reshape(size, &[1]) } else { b.reduce(ReduceKind::Max, size, &axes, true) }
}

fn computes(op: &Op) -> bool {
    !matches!(
        op,
        Op::Input(_)
            | Op::State(_)
            | Op::Reshape(_)
            | Op::Transpose(_)
            | Op::Slice(_)
            | Op::Concat(_)
            | Op::Pad(_)
            | Op::DepthToSpace(_)
            | Op::Upsample(_)
            | Op::Gather(_)
            | Op::BroadcastTo(_)
            | Op::GatherAlongAxis(_)
            | Op::GatherNd(_)
            | Op::Select(_)
    )
}

/// Whether a result was added by [`watched`].
#[must_use]
pub fn is_range(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Takes the results that [`watched`] added out of `results`, and keeps the largest of each.
pub fn take(results: &mut BTreeMap<String, HostTensor>, ranges: &mut Ranges) {
    results.retain(|name, tensor| {
        let Some(value) = parse(name) else { return true };
        let largest = tensor.data.iter().fold(0.0f32, |m, x| if x.is_nan() { f32::INFINITY } else { m.max(x.abs()) });
        let known = ranges.entry(value).or_default();
        *known = known.max(largest);
        false
    });
}

fn parse(name: &str) -> Option<Value> {
    let mut parts = name.strip_prefix(PREFIX)?.splitn(4, ':');
    Some(Value {
        function: parts.next()?.into(),
        index: parts.next()?.parse().ok()?,
        op: parts.next()?.into(),
        scope: parts.next()?.into(),
    })
}
