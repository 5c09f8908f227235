//! Stores large weights in few bits.
//!
//! ```text
//! %y = linear(%x, %w) : f16[1, 512]   %w' = compress(%w) {scheme = "palette4-group16"} : f16[512, 512]
//!                                   →  %y  = linear(%x, %w') : f16[1, 512]
//! ```
//! A weight is a constant second operand of `linear` or `conv` with at least [`LEAST_ELEMENTS`] elements, and at least
//! [`LEAST_FAN_IN`] of them an output channel: matrices and dense kernels. Depthwise kernels, norms, biases, modulation
//! tables and positions are small and feel every bit, so they stay as they are. The pass comes last: what is computed from a
//! compressed weight would have to be stored uncompressed.

use std::collections::HashMap;

use s2dit_ir::compress::Scheme;
use s2dit_ir::ops::{Compress, OpError};
use s2dit_ir::{Function, Module, Op, TensorType, ValueId, weights};

/// Smaller weights save too little.
pub const LEAST_ELEMENTS: usize = 1 << 14;
/// Fewer elements an output channel are a depthwise kernel's.
pub const LEAST_FAN_IN: usize = 32;

/// A weight that can be compressed, and what was chosen for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    /// The checkpoint's tensor; for a computed weight, where it is used.
    pub name: String,
    /// Its type in the graph.
    pub ty: TensorType,
    /// `None` for a weight that was left alone.
    pub scheme: Option<Scheme>,
}

/// Compresses every weight as `choose` says, which is asked once for each different weight. Returns the weights in order of
/// first use.
///
/// # Errors
/// A scheme that a weight does not fit; the error names the weight.
pub fn run(
    module: &mut Module,
    mut choose: impl FnMut(&str, &TensorType) -> Option<Scheme>,
) -> Result<Vec<Weight>, OpError> {
    let mut chosen: Vec<Weight> = Vec::new();
    let mut by_key: HashMap<String, Option<Scheme>> = HashMap::new();
    for f in &mut module.functions {
        let mut made: HashMap<ValueId, ValueId> = HashMap::new();
        for user in f.order() {
            let Some(v) = weight_of(f, user) else { continue };
            let name = weights::loaded_tensor(f, v).unwrap_or(&f.node(user).scope).to_string();
            let scheme = *by_key.entry(weights::constant_key(f, v)).or_insert_with(|| {
                let scheme = choose(&name, f.ty(v));
                chosen.push(Weight { name: name.clone(), ty: f.ty(v).clone(), scheme });
                scheme
            });
            let Some(scheme) = scheme else { continue };
            let stored = match made.get(&v) {
                Some(&stored) => stored,
                None => {
                    let scope = f.node(v).scope.clone();
                    let stored = f
                        .add(Compress { scheme }.into(), &[v], &scope)
                        .map_err(|e| OpError::new(format!("weight `{name}`: {e}")))?;
                    made.insert(v, stored);
                    stored
                }
            };
            f.set_operand(user, 1, stored);
        }
    }
    Ok(chosen)
}

/// Compresses every weight with one scheme; returns how many are compressed. A weight with fewer input channels than a block
/// has is left alone: a patch embedding has no blocks.
///
/// # Errors
/// See [`run`].
pub fn uniform(module: &mut Module, scheme: Scheme) -> Result<usize, OpError> {
    let fits = |ty: &TensorType| !matches!(scheme, Scheme::Block { block, .. } if ty.shape[1] < block);
    let weights = run(module, |_, ty| fits(ty).then_some(scheme))?;
    Ok(weights.iter().filter(|w| w.scheme.is_some()).count())
}

/// The weight that an op multiplies with, if it is worth compressing.
fn weight_of(f: &Function, user: ValueId) -> Option<ValueId> {
    // A constant product, such as a modulation at a known timestep, is computed here, from the exact weight.
    if !matches!(f.op(user), Op::Linear(_) | Op::Conv(_)) || f.is_const(user) {
        return None;
    }
    let v = *f.operands(user).get(1)?;
    let shape = f.shape(v);
    let elements: usize = shape.iter().product();
    let large = elements >= LEAST_ELEMENTS && elements / shape[0].max(1) >= LEAST_FAN_IN;
    (large && f.is_const(v) && !matches!(f.op(v), Op::Compress(_))).then_some(v)
}
