//! The values of random weights.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::tensor::{Role, TensorSpec};
use s2dit_files::FloatType;

/// Mean and standard deviation: as a sane initialisation has them, but with nothing at a value (0, 1) that would
/// hide a mistake.
fn moments(spec: &TensorSpec) -> (f32, f32) {
    let inputs = |dims: &[usize]| 1.0 / (dims.iter().product::<usize>().max(1) as f32).sqrt();
    match spec.role {
        Role::LinearWeight | Role::ConvWeight => (0.0, inputs(&spec.shape[1..])),
        Role::HeadWeight => (0.0, inputs(&spec.shape[2..])),
        Role::ScaleShift => (0.0, inputs(&spec.shape[spec.shape.len().saturating_sub(1)..])),
        Role::Bias => (0.0, 0.02),
        Role::NormGain => (1.0, 0.1),
        Role::Embedding => (0.0, 1.0),
        Role::Positions => (0.0, 0.5),
        Role::GateLogit => (0.0, 1.0),
    }
}

/// Draws one chunk of a tensor.
pub(super) fn draw(spec: &TensorSpec, seed: u64, chunk: usize, count: usize, values: &mut Vec<f32>) {
    let mut key = blake3::Hasher::new();
    key.update(b"s2ditc init 1\n");
    key.update(&seed.to_le_bytes());
    key.update(&(chunk as u64).to_le_bytes());
    key.update(spec.name.as_bytes());
    let mut rng = ChaCha8Rng::from_seed(*key.finalize().as_bytes());

    let (mean, deviation) = moments(spec);
    values.clear();
    values.extend((0..count).map(|_| {
        let normal: f32 = StandardNormal.sample(&mut rng);
        mean + deviation * normal
    }));
}

/// The values as little-endian elements of a type.
pub(super) fn encode(values: &[f32], dtype: FloatType, bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.resize(values.len() * dtype.dtype().size(), 0);
    match dtype {
        FloatType::Fp32 => {
            for (out, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                *out = value.to_le_bytes();
            }
        }
        FloatType::Fp16 => {
            let mut halves = vec![f16::ZERO; values.len()];
            halves.convert_from_f32_slice(values);
            for (out, value) in bytes.as_chunks_mut().0.iter_mut().zip(halves) {
                *out = value.to_le_bytes();
            }
        }
        FloatType::Bf16 => {
            for (out, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                *out = bf16::from_f32(*value).to_le_bytes();
            }
        }
    }
}
