//! One artifact of anybody's, run on named arrays: a Core ML package or a Core AI asset with its functions and states, or an ONNX file.
//!
//! A package is raised for the shapes of the arrays that it is called with. If its graph follows from the shapes alone, the graph is kept and
//! calls with the same shapes only run it. If branches, loops or shapes depend on the arrays' values, each call makes its own graph.
//!
//! ```no_run
//! use s2dit_files::arrays::{Array, Arrays};
//! use s2dit_ir::{DType, TensorType};
//! use s2dit_runtime::predict::{Options, Predictor};
//!
//! let mut model = Predictor::open("model.mlpackage".as_ref(), &Options::default())?;
//! let x = Array::new(TensorType::new(DType::F32, [1, 3]), vec![0; 12]).expect("3 elements of 4 bytes");
//! let mut states = model.new_states(None)?;
//! let outputs = model.predict(None, &Arrays::from([("x".into(), x)]), &mut states)?;
//! # Ok::<(), s2dit_runtime::Error>(())
//! ```

mod call;
mod ports;
pub mod serve;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use s2dit_backends::coreai::{self, Asset};
use s2dit_backends::coreml::{self, Package};
use s2dit_files::arrays::{Array, Arrays};
use s2dit_ir::{DType, Tensor, TensorType};
use s2dit_passes::emulate::Arithmetic;

use crate::coreai_engine::{Called, check_rounding};
use crate::error::refuse;
use crate::{Artifact, Engine, Error, Session, SessionOptions};
use call::{Call, session};
pub use ports::Port;

/// Graphs that are kept, one for each function and combination of shapes.
const KEPT: usize = 16;

/// How an artifact is run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Round the result of every fp16 op of a package to fp16, as the Neural Engine stores it. Without it a package's arithmetic is fp32.
    pub fp16: bool,
    /// Threads of one op; 0 is one.
    pub threads: usize,
    /// No notes on standard error.
    pub quiet: bool,
    /// Copy a package's weights into memory, in the type that is computed in: many calls are faster. Without it they stay in their file, mapped, and each
    /// call converts them.
    pub weights_in_memory: bool,
}

/// An open artifact.
pub struct Predictor {
    source: Source,
    options: Options,
}

enum Source {
    Package { package: Box<Package>, plans: HashMap<Key, Plan> },
    Onnx { path: PathBuf, session: Box<Session> },
    Asset { asset: Box<Asset>, engine: Engine, functions: HashMap<String, Function> },
}

/// A function of an asset that is ready to run.
enum Function {
    /// In ONNX Runtime.
    Session(Box<Session>),
    /// By Apple's runtime.
    Called(Called),
}

impl Function {
    fn load(asset: &Asset, name: &str, engine: Engine, options: &Options) -> Result<Function, Error> {
        if engine == Engine::CoreAi {
            let notice = |notice: &str| {
                if !options.quiet {
                    eprintln!("{notice}");
                }
            };
            return Called::new(asset, name, notice).map(Function::Called);
        }
        let module = coreai::raise(asset, Some(name))?;
        let Some(f) = module.functions.first() else { refuse!(Artifact, "no function") };
        session(f, asset, options).map(Box::new).map(Function::Session)
    }

    fn run<'a>(&mut self, value: impl Fn(&str) -> Option<&'a Array>) -> Result<Arrays, Error> {
        match self {
            Function::Session(session) => session.run_arrays(value),
            Function::Called(called) => called.run_arrays(value),
        }
    }
}

/// A function and the shapes that it was called with.
type Key = (String, Vec<(String, Vec<usize>)>);

/// A graph that is ready to run.
struct Plan {
    session: Session,
    /// Values that were computed while the package was raised.
    given: Arrays,
}

impl Predictor {
    /// Opens an `.mlpackage`, an `.aimodel` or an `.onnx` file, to be run by ONNX Runtime.
    ///
    /// # Errors
    /// None of them, or a damaged one; a model that ONNX Runtime does not take.
    pub fn open(path: &Path, options: &Options) -> Result<Predictor, Error> {
        Predictor::open_in(path, options, Engine::Ort)
    }

