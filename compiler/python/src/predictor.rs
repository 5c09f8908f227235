//! Packages and ONNX files that predict.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use s2ditc::files::arrays::Arrays;
use s2ditc::runtime::predict::{self, Options};

use crate::array::{Given, Made, array, made};
use crate::errors::{error, released};

/// An open artifact. Locks are taken with the interpreter released, so that threads never wait for each other in a circle.
#[pyclass(module = "s2ditc._native", frozen)]
pub(crate) struct Predictor {
    inner: Mutex<predict::Predictor>,
    path: PathBuf,
}

/// The states of a function, between its calls.
#[pyclass(module = "s2ditc._native", frozen)]
pub(crate) struct State {
    inner: Mutex<Arrays>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[pymethods]
impl Predictor {
    /// Opens an artifact. With `fp16` every result of a package is rounded to fp16; with `mapped` weights stay in their files, which takes less memory
    /// and more time.
    #[new]
    fn new(py: Python<'_>, path: PathBuf, fp16: bool, mapped: bool, threads: usize) -> PyResult<Predictor> {
        let options = Options { fp16, threads: crate::threads(threads), quiet: true, weights_in_memory: !mapped };
        let inner = released(py, || predict::Predictor::open(&path, &options))?;
        Ok(Predictor { inner: Mutex::new(inner), path })
    }

    /// Names of the functions, the default one first.
    fn functions(&self, py: Python<'_>) -> Vec<String> {
        py.detach(|| lock(&self.inner).functions())
    }

    /// Inputs, outputs and states of a function as JSON.
    #[pyo3(signature = (function = None))]
    fn ports(&self, py: Python<'_>, function: Option<&str>) -> PyResult<String> {
        let [inputs, outputs, states] = released(py, || lock(&self.inner).ports(function))?;
        Ok(serde_json::json!({ "inputs": inputs, "outputs": outputs, "states": states }).to_string())
    }

    /// The states of a function before its first call.
    #[pyo3(signature = (function = None))]
    fn new_state(&self, py: Python<'_>, function: Option<&str>) -> PyResult<State> {
        let states = released(py, || lock(&self.inner).new_states(function))?;
        Ok(State { inner: Mutex::new(states) })
    }

    /// Runs a function, and leaves the states as it wrote them.
    fn predict<'py>(
        &self,
        py: Python<'py>,
        function: Option<String>,
        inputs: Vec<(String, Given<'py>)>,
        state: Option<&State>,
    ) -> PyResult<Vec<(String, Made<'py>)>> {
        let mut arrays = Arrays::new();
        for (name, given) in &inputs {
            arrays.insert(name.clone(), array(py, name, given)?);
        }
        let outputs = released(py, || {
            let mut model = lock(&self.inner);
            match state {
                Some(state) => model.predict(function.as_deref(), &arrays, &mut lock(&state.inner)),
                None => model.predict(function.as_deref(), &arrays, &mut Arrays::new()),
            }
        })?;
        Ok(outputs.into_iter().map(|(name, array)| (name, made(py, array))).collect())
    }

    fn __repr__(&self) -> String {
        format!("Predictor({:?})", self.path)
    }
}

#[pymethods]
impl State {
    /// Names of the states.
    fn names(&self, py: Python<'_>) -> Vec<String> {
        py.detach(|| lock(&self.inner).keys().cloned().collect())
    }

    /// A copy of a state.
    fn read<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Made<'py>> {
        let found = py.detach(|| lock(&self.inner).get(name).cloned());
        found.map(|state| made(py, state)).ok_or_else(|| self.unknown(py, name))
    }

    /// Replaces a state, in its own element type.
    fn write(&self, py: Python<'_>, name: &str, value: Given<'_>) -> PyResult<()> {
        let value = array(py, name, &value)?;
        let Some(ty) = py.detach(|| lock(&self.inner).get(name).map(|state| state.ty.clone())) else {
            return Err(self.unknown(py, name));
        };
        if ty.shape != value.ty.shape {
            return Err(error(py, "state", format!("state `{name}`: found {}, expected {ty}", value.ty)));
        }
        py.detach(|| lock(&self.inner).insert(name.into(), value.cast(ty.dtype)));
        Ok(())
    }
}

impl State {
    fn unknown(&self, py: Python<'_>, name: &str) -> PyErr {
        let names = self.names(py);
        let names = if names.is_empty() { "none".to_string() } else { names.join(", ") };
        error(py, "state", format!("found no state `{name}`; the states are: {names}"))
    }
}
