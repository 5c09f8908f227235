//! Apple's runtime of Core AI, which runs assets on Linux: found, or fetched on first need, and called in a process of its own.
//!
//! It comes as the Python package `coreai-core`. `S2DITC_COREAI_PYTHON` names a Python that has it. Without, one of [`VERSION`] is put into the user's cache, with
//! `python3 -m venv` and pip, its wheel checked against a recorded hash. The runtime ends its process when a program contradicts itself, so every call has its
//! own.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use s2dit_backends::coreai::Asset;
use s2dit_backends::coreai::read::Feature;
use s2dit_files::arrays::{self, Array, Arrays, Format};
use s2dit_ir::{DType, TensorType};
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::error::refuse;
use crate::library::cache_of;
use crate::{Error, ErrorKind, HostTensor, Port};

/// The release of `coreai-core` that is fetched.
pub const VERSION: &str = "1.0.0b3";

/// The environment variable that names a Python with `coreai-core`.
pub const PYTHON: &str = "S2DITC_COREAI_PYTHON";

/// SHA-256 of the wheels: (file name, hash).
const WHEELS: [(&str, &str); 4] = [
    (
        "coreai_core-1.0.0b3-cp311-cp311-manylinux_2_34_x86_64.whl",
        "e0c8decb3c9b06e501a2bc1bba1014aabbe93c1774877c1d9b412b914fed76a3",
    ),
    (
        "coreai_core-1.0.0b3-cp312-cp312-manylinux_2_34_x86_64.whl",
        "1796f9b619abba780e611ecaacf23c5a70884bd70f5dded9bab08681f22e9723",
    ),
    (
        "coreai_core-1.0.0b3-cp313-cp313-manylinux_2_34_x86_64.whl",
        "d7756fbcefcb04125fec8061e59ff4edf1cf6fdc6511ece6405ad3f15b387bf8",
    ),
    (
        "coreai_core-1.0.0b3-cp314-cp314-manylinux_2_34_x86_64.whl",
        "9ecd7a075295232c55979b215ef705119f8c22d80ad08fa5d6b5c210c0272ad8",
    ),
];

/// Checks that nobody asks Apple's runtime to round.
///
/// # Errors
/// Somebody does.
pub(crate) fn check_rounding(fp16: bool) -> Result<(), Error> {
    if fp16 {
        refuse!(Input, "--fp16 rounds as the Neural Engine does: --engine coreai computes as the asset says");
    }
    Ok(())
}

/// The suffix of a state's name for its new value.
const NEW: &str = "_out";

/// The program that Python runs.
const PROGRAM: &str = include_str!("coreai_engine.py");

/// A Python that has the runtime; downloads it if need be. `notice` is called once before a download.
///
/// # Errors
/// [`PYTHON`] names nothing; the runtime is nowhere and cannot be fetched.
pub fn locate(notice: impl FnOnce(&str)) -> Result<PathBuf, Error> {
    found_or_fetched(notice).map_err(|error| Error::new(ErrorKind::Library, error))
}

/// A function of an asset that Apple's runtime computes, each call in a process of its own.
#[derive(Clone, Debug)]
pub struct Called {
    asset: PathBuf,
    /// Holds the asset if it is a copy that returns more.
    _copy: Option<Arc<TempDir>>,
    function: String,
    python: PathBuf,
    /// Inputs, then states.
    inputs: Vec<Port>,
    /// Names of the states.
    states: Vec<String>,
    /// Outputs, then the new values of the states that are written.
    outputs: Vec<Port>,
}

impl Called {
    /// A function of an open asset. `notice` is called once before a download.
    ///
    /// # Errors
    /// See [`locate`].
    pub fn new(asset: &Asset, function: &str, notice: impl FnOnce(&str)) -> Result<Called, Error> {
        let (states, written) = (asset.states(function), asset.written_states(function));
        let new = states.iter().filter(|state| written.contains(&state.name)).cloned();
        let new = new.map(|state| Feature { name: format!("{}{NEW}", state.name), ..state });
        Ok(Called {
            asset: asset.path().into(),
            _copy: None,
            function: function.into(),
            python: locate(notice)?,
            states: states.iter().map(|state| state.name.clone()).collect(),
            outputs: asset.outputs(function).into_iter().chain(new).map(Port::from).collect(),
            inputs: asset.inputs(function).into_iter().chain(states).map(Port::from).collect(),
        })
    }

