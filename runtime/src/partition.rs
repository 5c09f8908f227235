//! A step that is spread over several packages: `partition.json`, and models that run one after the other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use s2dit_backends::coreml::{self, Package};
use s2dit_backends::input::{LARGEST_JSON, read_text};
use s2dit_passes::emulate::Arithmetic;
use serde::{Deserialize, Serialize};

use crate::coreai_engine::Called;
use crate::error::refuse;
use crate::ports;
pub use crate::ports::Part;
use crate::ports::{Declared, check_parts};
use crate::ranges::is_range;
use crate::{Error, HostTensor, Port, RunOptions, Session, function_session};

/// The description's file in a folder of packages.
pub const FILE: &str = "partition.json";
/// The value of the field `format`.
pub const FORMAT: &str = "s2dit-partition";
/// The version that this build writes and reads.
pub const VERSION: u32 = 1;

/// `partition.json`: a clip's step as packages that run one after the other.
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

/// A folder of packages with its description.
pub struct Partition {
    dir: PathBuf,
    description: Description,
    parts: Vec<Package>,
}

impl Partition {
    /// Opens the folder `dir`.
    ///
    /// # Errors
    /// No description, one of another format, packages that are missing or do not fit it.
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
            let package = Package::open(&dir.join(&part.file))?;
            fits(dir, index, &package, &description)?;
            parts.push(package);
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

    /// The packages, in order.
    #[must_use]
    pub fn parts(&self) -> &[Package] {
        &self.parts
    }

    /// Loads every part; see [`crate::Artifact::session`].
    ///
    /// # Errors
    /// Options that do not apply; a model that ONNX Runtime does not take.
    pub fn chain(&self, options: &RunOptions) -> Result<Chain, Error> {
        let arithmetic = if options.fp16 { Arithmetic::RoundedFp16 } else { Arithmetic::Fp32 };
        let mut sessions = Vec::new();
        let mut missing: Vec<&String> = options.probes.iter().collect();
        for package in &self.parts {
            let module = coreml::raise(package, None)?;
            let Some(function) = module.functions.first() else { refuse!(Artifact, "a package without a function") };
            let taken = |n: &str| function.params().iter().any(|&p| function.node(p).name.as_deref() == Some(n));
            let (here, later): (Vec<&String>, Vec<&String>) =
                missing.into_iter().partition(|n| function.by_name(n).is_some() && !taken(n));
            missing = later;
            // What a part returns is there without asking.
            let returned = |n: &str| function.results.iter().any(|(r, _)| r == n);
            let probes = here.into_iter().filter(|n| !returned(n)).cloned().collect();
            sessions.push(function_session(function, package, arithmetic, &RunOptions { probes, ..options.clone() })?);
        }
        if let Some(name) = missing.first() {
            refuse!(Input, "`{}`: no part computes a value named `{name}`", self.dir.display());
        }
        let outputs = self.description.outputs.iter().map(|p| p.name.clone());
        let outputs: Vec<String> = outputs.chain(options.probes.iter().cloned()).collect();
        Ok(Chain::new(sessions, &outputs))
    }
}

/// Checks that a package is the part that the description means.
fn fits(dir: &Path, index: usize, package: &Package, description: &Description) -> Result<()> {
    let part = &description.parts[index];
    let place = dir.join(&part.file).display().to_string();
    for (what, ports, features) in
        [("input", &part.inputs, package.inputs()), ("output", &part.outputs, package.outputs())]
    {
        let found: Vec<Port> =
            features.into_iter().map(|f| Port { name: f.name, dtype: f.dtype, shape: f.shape }).collect();
        Declared { by: FILE, what, ports }.check(&place, &found, |_| false)?;
    }
    let metadata = package.metadata();
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

    fn of(parts: Vec<Link>, outputs: &[String]) -> Chain {
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
enum Link {
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

impl From<Called> for Chain {
    fn from(called: Called) -> Chain {
        let outputs: Vec<String> = called.outputs().iter().map(|p| p.name.clone()).collect();
        Chain::of(vec![Link::Called(called)], &outputs)
    }
}

impl From<Session> for Chain {
    fn from(session: Session) -> Chain {
        let outputs: Vec<String> = session.outputs().iter().map(|p| p.name.clone()).collect();
        Chain::new(vec![session], &outputs)
    }
}
