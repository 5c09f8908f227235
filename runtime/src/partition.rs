//! A step that is spread over several packages or assets: `partition.json`, and models that run one after the other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use s2dit_backends::coreai::Asset;
use s2dit_backends::coreml::Package;
use s2dit_backends::input::{LARGEST_JSON, read_text};
use serde::{Deserialize, Serialize};

use crate::coreai_engine::Called;
use crate::error::refuse;
use crate::ports;
pub use crate::ports::Part;
use crate::ports::{Declared, check_parts};
use crate::ranges::is_range;
use crate::stream::contract::Target;
use crate::{Artifact, Error, HostTensor, Port, RunOptions, Session};

/// The description's file in a folder of parts.
pub const FILE: &str = "partition.json";
/// The value of the field `format`.
pub const FORMAT: &str = "s2dit-partition";
/// The version that this build writes and reads.
pub const VERSION: u32 = 1;

/// `partition.json`: a clip's step as packages or assets that run one after the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// Inputs that the host passes.
    pub inputs: Vec<ports::Port>,
    /// Outputs that come back.
    pub outputs: Vec<ports::Port>,
    /// Parts, in the order in which they run.
    pub parts: Vec<Part>,
    /// Metadata that every part has.
    pub metadata: BTreeMap<String, String>,
}

/// A folder of packages or assets with its description.
pub struct Partition {
    dir: PathBuf,
    description: Description,
    parts: Vec<Artifact>,
}

impl Partition {
    /// Opens the folder `dir`.
    ///
    /// # Errors
    /// No description, one of another format, parts that are missing or do not fit it.
    pub fn open(dir: &Path) -> Result<Partition, Error> {
        Partition::opened(dir).map_err(Error::artifact)
    }

    fn opened(dir: &Path) -> Result<Partition> {
        let path = dir.join(FILE);
        let text = read_text(&path, LARGEST_JSON).with_context(|| format!("cannot read `{}`", path.display()))?;
        let description: Description = serde_json::from_str(&text)
            .with_context(|| format!("`{}`: not the description of a partition", path.display()))?;
        if (description.format.as_str(), description.version) != (FORMAT, VERSION) {
            bail!(
                "`{}`: found format {:?}, version {}, expected {FORMAT:?}, version {VERSION}",
                path.display(),
                description.format,
                description.version
            );
        }
        if description.parts.is_empty() {
            bail!("`{}`: parts: found none, expected at least one", path.display());
        }
        if description.outputs.is_empty() {
            bail!("`{}`: outputs: found none, expected at least one", path.display());
        }
        let place = path.display().to_string();
        check_parts(&place, "", &description.inputs, &description.outputs, &description.parts)?;
        let mut parts = Vec::new();
        for (index, part) in description.parts.iter().enumerate() {
            let opened = open_part(dir, &part.file)?;
            fits(dir, index, &opened, &description)?;
            parts.push(opened);
        }
        Ok(Partition { dir: dir.into(), description, parts })
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// `partition.json`.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The parts, in order: packages, or assets.
    #[must_use]
    pub fn parts(&self) -> &[Artifact] {
        &self.parts
    }

    /// What the parts are for.
    #[must_use]
    pub fn target(&self) -> Target {
        match self.parts.first() {
            Some(Artifact::CoreAi(_)) => Target::CoreAi,
            _ => Target::CoreMl,
        }
    }

    /// Loads every part; see [`crate::Artifact::session`].
    ///
    /// # Errors
    /// Options that do not apply; a model that the engine does not take.
    pub fn chain(&self, options: &RunOptions) -> Result<Chain, Error> {
        let mut links = Vec::new();
        let mut missing: Vec<&String> = options.probes.iter().collect();
        for part in &self.parts {
            let (computed, returned) = (part.values()?, part.outputs());
            let (here, later): (Vec<&String>, Vec<&String>) =
                missing.into_iter().partition(|n| computed.contains(n.as_str()));
            missing = later;
            // What a part returns is there without asking.
            let probes = here.into_iter().filter(|n| !returned.contains(n)).cloned().collect();
            links.push(part.link(&RunOptions { probes, ..options.clone() })?);
        }
        if let Some(name) = missing.first() {
            refuse!(Input, "`{}`: no part computes a value named `{name}`", self.dir.display());
        }
        let outputs = self.description.outputs.iter().map(|p| p.name.clone());
        let outputs: Vec<String> = outputs.chain(options.probes.iter().cloned()).collect();
        Ok(Chain::of(links, &outputs))
    }
}

/// Opens a part of a folder by the ending of its name.
fn open_part(dir: &Path, file: &str) -> Result<Artifact> {
    let path = dir.join(file);
    let ending = Path::new(file).extension().and_then(|ending| ending.to_str());
    Ok(match ending {
        Some(ending) if ending == Target::CoreAi.extension() => Artifact::CoreAi(Box::new(Asset::open(&path)?)),
        _ => Artifact::MlPackage(Box::new(Package::open(&path)?)),
    })
}

/// Checks that an artifact is the part that the description means.
fn fits(dir: &Path, index: usize, opened: &Artifact, description: &Description) -> Result<()> {
    let part = &description.parts[index];
    let place = dir.join(&part.file).display().to_string();
    for (what, ports, found) in [("input", &part.inputs, opened.inputs()), ("output", &part.outputs, opened.returned())]
    {
        Declared { by: FILE, what, ports }.check(&place, &found, |_| false)?;
    }
    let metadata = opened.metadata();
    let own = BTreeMap::from([("s2ditc.part".to_string(), part_of(index, description.parts.len()))]);
    for (key, wanted) in description.metadata.iter().chain(&own) {
        let found = metadata.get(key);
        if found != Some(wanted) {
            bail!(
                "`{place}`: {key}: found {}, expected {wanted:?}: a part of another model?",
                found.map_or("nothing".into(), |found| format!("{found:?}"))
            );
        }
    }
    Ok(())
}

/// The value of `s2ditc.part` in a part's metadata.
#[must_use]
pub fn part_of(index: usize, count: usize) -> String {
    format!("{} of {count}", index + 1)
}

/// Models that run one after the other; what one returns, later ones take by name.
pub struct Chain {
    parts: Vec<Link>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

impl Chain {
    /// A chain that returns `outputs`.
    #[must_use]
    pub fn new(parts: Vec<Session>, outputs: &[String]) -> Chain {
        Chain::of(parts.into_iter().map(Link::Session).collect(), outputs)
    }

