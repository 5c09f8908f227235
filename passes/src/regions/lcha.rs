//! LCHA: `fusion_gate(gate, to_out(linear attention of u), local_mix(causal depthwise convolution of u))`.

use s2dit_ir::Op;
use s2dit_ir::ops::OpError;

use super::{Finder, Kind, Regions};

/// Every gate is the root of an LCHA, or of something that nearly is one.
pub(super) fn recognise(on: &mut Finder, found: &mut Regions) -> Result<(), OpError> {
    let patterns = patterns();
    for v in on.f.order() {
        if !matches!(on.f.op(v), Op::FusionGate(_)) {
            continue;
        }
        match on.any(&patterns, v)? {
            Ok(m) if m.interior.iter().all(|&i| depthwise(on.f.op(i), on, i)) => {
                found.regions.extend(on.region(Kind::Lcha, v, &m));
            }
            Ok(_) => found.misses.push(super::NearMiss {
                rule: "lcha",
                scope: on.f.node(v).scope.clone(),
                reason: "the convolution is not depthwise".into(),
                matched: usize::MAX,
            }),
            Err(miss) => found.misses.extend(on.miss("lcha", v, miss)),
        }
    }
    Ok(())
}

fn depthwise(op: &Op, on: &Finder, v: s2dit_ir::ValueId) -> bool {
    match op {
        Op::Conv(c) => on.f.shape(v).get(1) == Some(&c.groups),
        _ => true,
    }
}

/// A clip's and a stream's, with the rotation before and after the kernel, with and without frames from before.
fn patterns() -> Vec<String> {
    let normed = |what: &str| format!("~rms_norm(~linear(u, {what}, ..), ..)");
    let (q, k, v) = (normed("wq"), normed("wk"), "~linear(u, ..)");
    let pre = |x: &str| format!("feature_map(rope({x}, ..), ..)");
    let post = |x: &str| format!("rope(feature_map({x}, ..), ..)");
    let plain = |x: &str| format!("feature_map({x}, ..)");
    let step = |q: &str, k: &str, kn: &str, qn: &str| {
        format!(
            "linear_attention_step({q}, running_mean({k}, {v}, sum, past, new), running_mean({kn}, norm, past, new), eps{qn})"
        )
    };
    let attention = [
        format!("linear_attention({}, {}, {v})", pre(&q), pre(&k)),
        format!("linear_attention({}, {}, {v}, {}, {})", post(&q), post(&k), plain(&q), plain(&k)),
        step(&pre(&q), &pre(&k), &pre(&k), ""),
        step(&post(&q), &post(&k), &plain(&k), &format!(", {}", plain(&q))),
    ];
    let local = ["conv(~u, ..)", "conv(concat(tail, ~u), ..)"];
    let mix = |a: &String, l: &str| format!("fusion_gate(gate, linear(~{a}, ..), linear(~{l}, ..))");
    attention.iter().flat_map(|a| local.map(|l| mix(a, l))).collect()
}
