//! What `linear_attention_step` stands for.

use super::Decompose;
use crate::build::Built;
use crate::ops::LinearAttentionStep;
use crate::{Builder, ValueId};

impl Decompose for LinearAttentionStep {
    fn decompose(&self, b: &mut Builder, operands: &[ValueId]) -> Built {
        let (q, sum, norm, eps) = (operands[0], operands[1], operands[2], operands[3]);
        let q_norm = operands.get(4).copied().unwrap_or(q);
        let numerator = b.matmul(q, sum)?;
        let normaliser = b.matmul_t(q_norm, norm)?;
        let normaliser = b.add(normaliser, eps)?;
        b.div(numerator, normaliser)
    }
}