    /// The same with values from within among the outputs, by their names.
    ///
    /// # Errors
    /// See [`locate`]; a value that has no name in the asset; no room for a copy of it.
    pub fn probing(
        asset: &Asset,
        function: &str,
        values: &[String],
        notice: impl FnOnce(&str),
    ) -> Result<Called, Error> {
        if values.is_empty() {
            return Called::new(asset, function, notice);
        }
        let copy = tempfile::tempdir().map_err(|error| Error::engine(error.into()))?;
        let path = copy.path().join("probed.aimodel");
        fs::create_dir(&path).map_err(|error| Error::engine(error.into()))?;
        asset.write_with_outputs(function, values, &path)?;
        let called = Called::new(&Asset::open(&path)?, function, notice)?;
        Ok(Called { _copy: Some(Arc::new(copy)), ..called })
    }

    /// The function's inputs, and its states.
    #[must_use]
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// The function's outputs, and the new values of states, `NAME_out`.
    #[must_use]
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Calls the function: `input` finds inputs by name.
    ///
    /// # Errors
    /// A missing input; a process that fails.
    pub fn run_with<'a>(
        &self,
        input: impl Fn(&str) -> Option<&'a HostTensor>,
    ) -> Result<BTreeMap<String, HostTensor>, Error> {
        let array = |name: &str| {
            let tensor = input(name)?;
            let bytes = tensor.data.iter().flat_map(|x| x.to_le_bytes()).collect();
            Array::new(TensorType::new(DType::F32, tensor.shape.clone()), bytes)
        };
        let mut tensors = BTreeMap::new();
        for (name, array) in self.call(array).map_err(Error::engine)? {
            let data = array.tensor().data.iter().map(|x| *x as f32).collect();
            tensors.extend(HostTensor::new(array.ty.shape.clone(), data).map(|tensor| (name, tensor)));
        }
        Ok(tensors)
    }

    /// [`Called::run_with`] for arrays of any type.
    ///
    /// # Errors
    /// A missing input; a process that fails.
    pub fn run_arrays<'a>(&self, input: impl Fn(&str) -> Option<&'a Array>) -> Result<Arrays, Error> {
        self.call(|name| input(name).cloned()).map_err(Error::engine)
    }

    fn call(&self, input: impl Fn(&str) -> Option<Array>) -> Result<Arrays> {
        let folder = tempfile::tempdir()?;
        let (given, made) = (folder.path().join("inputs.npz"), folder.path().join("outputs.npz"));
        let mut dtypes = serde_json::Map::new();
        let mut arrays = Arrays::new();
        for port in &self.inputs {
            let array = input(&port.name).with_context(|| format!("input `{}`: missing", port.name))?;
            // One number may come as a scalar or as an array of one.
            let shape: Option<Vec<usize>> = port.shape.iter().map(|d| usize::try_from(*d).ok()).collect();
            let array = shape.and_then(|shape| array.reshaped(&shape)).unwrap_or(array);
            arrays.insert(port.name.clone(), array);
            dtypes.insert(port.name.clone(), port.dtype.as_str().into());
        }
        arrays::write(Format::Npz, &arrays, File::create(&given)?)?;
        let request = json!({
            "asset": fs::canonicalize(&self.asset)?,
            "function": self.function,
            "inputs": given,
            "outputs": made,
            "dtypes": dtypes,
            "states": self.states,
        });
        let mut child = Command::new(&self.python)
            .args(["-W", "ignore", "-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run `{}`", self.python.display()))?;
        if let Some(mut to) = child.stdin.take() {
            // A child that has ended already says why below.
            let _ = to.write_all(request.to_string().as_bytes());
        }
        let ended = child.wait_with_output()?;
        if !ended.status.success() {
            let said = String::from_utf8_lossy(&ended.stderr);
            let said: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
            if let Some(lacks) = said.last().filter(|line| line.starts_with("ModuleNotFoundError")) {
                bail!("`{}` lacks a module ({}); {REMEDY}", self.python.display(), lacks.trim());
            }
            let last = said[said.len().saturating_sub(4)..].join("; ");
            bail!("Apple's runtime of Core AI ended with {}: {}", ended.status, last.escape_debug());
        }
        ensure!(made.exists(), "`{}` ended without results; {REMEDY}", self.python.display());
        let mut outputs = arrays::read(&made)?;
        outputs.retain(|name, _| self.outputs.iter().any(|port| port.name == *name));
        Ok(outputs)
    }
}

