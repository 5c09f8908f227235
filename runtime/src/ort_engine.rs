//! ONNX Runtime.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, OnceLock};

use anyhow::{Context, anyhow};
use half::f16;
use ort::environment::Environment;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{Session as OrtSession, SessionInputValue};
use ort::value::{Tensor, TensorElementType, TensorRef, ValueType};
use s2dit_files::arrays::{Array, Arrays};
use s2dit_ir::{DType, TensorType};

use crate::error::refuse;
use crate::{Error, ErrorKind, HostTensor, library};

/// The process's one environment.
static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
static STARTING: Mutex<()> = Mutex::new(());

/// Options of a session.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Threads of one op.
    pub threads: usize,
    /// Leave `Cast` of weights to run time: a model whose fp16 weights are mapped is not copied into memory as fp32.
    pub keep_weights_mapped: bool,
    /// No notes on standard error.
    pub quiet: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions { threads: 1, keep_weights_mapped: false, quiet: false }
    }
}

/// An input or output of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Element type: `f32`, `f16`, `i32`, `i64`, or what ONNX Runtime calls it.
    pub dtype: String,
    /// Shape; −1 where it is not static.
    pub shape: Vec<i64>,
}

/// A model loaded into ONNX Runtime.
pub struct Session {
    session: OrtSession,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

impl Session {
    /// Loads an ONNX file with its external data.
    ///
    /// # Errors
    /// No library; a model that ONNX Runtime does not take.
    pub fn from_file(path: &Path, options: &SessionOptions) -> Result<Session, Error> {
        let env = environment(options)?;
        let load = || -> ort::Result<OrtSession> { builder(env, options)?.commit_from_file(path) };
        let session =
            load().map_err(|e| Error::engine(anyhow!("ONNX Runtime cannot load `{}`: {e}", path.display())))?;
        Ok(Session::new(session))
    }

    /// Loads a model from memory; files of external data are looked for in `folder`.
    ///
    /// # Errors
    /// No library; a model that ONNX Runtime does not take.
    pub fn from_bytes(model: &[u8], folder: Option<&Path>, options: &SessionOptions) -> Result<Session, Error> {
        let env = environment(options)?;
        let folder = folder
            .map(|folder| folder.to_str().with_context(|| format!("`{}`: expected a path in UTF-8", folder.display())))
            .transpose()
            .map_err(Error::input)?;
        let load = || -> ort::Result<OrtSession> {
            let mut builder = builder(env, options)?;
            if let Some(folder) = folder {
                builder = builder.with_config_entry("session.model_external_initializers_file_folder_path", folder)?;
            }
            builder.commit_from_memory(model)
        };
        let session = load().map_err(|e| Error::engine(anyhow!("ONNX Runtime cannot load the model: {e}")))?;
        Ok(Session::new(session))
    }

    fn new(session: OrtSession) -> Session {
        let port = |o: &ort::value::Outlet| {
            let (dtype, shape) = match o.dtype() {
                ValueType::Tensor { ty, shape, .. } => (dtype_name(*ty), shape.to_vec()),
                other => (format!("{other:?}"), Vec::new()),
            };
            Port { name: o.name().to_string(), dtype, shape }
        };
        let inputs = session.inputs().iter().map(port).collect();
        let outputs = session.outputs().iter().map(port).collect();
        Session { session, inputs, outputs }
    }

    /// The model's inputs.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// The model's outputs.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Runs the model. Inputs are converted to the dtype that the model wants, outputs to f32.
    ///
    /// # Errors
    /// A missing or unknown input, a wrong shape, a failing op.
    pub fn run(&mut self, inputs: &BTreeMap<String, HostTensor>) -> Result<BTreeMap<String, HostTensor>, Error> {
        check_inputs(&self.inputs, inputs)?;
        self.run_with(|name| inputs.get(name))
    }

