//! Composite ops: a formula that a backend may know whole. What one means *is* its [decomposition](crate::decompose) into
//! tensor ops.
//!
//! A backend lowers a composite natively or runs the pass `decompose` first.

mod feature_map;
mod fusion_gate;
mod linear_attention;
mod linear_attention_step;
mod modulate;
mod rms_norm;
mod rope;
mod running_mean;
mod sdpa;

use super::{OpError, broadcast_shapes, require};
use crate::TensorType;

pub use feature_map::FeatureMap;
pub use fusion_gate::FusionGate;
pub use linear_attention::LinearAttention;
pub use linear_attention_step::LinearAttentionStep;
pub use modulate::Modulate;
pub use rms_norm::RmsNorm;
pub use rope::{Rope, RopePairs};
pub use running_mean::RunningMean;
pub use sdpa::Sdpa;

/// `t` must broadcast to `shape` without widening it.
fn fits(what: &str, t: &TensorType, shape: &[usize]) -> Result<(), OpError> {
    let fits = broadcast_shapes(&t.shape, shape).is_ok_and(|s| s == shape);
    require!(fits, "{what} must broadcast to {shape:?}, found {t}");
    Ok(())
}

/// `t` as matrices over leading axes: (leading axes, rows, columns).
fn matrices<'t>(what: &str, t: &'t TensorType) -> Result<(&'t [usize], usize, usize), OpError> {
    match &t.shape[..] {
        [lead @ .., rows, cols] => Ok((lead, *rows, *cols)),
        _ => Err(OpError::new(format!("{what} must have rank 2 or more, found {t}"))),
    }
}
