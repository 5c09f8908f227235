//! Finished artifacts, opened from disk and run.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use s2dit_backends::coreai::{self, Asset};
use s2dit_backends::coreml::{self, Package};
use s2dit_backends::onnx;
use s2dit_ir::Interface;
use s2dit_passes::emulate::Arithmetic;

use crate::coreai_engine::{Called, check_rounding};
use crate::error::refuse;
use crate::experts::Description;
use crate::interface;
use crate::partition::{self, Chain, Partition};
use crate::pipeline::Contract;
use crate::run::{Engine, RunOptions, function_session, session_options};
use crate::stream::contract;
use crate::timesteps::Timesteps;
use crate::{Error, HostTensor, Port, Session};

/// An ONNX file, an mlpackage or a folder of packages that make one step, as it lies on disk.
pub enum Artifact {
    /// An ONNX file.
    Onnx(PathBuf, Box<onnx::read::Model>),
    /// A Core ML package.
    MlPackage(Box<Package>),
    /// A Core AI asset.
    CoreAi(Box<Asset>),
    /// Core ML packages that run one after the other.
    Partition(Box<Partition>),
}

impl Artifact {
    /// Opens what is at `path`.
    ///
    /// # Errors
    /// Nothing there, or something that is neither an ONNX file nor an mlpackage.
    pub fn open(path: &Path) -> Result<Artifact, Error> {
        if path.exists() && !path.is_dir() {
            let model = onnx::read::Model::open(path)?;
            model.check_external_files()?;
            return Ok(Artifact::Onnx(path.into(), Box::new(model)));
        }
        if path.join("Manifest.json").exists() || (path.is_dir() && path.extension().is_some_and(|e| e == "mlpackage"))
        {
            return Ok(Artifact::MlPackage(Box::new(Package::open(path)?)));
        }
        if path.join(coreai::asset::PROGRAM).exists()
            || (path.is_dir() && path.extension().is_some_and(|e| e == "aimodel"))
        {
            return Ok(Artifact::CoreAi(Box::new(Asset::open(path)?)));
        }
        if path.join(partition::FILE).exists() {
            return Ok(Artifact::Partition(Box::new(Partition::open(path)?)));
        }
        if Contract::is_in(path) {
            let contract = Contract::read(path)?;
            let parts: Vec<String> =
                contract.assets.parts().map(|(_, asset)| format!("`{}`", path.join(&asset.path).display())).collect();
            refuse!(
                Artifact,
                "`{}`: found a whole pipeline, expected one of its parts: {}",
                path.display(),
                parts.join(" or ")
            );
        }
        if let Some(pair) = Description::read(path)? {
            let each: Vec<String> = pair.paths(path).iter().map(|file| format!("`{}`", file.display())).collect();
            refuse!(
                Artifact,
                "`{}`: found 2 transformers, expected one of them: {}",
                path.display(),
                each.join(" or ")
            );
        }
        let shown = path.display();
        if !path.exists() {
            refuse!(Io, "`{shown}`: expected an .onnx file or an .mlpackage, found nothing");
        }
        refuse!(
            Artifact,
            "`{shown}`: expected an .onnx file or an .mlpackage, found a folder without Manifest.json or partition.json"
        )
    }

