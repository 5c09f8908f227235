//! The number of weights that a finished module stores in few bits.

use std::collections::HashMap;

use s2dit_ir::weights::ExpressionId;
use s2dit_ir::{Module, Op};
use serde::Serialize;

/// Weights of linears and convolutions, and those of them that are compressed; equal ones count once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Quantized {
    /// Weights that are stored in few bits.
    pub weights: usize,
    /// All weights, small ones included.
    pub of: usize,
}

impl Quantized {
    /// Counts the weights of a module.
    #[must_use]
    pub fn of(module: &Module) -> Quantized {
        let mut compressed = HashMap::new();
        for f in &module.functions {
            for user in
                f.order().into_iter().filter(|&v| matches!(f.op(v), Op::Linear(_) | Op::Conv(_)) && !f.is_const(v))
            {
                if let Some(&v) = f.operands(user).get(1).filter(|&&v| f.is_const(v)) {
                    compressed.insert(ExpressionId::of(f, v), matches!(f.op(v), Op::Compress(_)));
                }
            }
        }
        Quantized { weights: compressed.values().filter(|is| **is).count(), of: compressed.len() }
    }
}
