//! The noise levels of a checkpoint's sampler.

use s2dit_runtime::sampler::{euler_sigmas, shifted};

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
}
