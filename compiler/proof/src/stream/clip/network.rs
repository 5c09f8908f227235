//! The network of a clip: one artifact, or two experts of which one is loaded at a time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use s2dit_ir::Interface;
use s2dit_runtime::experts::Description;
use s2dit_runtime::{Artifact, Chain, HostTensor, Port, RunOptions, Timesteps};

use s2dit_models::config;
use s2dit_models::model::Sampler;

/// An artifact that serves all timesteps, or some.
struct Part {
    path: PathBuf,
    artifact: Artifact,
    interface: Interface,
    timesteps: Option<Timesteps>,
}

pub(super) struct Network {
    run: RunOptions,
    /// Which of two parts is asked when.
    experts: Option<Description>,
    parts: Vec<Part>,
    loaded: (usize, Chain),
}

impl Network {
    /// Opens an artifact, or the artifacts of a folder of experts, and loads the first.
    pub(super) fn open(path: &Path, run: &RunOptions) -> Result<Network> {
        let experts = Description::read(path)?;
        let paths = experts.as_ref().map_or_else(|| vec![path.to_owned()], |experts| experts.paths(path));
        let parts = paths.into_iter().map(Part::open).collect::<Result<Vec<_>>>()?;
        for part in &parts[1..] {
            part.check_like(&parts[0])?;
        }
        let loaded = (0, parts[0].session(run)?);
        Ok(Network { run: run.clone(), experts, parts, loaded })
    }

    /// The interface, which all parts have.
    pub(super) fn interface(&self) -> &Interface {
        &self.parts[0].interface
    }

    /// Steps and shift of the sampler, which all parts have.
    pub(super) fn sampler(&self) -> Result<(usize, f64)> {
        let first = self.parts[0].sampler()?;
        for part in &self.parts[1..] {
            let found = part.sampler()?;
            if found != first {
                let (one, other) = (self.parts[0].path.display(), part.path.display());
                bail!(
                    "`{other}`: found a sampler of {} steps and shift {}, expected {} and {}, as `{one}` has",
                    found.0,
                    found.1,
                    first.0,
                    first.1
                );
            }
        }
        Ok(first)
    }

    /// The shape of an input.
    pub(super) fn input(&self, what: &str, name: Option<&str>) -> Result<Vec<usize>> {
        let port = self.parts[0].artifact.inputs().into_iter().find(|port| Some(port.name.as_str()) == name);
        self.shape(port.as_ref())
            .with_context(|| format!("`{}`: no input that is {what}, of static shape", self.parts[0].path.display()))
    }

    /// Channels of the velocity.
    pub(super) fn velocity_channels(&self) -> Result<usize> {
        let name = self.interface().output();
        let port = self.loaded.1.outputs().iter().find(|port| Some(port.name.as_str()) == name);
        let shape = self.shape(port).unwrap_or_default();
        shape.get(1).copied().with_context(|| {
            format!("`{}`: no output that is a velocity, of static shape", self.parts[0].path.display())
        })
    }

    fn shape(&self, port: Option<&Port>) -> Option<Vec<usize>> {
        port?.shape.iter().map(|side| usize::try_from(*side).ok()).collect()
    }

    /// How many of some timesteps each of two parts is asked at, by their names; `None` if there is one.
    pub(super) fn shares(&self, timesteps: impl Iterator<Item = f64>) -> Option<Vec<(String, usize)>> {
        let experts = self.experts.as_ref()?;
        let mut shares: Vec<(String, usize)> = experts.experts.iter().map(|expert| (expert.name.clone(), 0)).collect();
        for timestep in timesteps {
            shares[experts.at(timestep)].1 += 1;
        }
        Some(shares)
    }

    /// Which part is asked at a timestep.
    pub(super) fn at(&self, timestep: f64) -> usize {
        self.experts.as_ref().map_or(0, |experts| experts.at(timestep))
    }

    /// Whether the part that is asked at a timestep was compiled for it.
    pub(super) fn check(&self, timestep: f64) -> Result<()> {
        self.parts[self.at(timestep)].timesteps.as_ref().map_or(Ok(()), |listed| Ok(listed.check(timestep)?))
    }

    /// Runs the part that is asked at a timestep. A part that takes over is loaded in the place of the other.
    pub(super) fn run(
        &mut self,
        timestep: f64,
        inputs: &BTreeMap<&str, &HostTensor>,
    ) -> Result<BTreeMap<String, HostTensor>> {
        let at = self.at(timestep);
        if self.loaded.0 != at {
            self.loaded = (at, self.parts[at].session(&self.run)?);
        }
        Ok(self.loaded.1.run_with(|name| inputs.get(name).copied())?)
    }
}

impl Part {
    fn open(path: PathBuf) -> Result<Part> {
        let shown = || format!("`{}`", path.display());
        let artifact = Artifact::open(&path)?;
        let interface = artifact.interface().with_context(shown)?;
        let timesteps = artifact.timesteps().with_context(shown)?;
        Ok(Part { artifact, interface, timesteps, path })
    }

    fn session(&self, run: &RunOptions) -> Result<Chain> {
        self.artifact.session(run).with_context(|| format!("cannot load `{}`", self.path.display()))
    }

    /// Refuses an artifact whose inputs are not those of another.
    fn check_like(&self, other: &Part) -> Result<()> {
        let ports = |part: &Part| -> Vec<(String, Vec<i64>)> {
            part.artifact.inputs().into_iter().map(|port| (port.name, port.shape)).collect()
        };
        let (found, expected) = (ports(self), ports(other));
        if found != expected {
            bail!(
                "`{}`: found inputs {found:?}, expected those of `{}`: {expected:?}",
                self.path.display(),
                other.path.display()
            );
        }
        Ok(())
    }

    /// Steps and shift of the sampler.
    fn sampler(&self) -> Result<(usize, f64)> {
        let shown = self.path.display();
        let metadata = self.artifact.metadata();
        let Some(config) = metadata.get("s2ditc.config") else {
            bail!("`{shown}`: expected an artifact of s2ditc, found one without `s2ditc.config` in its metadata");
        };
        let model = config::parse(config, &format!("{shown}: metadata s2ditc.config"))?;
        match model.sampler()? {
            Sampler::Euler { steps, shift } => Ok((steps, shift)),
            Sampler::Fixed { .. } if model.streaming().is_err() => bail!(
                "`{shown}`: config.json ({}): found a list of noise levels, expected a number of Euler steps, which a \
                 bidirectional checkpoint has",
                model.family().sampler_fields().join(", ")
            ),
            Sampler::Fixed { .. } => bail!(
                "`{shown}`: a whole clip of an autoregressive checkpoint, which makes video chunk by chunk: compile it with \
                 --mode stream"
            ),
        }
    }
}
