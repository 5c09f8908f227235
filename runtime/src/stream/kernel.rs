//! The functions of a kernel folder, ready to be called.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use s2dit_backends::coreai;
use s2dit_backends::coreml::{self, Package};
use s2dit_ir::{Module, WeightSource};
use s2dit_passes::emulate::Arithmetic;

use super::StreamOptions;
use super::contract::{self, Contract, Precision, StatesPolicy};
use super::folder::{KernelFolder, Opened, function_of};
use crate::coreai_engine::{Called, check_rounding};
use crate::error::refuse;
use crate::partition::Link;
use crate::{Chain, Engine, HostTensor, RunOptions, Session, SessionOptions, function_session};

/// The suffix of a state's name for its new value among a function's outputs.
pub(super) const OUT: &str = "_out";

/// The functions, loaded.
pub(super) struct Kernel {
    pub(super) prompt: Chain,
    pub(super) denoise: Chain,
    /// The one that writes the states.
    pub(super) writer: Chain,
}

impl Kernel {
    /// Loads the artifacts of a kernel folder.
    pub(super) fn load(folder: &KernelFolder, options: &StreamOptions) -> Result<Kernel> {
        let (dir, contract) = (folder.dir(), folder.contract());
        let loader = Loader { folder, options };
        let functions = &contract.functions;
        let load = |name: &str, f: &contract::Function| {
            let chain = loader.function(f).with_context(|| format!("function `{name}` of `{}`", dir.display()))?;
            check(contract, name, f, &chain).with_context(|| format!("`{}`", dir.join(&f.file).display()))?;
            Ok::<_, anyhow::Error>(chain)
        };
        let (name, writer) = contract.writer()?;
        Ok(Kernel {
            prompt: load("prompt", &functions.prompt)?,
            denoise: load("denoise", &functions.denoise)?,
            writer: load(name, writer)?,
        })
    }
}

impl Kernel {
    /// Loads the functions of a module that was not written.
    pub(super) fn of_module(
        contract: &Contract,
        module: &Module,
        weights: &dyn WeightSource,
        options: &StreamOptions,
    ) -> Result<Kernel> {
        let run = RunOptions { threads: options.threads, quiet: options.quiet, ..RunOptions::default() };
        let load = |name: &str, f: &contract::Function| {
            let function = module.function(name).with_context(|| format!("no function `{name}`"))?;
            let chain = Chain::from(function_session(function, weights, Arithmetic::AsTyped, &run)?);
            check(contract, name, f, &chain)?;
            Ok::<_, anyhow::Error>(chain)
        };
        let functions = &contract.functions;
        let (name, writer) = contract.writer()?;
        Ok(Kernel {
            prompt: load("prompt", &functions.prompt)?,
            denoise: load("denoise", &functions.denoise)?,
            writer: load(name, writer)?,
        })
    }
}

struct Loader<'a> {
    folder: &'a KernelFolder,
    options: &'a StreamOptions,
}

impl Loader<'_> {
    fn function(&self, f: &contract::Function) -> Result<Chain> {
        let precision = self.folder.contract().precision;
        if f.parts.is_empty() {
            let (path, opened) = self.artifact(&f.file)?;
            return chain(opened, &path, &f.function, precision, self.options);
        }
        let part = |part: &contract::Part| {
            let (path, opened) = self.artifact(&part.file)?;
            link(opened, &path, &f.function, precision, self.options)
        };
        let parts = f.parts.iter().map(part).collect::<Result<_>>()?;
        let outputs: Vec<String> = f.outputs.iter().map(|p| p.name.clone()).collect();
        Ok(Chain::of(parts, &outputs))
    }

    fn artifact(&self, file: &str) -> Result<(PathBuf, &Opened)> {
        let path = self.folder.dir().join(file);
        let opened = self.folder.artifact(file).with_context(|| format!("`{}`: not opened", path.display()))?;
        Ok((path, opened))
    }
}

/// Loads a function of an opened artifact into the engine that the options name; `precision` is the artifact's.
pub(crate) fn chain(
    opened: &Opened,
    path: &Path,
    function: &str,
    precision: Precision,
    options: &StreamOptions,
) -> Result<Chain> {
    link(opened, path, function, precision, options).map(Chain::from)
}