    /// User-defined metadata.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        match self {
            Artifact::Onnx(_, model) => model.metadata(),
            Artifact::MlPackage(package) => package.metadata(),
            Artifact::CoreAi(asset) => asset.metadata(),
            Artifact::Partition(partition) => partition.description().metadata.clone(),
        }
    }

    /// The only timesteps that the artifact answers; `None` for any.
    ///
    /// # Errors
    /// Metadata that is not a list of timesteps.
    pub fn timesteps(&self) -> Result<Option<Timesteps>, Error> {
        Timesteps::of(&self.metadata())
    }

    /// Inputs: name, dtype, shape.
    pub fn inputs(&self) -> Vec<Port> {
        match self {
            Artifact::Onnx(_, model) => {
                let port = |v: onnx::read::Value| Port { name: v.name, dtype: v.dtype, shape: v.shape };
                model.inputs().into_iter().map(port).collect()
            }
            Artifact::MlPackage(package) => {
                let port = |v: coreml::read::Feature| Port { name: v.name, dtype: v.dtype, shape: v.shape };
                package.inputs().into_iter().map(port).collect()
            }
            Artifact::CoreAi(asset) => {
                let port = |v: coreai::read::Feature| Port { name: v.name, dtype: v.dtype, shape: v.shape };
                asset.inputs(asset.main()).into_iter().map(port).collect()
            }
            Artifact::Partition(partition) => {
                let port = |p: &contract::Port| Port {
                    name: p.name.clone(),
                    dtype: p.dtype.to_string(),
                    shape: p.shape.iter().map(|&d| d as i64).collect(),
                };
                partition.description().inputs.iter().map(port).collect()
            }
        }
    }

    /// Names of the outputs.
    pub fn outputs(&self) -> Vec<String> {
        match self {
            Artifact::Onnx(_, model) => model.outputs().into_iter().map(|v| v.name).collect(),
            Artifact::MlPackage(package) => package.outputs().into_iter().map(|v| v.name).collect(),
            Artifact::CoreAi(asset) => asset.outputs(asset.main()).into_iter().map(|v| v.name).collect(),
            Artifact::Partition(partition) => partition.description().outputs.iter().map(|p| p.name.clone()).collect(),
        }
    }

    /// The interface: as the metadata says it, or as the names of inputs, outputs and values tell it. Milestones are values that the artifact
    /// computes, and so can be probed.
    ///
    /// # Errors
    /// Metadata that is not an interface.
    pub fn interface(&self) -> Result<Interface, Error> {
        let named = match self {
            Artifact::CoreAi(asset) => asset.value_names(asset.main())?,
            _ => BTreeMap::new(),
        };
        let values: HashSet<&str> = match self {
            Artifact::Onnx(_, model) => model.values().collect(),
            Artifact::MlPackage(package) => computed(package).collect(),
            Artifact::CoreAi(_) => named.keys().map(String::as_str).collect(),
            Artifact::Partition(partition) => partition.parts().iter().flat_map(computed).collect(),
        };
        let (inputs, outputs) = (self.inputs(), self.outputs());
        if let Some(mut said) = interface::of(&self.metadata())? {
            if let Artifact::CoreAi(_) = self {
                // An asset of an earlier compiler names no values.
                said.milestones.retain(|milestone| values.contains(milestone.value.as_str()));
            }
            interface::check(&said, &inputs, &outputs, &values)?;
            return Ok(said);
        }
        let inputs = inputs.iter().map(|port| port.name.as_str());
        Ok(interface::conventional(inputs, outputs.iter().map(String::as_str), values.iter().copied()))
    }

    /// Runs the artifact.
    ///
    /// # Errors
    /// Options that do not apply; inputs that do not fit; a timestep that the artifact was not compiled for; a failing engine.
    pub fn run(
        &self,
        inputs: &BTreeMap<String, HostTensor>,
        options: &RunOptions,
    ) -> Result<BTreeMap<String, HostTensor>, Error> {
        if let Some(listed) = self.timesteps()? {
            listed.check_inputs(inputs, self.interface()?.time())?;
        }
        match self {
            Artifact::CoreAi(asset) if options.engine == Engine::CoreAi => {
                check_rounding(options.fp16)?;
                let called = Called::probing(asset, asset.main(), &options.probes, |notice| {
                    if !options.quiet {
                        eprintln!("{notice}");
                    }
                })?;
                Chain::from(called).run(inputs)
            }
            _ if options.engine == Engine::CoreAi => {
                refuse!(Input, "--engine coreai runs Core AI assets (.aimodel) only")
            }
            Artifact::Onnx(path, _) => {
                if options.engine == Engine::Tract && !options.fp16 {
                    return run_tract(path, inputs, options);
                }
                self.session(options)?.run(inputs)
            }
            Artifact::MlPackage(_) | Artifact::CoreAi(_) | Artifact::Partition(_) => {
                if options.engine == Engine::Tract {
                    refuse!(Input, "--engine tract runs ONNX files only");
                }
                self.session(options)?.run(inputs)
            }
        }
    }

    /// Whether anything in the artifact is fp16, weights and interface included.
    pub fn has_fp16(&self) -> bool {
        match self {
            Artifact::Onnx(_, model) => model.inputs().iter().any(|v| v.dtype == "f16"),
            Artifact::MlPackage(package) => package.has_fp16(),
            Artifact::CoreAi(asset) => asset.has_fp16(),
            Artifact::Partition(partition) => partition.parts().iter().any(Package::has_fp16),
        }
    }

    /// Loads the artifact into ONNX Runtime, for many calls.
    ///
    /// # Errors
    /// Options that do not apply; a model that ONNX Runtime does not take.
    pub fn session(&self, options: &RunOptions) -> Result<Chain, Error> {
        match self {
            Artifact::Onnx(path, _) if options.fp16 => {
                let shown = path.display();
                refuse!(Input, "`{shown}`: --fp16 rounds as the Neural Engine does, so it applies to mlpackages only")
            }
            Artifact::Onnx(path, model) => {
                let session_options = session_options(options, false);
                if options.probes.is_empty() {
                    return Session::from_file(path, &session_options).map(Chain::from);
                }
                let bytes = model.with_outputs(&options.probes)?;
                let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
                Session::from_bytes(&bytes, Some(folder), &session_options).map(Chain::from)
            }
            Artifact::CoreAi(asset) => {
                self.check_rounding(asset.path(), options)?;
                let module = coreai::raise(asset, None)?;
                let Some(function) = module.functions.first() else { refuse!(Artifact, "an asset without a function") };
                let arithmetic = if options.fp16 { Arithmetic::RoundedFp16 } else { Arithmetic::Fp32 };
                function_session(function, &**asset, arithmetic, options).map(Chain::from)
            }
            Artifact::MlPackage(package) => {
                self.check_rounding(package.path(), options)?;
                let module = coreml::raise(package, None)?;
                let Some(function) = module.functions.first() else {
                    refuse!(Artifact, "a package without a function")
                };
                let arithmetic = if options.fp16 { Arithmetic::RoundedFp16 } else { Arithmetic::Fp32 };
                function_session(function, &**package, arithmetic, options).map(Chain::from)
            }
            Artifact::Partition(partition) => {
                self.check_rounding(partition.dir(), options)?;
                partition.chain(options)
            }
        }
    }

    fn check_rounding(&self, path: &Path, options: &RunOptions) -> Result<(), Error> {
        if options.fp16 && !self.has_fp16() {
            let shown = path.display();
            refuse!(Input, "`{shown}`: an fp32 artifact: --fp16 would round nothing; leave it out");
        }
        Ok(())
    }
}

#[cfg(feature = "tract")]
fn run_tract(
    path: &Path,
    inputs: &BTreeMap<String, HostTensor>,
    options: &RunOptions,
) -> Result<BTreeMap<String, HostTensor>, Error> {
    crate::tract_engine::run(path, inputs, &options.probes)
}

#[cfg(not(feature = "tract"))]
fn run_tract(
    _: &Path,
    _: &BTreeMap<String, HostTensor>,
    _: &RunOptions,
) -> Result<BTreeMap<String, HostTensor>, Error> {
    refuse!(Input, "{}", crate::run::NO_TRACT)
}

/// Names of the values that a package computes.
fn computed(package: &Package) -> impl Iterator<Item = &str> {
    package.operations().flat_map(|op| &op.outputs).map(|o| o.name.as_str())
}
