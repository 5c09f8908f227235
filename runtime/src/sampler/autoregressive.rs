//! The sampler of a kernel: every step estimates the clean chunk, and noise of the next step's level is added to the estimate.

use serde::{Deserialize, Serialize};

use super::shifted;
use crate::error::refuse;
use crate::{Error, HostTensor};

/// The sampler of a kernel, as its contract says it: how a chunk is made from noise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum KernelSampler {
    /// Flow matching without guidance: every step estimates the clean chunk, and noise of the next step's level is added
    /// to the estimate.
    FlowMatchingAr {
        /// Timestep that `denoise` takes at each step, 1000·σ.
        timesteps: Vec<f64>,
        /// Noise level of each step, 1 first.
        sigmas: Vec<f64>,
    },
}

impl KernelSampler {
    /// Number of steps, and of noise tensors a chunk takes.
    #[must_use]
    pub fn steps(&self) -> usize {
        let KernelSampler::FlowMatchingAr { sigmas, .. } = self;
        sigmas.len()
    }

    /// The autoregressive sampler of a checkpoint: `sample_steps` are timesteps in (0, 1000] before the shift.
    #[must_use]
    pub fn autoregressive(sample_steps: &[f64], shift: f64) -> KernelSampler {
        let sigmas: Vec<f64> = sample_steps.iter().map(|t| shifted(t / 1000.0, shift)).collect();
        KernelSampler::FlowMatchingAr { timesteps: sigmas.iter().map(|s| 1000.0 * s).collect(), sigmas }
    }

    /// Checks that there are steps, and that they go down.
    ///
    /// # Errors
    /// The field and what is wrong with it.
    pub fn check(&self) -> Result<(), Error> {
        let KernelSampler::FlowMatchingAr { timesteps, sigmas } = self;
        if sigmas.is_empty() || sigmas.len() != timesteps.len() {
            refuse!(
                Artifact,
                "field `sampler`: found {} timesteps and {} sigmas, expected as many, at least one",
                timesteps.len(),
                sigmas.len()
            );
        }
        // The highest level is 1 but for rounding.
        for (field, list, most) in [("timesteps", timesteps, 1000.0), ("sigmas", sigmas, 1.0)] {
            let in_range = list.iter().all(|x| (0.0..=most * (1.0 + 1e-9)).contains(x));
            if !in_range || !list.is_sorted_by(|a, b| a > b) {
                refuse!(
                    Artifact,
                    "field `sampler.{field}`: found {list:?}, expected numbers that descend within 0 to {most}"
                );
            }
        }
        Ok(())
    }
}

/// Makes a chunk: noise to estimate, estimate to the next level with fresh noise, and so on. `velocity(x, timestep, step)` is
/// the network. The first of `noise` starts the chunk, the others go to the steps after the first.
///
/// # Errors
/// As many noise tensors as steps are needed; an error of `velocity` is returned as it is.
pub fn autoregressive<E: From<Error>>(
    sampler: &KernelSampler,
    noise: &[HostTensor],
    mut velocity: impl FnMut(&HostTensor, f64, usize) -> Result<HostTensor, E>,
) -> Result<HostTensor, E> {
    let KernelSampler::FlowMatchingAr { timesteps, sigmas } = sampler;
    if noise.len() != sigmas.len() {
        refuse!(Input, "noise: found {} tensor(s), expected {}, one a step", noise.len(), sigmas.len());
    }
    let Some(first) = noise.first() else { refuse!(Input, "a sampler without steps") };
    let mut x = first.clone();
    for (step, (&t, &sigma)) in timesteps.iter().zip(sigmas).enumerate() {
        let v = velocity(&x, t, step)?;
        same_shape("velocity", &v, &x)?;
        for (x, v) in x.data.iter_mut().zip(&v.data) {
            *x = (f64::from(*x) - sigma * f64::from(*v)) as f32;
        }
        if let (Some(&next), Some(fresh)) = (sigmas.get(step + 1), noise.get(step + 1)) {
            same_shape("noise", fresh, &x)?;
            for (x, e) in x.data.iter_mut().zip(&fresh.data) {
                *x = ((1.0 - next) * f64::from(*x) + next * f64::from(*e)) as f32;
            }
        }
    }
    Ok(x)
}

fn same_shape(what: &str, found: &HostTensor, expected: &HostTensor) -> Result<(), Error> {
    if found.shape != expected.shape {
        refuse!(Input, "{what}: found shape {:?}, expected {:?}", found.shape, expected.shape);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(data: &[f32]) -> HostTensor {
        HostTensor { shape: vec![data.len()], data: data.to_vec() }
    }

    #[test]
    fn an_exact_velocity_gives_the_data_back() {
        let sampler = KernelSampler::autoregressive(&[1000.0, 750.0, 500.0, 250.0], 5.0);
        let KernelSampler::FlowMatchingAr { timesteps, sigmas } = &sampler;
        assert_eq!(sigmas[0], 1.0);
        assert!((sigmas[3] - 0.625).abs() < 1e-15 && (timesteps[3] - 625.0).abs() < 1e-12);
        let data = [0.25f32, -1.5];
        let noise = [tensor(&[1.0, 2.0]), tensor(&[0.5, 0.5]), tensor(&[-1.0, 0.0]), tensor(&[2.0, 1.0])];
        let exact = |x: &HostTensor, t: f64, _| {
            let sigma = t / 1000.0;
            Ok::<_, Error>(tensor(&[0, 1].map(|i| ((f64::from(x.data[i]) - f64::from(data[i])) / sigma) as f32)))
        };
        let x = autoregressive(&sampler, &noise, exact).unwrap();
        assert!(x.data.iter().zip(data).all(|(a, b)| (a - b).abs() < 1e-6), "{:?}", x.data);
        let wrong = autoregressive(&sampler, &noise[..2], exact).unwrap_err().to_string();
        assert!(wrong.contains("found 2") && wrong.contains("expected 4"), "{wrong}");
    }
}
