//! LCHA: `to_out(linear attention of u)` and `local_mix(causal depthwise convolution of u)`, mixed by a gate.
//!
//! The gate is a `fusion_gate`, or what folding makes of it: two constant factors, or none beside the weights of the two products.

use std::collections::HashSet;

use s2dit_ir::ops::{Binary, OpError};
use s2dit_ir::{Function, Op, ValueId};

use super::{Finder, Kind, NearMiss, Regions, parsed, parts};
use crate::pattern::{Miss, Pattern};

/// Every gate is the root of an LCHA, or of something that nearly is one; so are sums that look like a folded one.
pub(super) fn recognise(on: &mut Finder, found: &mut Regions) -> Result<(), OpError> {
    let gated = mixed_by(|a, b| format!("fusion_gate(gate, {a}, {b})"))?;
    let scaled = mixed_by(|a, b| format!("a * {a} + b * {b} where a: const, b: const"))?;
    let folded = mixed_by(|a, b| format!("{a} + {b}"))?;
    let mut nearly = Vec::new();
    for v in on.f.order() {
        let (patterns, sure) = match on.f.op(v) {
            Op::FusionGate(_) => (&gated, true),
            Op::Binary(Binary::Add) => match sum_of(on, v) {
                Some(Binary::Mul) => (&scaled, false),
                _ => (&folded, false),
            },
            _ => continue,
        };
        match on.any(patterns, v) {
            Ok(m) if m.interior.iter().all(|&i| depthwise(on.f, i)) => {
                found.regions.extend(on.region(Kind::Lcha, v, &m));
            }
            Ok(_) => found.misses.push(NearMiss {
                rule: "lcha",
                scope: on.f.node(v).scope.clone(),
                reason: "the convolution is not depthwise".into(),
                matched: usize::MAX,
            }),
            Err(miss) => nearly.push(Nearly { root: v, miss, sure }),
        }
    }
    explain(on, found, &nearly);
    Ok(())
}

/// A gate or a sum that is the root of no LCHA.
struct Nearly {
    root: ValueId,
    miss: Option<Miss>,
    /// It is a gate, not any sum.
    sure: bool,
}

/// Linear attention outside of every LCHA: the parts of its block that are others, at the sum behind it that came furthest. Gates without linear attention say
/// where they stopped.
fn explain(on: &Finder, found: &mut Regions, nearly: &[Nearly]) {
    let taken: HashSet<ValueId> = found.regions.iter().flat_map(|r| r.interior.iter().copied()).collect();
    let mut told: HashSet<ValueId> = HashSet::new();
    let order = on.f.order();
    let outside = |v: &&ValueId| {
        matches!(on.f.op(**v), Op::LinearAttention(_) | Op::LinearAttentionStep(_)) && !taken.contains(*v)
    };
    for &v in order.iter().filter(outside) {
        let mut behind = HashSet::from([v]);
        let mut edge = vec![v];
        for _ in 0..BEHIND {
            edge = edge.iter().flat_map(|&at| on.f.users(at)).map(|(user, _)| user).collect();
            behind.extend(&edge);
        }
        let here = nearly.iter().filter(|n| behind.contains(&n.root) && n.miss.is_some());
        let Some(furthest) = here.max_by_key(|n| n.miss.as_ref().map(|m| m.matched)) else { continue };
        told.extend(nearly.iter().map(|n| n.root).filter(|root| behind.contains(root)));
        let parts = parts::differences(on.f, on.consts, v);
        let miss = on.miss("lcha", furthest.root, furthest.miss.clone());
        found.misses.extend(miss.map(|miss| NearMiss { reason: listed(&parts).unwrap_or(miss.reason), ..miss }));
    }
    for n in nearly.iter().filter(|n| n.sure && !told.contains(&n.root)) {
        let miss = on.miss("lcha", n.root, n.miss.clone());
        let reason = parts::normaliser(on.f, n.root);
        found.misses.extend(miss.map(|miss| NearMiss { reason: reason.unwrap_or(miss.reason), ..miss }));
    }
}

/// The parts as one text.
fn listed(parts: &[String]) -> Option<String> {
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Ops between linear attention and the gate: layout, a product, a factor, the sum; and one to spare.
const BEHIND: usize = 6;

/// `Mul` if both terms of a sum are products.
fn sum_of(on: &Finder, v: ValueId) -> Option<Binary> {
    let products = on.f.operands(v).into_iter().all(|o| matches!(on.f.op(o), Op::Binary(Binary::Mul)));
    products.then_some(Binary::Mul)
}

fn depthwise(f: &Function, v: ValueId) -> bool {
    match f.op(v) {
        Op::Conv(c) => f.shape(v).get(1) == Some(&c.groups),
        _ => true,
    }
}

/// The two branches of a clip and of a stream, with the rotation before and after the kernel, with and without frames from before.
fn mixed_by(gate: impl Fn(&str, &str) -> String) -> Result<Vec<Pattern>, OpError> {
    let (normed, v) = ("rms_norm(~linear(u, ..), ..)", "~linear(u, ..)");
    let plain = format!("feature_map(~{normed}, ..)");
    let pre = format!("feature_map(~rope(~{normed}, ..), ..)");
    let post = format!("rope({plain}, ..)");
    let mean = |k: &str| format!("running_mean({k}, {v}, sum, past, new)");
    let mean_norm = |k: &str| format!("running_mean({k}, norm, past, new)");
    let attention = [
        format!("linear_attention({pre}, {pre}, {v})"),
        format!("linear_attention({post}, {post}, {v}, {plain}, {plain})"),
        format!("linear_attention_step({pre}, {}, {}, eps)", mean(&pre), mean_norm(&pre)),
        format!("linear_attention_step({post}, {}, {}, eps, {plain})", mean(&post), mean_norm(&plain)),
    ];
    let local = ["conv(~u, ..)", "conv(concat(tail, ~u), ..)"];
    let branch = |of: &str| format!("linear(~{of}, ..)");
    let mixed = attention.iter().flat_map(|a| local.map(|l| gate(&branch(a), &branch(l))));
    parsed(&mixed.collect::<Vec<_>>())
}
