//! Euler's method: `x ← x + (σᵢ₊₁ − σᵢ)·v`. diffusers has it as `FlowMatchEulerDiscreteScheduler`.

use serde_json::json;

use super::fields::Fields;
use super::shift::{self, Shift};
use super::{NoiseLevels, Run, Sampler, Spacing, shifted};
use crate::Error;
use crate::error::refuse;

/// Timesteps that a class of diffusers divides noise levels into.
const TRAIN_TIMESTEPS: f64 = 1000.0;

/// Noise levels of `steps` Euler steps from 1 to 0, spaced evenly and then shifted: `steps + 1` of them.
#[must_use]
pub fn euler_sigmas(steps: usize, shift: f64) -> Vec<f64> {
    (0..=steps).map(|i| shifted(1.0 - i as f64 / steps.max(1) as f64, shift)).collect()
}

/// Euler steps over shifted noise levels.
#[derive(Clone, Debug, PartialEq)]
pub struct Euler {
    shift: Shift,
    terminal: Option<f64>,
    spacing: Spacing,
}

impl Euler {
    /// Euler steps over levels that are spaced evenly from 1 to 0 and shifted by one number.
    #[must_use]
    pub fn shifted(shift: f64) -> Euler {
        Euler { shift: Shift::Fixed(shift), terminal: None, spacing: Spacing::Linear }
    }

    pub(super) fn read(fields: &mut Fields<'_>, spacing: Spacing) -> Euler {
        fields.only("num_train_timesteps", &json!(1000), &json!(1000), "the network's timesteps are 1000·σ");
        let shift = Shift::read(fields, "shift");
        let terminal = shift::terminal(fields);
        for field in ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"] {
            fields.only(field, &json!(false), &json!(false), "other spacings are not supported");
        }
        fields.only("invert_sigmas", &json!(false), &json!(false), "levels go from noise to data");
        fields.only("stochastic_sampling", &json!(false), &json!(false), "a step adds no noise");
        Euler { shift, terminal, spacing }
    }
}

impl Sampler for Euler {
    fn levels(&self, steps: usize, places: usize) -> Result<NoiseLevels, Error> {
        let mut sigmas: Vec<f64> = match (self.spacing, &self.shift) {
            (Spacing::Linear, _) => Spacing::linear(steps),
            (Spacing::Scheduler, Shift::Fixed(shift)) => {
                // The class shifts the lowest level when it is made, and all of them again here.
                let lowest = shifted(1.0 / TRAIN_TIMESTEPS, *shift);
                (0..steps).map(|i| 1.0 + (lowest - 1.0) * i as f64 / (steps.max(2) - 1) as f64).collect()
            }
            (Spacing::Scheduler, Shift::Dynamic(_)) => refuse!(
                Artifact,
                "scheduler: use_dynamic_shifting: found true, expected false: the pipeline passes no noise levels, and no shift that depends on the size"
            ),
        };
        for sigma in &mut sigmas {
            *sigma = self.shift.of(*sigma, places);
        }
        shift::stretched(&mut sigmas, self.terminal)?;
        let timesteps = sigmas.iter().map(|sigma| TRAIN_TIMESTEPS * sigma).collect();
        sigmas.push(0.0);
        NoiseLevels { sigmas, timesteps }.checked()
    }

    fn begin(&self, levels: &NoiseLevels) -> Box<dyn Run> {
        Box::new(Steps { sigmas: levels.sigmas.clone(), done: 0 })
    }
}

struct Steps {
    sigmas: Vec<f64>,
    done: usize,
}

impl Run for Steps {
    fn step(&mut self, x: &mut [f64], velocity: &[f64]) {
        let change = self.sigmas[self.done + 1] - self.sigmas[self.done];
        for (x, v) in x.iter_mut().zip(velocity) {
            *x += change * v;
        }
        self.done += 1;
    }
}
