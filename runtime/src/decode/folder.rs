//! The folder of a decoder as it lies on disk, judged whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use s2dit_backends::coreai::Asset;
use s2dit_backends::coreml::Package;
use s2dit_backends::onnx::read::Model;

use super::contract::{self, Contract, Function, Port, StatesPolicy, Target};
use crate::ports::Declared;
use crate::stream::folder::Opened;
use crate::stream::{StreamOptions, kernel, made_for};
use crate::{Chain, Error};

/// A contract and the artifacts that it names, which are what it says.
#[derive(Debug)]
pub struct DecoderFolder {
    dir: PathBuf,
    contract: Contract,
    artifacts: BTreeMap<String, Opened>,
}

impl DecoderFolder {
    /// Opens the folder of a decoder.
    ///
    /// # Errors
    /// Not a decoder folder; a contract that contradicts itself; artifacts that are not there, cannot be read, were made for another
    /// contract, or take and return something else than it says.
    pub fn open(dir: &Path) -> Result<DecoderFolder, Error> {
        DecoderFolder::opened(dir).map_err(Error::artifact)
    }

    fn opened(dir: &Path) -> Result<DecoderFolder> {
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
        let metadata = artifacts.iter().map(|(file, artifact)| (file.clone(), artifact.metadata()));
        made_for::check(dir, &contract.compiler, metadata)?;
        for artifact in artifacts.values() {
            if let Opened::Onnx(model) = artifact {
                model.check_external_files()?;
            }
        }
        let folder = DecoderFolder { dir: dir.into(), contract, artifacts };
        for (name, function) in folder.contract.functions.all() {
            folder.check(function).with_context(|| format!("function `{name}`"))?;
        }
        Ok(folder)
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

    fn function(&self, name: &str) -> Result<&Function> {
        let all = self.contract.functions.all();
        all.into_iter()
            .find(|(known, _)| *known == name)
            .map(|(_, f)| f)
            .with_context(|| format!("no function `{name}`"))
    }

    /// A function, loaded.
    pub(super) fn session(&self, name: &str, options: &StreamOptions) -> Result<Chain> {
        let function = self.function(name)?;
        let path = self.dir.join(&function.file);
        let opened = self.artifacts.get(&function.file).with_context(|| format!("`{}`: not opened", path.display()))?;
        kernel::chain(opened, &path, &function.function, self.contract.precision, options)
    }

    fn check(&self, f: &Function) -> Result<()> {
        let place = self.dir.join(&f.file).display().to_string();
        let Some(artifact) = self.artifacts.get(&f.file) else { bail!("`{place}`: not opened") };
        let [taken, returned, states] = artifact.interface(&f.function)?;
        let by = contract::FILE;
        let is_state = |name: &str| self.contract.states.iter().any(|s| s.name == name);
        Declared { by, what: "input", ports: &f.inputs }.check(&place, &taken, is_state)?;
        Declared { by, what: "output", ports: &f.outputs }.check(&place, &returned, |_| false)?;
        let native = self.contract.states_policy == StatesPolicy::Native;
        let kept: Vec<Port> = (self.contract.states.iter())
            .filter(|_| native)
            .map(|s| Port { name: s.name.clone(), dtype: s.dtype, shape: s.shape.clone() })
            .collect();
        Declared { by, what: "state", ports: &kept }.check(&place, &states, |_| true)
    }
}