    /// [`Session::run`] with inputs that lie in several places: `input` finds them by name. Inputs in the dtype that the
    /// model wants are not copied.
    ///
    /// # Errors
    /// A missing input, a wrong shape, a failing op.
    pub fn run_with<'a>(
        &mut self,
        input: impl Fn(&str) -> Option<&'a HostTensor>,
    ) -> Result<BTreeMap<String, HostTensor>, Error> {
        let mut values: Vec<(String, SessionInputValue<'_>)> = Vec::new();
        for port in &self.inputs {
            let tensor = input(&port.name);
            if let Some(problem) = port_problem(port, tensor) {
                refuse!(Input, "{problem}");
            }
            let Some(tensor) = tensor else { refuse!(Input, "input `{}`: missing", port.name) };
            values.push((port.name.clone(), to_ort(port, tensor)?));
        }
        let outputs = self.session.run(values).map_err(|e| Error::engine(anyhow!("ONNX Runtime failed: {e}")))?;
        let mut results = BTreeMap::new();
        for port in &self.outputs {
            let Some(value) = outputs.get(&port.name) else { refuse!(Engine, "no output `{}`", port.name) };
            results.insert(port.name.clone(), from_ort(&port.name, value)?);
        }
        Ok(results)
    }
}

impl Session {
    /// Runs the model on arrays. Elements are converted to the type that the model wants; outputs have the type that the model gives them.
    ///
    /// # Errors
    /// A missing input, a wrong shape, a failing op.
    pub fn run_arrays<'a>(&mut self, input: impl Fn(&str) -> Option<&'a Array>) -> Result<Arrays, Error> {
        let mut values: Vec<(String, SessionInputValue<'_>)> = Vec::new();
        for port in &self.inputs {
            let Some(array) = input(&port.name) else { refuse!(Input, "input `{}`: missing", port.name) };
            let wanted: Option<Vec<usize>> = port.shape.iter().map(|d| usize::try_from(*d).ok()).collect();
            // One number may come as a scalar or as an array of one.
            let shape = match wanted {
                Some(wanted) if array.ty.elements() == 1 && wanted.iter().product::<usize>() == 1 => wanted,
                _ => array.ty.shape.clone(),
            };
            let fits = |(want, have): (&i64, &usize)| *want < 0 || *want == *have as i64;
            if shape.len() != port.shape.len() || !port.shape.iter().zip(&shape).all(fits) {
                refuse!(Input, "input `{}`: found shape {:?}, expected {:?}", port.name, array.ty.shape, port.shape);
            }
            values.push((port.name.clone(), array_to_ort(port, shape, array)?));
        }
        let outputs = self.session.run(values).map_err(|e| Error::engine(anyhow!("ONNX Runtime failed: {e}")))?;
        let mut results = Arrays::new();
        for port in &self.outputs {
            let Some(value) = outputs.get(&port.name) else { refuse!(Engine, "no output `{}`", port.name) };
            results.insert(port.name.clone(), array_from_ort(&port.name, value)?);
        }
        Ok(results)
    }
}

fn array_to_ort(port: &Port, shape: Vec<usize>, array: &Array) -> Result<SessionInputValue<'static>, Error> {
    let Some(dtype) = DType::ALL.into_iter().find(|dtype| dtype.name() == port.dtype) else {
        refuse!(Unsupported, "input `{}` has dtype {}, which cannot be fed", port.name, port.dtype)
    };
    let array = if array.ty.dtype == dtype { Cow::Borrowed(array) } else { Cow::Owned(array.cast(dtype)) };
    // Elements lie as they are on this machine, which is little-endian as all that ONNX Runtime is built for.
    fn made<T>(shape: Vec<usize>, bytes: &[u8]) -> ort::Result<SessionInputValue<'static>>
    where
        T: bytemuck::Pod + ort::value::PrimitiveTensorElementType + std::fmt::Debug + Clone + 'static,
    {
        let mut elements = vec![T::zeroed(); bytes.len() / size_of::<T>()];
        bytemuck::cast_slice_mut(&mut elements).copy_from_slice(bytes);
        Tensor::from_array((shape, elements)).map(SessionInputValue::from)
    }
    let bytes = array.bytes.as_slice();
    let made = match dtype {
        DType::F64 => made::<f64>(shape, bytes),
        DType::F32 => made::<f32>(shape, bytes),
        DType::F16 => made::<f16>(shape, bytes),
        DType::BF16 => made::<half::bf16>(shape, bytes),
        DType::I64 => made::<i64>(shape, bytes),
        DType::I32 => made::<i32>(shape, bytes),
        DType::I16 => made::<i16>(shape, bytes),
        DType::I8 => made::<i8>(shape, bytes),
        DType::U32 => made::<u32>(shape, bytes),
        DType::U16 => made::<u16>(shape, bytes),
        DType::U8 => made::<u8>(shape, bytes),
        DType::Bool => {
            let elements: Vec<bool> = bytes.iter().map(|b| *b != 0).collect();
            Tensor::from_array((shape, elements)).map(SessionInputValue::from)
        }
    };
    made.map_err(|e| Error::input(anyhow!("input `{}`: {e}", port.name)))
}

