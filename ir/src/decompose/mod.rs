//! What composite ops stand for: a file each, named like the op's own in [`crate::ops::composite`].

mod feature_map;
mod fusion_gate;
mod linear_attention;
mod linear_attention_step;
mod modulate;
mod rms_norm;
mod rope;
mod running_mean;
mod sdpa;

use crate::build::Built;
use crate::ops::{OpDef, composites};
use crate::{Builder, Op, ValueId};

/// A composite op's formula in tensor ops.
pub trait Decompose: OpDef {
    /// Adds the tensor ops that this op stands for; the value has the type that [`OpDef::infer`] gives.
    ///
    /// # Errors
    /// Operands that [`OpDef::infer`] refuses.
    fn decompose(&self, b: &mut Builder, operands: &[ValueId]) -> Built;
}

/// `Op::decompose` over the composites that `ops!` lists.
macro_rules! dispatch {
    ($( $composite:ident )*) => {
        impl Op {
            /// Adds what a composite stands for; `None` for a tensor op.
            ///
            /// # Errors
            /// Operands that the op refuses.
            pub fn decompose(&self, b: &mut Builder, operands: &[ValueId]) -> Option<Built> {
                match self {
                    $( Op::$composite(op) => Some(op.decompose(b, operands)), )*
                    _ => None,
                }
            }
        }
    };
}
composites!(dispatch);
