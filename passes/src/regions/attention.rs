//! Softmax attention: `to_out(sdpa(q, k, v))`, by where its keys come from.

use s2dit_ir::ops::OpError;
use s2dit_ir::{Function, Op, ValueId};

use super::{Finder, Kind, Regions, parsed, stage};

/// Every `linear` over an `sdpa` is an attention, or nearly one.
pub(super) fn recognise(on: &mut Finder, found: &mut Regions) -> Result<(), OpError> {
    // Of each head, or of all of them before they are split.
    let rotated = "~rope(~rms_norm(~linear(u, ..), ..), ..)";
    let own = parsed(&[
        format!("linear(~sdpa({rotated}, {rotated}, ~linear(u, ..)), ..)"),
        format!("linear(~sdpa({rotated}, concat(keys, {rotated}), concat(values, ~linear(u, ..)), mask), ..)"),
    ])?;
    let cross = parsed(&["linear(~sdpa(~rms_norm(~linear(u, ..), ..), k, v, ..), ..)".to_string()])?;
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
                let furthest = if a.as_ref().map(|m| m.matched) >= b.as_ref().map(|m| m.matched) { a } else { b };
                found.misses.extend(on.miss("attention", v, furthest));
            }
        }
    }
    Ok(())
}

fn is_root(f: &Function, v: ValueId) -> bool {
    let Op::Linear(_) = f.op(v) else { return false };
    matches!(f.op(stage::under_layout(f, f.operands(v)[0])), Op::Sdpa(_))
}
