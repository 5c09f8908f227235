//! Commands that run a model do so in a child process: ONNX Runtime divides by what a file says, and a crash of it must become
//! an error that names the file.
//!
//! The parent waits, passes on the signals that ask it to stop, and ends with the child's exit code. Standard streams and the
//! terminal are the child's own.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};

use super::{Host, print_error};

/// The environment variable that tells a child that it is one: the parent's process id.
const CHILD_OF: &str = "S2DITC_CHILD_OF";

/// Runs this command line in a child process and returns its exit code. `None` if this process is the child, or if none can be
/// started: then the work is this process's.
pub(super) fn run(subject: &Path, host: &Host) -> Option<ExitCode> {
    if std::env::var(CHILD_OF).is_ok_and(|parent| is_parent(&parent)) {
        return None;
    }
    #[cfg(unix)]
    let signals = signal_hook::iterator::Signals::new(STOP).ok()?;
    let (program, before) = host.again.split_first()?;
    let mut command = Command::new(program);
    command.args(before).args(&host.args).env(CHILD_OF, std::process::id().to_string());
    let mut child = command.spawn().ok()?;
    #[cfg(unix)]
    pass_on(signals, rustix::process::Pid::from_child(&child));
    let ended = match child.wait() {
        Ok(ended) => ended,
        // The work was begun: doing it here too would do it twice.
        Err(error) => {
            print_error(&format!("`{}`: cannot tell how the process that ran it ended: {error}", subject.display()));
            return Some(ExitCode::FAILURE);
        }
    };
    if let Some(code) = ended.code().and_then(|code| u8::try_from(code).ok()) {
        return Some(ExitCode::from(code));
    }
    print_error(&crash(subject, ended, std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty())));
    Some(ExitCode::FAILURE)
}

/// What is said of a child that did not end by itself.
fn crash(subject: &Path, ended: ExitStatus, library: Option<OsString>) -> String {
    let subject = subject.display();
    #[cfg(unix)]
    let killed = std::os::unix::process::ExitStatusExt::signal(&ended) == Some(signal_hook::consts::SIGKILL);
    #[cfg(not(unix))]
    let killed = false;
    if killed {
        return format!(
            "`{subject}`: the process that ran it was killed from outside ({ended}), as systems do when memory runs out"
        );
    }
    let library = match library {
        Some(library) => format!(", or the library that ORT_DYLIB_PATH names (`{}`) is", library.display()),
        None => String::new(),
    };
    format!(
        "`{subject}`: the process that ran it crashed ({ended}): the file is damaged{library}, or ONNX Runtime cannot do what it asks for"
    )
}

/// The signals that ask a process to stop; see [`s2dit_backends::output::on_signals`].
#[cfg(unix)]
const STOP: [i32; 3] = [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP];

#[cfg(unix)]
fn pass_on(mut signals: signal_hook::iterator::Signals, child: rustix::process::Pid) {
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if let Some(signal) = rustix::process::Signal::from_named_raw(signal) {
                let _ = rustix::process::kill_process(child, signal);
            }
        }
    });
}

/// Whether a process id is that of this process's parent; then this process ends with its parent.
#[cfg(unix)]
fn is_parent(id: &str) -> bool {
    let is = || rustix::process::getppid().is_some_and(|parent| parent.as_raw_nonzero().to_string() == id);
    let child = is();
    #[cfg(target_os = "linux")]
    if child {
        let stop = rustix::process::Signal::TERM;
        let _ = rustix::process::set_parent_process_death_signal(Some(stop));
        if !is() {
            // The parent ended before it could be said.
            let _ = rustix::process::kill_process(rustix::process::getpid(), stop);
        }
    }
    child
}

#[cfg(not(unix))]
fn is_parent(_: &str) -> bool {
    true
}