/// [`chain`] of a function that may be one of several parts.
fn link(opened: &Opened, path: &Path, function: &str, precision: Precision, options: &StreamOptions) -> Result<Link> {
    if options.engine != Engine::CoreAi {
        return session(opened, path, function, precision, options).map(Link::Session);
    }
    check_rounding(options.fp16)?;
    let Opened::CoreAi(asset) = opened else {
        refuse!(Input, "`{}`: --engine coreai runs Core AI assets (.aimodel) only", path.display());
    };
    let called = Called::new(asset, function, |notice| {
        if !options.quiet {
            eprintln!("{notice}");
        }
    })?;
    Ok(Link::Called(called))
}

/// Loads a function of an opened artifact into ONNX Runtime; `precision` is the artifact's.
fn session(
    opened: &Opened,
    path: &Path,
    function: &str,
    precision: Precision,
    options: &StreamOptions,
) -> Result<Session> {
    match opened {
        Opened::Onnx(_) if options.fp16 => {
            refuse!(
                Input,
                "`{}`: fp16 rounding is what the Neural Engine does, so it applies to packages only",
                path.display()
            )
        }
        Opened::Onnx(_) => {
            let session =
                SessionOptions { threads: options.threads.max(1), keep_weights_mapped: false, quiet: options.quiet };
            Ok(Session::from_file(path, &session)?)
        }
        Opened::CoreMl(package) => {
            let package: &Package = package;
            let module = coreml::raise(package, Some(&function_of(package, function)))?;
            read_back(&module, package, precision, options)
        }
        Opened::CoreAi(asset) => read_back(&coreai::raise(asset, Some(function))?, &**asset, precision, options),
    }
}

/// Loads a function that was read back.
fn read_back(
    module: &Module,
    weights: &dyn WeightSource,
    precision: Precision,
    options: &StreamOptions,
) -> Result<Session> {
    let Some(function) = module.functions.first() else { bail!("an artifact without a function") };
    let arithmetic = match (options.fp16, precision) {
        (true, Precision::Fp16) => Arithmetic::RoundedFp16,
        _ => Arithmetic::Fp32,
    };
    let run =
        RunOptions { ranges: options.ranges, threads: options.threads, quiet: options.quiet, ..RunOptions::default() };
    Ok(function_session(function, weights, arithmetic, &run)?)
}

/// Checks that a loaded function takes and returns what the contract says. A native state that a function declares without
/// reading it is no input here.
fn check(contract: &Contract, name: &str, f: &contract::Function, session: &Chain) -> Result<()> {
    let state = |n: &str| contract.states.iter().find(|s| s.name == n);
    let native = contract.states_policy == StatesPolicy::Native;
    let fits = |found: &[i64], want: &[usize]| {
        found.len() == want.len() && found.iter().zip(want).all(|(&f, &w)| f < 0 || f as usize == w)
    };
    for port in session.inputs() {
        let shape = match (f.inputs.iter().find(|p| p.name == port.name), state(&port.name)) {
            (Some(declared), _) => &declared.shape,
            (None, Some(state)) => &state.shape,
            (None, None) => bail!("function `{name}` takes `{}`, which the contract does not declare", port.name),
        };
        if !fits(&port.shape, shape) {
            bail!("input `{}` of `{name}`: found shape {:?}, expected {shape:?}", port.name, port.shape);
        }
    }
    for declared in &f.inputs {
        let taken = session.inputs().iter().any(|p| p.name == declared.name);
        if !taken && state(&declared.name).is_none() {
            bail!("the contract declares input `{}` of `{name}`, which the artifact lacks", declared.name);
        }
    }
    let returned: Vec<&str> = session.outputs().iter().map(|p| p.name.as_str()).collect();
    for declared in &f.outputs {
        if !returned.contains(&declared.name.as_str()) {
            bail!("the contract declares output `{}` of `{name}`, which the artifact lacks", declared.name);
        }
    }
    if name == contract.state_write.name() {
        for s in &contract.states {
            if !returned.contains(&format!("{}{OUT}", s.name).as_str()) {
                let how = if native { "write the state" } else { "return the new value of state" };
                bail!("function `{name}` does not {how} `{}`", s.name);
            }
        }
    }
    Ok(())
}

/// The tensors of one call, looked up by name in several places.
pub(super) struct Values<'a>(pub(super) Vec<&'a BTreeMap<String, HostTensor>>);

impl<'a> Values<'a> {
    pub(super) fn get(&self, name: &str) -> Option<&'a HostTensor> {
        self.0.iter().find_map(|map| map.get(name))
    }
}
