//! Recognises formulas and replaces each by one op: a composite, or the tensor op that has its name.
//!
//! A rule is a file: its formulas as [`crate::pattern`] reads them, and what is built from a match. The pass `decompose` is the
//! way back; the two together keep every number.
//!
//! ```text
//! %0 = square(%x)
//! %1 = reduce_mean(%0) {axes = [2], keep_dims = true}
//! %2 = add(%1, %eps)                                   →  %y = rms_norm(%x, %gain) {axis = 2, eps = 1e-6}
//! %3 = rsqrt(%2)
//! %4 = mul(%x, %3)
//! %y = mul(%4, %gain)
//! ```
//! A value with a name keeps its meaning: a formula around it is not fused. [`explain`] tells what was found and what nearly was.

mod feature_map;
mod fusion_gate;
mod gelu;
mod layer_norm;
mod linear_attention;
mod linear_attention_step;
mod modulate;
mod padded_conv;
mod rms_norm;
mod rope;
mod rule;
mod running_mean;
mod sdpa;
mod silu;

use std::collections::HashSet;
use std::sync::Arc;

use s2dit_ir::ops::OpError;
use s2dit_ir::{Function, Module, ValueId};

use crate::Property;
use crate::pass::{PassKind, Run};
use crate::pattern::{Match, Matcher, Pattern};
use rule::{Rule, along, one_axis};

/// The pass.
pub static PASS: PassKind = PassKind {
    name: "fuse",
    doc: "formulas with a name are one op",
    needs: &[Property::Fp32],
    establishes: &[Property::Fused],
    destroys: &[Property::TensorOps],
    run: Run::Plain(run),
    ..PassKind::PLAIN
};

/// Every rule, in the order in which they run: a formula's parts before the formula that names them.
const RULES: &[Rule] = &[
    padded_conv::RULE,
    gelu::TANH,
    gelu::ERF,
    silu::RULE,
    layer_norm::RULE,
    rms_norm::RULE,
    modulate::RULE,
    rope::RULE,
    feature_map::RULE,
    sdpa::RULE,
    linear_attention::RULE,
    running_mean::RULE,
    linear_attention_step::RULE,
    fusion_gate::RULE,
];

/// A formula that was nearly there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearMiss {
    /// The op that it would have been.
    pub rule: &'static str,
    /// Provenance of its root.
    pub scope: Arc<str>,
    /// The op that was expected, and the one that is there.
    pub reason: String,
    /// Ops that did match.
    pub matched: usize,
}

/// Runs on every function; returns the number of formulas replaced.
///
/// # Errors
/// A defect of a rule.
pub fn run(module: &mut Module) -> Result<usize, OpError> {
    let mut changes = 0;
    for f in &mut module.functions {
        changes += fuse(f, &mut Vec::new())?;
        f.remove_dead();
    }
    Ok(changes)
}

/// Fuses a function and says what was nearly recognised and is still there.
///
/// # Errors
/// See [`run`].
pub fn explain(f: &mut Function) -> Result<Vec<NearMiss>, OpError> {
    let mut misses = Vec::new();
    fuse(f, &mut misses)?;
    let live: HashSet<ValueId> = f.order().into_iter().collect();
    misses.retain(|(root, at, _)| live.contains(root) && at.is_none_or(|at| live.contains(&at)));
    // One story a place: the one that got furthest.
    let mut best: Vec<(ValueId, Option<ValueId>, NearMiss)> = Vec::new();
    for (root, at, miss) in misses {
        let same = |b: &(ValueId, Option<ValueId>, NearMiss)| {
            b.2.rule == miss.rule && (b.0 == root || b.1.is_some() && b.1 == at)
        };
        match best.iter_mut().find(|b| same(b)) {
            Some(b) if b.2.matched >= miss.matched => {}
            Some(b) => *b = (root, at, miss),
            None => best.push((root, at, miss)),
        }
    }
    f.remove_dead();
    Ok(best.into_iter().map(|(.., miss)| miss).collect())
}

/// Leaves dead ops where they are, so that the values in `misses` stay what they were.
fn fuse(f: &mut Function, misses: &mut Vec<(ValueId, Option<ValueId>, NearMiss)>) -> Result<usize, OpError> {
    let mut changes = 0;
    for rule in RULES {
        for formula in rule.formulas {
            let pattern: Pattern = formula.parse().map_err(|e| OpError::new(format!("{e}")))?;
            let consts = f.constants();
            let mut taken: HashSet<ValueId> = HashSet::new();
            for v in f.order() {
                if consts.contains(&v) || (taken.contains(&v) && !f.order().contains(&v)) {
                    continue;
                }
                let mut miss = |at, reason, matched, f: &Function| {
                    let scope = f.node(v).scope.clone();
                    misses.push((v, at, NearMiss { rule: rule.name, scope, reason, matched }));
                };
                match Matcher::new(f, &consts).near(rule.near).find(&pattern, v) {
                    Err(Some(m)) => miss(Some(m.at), m.to_string(), m.matched, f),
                    Err(None) => {}
                    Ok(matches) => match first_that_builds(f, rule, &matches, v) {
                        Ok((new, interior)) => {
                            f.replace_uses(v, new);
                            taken.extend(interior);
                            changes += 1;
                        }
                        Err(why) => miss(None, why.to_string(), usize::MAX, f),
                    },
                }
            }
        }
    }
    Ok(changes)
}

/// The op of the first match that the rule accepts, and the values that it makes superfluous.
fn first_that_builds(
    f: &mut Function,
    rule: &Rule,
    matches: &[Match],
    root: ValueId,
) -> Result<(ValueId, Vec<ValueId>), OpError> {
    let scope = f.node(root).scope.to_string();
    let mut why = OpError::new("no match");
    for m in matches {
        let named = m.interior.iter().find_map(|&v| f.node(v).name.clone().filter(|_| v != root));
        why = match (named, (rule.build)(f, m, &scope)) {
            (Some(name), _) => OpError::new(format!("`{name}` is a named value inside the formula")),
            (None, Ok(new)) if f.ty(new) == f.ty(root) => return Ok((new, m.interior.clone())),
            (None, Ok(new)) => OpError::new(format!("the op would be {}, the formula is {}", f.ty(new), f.ty(root))),
            (None, Err(e)) => e,
        };
    }
    Err(why)
}