    /// Opens an artifact to be run by an engine: Apple's runtime runs an `.aimodel`, ONNX Runtime all of them.
    ///
    /// # Errors
    /// See [`Predictor::open`]; an engine that does not run the artifact.
    pub fn open_in(path: &Path, options: &Options, engine: Engine) -> Result<Predictor, Error> {
        let source = match Artifact::open(path)? {
            Artifact::CoreAi(asset) if engine != Engine::Tract => {
                check_rounding(engine == Engine::CoreAi && options.fp16)?;
                Source::Asset { asset, engine, functions: HashMap::new() }
            }
            _ if engine == Engine::CoreAi => refuse!(
                Input,
                "`{}`: --engine coreai runs Core AI assets (.aimodel) only: leave it out, or compile the model with --target coreai",
                path.display()
            ),
            _ if engine != Engine::Ort => refuse!(Input, "found engine `tract`, expected `ort` or `coreai`"),
            Artifact::MlPackage(package) => Source::Package { package, plans: HashMap::new() },
            Artifact::Onnx(path, _) if options.fp16 => {
                let shown = path.display();
                refuse!(Input, "`{shown}`: fp16 rounds as the Neural Engine does, so it applies to mlpackages only")
            }
            Artifact::Onnx(path, _) => {
                let session = Box::new(Session::from_file(&path, &session_options(options))?);
                Source::Onnx { path, session }
            }
            Artifact::CoreAi(_) | Artifact::Partition(_) => {
                let shown = path.display();
                refuse!(
                    Input,
                    "`{shown}`: found parts that run one after the other, expected an .mlpackage, an .aimodel or an .onnx file"
                )
            }
        };
        Ok(Predictor { source, options: options.clone() })
    }

    /// Names of the functions, the default one first; an ONNX file has none.
    pub fn functions(&self) -> Vec<String> {
        match &self.source {
            Source::Package { package, .. } => package.functions(),
            Source::Onnx { .. } => Vec::new(),
            Source::Asset { asset, .. } => {
                let others = asset.functions().filter(|name| *name != asset.main());
                std::iter::once(asset.main()).chain(others).map(str::to_string).collect()
            }
        }
    }

    /// Inputs, outputs and states of a function, `None` for the default one.
    ///
    /// # Errors
    /// No function of this name.
    pub fn ports(&self, function: Option<&str>) -> Result<[Vec<Port>; 3], Error> {
        match &self.source {
            Source::Package { package, .. } => {
                let lists = package.interface(self.function(function)?)?;
                Ok(lists.map(|list| list.into_iter().map(Port::from).collect()))
            }
            Source::Asset { asset, .. } => {
                let name = self.function(function)?;
                let lists = [asset.inputs(&name), asset.outputs(&name), asset.states(&name)];
                Ok(lists.map(|list| list.into_iter().map(Port::from).collect()))
            }
            Source::Onnx { path, session } => {
                if let Some(name) = function {
                    refuse!(Input, "`{}`: an ONNX file has no functions; found `{name}`", path.display());
                }
                Ok([session.inputs(), session.outputs(), &[]].map(|list| list.iter().map(Port::from).collect()))
            }
        }
    }

    /// Bytes that a file of arrays for a call may hold at most, in any element type: those of all inputs, outputs and states twice, in float64. No limit
    /// if an extent is open.
    ///
    /// # Errors
    /// No function of this name.
    pub fn most_bytes(&self, function: Option<&str>) -> Result<u64, Error> {
        let ports = self.ports(function)?;
        let elements = |port: &Port| {
            let sides = port.shape.as_ref()?.iter().map(|side| u64::try_from(*side).ok());
            sides.into_iter().try_fold(1u64, |all, side| all.checked_mul(side?))
        };
        let all = ports.iter().flatten().try_fold(0u64, |all, port| all.checked_add(elements(port)?));
        Ok(all.and_then(|all| all.checked_mul(16)).unwrap_or(u64::MAX))
    }

    fn function(&self, name: Option<&str>) -> Result<String, Error> {
        let functions = self.functions();
        let found = name.map_or(functions.first(), |name| functions.iter().find(|f| *f == name));
        match found {
            Some(found) => Ok(found.clone()),
            None => {
                let name = name.unwrap_or_default();
                refuse!(Input, "no function `{name}`; expected one of {}", functions.join(", "))
            }
        }
    }