    /// The same of parts that may be computed by different engines.
    pub(crate) fn of(parts: Vec<Link>, outputs: &[String]) -> Chain {
        let mut made: Vec<Port> = Vec::new();
        let mut inputs: Vec<Port> = Vec::new();
        for part in &parts {
            for port in part.inputs() {
                if !made.iter().chain(&inputs).any(|p| p.name == port.name) {
                    inputs.push(port.clone());
                }
            }
            made.extend(part.outputs().iter().cloned());
        }
        made.retain(|p| outputs.contains(&p.name) || is_range(&p.name));
        Chain { parts, inputs, outputs: made }
    }

    /// The inputs of the whole: those of the first part, and those of later parts that no earlier part makes.
    #[must_use]
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// The outputs that come back.
    #[must_use]
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// [`Session::run`] of the whole chain.
    ///
    /// # Errors
    /// A missing or unknown input, a wrong shape, a failing op.
    pub fn run(&mut self, inputs: &BTreeMap<String, HostTensor>) -> Result<BTreeMap<String, HostTensor>, Error> {
        crate::ort_engine::check_inputs(&self.inputs, inputs)?;
        self.run_with(|name| inputs.get(name))
    }

    /// [`Session::run_with`] of the whole chain.
    ///
    /// # Errors
    /// A missing input, a wrong shape, a failing op.
    pub fn run_with<'a>(
        &mut self,
        input: impl Fn(&str) -> Option<&'a HostTensor>,
    ) -> Result<BTreeMap<String, HostTensor>, Error> {
        let mut made: BTreeMap<String, HostTensor> = BTreeMap::new();
        for part in &mut self.parts {
            let results = part.run_with(|name| made.get(name).or_else(|| input(name)))?;
            made.extend(results);
        }
        made.retain(|name, _| self.outputs.iter().any(|p| p.name == *name));
        Ok(made)
    }
}

/// A part of a chain.
pub(crate) enum Link {
    /// ONNX Runtime computes it.
    Session(Session),
    /// Apple's runtime of Core AI computes it.
    Called(Called),
}

impl Link {
    fn inputs(&self) -> &[Port] {
        match self {
            Link::Session(session) => session.inputs(),
            Link::Called(called) => called.inputs(),
        }
    }

    fn outputs(&self) -> &[Port] {
        match self {
            Link::Session(session) => session.outputs(),
            Link::Called(called) => called.outputs(),
        }
    }

    fn run_with<'a>(
        &mut self,
        input: impl Fn(&str) -> Option<&'a HostTensor>,
    ) -> Result<BTreeMap<String, HostTensor>, Error> {
        match self {
            Link::Session(session) => session.run_with(input),
            Link::Called(called) => called.run_with(input),
        }
    }
}

impl From<Link> for Chain {
    fn from(link: Link) -> Chain {
        let outputs: Vec<String> = link.outputs().iter().map(|p| p.name.clone()).collect();
        Chain::of(vec![link], &outputs)
    }
}

impl From<Session> for Chain {
    fn from(session: Session) -> Chain {
        Chain::from(Link::Session(session))
    }
}
