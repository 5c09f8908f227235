//! What `linear_attention` stands for.

use super::Decompose;
use crate::build::Built;
use crate::ops::{Binary, LinearAttention, ReduceKind};
use crate::{Builder, ValueId};

impl Decompose for LinearAttention {
    fn decompose(&self, b: &mut Builder, operands: &[ValueId]) -> Built {
        let (q, k, v) = (operands[0], operands[1], operands[2]);
        let (q_norm, k_norm) = if let [_, _, _, q, k] = *operands { (q, k) } else { (q, k) };
        let sum = b.t_matmul(k, v)?;
        let numerator = b.matmul(q, sum)?;
        let tokens = b.shape(k).len() - 2;
        let norm = b.reduce(ReduceKind::Sum, k_norm, &[tokens], true)?;
        let normaliser = b.matmul_t(q_norm, norm)?;
        let mut normaliser = b.add_scalar(normaliser, self.eps)?;
        if self.least != 0.0 {
            let least = b.scalar_like(normaliser, self.least)?;
            normaliser = b.op(Binary::Maximum, &[normaliser, least])?;
        }
        b.div(numerator, normaliser)
    }
}
