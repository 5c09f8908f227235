//! The extension module `s2ditc._native`: what the Python module `s2ditc` is made of.
//!
//! - `call` runs a command in this process, and `main` is the command line of a host that is Python.
//! - `Predictor` and `State` run anybody's package on NumPy's arrays; `Stream` makes video chunk by chunk, and `Pipeline` from a prompt.
//!
//! Arrays cross as one-dimensional arrays of bytes with an element type and a shape; `python/s2ditc` gives them their NumPy types. The interpreter is
//! released while a model or a command runs. What fails raises `Error`, a crash of this code included.

// Arguments that Python hands over are owned.
#![allow(clippy::needless_pass_by_value)]

mod array;
mod commands;
mod errors;
mod pipeline;
mod predictor;
mod stream;

use pyo3::prelude::*;

/// Threads for a model: so many, or one for each core with 0.
fn threads(wanted: usize) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    if wanted == 0 { cores() } else { wanted }
}

/// The native half of `s2ditc`.
#[pymodule]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::commands::{call, end_cleanly, main, runs_models, use_library};
    #[pymodule_export]
    use crate::errors::Error;
    #[pymodule_export]
    use crate::pipeline::Pipeline;
    #[pymodule_export]
    use crate::predictor::{Predictor, State};
    #[pymodule_export]
    use crate::stream::Stream;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