    /// The states of a function as they are before its first call: zeros.
    ///
    /// # Errors
    /// No function of this name.
    pub fn new_states(&self, function: Option<&str>) -> Result<Arrays, Error> {
        let [_, _, states] = self.ports(function)?;
        let zeros = |port: &Port| {
            let ty = TensorType::new(port.dtype.unwrap_or(DType::F16), port.extents().unwrap_or_default());
            (port.name.clone(), Array::of(&Tensor::splat(&ty, 0.0)))
        };
        Ok(states.iter().map(zeros).collect())
    }

    /// Runs a function, `None` for the default one, and leaves its states as it wrote them. Inputs may be of any element type that holds
    /// their numbers exactly; floats are rounded to the type that the function takes.
    ///
    /// # Errors
    /// Inputs or states that do not fit, all of them at once; ops that are not run here; a failing engine.
    pub fn predict(&mut self, function: Option<&str>, inputs: &Arrays, states: &mut Arrays) -> Result<Arrays, Error> {
        let [wanted, outputs, kept] = self.ports(function)?;
        let inputs = ports::fitting("input", &wanted, inputs)?;
        let held = ports::fitting("state", &kept, states)?;
        let name = function.map(str::to_string).or_else(|| self.functions().first().cloned()).unwrap_or_default();
        let found = match &mut self.source {
            Source::Onnx { session, .. } => session.run_arrays(|name| inputs.get(name))?,
            Source::Asset { asset, engine, functions } => {
                if !functions.contains_key(&name) {
                    functions.insert(name.clone(), Function::load(asset, &name, *engine, &self.options)?);
                }
                let Some(function) = functions.get_mut(&name) else { refuse!(Engine, "no function `{name}`") };
                function.run(|name| inputs.get(name).or_else(|| held.get(name)))?
            }
            Source::Package { package, plans } => {
                let shapes = inputs.iter().map(|(name, array)| (name.clone(), array.ty.shape.clone())).collect();
                let key = (name, shapes);
                let call = Call { package, options: &self.options, inputs: &inputs, states: &held };
                match plans.get_mut(&key) {
                    Some(plan) => call.run(plan)?,
                    None => {
                        let raised = coreml::raise_for(package, Some(&key.0), &call)?;
                        let Some(f) = raised.module.functions.first() else { refuse!(Artifact, "no function") };
                        let given = raised.given.iter().map(|(name, value)| (name.clone(), Array::of(value)));
                        let mut plan = Plan { session: session(f, &**package, &self.options)?, given: given.collect() };
                        let found = call.run(&mut plan)?;
                        if !raised.for_one_call {
                            if plans.len() == KEPT {
                                plans.clear();
                            }
                            plans.insert(key, plan);
                        }
                        found
                    }
                }
            }
        };
        for state in &kept {
            if let Some(new) = found.get(&format!("{}_out", state.name)) {
                states.insert(state.name.clone(), new.cast(state.dtype.unwrap_or(DType::F16)));
            }
        }
        let mut results = Arrays::new();
        for port in outputs {
            let Some(value) = found.get(&port.name) else { refuse!(Engine, "no output `{}`", port.name) };
            results.insert(port.name.clone(), port.result(value));
        }
        Ok(results)
    }
}

fn session_options(options: &Options) -> SessionOptions {
    SessionOptions { threads: options.threads.max(1), keep_weights_mapped: false, quiet: options.quiet }
}

fn arithmetic(options: &Options) -> Arithmetic {
    if options.fp16 { Arithmetic::RoundedFp16 } else { Arithmetic::Fp32 }
}

/// Arrays by name, as an error shows them: `x f32[1, 3], t i32[1]`.
fn shown<'a>(arrays: impl IntoIterator<Item = (&'a String, &'a Array)>) -> String {
    let each: Vec<String> = arrays.into_iter().map(|(name, array)| format!("`{name}` {}", array.ty)).collect();
    if each.is_empty() { "none".into() } else { each.join(", ") }
}
