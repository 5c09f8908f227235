//! A command as a function: what the command line would print comes back.

use std::any::Any;
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;
use std::sync::Arc;

use clap::error::ErrorKind;

use super::{NAME, parsed, perform, terminal, usage};

/// Hears of a command's work while it goes on, from whichever thread does the work.
pub trait Listener: Send + Sync {
    /// `done` of `total` bytes or calls are done; `text` says of what. The command stops before its end if this breaks: nothing half-written stays.
    fn progress(&self, done: u64, total: u64, text: &str) -> ControlFlow<()>;

    /// A warning, a note or a table that the command line prints on standard error.
    fn note(&self, text: &str);
}

/// A [`Listener`] that takes no notice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Listener for Silent {
    fn progress(&self, _: u64, _: u64, _: &str) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn note(&self, _: &str) {}
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it prints on standard output: a report as JSON with `--json`, else text.
    pub printed: String,
    /// Whether it exits with 0: the verdict of `verify`, for example.
    pub passed: bool,
}

/// Why a command did not do its work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The work failed: the message of the command line, without `error: `.
    #[error("{0}")]
    Work(String),
    /// The command line is wrong, or its flags do not go together.
    #[error("{0}")]
    Usage(String),
    /// The listener stopped it.
    #[error("stopped before the end")]
    Stopped,
}

/// What a thread unwinds with if its listener stops it.
struct Stopped;

/// Ends the work of this thread as a panic would, without a word.
pub(super) fn stop() -> ! {
    resume_unwind(Box::new(Stopped))
}

/// Runs a command in this process, as the command line would run it: `args` are what is typed after `s2ditc`. It takes threads of its own,
/// installs no handler of signals, and runs models in this process too, so that a crash of ONNX Runtime on a damaged file ends the process.
///
/// ```no_run
/// use std::sync::Arc;
/// use s2ditc::cli::{Silent, call};
///
/// let made = call(["compile", "small/", "--target", "coreml", "--latent", "3x16x24", "-o", "x.mlpackage", "--json"], Arc::new(Silent))?;
/// println!("{}", made.printed);
/// # Ok::<(), s2ditc::cli::Failure>(())
/// ```
///
/// # Errors
/// Those of the command; a listener that stops it.
pub fn call<A: Into<OsString>>(
    args: impl IntoIterator<Item = A>,
    listener: Arc<dyn Listener>,
) -> Result<Answer, Failure> {
    let typed = [OsString::from(NAME)].into_iter().chain(args.into_iter().map(Into::into));
    let cli = parsed(typed).map_err(|said| refusal(&said))?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(cli.threads()).build();
    let pool = pool.map_err(|error| Failure::Work(format!("cannot start {} threads: {error}", cli.threads())))?;
    let work = || pool.install(|| terminal::heard(listener, || catch_unwind(AssertUnwindSafe(|| perform(&cli)))));
    match work() {
        (Ok(Ok(code)), printed) => Ok(Answer { printed, passed: code == ExitCode::SUCCESS }),
        (Ok(Err(error)), _) if error.is::<usage::Usage>() => Err(Failure::Usage(format!("{error:#}"))),
        (Ok(Err(error)), _) => Err(Failure::Work(format!("{error:#}"))),
        (Err(panic), _) if panic.is::<Stopped>() => Err(Failure::Stopped),
        (Err(panic), _) => Err(Failure::Work(format!("s2ditc failed, which is a bug: {}", said_by(panic.as_ref())))),
    }
}

/// Whether a command runs models, which a crash of ONNX Runtime on a damaged file could end this process with. A wrong command line runs none.
pub fn runs_models<A: Into<OsString>>(args: impl IntoIterator<Item = A>) -> bool {
    let typed = [OsString::from(NAME)].into_iter().chain(args.into_iter().map(Into::into));
    parsed(typed).is_ok_and(|cli| cli.command.runs_models().is_some())
}

/// What the parser says of a wrong command line, without the advice to type `--help`.
fn refusal(said: &clap::Error) -> Failure {
    let text = said.render().to_string();
    if matches!(said.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Failure::Usage(text.trim_end().into());
    }
    let text = text.split("\n\nUsage:").next().unwrap_or_default();
    let text = text.split("\n\nFor more information").next().unwrap_or_default();
    Failure::Usage(text.trim().trim_start_matches("error: ").into())
}

/// The message of a panic.
fn said_by(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Heard {
        stops: bool,
        told: Mutex<Vec<(u64, u64)>>,
    }

    impl Listener for Heard {
        fn progress(&self, done: u64, total: u64, _: &str) -> ControlFlow<()> {
            self.told.lock().unwrap().push((done, total));
            if self.stops { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }

        fn note(&self, _: &str) {}
    }

    #[test]
    fn a_report_comes_back() {
        let answer = call(["passes", "--json"], Arc::new(Silent)).unwrap();
        assert!(
            answer.passed && serde_json::from_str::<serde_json::Value>(&answer.printed).unwrap()["passes"].is_array()
        );
    }

    #[test]
    fn what_is_wrong_is_one_message() {
        let usage = call(["init", "--preset", "huge-unknown", "-o", "x"], Arc::new(Silent)).unwrap_err();
        assert!(
            matches!(&usage, Failure::Usage(text) if text.starts_with("invalid value 'huge-unknown'")),
            "{usage:?}"
        );
        let work = call(["inspect", "nothing/there/at/all"], Arc::new(Silent)).unwrap_err();
        assert!(matches!(&work, Failure::Work(text) if text.contains("nothing/there/at/all")), "{work:?}");
    }

    #[test]
    fn a_listener_hears_and_stops() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("model");
        let args = ["init".into(), "--preset".into(), "tiny".into(), "-o".into(), out.clone().into_os_string()];
        let stopping = Arc::new(Heard { stops: true, ..Heard::default() });
        assert_eq!(call(args.clone(), stopping), Err(Failure::Stopped));
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "nothing half-written stays");
        let heard = Arc::new(Heard::default());
        call(args, Arc::clone(&heard) as _).unwrap();
        let told = heard.told.lock().unwrap();
        assert!(told.last().is_some_and(|(done, total)| done == total && *total > 0), "{told:?}");
    }
}
