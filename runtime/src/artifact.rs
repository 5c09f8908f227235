//! Finished artifacts, opened from disk and run.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use s2dit_backends::coreai::{self, Asset};
use s2dit_backends::coreml::{self, Package};
use s2dit_backends::onnx;
use s2dit_ir::{Interface, Module, WeightSource};
use s2dit_passes::emulate::Arithmetic;

use crate::coreai_engine::{Called, check_rounding};
use crate::error::refuse;
use crate::experts::Description;
use crate::interface;
use crate::partition::{self, Chain, Link, Partition};
use crate::pipeline::Contract;
use crate::run::{Engine, RunOptions, function_session, session_options};
use crate::timesteps::Timesteps;
use crate::{Error, HostTensor, Port, Session};

/// An ONNX file, a package, an asset, or a folder of packages or assets that make one step, as it lies on disk.
pub enum Artifact {
    /// An ONNX file.
    Onnx(PathBuf, Box<onnx::read::Model>),
    /// A Core ML package.
    MlPackage(Box<Package>),
    /// A Core AI asset.
    CoreAi(Box<Asset>),
    /// Core ML packages or Core AI assets that run one after the other.
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
            Artifact::Onnx(_, model) => model.inputs().into_iter().map(Port::from).collect(),
            Artifact::MlPackage(package) => package.inputs().into_iter().map(Port::from).collect(),
            Artifact::CoreAi(asset) => asset.inputs(asset.main()).into_iter().map(Port::from).collect(),
            Artifact::Partition(partition) => partition.description().inputs.iter().map(Port::from).collect(),
        }
    }

    /// Outputs: name, dtype, shape.
    pub(crate) fn returned(&self) -> Vec<Port> {
        match self {
            Artifact::Onnx(_, model) => model.outputs().into_iter().map(Port::from).collect(),
            Artifact::MlPackage(package) => package.outputs().into_iter().map(Port::from).collect(),
            Artifact::CoreAi(asset) => asset.outputs(asset.main()).into_iter().map(Port::from).collect(),
            Artifact::Partition(partition) => partition.description().outputs.iter().map(Port::from).collect(),
        }
    }

    /// Names of the outputs.
    pub fn outputs(&self) -> Vec<String> {
        self.returned().into_iter().map(|port| port.name).collect()
    }

    /// Names of the values that can be probed: those that are computed, as far as the artifact names them, and its outputs.
    pub(crate) fn values(&self) -> Result<HashSet<String>, Error> {
        Ok(match self {
            Artifact::Onnx(_, model) => model.values().map(str::to_string).collect(),
            Artifact::MlPackage(package) => computed(package).map(str::to_string).collect(),
            Artifact::CoreAi(asset) => asset.value_names(asset.main())?.into_keys().chain(self.outputs()).collect(),
            Artifact::Partition(partition) => {
                let each = partition.parts().iter().map(Artifact::values).collect::<Result<Vec<_>, _>>()?;
                each.into_iter().flatten().collect()
            }
        })
    }

    /// The interface: as the metadata says it, or as the names of inputs, outputs and values tell it. Milestones are values that the artifact
    /// computes, and so can be probed.
    ///
    /// # Errors
    /// Metadata that is not an interface.
    pub fn interface(&self) -> Result<Interface, Error> {
        let values = self.values()?;
        let values: HashSet<&str> = values.iter().map(String::as_str).collect();
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
            Artifact::Onnx(path, _) if options.engine == Engine::Tract && !options.fp16 => {
                run_tract(path, inputs, options)
            }
            Artifact::MlPackage(_) | Artifact::CoreAi(_) | Artifact::Partition(_)
                if options.engine == Engine::Tract =>
            {
                refuse!(Input, "--engine tract runs ONNX files only")
            }
            _ => self.session(options)?.run(inputs),
        }
    }

    /// Whether anything in the artifact is fp16, weights and interface included.
    pub fn has_fp16(&self) -> bool {
        match self {
            Artifact::Onnx(_, model) => model.inputs().iter().any(|v| v.dtype == "f16"),
            Artifact::MlPackage(package) => package.has_fp16(),
            Artifact::CoreAi(asset) => asset.has_fp16(),
            Artifact::Partition(partition) => partition.parts().iter().any(Artifact::has_fp16),
        }
    }

    /// Whether Apple's runtime of Core AI computes anything of the artifact in fp16.
    pub fn asset_computes_in_fp16(&self) -> bool {
        match self {
            Artifact::CoreAi(asset) => asset.computes_in_fp16(),
            Artifact::Partition(partition) => partition.parts().iter().any(Artifact::asset_computes_in_fp16),
            Artifact::Onnx(..) | Artifact::MlPackage(_) => false,
        }
    }

    /// Loads the artifact into the engine that the options name, for many calls: ONNX Runtime, or Apple's runtime of Core AI.
    ///
    /// # Errors
    /// Options that do not apply; a model that the engine does not take.
    pub fn session(&self, options: &RunOptions) -> Result<Chain, Error> {
        if options.fp16 && options.engine != Engine::CoreAi {
            self.check_rounding()?;
        }
        match self {
            Artifact::Partition(partition) => partition.chain(options),
            _ => self.link(options).map(Chain::from),
        }
    }

    /// The only link of a chain, or one of several.
    pub(crate) fn link(&self, options: &RunOptions) -> Result<Link, Error> {
        if options.engine == Engine::CoreAi {
            let Artifact::CoreAi(asset) = self else {
                refuse!(Input, "--engine coreai runs Core AI assets (.aimodel) only")
            };
            check_rounding(options.fp16)?;
            let called = Called::probing(asset, asset.main(), &options.probes, |notice| {
                if !options.quiet {
                    eprintln!("{notice}");
                }
            });
            return called.map(Link::Called);
        }
        let (module, weights): (Module, &dyn WeightSource) = match self {
            Artifact::Onnx(path, model) => {
                let session_options = session_options(options, false);
                if options.probes.is_empty() {
                    return Session::from_file(path, &session_options).map(Link::Session);
                }
                let bytes = model.with_outputs(&options.probes)?;
                let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
                return Session::from_bytes(&bytes, Some(folder), &session_options).map(Link::Session);
            }
            Artifact::CoreAi(asset) => (coreai::raise(asset, None)?, &**asset),
            Artifact::MlPackage(package) => (coreml::raise(package, None)?, &**package),
            Artifact::Partition(partition) => {
                refuse!(Artifact, "`{}`: found a partition, expected a part of one", partition.dir().display())
            }
        };
        let Some(function) = module.functions.first() else { refuse!(Artifact, "an artifact without a function") };
        let arithmetic = if options.fp16 { Arithmetic::RoundedFp16 } else { Arithmetic::Fp32 };
        function_session(function, weights, arithmetic, options).map(Link::Session)
    }

    /// Refuses to round where nothing is fp16, or where another engine than the Neural Engine computes.
    fn check_rounding(&self) -> Result<(), Error> {
        let path = match self {
            Artifact::Onnx(path, _) => {
                let shown = path.display();
                refuse!(Input, "`{shown}`: --fp16 rounds as the Neural Engine does, so it applies to mlpackages only")
            }
            Artifact::MlPackage(package) => package.path(),
            Artifact::CoreAi(asset) => asset.path(),
            Artifact::Partition(partition) => partition.dir(),
        };
        if !self.has_fp16() {
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
