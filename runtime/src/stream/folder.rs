//! A kernel folder as it lies on disk, judged whole: every command opens it here, so that what one of them takes, all of them take.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use s2dit_backends::coreai::Asset;
use s2dit_backends::coreml::Package;
use s2dit_backends::onnx::read::Model;

use super::contract::{self, Contract, Function, Port, StatesPolicy, Target};
use super::made_for;
use crate::Error;
use crate::Port as Found;
use crate::ports::{Declared, check_parts};

/// A contract and the artifacts that it names, which are what it says.
#[derive(Debug)]
pub struct KernelFolder {
    dir: PathBuf,
    contract: Contract,
    artifacts: BTreeMap<String, Opened>,
}

/// An artifact of a kernel.
#[derive(Debug)]
pub(crate) enum Opened {
    Onnx(Box<Model>),
    CoreMl(Box<Package>),
    CoreAi(Box<Asset>),
}

impl Opened {
    /// User-defined metadata.
    pub(crate) fn metadata(&self) -> BTreeMap<String, String> {
        match self {
            Opened::Onnx(model) => model.metadata(),
            Opened::CoreMl(package) => package.metadata(),
            Opened::CoreAi(asset) => asset.metadata(),
        }
    }

    /// What a function takes, returns and declares as states.
    pub(crate) fn interface(&self, function: &str) -> Result<[Vec<Found>; 3]> {
        match self {
            Opened::Onnx(model) => Ok([model.inputs(), model.outputs(), Vec::new()].map(found)),
            Opened::CoreMl(package) => Ok(package.interface(function_of(package, function))?.map(found)),
            Opened::CoreAi(asset) => {
                Ok([asset.inputs(function), asset.outputs(function), asset.states(function)].map(found))
            }
        }
    }
}

fn found<P: Into<Found>>(ports: Vec<P>) -> Vec<Found> {
    ports.into_iter().map(Into::into).collect()
}

/// The name of a kernel's function in a package: one that has a single function calls it `main`.
pub(super) fn function_of(package: &Package, function: &str) -> String {
    match &package.functions()[..] {
        [only] => only.clone(),
        _ => function.into(),
    }
}

impl KernelFolder {
    /// Opens the kernel folder `dir`.
    ///
    /// # Errors
    /// Not a kernel folder; a contract that contradicts itself; artifacts that are not there, cannot be read, were made for another
    /// contract, or take and return something else than it says.
    pub fn open(dir: &Path) -> Result<KernelFolder, Error> {
        KernelFolder::opened(dir).map_err(Error::artifact)
    }

    fn opened(dir: &Path) -> Result<KernelFolder> {
        let contract = Contract::read(dir)?;
        let mut artifacts = BTreeMap::new();
        for file in contract.files() {
            let path = dir.join(file);
            if !path.exists() {
                bail!("`{}`: the contract names this artifact, but it is not there", path.display());
            }
            let opened = match contract.target {
                Target::Onnx => Opened::Onnx(Box::new(Model::open(&path)?)),
                Target::CoreMl => Opened::CoreMl(Box::new(Package::open(&path)?)),
                Target::CoreAi => Opened::CoreAi(Box::new(Asset::open(&path)?)),
            };
            artifacts.insert(file.to_string(), opened);
        }
        // Before the weights: a model of another kernel has other weights, and what it was made for tells more.
        let metadata = artifacts.iter().map(|(file, artifact)| (file.clone(), artifact.metadata()));
        made_for::check(dir, &contract.compiler, metadata)?;
        for artifact in artifacts.values() {
            if let Opened::Onnx(model) = artifact {
                model.check_external_files()?;
            }
        }
        let folder = KernelFolder { dir: dir.into(), contract, artifacts };
        for (name, function) in folder.contract.functions.all() {
            folder.check_function(name, function)?;
        }
        Ok(folder)
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The contract.
    #[must_use]
    pub fn contract(&self) -> &Contract {
        &self.contract
    }

    /// User-defined metadata of one of the contract's files.
    #[must_use]
    pub fn metadata(&self, file: &str) -> BTreeMap<String, String> {
        self.artifacts.get(file).map(Opened::metadata).unwrap_or_default()
    }

    /// The oldest systems that load one of the contract's files, if it is of Core ML or Core AI.
    #[must_use]
    pub fn minimum_os(&self, file: &str) -> Option<String> {
        match self.artifacts.get(file)? {
            Opened::CoreMl(package) => Some(package.minimum_os().into()),
            Opened::CoreAi(_) => Some("iOS 27, macOS 27".into()),
            Opened::Onnx(_) => None,
        }
    }

    pub(super) fn artifact(&self, file: &str) -> Option<&Opened> {
        self.artifacts.get(file)
    }

    fn check_function(&self, name: &str, f: &Function) -> Result<()> {
        if f.parts.is_empty() {
            return self.check_artifact(&f.file, &f.function, &f.inputs, &f.outputs);
        }
        let place = self.dir.join(contract::FILE).display().to_string();
        check_parts(&place, &format!("functions.{name}."), &f.inputs, &f.outputs, &f.parts)?;
        f.parts.iter().try_for_each(|part| self.check_artifact(&part.file, &f.function, &part.inputs, &part.outputs))
    }

    fn check_artifact(&self, file: &str, function: &str, inputs: &[Port], outputs: &[Port]) -> Result<()> {
        let place = self.dir.join(file).display().to_string();
        let Some(artifact) = self.artifacts.get(file) else {
            bail!("`{place}`: the contract names this artifact, but it is not there");
        };
        let [taken, returned, states] = artifact.interface(function)?;
        let native = self.contract.states_policy == StatesPolicy::Native;
        let is_state = |name: &str| self.contract.states.iter().any(|s| s.name == name);
        let by = contract::FILE;
        Declared { by, what: "input", ports: inputs }.check(&place, &taken, is_state)?;
        Declared { by, what: "output", ports: outputs }.check(&place, &returned, |_| false)?;
        let kept: Vec<Port> = (self.contract.states.iter())
            .filter(|_| native)
            .map(|s| Port { name: s.name.clone(), dtype: s.dtype, shape: s.shape.clone() })
            .collect();
        Declared { by, what: "state", ports: &kept }.check(&place, &states, |_| true)
    }
}
