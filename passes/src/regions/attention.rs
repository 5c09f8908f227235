//! Softmax attention: `to_out(sdpa(q, k, v))`, by where its keys come from; or the sum of two with the same queries; or of two streams of tokens together, each of
//! which has a way out of its own; or with one layer out of attention and what lies beside it.

use s2dit_ir::ops::{Binary, OpError};
use s2dit_ir::{Function, Op, ValueId};

use super::{Finder, Kind, Regions, parsed, stage};

/// Every `linear` over an `sdpa`, or over a sum of such, is an attention, or nearly one.
pub(super) fn recognise(on: &mut Finder, found: &mut Regions) -> Result<(), OpError> {
    // Of each head, or of all of them before they are split.
    let rotated = "~rope(~rms_norm(~linear(u, ..), ..), ..)";
    let mut own = vec![
        format!("linear(~sdpa({rotated}, {rotated}, ~linear(u, ..)), ..)"),
        format!("linear(~sdpa({rotated}, concat(keys, {rotated}), concat(values, ~linear(u, ..)), mask), ..)"),
    ];
    own.extend(joint());
    let own = parsed(&own)?;
    let query = "~rms_norm(~linear(u, ..), ..)";
    let cross = parsed(&[
        format!("linear(~sdpa({query}, k, v, ..), ..)"),
        // To two other streams, such as a text and an image.
        format!("linear(~(~sdpa({query}, k, v) + ~sdpa({query}, k2, v2)), ..)"),
    ])?;
    for v in on.f.order() {
        if !is_root(on.f, v) {
            continue;
        }
        match (on.any(&own, v), on.any(&cross, v)) {
            (Ok(m), _) => {
                let input = m.get("u").map_or(v, |u| u.value);
                let kind = stage::of(on.f, &found.stages, input).map_or(Kind::Full, Kind::Ssa);
                found.regions.extend(on.region(kind, v, &m));
            }
            (_, Ok(m)) => found.regions.extend(on.region(Kind::Cross, v, &m)),
            (Err(a), Err(b)) => {
                let furthest = if a.as_ref().map(|m| m.matched) > b.as_ref().map(|m| m.matched) { a } else { b };
                found.misses.extend(on.miss("attention", v, furthest));
            }
        }
    }
    Ok(())
}

/// Attention of two streams of tokens together, and attention beside a feed-forward layer: projections of their own, or columns of one projection.
fn joint() -> Vec<String> {
    let apart = |x: &str| format!("~linear({x}, ..)");
    let columns = |x: &str| format!("~slice(linear({x}, ..), ..)");
    let normed = |x: String| format!("~rms_norm({x}, ..)");
    let streams = |of: &dyn Fn(&str) -> String| {
        let rotated = format!("rope(concat({}, {}), ..)", normed(of("t")), normed(of("u")));
        format!("linear(slice(~sdpa({rotated}, {rotated}, concat({}, {})), ..), ..)", of("t"), of("u"))
    };
    let beside = |of: &dyn Fn(&str) -> String| {
        let rotated = format!("rope({}, ..)", normed(of("u")));
        format!("linear(concat(~sdpa({rotated}, {rotated}, {}), beside), ..)", columns("u"))
    };
    vec![streams(&apart), streams(&columns), beside(&apart), beside(&columns)]
}

fn is_root(f: &Function, v: ValueId) -> bool {
    let Op::Linear(_) = f.op(v) else { return false };
    let softmax = |v: ValueId| matches!(f.op(stage::under_layout(f, v)), Op::Sdpa(_));
    let x = match stage::under_layout(f, f.operands(v)[0]) {
        // A part of the tokens, or the first of several parts of the channels.
        x if matches!(f.op(x), Op::Slice(_) | Op::Concat(_)) => stage::under_layout(f, f.operands(x)[0]),
        x => x,
    };
    softmax(x) || (matches!(f.op(x), Op::Binary(Binary::Add)) && f.operands(x).into_iter().all(softmax))
}