fn array_from_ort(name: &str, value: &ort::value::DynValue) -> Result<Array, Error> {
    let ValueType::Tensor { ty, .. } = value.dtype() else { refuse!(Unsupported, "output `{name}` is not a tensor") };
    let bad = |e: ort::Error| Error::engine(anyhow!("output `{name}`: {e}"));
    macro_rules! extract {
        ($dtype:ident, $t:ty) => {
            extract!($dtype, $t, |data: &[$t]| bytemuck::cast_slice::<$t, u8>(data).to_vec())
        };
        ($dtype:ident, $t:ty, $bytes:expr) => {{
            let (shape, data) = value.try_extract_tensor::<$t>().map_err(bad)?;
            let shape: Vec<usize> = shape.iter().map(|d| *d as usize).collect();
            Array { ty: TensorType::new(DType::$dtype, shape), bytes: $bytes(data) }
        }};
    }
    Ok(match ty {
        TensorElementType::Float64 => extract!(F64, f64),
        TensorElementType::Float32 => extract!(F32, f32),
        TensorElementType::Float16 => extract!(F16, f16),
        TensorElementType::Int64 => extract!(I64, i64),
        TensorElementType::Int32 => extract!(I32, i32),
        TensorElementType::Int16 => extract!(I16, i16),
        TensorElementType::Int8 => extract!(I8, i8),
        TensorElementType::Uint32 => extract!(U32, u32),
        TensorElementType::Uint16 => extract!(U16, u16),
        TensorElementType::Uint8 => extract!(U8, u8),
        TensorElementType::Bool => extract!(Bool, bool, |data: &[bool]| data.iter().map(|x| u8::from(*x)).collect()),
        other => refuse!(Unsupported, "output `{name}` has dtype {}, which cannot be returned", dtype_name(*other)),
    })
}

/// Checks names and shapes of inputs against what a model wants; all problems in one error.
pub(crate) fn check_inputs(ports: &[Port], inputs: &BTreeMap<String, HostTensor>) -> Result<(), Error> {
    let mut problems: Vec<String> = ports.iter().filter_map(|p| port_problem(p, inputs.get(&p.name))).collect();
    for name in inputs.keys().filter(|n| !ports.iter().any(|p| p.name == **n)) {
        problems.push(format!("input `{name}`: the model has no such input"));
    }
    if problems.is_empty() { Ok(()) } else { refuse!(Input, "{}", problems.join("; ")) }
}

fn port_problem(port: &Port, tensor: Option<&HostTensor>) -> Option<String> {
    let Some(t) = tensor else {
        return Some(format!("input `{}`: missing, expected {}{:?}", port.name, port.dtype, port.shape));
    };
    let same = t.shape.len() == port.shape.len()
        && t.shape.iter().zip(&port.shape).all(|(&have, &want)| want < 0 || have as i64 == want);
    (!same).then(|| format!("input `{}`: found shape {:?}, expected {:?}", port.name, t.shape, port.shape))
}

fn environment(options: &SessionOptions) -> Result<&'static Environment, Error> {
    if let Some(env) = ENVIRONMENT.get() {
        return Ok(env);
    }
    let _one_at_a_time = STARTING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(env) = ENVIRONMENT.get() {
        return Ok(env);
    }
    let path = library::locate(|note| {
        if !options.quiet {
            eprintln!("{note}");
        }
    })?;
    disable_telemetry();
    let env = start(&path).map_err(|error| Error::new(ErrorKind::Library, error))?;
    Ok(ENVIRONMENT.get_or_init(|| env))
}

fn start(library: &Path) -> anyhow::Result<Environment> {
    let shown = library.display();
    ort::init_from(library)
        .map_err(|e| anyhow!("ONNX Runtime at `{shown}` cannot be used: {e}; expected version 1.24 or later"))?
        .with_name("s2ditc")
        .with_telemetry(false)
        .build()
        .map_err(|e| anyhow!("ONNX Runtime at `{shown}` does not start: {e}"))
}

