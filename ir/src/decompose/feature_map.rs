//! What `feature_map` stands for.

use super::Decompose;
use crate::build::Built;
use crate::ops::{FeatureMap, Unary};
use crate::{Builder, ValueId};

impl Decompose for FeatureMap {
    fn decompose(&self, b: &mut Builder, operands: &[ValueId]) -> Built {
        let y = b.matmul_t(operands[0], operands[1])?;
        let y = b.add(y, operands[2])?;
        b.unary(Unary::Softplus, y)
    }
}