fn found_or_fetched(notice: impl FnOnce(&str)) -> Result<PathBuf> {
    if let Some(path) = env::var_os(PYTHON).filter(|path| !path.is_empty()).map(PathBuf::from) {
        ensure!(
            path.is_file(),
            "{PYTHON} is `{}`: expected a Python that has coreai-core, found no file",
            path.display()
        );
        return Ok(path);
    }
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!("Apple's runtime of Core AI is fetched on Linux on x86-64 only; {REMEDY}");
    }
    let folder = cache_of(&format!("coreai-core-{VERSION}"))?;
    let (venv, whole) = (folder.join("venv"), folder.join("whole"));
    let python = venv.join("bin/python");
    if whole.is_file() && python.exists() {
        return Ok(python);
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make the cache folder `{}`", folder.display()))?;
    let lock_path = folder.join("lock");
    let lock = File::create(&lock_path).with_context(|| format!("cannot write `{}`", lock_path.display()))?;
    lock.lock().with_context(|| format!("cannot lock `{}`", lock_path.display()))?;
    // Whoever had the lock before may have fetched it.
    if whole.is_file() && python.exists() {
        return Ok(python);
    }
    notice(&format!("fetching Apple's runtime of Core AI (coreai-core {VERSION}) with pip into {}", folder.display()));
    fetch(&folder, &venv, &python)
        .with_context(|| format!("no runtime of Core AI in the cache folder `{}`", folder.display()))?;
    File::create(&whole).with_context(|| format!("cannot write `{}`", whole.display()))?;
    Ok(python)
}

const REMEDY: &str =
    "install coreai-core==1.0.0b3 into a Python 3.11 to 3.14 and name that Python with S2DITC_COREAI_PYTHON";

fn fetch(folder: &Path, venv: &Path, python: &Path) -> Result<()> {
    run_python(Path::new("python3"), &["-m", "venv", "--clear"], &[venv])?;
    let download = tempfile::Builder::new().prefix("download-").tempdir_in(folder)?;
    let wanted = format!("coreai-core=={VERSION}");
    let pip = ["-m", "pip", "--quiet", "--disable-pip-version-check"];
    let only = ["download", "--no-deps", "--only-binary=:all:", wanted.as_str(), "--dest"];
    run_python(python, &[pip.as_slice(), &only].concat(), &[download.path()])?;
    let wheel = fs::read_dir(download.path())?
        .filter_map(Result::ok)
        .map(|e| e.path())
        .find(|p| p.extension().is_some_and(|e| e == "whl"))
        .context("pip downloaded no wheel")?;
    check_hash(&wheel)?;
    run_python(python, &[pip.as_slice(), &["install", "--only-binary=:all:"]].concat(), &[&wheel])
}

fn run_python(python: &Path, arguments: &[&str], paths: &[&Path]) -> Result<()> {
    let output = Command::new(python).args(arguments).args(paths).output();
    let output = output.with_context(|| format!("cannot run `{}`; {REMEDY}", python.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{} {}` failed: {}; {REMEDY}", python.display(), arguments.join(" "), said.trim().escape_debug());
    }
    Ok(())
}

fn check_hash(wheel: &Path) -> Result<()> {
    let name = wheel.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let known = WHEELS.iter().find(|(known, _)| name == *known);
    let (_, expected) = known.with_context(|| format!("wheel `{name}`: its hash is not known; {REMEDY}"))?;
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(wheel)?, &mut hasher)?;
    let found: String = hasher.finalize().iter().map(|b| format!("{b:02x}")).collect();
    ensure!(found == *expected, "wheel `{name}`: expected SHA-256 {expected}, found {found}");
    Ok(())
}