/// Microsoft's builds of ONNX Runtime (1.29 and later on Linux and macOS) write a device id and a queue of events into the user's
/// cache, and send them. They do so as soon as an environment is made, before `DisableTelemetryEvents` can be called: only this
/// variable keeps them from beginning.
fn disable_telemetry() {
    // SAFETY: Rust's own readers of the environment wait for this writer. ONNX Runtime, the only C code of this process that reads
    // the environment, is not loaded yet, as the caller makes the process's one environment.
    unsafe { std::env::set_var("ORT_DISABLE_TELEMETRY", "1") };
}

fn builder(env: &Environment, options: &SessionOptions) -> ort::Result<ort::session::builder::SessionBuilder> {
    // The last level folds constants even if the optimizer of that name is disabled.
    let level =
        if options.keep_weights_mapped { GraphOptimizationLevel::Level2 } else { GraphOptimizationLevel::Level3 };
    let mut builder = OrtSession::builder(env)?
        .with_optimization_level(level)?
        .with_intra_threads(options.threads)?
        // What goes wrong comes back as an error; the library would print it as well.
        .with_log_level(ort::logging::LogLevel::Fatal)?
        // Otherwise weights stored as integers are multiplied with 8-bit activations.
        .with_config_entry("session.qdq_matmulnbits_accuracy_level", "0")?;
    if options.keep_weights_mapped {
        builder = builder.with_disabled_optimizers("ConstantFolding")?;
    }
    Ok(builder)
}

fn to_ort<'a>(port: &Port, t: &'a HostTensor) -> Result<SessionInputValue<'a>, Error> {
    let shape = t.shape.clone();
    macro_rules! converted {
        ($f:expr) => {
            Tensor::from_array((shape, t.data.iter().map($f).collect::<Vec<_>>())).map(SessionInputValue::from)
        };
    }
    let made = match port.dtype.as_str() {
        "f32" => TensorRef::from_array_view((shape, t.data.as_slice())).map(SessionInputValue::from),
        "f16" => converted!(|x| f16::from_f32(*x)),
        "f64" => converted!(|x| f64::from(*x)),
        "i32" => converted!(|x| *x as i32),
        "i64" => converted!(|x| *x as i64),
        "bool" => converted!(|x| *x != 0.0),
        other => refuse!(Unsupported, "input `{}` has dtype {other}, which cannot be fed", port.name),
    };
    made.map_err(|e| Error::input(anyhow!("input `{}`: {e}", port.name)))
}

fn from_ort(name: &str, value: &ort::value::DynValue) -> Result<HostTensor, Error> {
    let ValueType::Tensor { ty, .. } = value.dtype() else { refuse!(Unsupported, "output `{name}` is not a tensor") };
    let bad = |e: ort::Error| Error::engine(anyhow!("output `{name}`: {e}"));
    macro_rules! extract {
        ($t:ty, $f:expr) => {{
            let (shape, data) = value.try_extract_tensor::<$t>().map_err(bad)?;
            (shape.iter().map(|d| *d as usize).collect(), data.iter().map($f).collect())
        }};
    }
    let (shape, data): (Vec<usize>, Vec<f32>) = match ty {
        TensorElementType::Float32 => extract!(f32, |x| *x),
        TensorElementType::Float16 => extract!(f16, |x| x.to_f32()),
        TensorElementType::Float64 => extract!(f64, |x| *x as f32),
        TensorElementType::Int32 => extract!(i32, |x| *x as f32),
        TensorElementType::Int64 => extract!(i64, |x| *x as f32),
        TensorElementType::Bool => extract!(bool, |x| f32::from(u8::from(*x))),
        other => refuse!(Unsupported, "output `{name}` has dtype {}, which cannot be compared", dtype_name(*other)),
    };
    Ok(HostTensor { shape, data })
}

fn dtype_name(ty: TensorElementType) -> String {
    match ty {
        TensorElementType::Float32 => "f32".into(),
        TensorElementType::Float16 => "f16".into(),
        TensorElementType::Float64 => "f64".into(),
        TensorElementType::Int32 => "i32".into(),
        TensorElementType::Int64 => "i64".into(),
        TensorElementType::Int16 => "i16".into(),
        TensorElementType::Int8 => "i8".into(),
        TensorElementType::Uint32 => "u32".into(),
        TensorElementType::Uint16 => "u16".into(),
        TensorElementType::Uint8 => "u8".into(),
        TensorElementType::Bool => "bool".into(),
        TensorElementType::Bfloat16 => "bf16".into(),
        other => format!("{other:?}").to_lowercase(),
    }
}
