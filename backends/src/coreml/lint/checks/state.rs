//! States.

use std::collections::{BTreeSet, HashSet};

use serde::{Deserialize, Serialize};

use super::{Found, Look, Place};
use crate::coreml::lint::program::{Op, Operand};
use crate::coreml::lint::subject::Subject;
use crate::coreml::lint::value::dtype_name;

/// States have one of `dtypes`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateDtype {
    dtypes: Vec<String>,
}

impl Look for StateDtype {
    fn function(&self, at: &Place) -> Vec<Found> {
        let bad = at.function.states.iter().filter(|s| !self.dtypes.iter().any(|d| d == dtype_name(s.dtype)));
        bad.map(|s| (Subject::State, s.name.into(), s.ty())).collect()
    }
}

/// A function has at most `max` states.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateCount {
    max: usize,
}

impl Look for StateCount {
    fn function(&self, at: &Place) -> Vec<Found> {
        let n = at.function.states.len();
        if n <= self.max {
            return Vec::new();
        }
        vec![(Subject::Function, at.function.name.into(), format!("{n} states"))]
    }
}

/// No output is a value that is written to a state; with `ancestors`, none that such a value is computed from either.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateReturned {
    ancestors: bool,
}

impl Look for StateReturned {
    fn function(&self, at: &Place) -> Vec<Found> {
        let written = at.function.ops.iter().filter(|o| o.ty == "write_state").flat_map(|o| o.operands("data"));
        let written: Vec<&str> = written.filter_map(Operand::name).collect();
        let bad: HashSet<&str> = if self.ancestors {
            let mut above = ancestors(at, &written);
            written.iter().for_each(|w| {
                above.remove(w);
            });
            above
        } else {
            written.into_iter().collect()
        };
        let what = if self.ancestors { "what a state is written from" } else { "what a state is written with" };
        let outputs = at.function.outputs.iter().filter(|v| bad.contains(v.name));
        outputs.map(|v| (Subject::Output, v.name.into(), what.into())).collect()
    }
}

/// Every value that one of `values` is computed from, and these.
fn ancestors<'p>(at: &Place<'_, 'p>, values: &[&'p str]) -> HashSet<&'p str> {
    let mut seen: HashSet<&str> = HashSet::new();
    let mut open = values.to_vec();
    while let Some(value) = open.pop() {
        if !seen.insert(value) {
            continue;
        }
        let producer = at.function.producer(Operand::Name(value));
        open.extend(producer.into_iter().flat_map(|op| op.inputs()).filter_map(|(_, o)| o.name()));
    }
    seen
}

/// Ops that only move elements.
const MOVES: [&str; 9] =
    ["concat", "reshape", "transpose", "expand_dims", "squeeze", "slice_by_index", "slice_by_size", "identity", "cast"];

/// No state is written with a concatenation of a part of itself and something else.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateShift {}

impl Look for StateShift {
    fn op(&self, at: &Place, op: &Op) -> Option<String> {
        if op.ty != "write_state" {
            return None;
        }
        let joined = moved(at, op.operands("data"));
        let shift = joined.into_iter().filter(|o| o.ty == "concat").find(|concat| {
            let parts: Vec<Operand> = concat.inputs().map(|(_, o)| o).collect();
            moved(at, parts).iter().any(|o| o.ty == "read_state")
        })?;
        Some(format!("written with the concatenation `{}`, which keeps a part of it", shift.name))
    }
}

/// The ops that values come from through [`MOVES`], in program order.
fn moved<'a, 'p>(at: &Place<'a, 'p>, values: Vec<Operand<'p>>) -> Vec<&'a Op<'p>> {
    let (mut seen, mut open) = (BTreeSet::new(), values);
    while let Some(value) = open.pop() {
        let Some(op) = at.function.producer(value) else { continue };
        if seen.insert(op.index) && MOVES.contains(&op.ty) {
            open.extend(op.inputs().map(|(_, o)| o));
        }
    }
    seen.into_iter().map(|index| &at.function.ops[index]).collect()
}
