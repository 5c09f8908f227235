//! Linear attention on its own: `to_out(linear attention of u)`, whose features are positive parts; the rotation turns those of the numerator alone.

use s2dit_ir::Op;
use s2dit_ir::ops::OpError;

use super::{Finder, Kind, Regions, parsed, stage};

/// Every `linear` over linear attention may be one.
pub(super) fn recognise(on: &mut Finder, found: &mut Regions) -> Result<(), OpError> {
    let (plain, v) = ("~relu(~rms_norm(~linear(u, ..), ..))", "~linear(u, ..)");
    let turned = format!("~rope({plain}, ..)");
    let patterns = parsed(&[format!("linear(~linear_attention({turned}, {turned}, {v}, {plain}, {plain}), ..)")])?;
    for v in on.f.order() {
        let Op::Linear(_) = on.f.op(v) else { continue };
        if matches!(on.f.op(stage::under_layout(on.f, on.f.operands(v)[0])), Op::LinearAttention(_))
            && let Ok(m) = on.any(&patterns, v)
        {
            found.regions.extend(on.region(Kind::Linear, v, &m));
        }
    }
    Ok(())
}
