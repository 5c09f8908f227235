//! Whether a constant that was written is what the model has: numbers that its dtype cannot hold, and those that were no numbers before.

use anyhow::{Result, bail};
use s2dit_ir::DType;
use s2dit_ir::weights::Written;

/// Refuses values that the dtype cannot hold, notes those that were NaN or infinite in the first place.
pub(crate) fn check(name: &str, dtype: DType, written: &Written, non_finite: &mut Vec<(String, u64)>) -> Result<()> {
    if written.overflowed > 0 {
        bail!(
            "tensor `{name}`: found {} finite element(s) that {dtype} cannot hold; expected all in its range, or --precision fp32",
            written.overflowed
        );
    }
    if written.non_finite > 0 && non_finite.iter().all(|(n, _)| n != name) {
        non_finite.push((name.into(), written.non_finite));
    }
    Ok(())
}
