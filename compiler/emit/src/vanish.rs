//! Weights that fp16 cannot tell from zero.

use s2dit_ir::{DType, TensorType, WeightSource};
use serde::Serialize;

use s2dit_models::checkpoint::Checkpoint;

/// Half of the smallest fp16 number, 2⁻²⁴: what is not larger is rounded to 0.
const LARGEST: f32 = 1.0 / 33_554_432.0;
/// A tensor is looked at whole only if so large a part of its sample vanishes.
const ALARMING: f64 = 0.01;
/// A sample: runs of consecutive elements, spread over the tensor.
const RUNS: usize = 16;
const RUN: usize = 256;
/// Elements that are read at a time.
const BLOCK: usize = 1 << 17;

/// A tensor of which a part vanishes in fp16.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Vanished {
    /// Its name in the checkpoint.
    pub tensor: String,
    /// Elements that are not zero and become zero.
    pub elements: u64,
    /// Elements in all.
    pub of: u64,
}

impl Vanished {
    /// The part that vanishes, in percent.
    #[must_use]
    pub fn percent(&self) -> f64 {
        100.0 * self.elements as f64 / self.of.max(1) as f64
    }
}

/// The tensors of a checkpoint of which at least a hundredth vanishes in fp16, by name. Sixteen runs of each tensor are read, and
/// all of it only where these are alarming: weights are not read twice.
pub(super) fn vanished(checkpoint: &Checkpoint) -> Vec<Vanished> {
    let look = |name| {
        let found = of_tensor(checkpoint, name);
        checkpoint.done(name);
        found
    };
    checkpoint.weights().names().filter_map(look).collect()
}

fn of_tensor(checkpoint: &Checkpoint, name: &str) -> Option<Vanished> {
    let TensorType { dtype, .. } = checkpoint.ty(name)?;
    if !matches!(dtype, DType::F32 | DType::BF16) {
        return None;
    }
    let all = checkpoint.ty(name)?.elements();
    // A tensor that cannot be read is the writer's error.
    let count = |from: usize, elements: usize| -> u64 {
        let range = from * dtype.size()..(from + elements) * dtype.size();
        let part = checkpoint.weights().read(name, range).unwrap_or_default();
        match dtype {
            DType::F32 => part.as_chunks::<4>().0.iter().map(|b| u64::from(vanishes(f32::from_le_bytes(*b)))).sum(),
            _ => part
                .as_chunks::<2>()
                .0
                .iter()
                .map(|b| u64::from(vanishes(f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16))))
                .sum(),
        }
    };
    let alarming = |elements: u64, of: usize| elements > 0 && elements as f64 >= ALARMING * of as f64;
    if all > RUNS * RUN {
        let sampled: u64 = (0..RUNS).map(|run| count(run * (all - RUN) / (RUNS - 1), RUN)).sum();
        if !alarming(sampled, RUNS * RUN) {
            return None;
        }
    }
    // In blocks: what is computed as it is read is never held whole.
    let elements = (0..all).step_by(BLOCK).map(|from| count(from, BLOCK.min(all - from))).sum();
    alarming(elements, all).then(|| Vanished { tensor: name.into(), elements, of: all as u64 })
}

fn vanishes(x: f32) -> bool {
    x != 0.0 && x.abs() <= LARGEST
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    #[test]
    fn what_vanishes_is_what_fp16_makes_zero() {
        for bits in (0..f32::INFINITY.to_bits()).step_by(99_991).chain([
            LARGEST.to_bits() - 1,
            LARGEST.to_bits(),
            LARGEST.to_bits() + 1,
        ]) {
            let x = f32::from_bits(bits);
            assert_eq!(vanishes(x), x != 0.0 && f16::from_f32(x) == f16::ZERO, "{x:e}");
        }
    }
}
