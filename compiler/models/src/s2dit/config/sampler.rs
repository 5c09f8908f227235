//! The noise levels and timesteps that a checkpoint's sampler asks its network for.

use s2dit_runtime::stream::sampler::{euler_sigmas, shifted};

use super::{S2ditConfig, SampleSteps};

impl S2ditConfig {
    /// Noise levels after the shift, from high to low. Those of a number of Euler steps end with 0, where there is no call.
    #[must_use]
    pub fn sigmas(&self) -> Vec<f64> {
        match &self.sample_steps {
            SampleSteps::Timesteps(steps) => steps.iter().map(|t| shifted(t / 1000.0, self.flow_shift)).collect(),
            SampleSteps::Count(steps) => euler_sigmas(*steps, self.flow_shift),
        }
    }

    /// The timesteps 1000·σ that the network is called with, in fp32, in the sampler's order.
    #[must_use]
    pub fn timesteps(&self) -> Vec<f64> {
        let mut sigmas = self.sigmas();
        if let SampleSteps::Count(steps) = self.sample_steps {
            sigmas.truncate(steps);
        }
        sigmas.into_iter().map(|s| f64::from((1000.0 * s) as f32)).collect()
    }
}
