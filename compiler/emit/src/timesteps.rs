//! The timesteps that a compiled step can be asked for.

use anyhow::{Context, Result, bail};
use s2dit_ir::{Function, Module};
use s2dit_passes::timesteps;
use s2dit_runtime::timesteps::Timesteps as Listed;

use s2dit_files::choice;
use s2dit_models::Model;
use s2dit_models::checkpoint::Checkpoint;

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
    ///
    /// # Errors
    /// A model without a sampler.
    pub fn listed(self, model: &dyn Model) -> Result<Option<Listed>> {
        Ok(match self {
            TimestepChoice::Any => None,
            TimestepChoice::FromConfig => {
                Some(Listed::new(model.sampler().context("--timesteps from-config")?.timesteps()))
            }
        })
    }

    /// Refuses a list for a step that takes a timestep for each token: a table has a row for one timestep of all tokens.
    ///
    /// # Errors
    /// The input, its shape, and what to ask for instead.
    pub(super) fn check_time(self, module: &Module) -> Result<()> {
        let Some(name) = module.interface.time().filter(|_| self == TimestepChoice::FromConfig) else { return Ok(()) };
        let parameter = |f: &Function| f.by_name(name).map(|v| f.shape(v).to_vec());
        match module.functions.iter().find_map(parameter) {
            Some(shape) if shape.iter().product::<usize>() > 1 => bail!(
                "--timesteps from-config: input `{name}`: found {shape:?}, a timestep for each token, expected [1]: tables have a row for \
                 each timestep of all tokens alike; use --timesteps any"
            ),
            _ => Ok(()),
        }
    }

    /// Refuses a checkpoint whose sampler's timesteps fp16 cannot tell apart; any timestep is fine.
    ///
    /// # Errors
    /// Two timesteps that are too near, and the fields of `config.json` that they come from.
    pub(super) fn check(self, checkpoint: &Checkpoint) -> Result<()> {
        let Some(listed) = self.listed(checkpoint.model())? else { return Ok(()) };
        timesteps::check(listed.list()).with_context(|| {
            let fields: Vec<String> =
                checkpoint.model().family().sampler_fields().iter().map(|field| format!("`{field}`")).collect();
            format!(
                "--timesteps from-config: `{}`: fields {}; --timesteps any takes every timestep",
                checkpoint.config_file().display(),
                fields.join(" and ")
            )
        })
    }
}
