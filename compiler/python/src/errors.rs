//! The one exception that this module raises by itself, with the message that the command line prints.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use s2ditc::cli::Failure;
use s2ditc::runtime::{self, ErrorKind};

pyo3::create_exception!(
    s2ditc,
    Error,
    PyRuntimeError,
    "Why s2ditc did not do its work; `kind` says what a caller can do about it."
);

/// An [`Error`] with a `kind`.
pub(crate) fn error(py: Python<'_>, kind: &str, message: String) -> PyErr {
    let error = Error::new_err(message);
    match error.value(py).setattr("kind", kind) {
        Ok(()) => error,
        Err(other) => other,
    }
}

/// The error of the runtime, with all of its causes.
pub(crate) fn of_runtime(py: Python<'_>, failed: &runtime::Error) -> PyErr {
    error(py, kind_of(failed), format!("{failed:#}"))
}

fn kind_of(failed: &runtime::Error) -> &'static str {
    match failed.kind() {
        ErrorKind::Library => "library",
        ErrorKind::Artifact => "artifact",
        ErrorKind::Unsupported => "unsupported",
        ErrorKind::Input => "input",
        ErrorKind::State => "state",
        ErrorKind::Engine => "engine",
        ErrorKind::Io => "io",
        _ => "work",
    }
}

/// The error of a command.
pub(crate) fn of_command(py: Python<'_>, failed: &Failure) -> PyErr {
    let kind = match failed {
        Failure::Work(_) => "work",
        Failure::Usage(_) => "usage",
        Failure::Stopped => "stopped",
    };
    error(py, kind, failed.to_string())
}

/// What work unwinds with if a callback of Python's raised.
pub(crate) struct Stopped(pub(crate) PyErr);

/// Runs work of the runtime with the interpreter released. A panic of it is an [`Error`], too.
pub(crate) fn released<T: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, runtime::Error> + Send,
) -> PyResult<T> {
    detached(py, work)?.map_err(|failed| of_runtime(py, &failed))
}

/// The same for work of which the runtime is a part.
pub(crate) fn worked<T: Send>(py: Python<'_>, work: impl FnOnce() -> anyhow::Result<T> + Send) -> PyResult<T> {
    detached(py, work)?.map_err(|failed| {
        let of_runtime = failed.chain().find_map(|cause| cause.downcast_ref::<runtime::Error>());
        error(py, of_runtime.map_or("work", kind_of), format!("{failed:#}"))
    })
}

fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> PyResult<T> {
    let done = py.detach(|| catch_unwind(AssertUnwindSafe(work)));
    done.map_err(|panic| match panic.downcast::<Stopped>() {
        Ok(stopped) => stopped.0,
        Err(panic) => error(py, "bug", format!("s2ditc failed, which is a bug: {}", said_by(panic.as_ref()))),
    })
}

fn said_by(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
