//! The timesteps that a compiled step can be asked for.

use anyhow::{Context, Result};
use s2dit_ir::Module;
use s2dit_passes::timesteps;
use s2dit_runtime::timesteps::{INPUT, Timesteps as Listed};

use super::choice::choice;
use s2dit_models::checkpoint::{CONFIG_FILE, Checkpoint};
use s2dit_models::s2dit::config::S2ditConfig;

/// The timesteps that a compiled step can be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestepChoice {
    /// All of [0, 1000].
    #[default]
    Any,
    /// The timesteps of the checkpoint's sampler and no others: tables take the place of the time embedding.
    FromConfig,
}

choice!(TimestepChoice, "timesteps", Any = "any", FromConfig = "from-config");

impl TimestepChoice {
    /// The list that an artifact of this checkpoint says it was made for; `None` for any timestep.
    #[must_use]
    pub fn listed(self, config: &S2ditConfig) -> Option<Listed> {
        match self {
            TimestepChoice::Any => None,
            TimestepChoice::FromConfig => Some(Listed::new(config.timesteps())),
        }
    }

    /// Refuses a checkpoint whose sampler's timesteps fp16 cannot tell apart; any timestep is fine.
    ///
    /// # Errors
    /// Two timesteps that are too near, and the fields of `config.json` that they come from.
    pub(super) fn check(self, checkpoint: &Checkpoint) -> Result<()> {
        let Some(listed) = self.listed(checkpoint.config()) else { return Ok(()) };
        timesteps::check(listed.list()).with_context(|| {
            format!(
                "--timesteps from-config: `{}`: fields `sample_steps` and `flow_shift` ({}); --timesteps any takes every timestep",
                checkpoint.dir().join(CONFIG_FILE).display(),
                checkpoint.config().flow_shift
            )
        })
    }
}

/// Puts the tables of a list into every function that has a timestep; returns how many.
///
/// # Errors
/// Timesteps that fp16 cannot tell apart.
pub fn tables(module: &mut Module, listed: &Listed) -> Result<usize> {
    Ok(timesteps::run(module, INPUT, listed.list())?)
}
