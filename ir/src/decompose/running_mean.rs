//! What `running_mean` stands for.

use super::Decompose;
use crate::build::Built;
use crate::ops::{ReduceKind, RunningMean};
use crate::{Builder, OpError, ValueId};

impl Decompose for RunningMean {
    fn decompose(&self, b: &mut Builder, operands: &[ValueId]) -> Built {
        let [k, ref values @ .., state, past, new] = *operands else {
            return Err(OpError::new("takes k and a state"));
        };
        let tokens = b.shape(k).len() - 2;
        let own = match *values {
            [v] => b.t_matmul(k, v)?,
            _ => b.reduce(ReduceKind::Sum, k, &[tokens], true)?,
        };
        let own = b.mul_scalar(own, 1.0 / b.shape(k)[tokens] as f64)?;
        let own = b.mul(own, new)?;
        let state = b.mul(state, past)?;
        b.add(state, own)
    }
}
