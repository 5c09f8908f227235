//! Samplers: how a clip or a chunk is made from noise, with a network that predicts a velocity.
//!
//! Flow matching: `x_σ = (1 − σ)·x₀ + σ·ε`, and the network predicts `ε − x₀`. A sampler of clips is a [`Sampler`]: it says the noise levels at which the
//! network is called, and makes each latent from the one before. [`of_scheduler`] reads one from what diffusers calls a scheduler. The sampler of a kernel
//! is [`autoregressive`].
//!
//! ```
//! use s2dit_runtime::sampler::{Euler, Sampler, Spacing};
//!
//! let levels = Euler::shifted(3.0).levels(2, 1)?;
//! assert_eq!(levels.sigmas, [1.0, 0.75, 0.0]);
//! # Ok::<(), s2dit_runtime::Error>(())
//! ```

mod autoregressive;
mod dpm_solver;
mod euler;
mod fields;
mod guidance;
mod shift;
mod unipc;

use std::fmt;

use serde_json::{Map, Value};

use crate::error::refuse;
use crate::{Error, HostTensor};
pub use autoregressive::{KernelSampler, autoregressive};
pub use dpm_solver::DpmSolver;
pub use euler::{Euler, euler_sigmas};
pub use guidance::guided;
pub use shift::shifted;
pub use unipc::UniPc;

use fields::Fields;

/// A way to make a clip from noise.
pub trait Sampler: fmt::Debug + Send + Sync {
    /// The noise levels of a clip in `steps` steps. `places` is the number of places of the latent, F·H·W, on which some shifts depend.
    ///
    /// # Errors
    /// Steps for which the levels do not descend.
    fn levels(&self, steps: usize, places: usize) -> Result<NoiseLevels, Error>;

    /// A run over `levels`, before its first step.
    fn begin(&self, levels: &NoiseLevels) -> Box<dyn Run>;
}

/// A sampler on its way through the steps of a clip.
pub trait Run {
    /// Takes the next step: `x` at a noise level becomes `x` at the next, by the velocity that the network predicts for it.
    fn step(&mut self, x: &mut [f64], velocity: &[f64]);
}

/// The noise levels of a clip.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseLevels {
    /// σ before each step, from high to low, and that after the last step.
    pub sigmas: Vec<f64>,
    /// The timestep that the network gets at each step, in [0, 1000].
    pub timesteps: Vec<f64>,
}

impl NoiseLevels {
    /// The number of steps.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.timesteps.len()
    }

    /// Checks that levels descend within 0 to 1, which no step divides by 0 then.
    fn checked(self) -> Result<NoiseLevels, Error> {
        let in_range = self.sigmas.iter().all(|sigma| (0.0..=1.0 + 1e-9).contains(sigma));
        if !in_range || !self.sigmas.is_sorted_by(|a, b| a > b) {
            refuse!(
                Input,
                "steps: found {}, for which the noise levels of the scheduler are {:?}; expected levels that descend within 0 to 1: ask for another \
                 number of steps",
                self.timesteps.len(),
                self.sigmas
            );
        }
        Ok(self)
    }
}

/// Who spaces the noise levels before they are shifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// The scheduler, as its class does.
    Scheduler,
    /// The caller: evenly from 1 to 1/steps.
    Linear,
}

impl Spacing {
    /// Evenly from 1 to 1/steps.
    fn linear(steps: usize) -> Vec<f64> {
        (0..steps).map(|i| 1.0 - i as f64 / steps as f64).collect()
    }
}

type Read = fn(&mut Fields<'_>, Spacing) -> Box<dyn Sampler>;

/// Every scheduler of diffusers that is read: its class, and how.
const SCHEDULERS: [(&str, Read); 3] = [
    ("FlowMatchEulerDiscreteScheduler", |fields, spacing| Box::new(Euler::read(fields, spacing))),
    ("UniPCMultistepScheduler", |fields, spacing| Box::new(UniPc::read(fields, spacing))),
    ("DPMSolverMultistepScheduler", |fields, spacing| Box::new(DpmSolver::read(fields, spacing))),
];

/// The classes of diffusers' schedulers that [`of_scheduler`] reads.
#[must_use]
pub fn classes() -> Vec<&'static str> {
    SCHEDULERS.iter().map(|(class, _)| *class).collect()
}

/// Reads a sampler from a scheduler of diffusers: its class, and the fields of its `scheduler_config.json`. A field that is not there has the default of
/// the class; one whose name starts with `_` is metadata. `place` names the file in errors.
///
/// # Errors
/// A class that is not in [`classes`]; a field that is unknown, of another type, or says what is not supported: all of them.
pub fn of_scheduler(
    class: &str,
    config: &Map<String, Value>,
    spacing: Spacing,
    place: &str,
) -> Result<Box<dyn Sampler>, Error> {
    let Some((_, read)) = SCHEDULERS.iter().find(|(known, _)| *known == class) else {
        refuse!(Artifact, "{place}: _class_name: found {class:?}, expected {}", classes().join(" or "));
    };
    let mut fields = Fields::new(config, place);
    let sampler = read(&mut fields, spacing);
    fields.finish()?;
    Ok(sampler)
}

/// Makes a clip from noise. `velocity` is the network, guidance included: it gets the latent, the timestep and the index of the step.
///
/// # Errors
/// A velocity of another size than the noise; an error of `velocity` is returned as it is.
pub fn clip<E: From<Error>>(
    sampler: &dyn Sampler,
    levels: &NoiseLevels,
    noise: &HostTensor,
    mut velocity: impl FnMut(&HostTensor, f64, usize) -> Result<Vec<f64>, E>,
) -> Result<HostTensor, E> {
    let mut x: Vec<f64> = noise.data.iter().map(|x| f64::from(*x)).collect();
    let mut latent = noise.clone();
    let mut run = sampler.begin(levels);
    for (step, timestep) in levels.timesteps.iter().enumerate() {
        let made = velocity(&latent, *timestep, step)?;
        if made.len() != x.len() {
            refuse!(Input, "velocity: found {} elements, expected {}, as the noise has", made.len(), x.len());
        }
        run.step(&mut x, &made);
        for (to, from) in latent.data.iter_mut().zip(&x) {
            *to = *from as f32;
        }
    }
    Ok(latent)
}

#[cfg(test)]
mod tests;
