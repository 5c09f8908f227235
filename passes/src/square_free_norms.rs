//! An RMS norm becomes the layer norm of values beside their negatives, whose mean is zero.
//!
//! ```text
//! %y = rms_norm(%x, %g) {axis = 1}      %n = mul(%x, -1)
//!                                    →  %b = concat(%x, %n) {axis = 1}
//!                                       %l = layer_norm(%b, [%g %g], 0) {axes = [1]}
//!                                       %y = the first half of %l
//! ```
//! Engines compute a layer norm as one op and wider than fp16 inside. The squares of an RMS norm that is taken apart are stored in fp16, where they
//! overflow from 256 on. The norm's gain goes into that of the layer norm.

use s2dit_ir::ops::{LayerNorm, OpError};
use s2dit_ir::{Builder, Function, Module, Op, TensorType, ValueId};

use crate::Property;
use crate::pass::{PassKind, Run};

/// The pass.
pub static PASS: PassKind = PassKind {
    name: "square-free-norms",
    doc: "no RMS norm, whose squares fp16 does not hold: layer norms of values beside their negatives",
    needs: &[Property::Fused, Property::Fp32, Property::Uncompressed],
    run: Run::Plain(run),
    ..PassKind::PLAIN
};

/// Runs on every function; returns the number of norms rewritten.
///
/// # Errors
/// None in practice: the new ops have the old ones' types.
pub fn run(module: &mut Module) -> Result<usize, OpError> {
    let mut changes = 0;
    for f in &mut module.functions {
        for v in f.order() {
            let Op::RmsNorm(norm) = f.op(v) else { continue };
            let (axis, eps) = (norm.axis, norm.eps);
            let y = layer_norm(f, v, axis, eps)?;
            f.replace_uses(v, y);
            changes += 1;
        }
        f.remove_dead();
    }
    Ok(changes)
}

fn layer_norm(f: &mut Function, v: ValueId, axis: usize, eps: f64) -> Result<ValueId, OpError> {
    let (operands, scope) = (f.operands(v), f.node(v).scope.clone());
    let (x, gain) = (operands[0], operands.get(1).copied());
    let width = f.shape(x)[axis];
    let mut b = Builder::new(f);
    b.enter(&scope);
    let negated = b.mul_scalar(x, -1.0)?;
    let both = b.concat(&[x, negated], axis)?;
    let mut of = vec![both];
    if let Some(gain) = gain {
        of.push(b.concat(&[gain, gain], 0)?);
        let ty = TensorType::new(b.f.dtype(x), [2 * width]);
        of.push(b.literal(&ty, vec![0.0; 2 * width])?);
    }
    let norm = b.op(LayerNorm { axes: vec![axis], eps }, &of)?;
    b.slice(norm, axis, 0, width)
}
