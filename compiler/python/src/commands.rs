//! The commands: as functions, and as the command line of a Python process.

use std::ffi::OsString;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use s2ditc::cli::{self, Host, Listener};
use s2ditc::runtime::library;

use crate::errors::of_command;

/// How often a command is interrupted to look for Ctrl-C.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Python's callbacks, which hear of a command.
struct Hearing {
    progress: Option<Py<PyAny>>,
    note: Option<Py<PyAny>>,
    /// What a callback raised.
    raised: Mutex<Option<PyErr>>,
    stopped: AtomicBool,
}

impl Hearing {
    fn keep(&self, error: PyErr) {
        self.stopped.store(true, Ordering::Relaxed);
        self.raised.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    fn raised(&self) -> Option<PyErr> {
        self.raised.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Listener for Hearing {
    fn progress(&self, done: u64, total: u64, text: &str) -> ControlFlow<()> {
        if let Some(callback) = self.progress.as_ref().filter(|_| !self.stopped.load(Ordering::Relaxed)) {
            let told = Python::attach(|py| callback.call1(py, (done, total, text)).map(drop));
            told.unwrap_or_else(|error| self.keep(error));
        }
        if self.stopped.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn note(&self, text: &str) {
        if let Some(callback) = &self.note {
            let told = Python::attach(|py| callback.call1(py, (text,)).map(drop));
            told.unwrap_or_else(|error| self.keep(error));
        }
    }
}

/// Runs a command: `args` are what is typed after `s2ditc`. Returns what it prints on standard output, and whether it would exit with 0.
/// `progress(done, total, text)` and `note(text)` are called while it goes on, from whichever thread does the work; what they raise ends it.
///
/// # Errors
/// Those of the command; what a callback or a handler of signals raises.
#[pyfunction]
#[pyo3(signature = (args, progress = None, note = None))]
pub(crate) fn call(
    py: Python<'_>,
    args: Vec<OsString>,
    progress: Option<Py<PyAny>>,
    note: Option<Py<PyAny>>,
) -> PyResult<(String, bool)> {
    let hearing = Hearing { progress, note, raised: Mutex::default(), stopped: AtomicBool::new(false) };
    let hearing = Arc::new(hearing);
    let answer = py.detach(|| {
        let (done, ended) = channel();
        std::thread::scope(|scope| {
            let listener = Arc::clone(&hearing) as Arc<dyn Listener>;
            scope.spawn(move || done.send(cli::call(args, listener)));
            loop {
                match ended.recv_timeout(LOOK_EVERY) {
                    Ok(answer) => return Some(answer),
                    Err(RecvTimeoutError::Disconnected) => return None,
                    // Only the main thread sees signals, and the command is not in it.
                    Err(RecvTimeoutError::Timeout) => {
                        Python::attach(|py| py.check_signals()).unwrap_or_else(|error| hearing.keep(error));
                    }
                }
            }
        })
    });
    if let Some(raised) = hearing.raised() {
        return Err(raised);
    }
    match answer {
        Some(Ok(answer)) => Ok((answer.printed, answer.passed)),
        Some(Err(failed)) => Err(of_command(py, &failed)),
        None => {
            Err(crate::errors::error(py, "bug", "s2ditc failed, which is a bug: the command's thread ended".into()))
        }
    }
}

/// Whether a command runs models: those are for a child process.
#[pyfunction]
pub(crate) fn runs_models(args: Vec<OsString>) -> bool {
    cli::runs_models(args)
}

/// The command line: `args` are what is typed after `s2ditc`, and `again` is what starts this command line once more, for commands that run
/// models in a child process. Returns the exit code.
#[pyfunction]
pub(crate) fn main(py: Python<'_>, args: Vec<OsString>, again: Vec<OsString>) -> u8 {
    let code = py.detach(|| cli::main(&Host { args, again }));
    (0..=u8::MAX).find(|number| ExitCode::from(*number) == code).unwrap_or(1)
}

/// Makes this process end cleanly when it is told to stop: half-written outputs go.
///
/// # Errors
/// A handler of signals that cannot be installed.
#[pyfunction]
pub(crate) fn end_cleanly() -> PyResult<()> {
    #[cfg(unix)]
    s2ditc::backends::output::on_signals()?;
    Ok(())
}

/// Names the shared library of ONNX Runtime that this process loads, unless ORT_DYLIB_PATH does.
#[pyfunction]
pub(crate) fn use_library(path: PathBuf) {
    library::prefer(path);
}
