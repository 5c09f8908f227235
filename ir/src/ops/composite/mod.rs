//! Composite ops: a formula that a backend may know whole. What one means *is* its decomposition into tensor ops.
//!
//! A backend lowers a composite natively or runs the pass `decompose` first. Evaluation is that of the decomposition, so
//! the two cannot differ.

mod feature_map;
mod fusion_gate;
mod linear_attention;
mod linear_attention_step;
mod modulate;
mod rms_norm;
mod rope;
mod running_mean;
mod sdpa;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use super::{OpDef, OpError, broadcast_shapes, require};
use crate::build::Built;
use crate::interp::{self, Bindings};
use crate::weights::NoWeights;
use crate::{Builder, Function, Tensor, TensorType, ValueId};

pub use feature_map::FeatureMap;
pub use fusion_gate::FusionGate;
pub use linear_attention::LinearAttention;
pub use linear_attention_step::LinearAttentionStep;
pub use modulate::Modulate;
pub use rms_norm::RmsNorm;
pub use rope::{Rope, RopePairs};
pub use running_mean::RunningMean;
pub use sdpa::Sdpa;

/// The definition of a composite op, beside [`OpDef`].
pub trait Composite: OpDef {
    /// Adds the tensor ops that this op stands for; the value has the type that [`OpDef::infer`] gives.
    ///
    /// # Errors
    /// Operands that [`OpDef::infer`] refuses.
    fn decompose(&self, b: &mut Builder, operands: &[ValueId]) -> Built;
}

/// The value of a composite: that of its decomposition.
fn eval(op: &impl Composite, operands: &[&Tensor]) -> Result<Tensor, OpError> {
    let mut f = Function::new("composite");
    let mut bindings = Bindings { params: HashMap::new(), states: HashMap::new() };
    let mut params = Vec::new();
    for (i, t) in operands.iter().enumerate() {
        let name = format!("x{i}");
        params.push(f.add_param(&name, t.ty()));
        bindings.params.insert(name, (*t).clone());
    }
    let y = op.decompose(&mut Builder::new(&mut f), &params)?;
    let values = interp::evaluate(&f, &[y], &NoWeights, &bindings).map_err(|e| OpError::new(e.to_string()))?;
    values.into_iter().next().ok_or_else(|| OpError::new("a composite without a value"))
}

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
