//! The error of every public function here that can fail.

use std::error::Error as StdError;
use std::{fmt, io};

use s2dit_backends::output::OutputError;
use s2dit_ir::WeightError;

/// What a caller can do about an [`Error`].
///
/// ```
/// use s2dit_runtime::{ErrorKind, StreamOptions, StreamSession};
///
/// let opened = StreamSession::open("none.kernel".as_ref(), &StreamOptions::default());
/// let advice = match opened.err().expect("there is no such folder").kind() {
///     ErrorKind::Io => "check the path",
///     ErrorKind::Library => "install ONNX Runtime",
///     ErrorKind::Artifact => "compile the kernel again",
///     _ => "see the message",
/// };
/// assert_eq!(advice, "check the path");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// ONNX Runtime's shared library cannot be found, fetched or loaded: install it, or set `ORT_DYLIB_PATH`.
    Library,
    /// An artifact, a pipeline or a kernel folder is damaged, of another kind, or contradicts itself: compile it again.
    Artifact,
    /// An artifact has an op, an element type or a name that is not run here, though it may be whole.
    Unsupported,
    /// A tensor, a timestep or an option of the caller does not fit.
    Input,
    /// A saved state is damaged, or of another kernel: start the stream anew.
    State,
    /// An engine does not take the model, fails in a call, or computes what is not finite.
    Engine,
    /// The file system refused: nothing there, no rights, a full disk.
    Io,
}

/// Why an artifact could not be opened or run. Its sources, each the cause of the one before, tell the rest; `{:#}` shows them all.
pub struct Error {
    kind: ErrorKind,
    source: Box<dyn StdError + Send + Sync>,
}

impl Error {
    /// What a caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// An error of this kind, whatever its causes are.
    pub(crate) fn new(kind: ErrorKind, error: anyhow::Error) -> Error {
        Error { kind, source: error.into() }
    }

    /// An error whose causes decide: an [`Error`] among them, which has judged its own causes, or else the deepest that has a kind of its
    /// own; `otherwise` if none has.
    pub(crate) fn of(error: anyhow::Error, otherwise: ErrorKind) -> Error {
        let judged = error.chain().find_map(|cause| cause.downcast_ref::<Error>()).map(Error::kind);
        let kind = judged.or_else(|| error.chain().filter_map(kind_of).last()).unwrap_or(otherwise);
        Error::new(kind, error)
    }

    /// An error of a function that reads or checks an artifact.
    pub(crate) fn artifact(error: anyhow::Error) -> Error {
        Error::of(error, ErrorKind::Artifact)
    }

    /// An error of a function that takes what its caller made.
    pub(crate) fn input(error: anyhow::Error) -> Error {
        Error::of(error, ErrorKind::Input)
    }

    /// An error of a function that reads a saved state.
    pub(crate) fn state(error: anyhow::Error) -> Error {
        Error::of(error, ErrorKind::State)
    }

    /// An error of a function that calls an engine.
    pub(crate) fn engine(error: anyhow::Error) -> Error {
        Error::of(error, ErrorKind::Engine)
    }
}

/// Returns an [`Error`] of a kind with a message.
macro_rules! refuse {
    ($kind:ident, $($message:tt)+) => {
        return Err($crate::Error::new($crate::ErrorKind::$kind, anyhow::anyhow!($($message)+)).into())
    };
}
pub(crate) use refuse;

fn kind_of(cause: &(dyn StdError + 'static)) -> Option<ErrorKind> {
    if let Some(error) = cause.downcast_ref::<s2dit_backends::Error>() {
        return Some(of_backend(error.kind()));
    }
    match cause.downcast_ref::<io::Error>() {
        Some(error) => refused_by_system(error.kind()).then_some(ErrorKind::Io),
        None if cause.is::<OutputError>() => Some(ErrorKind::Io),
        None if cause.is::<WeightError>() => Some(ErrorKind::Artifact),
        None => None,
    }
}

/// Whether an I/O error is of the file system. Readers report contents that they do not take as I/O errors too: an early end, a size, text that
/// is not UTF-8.
fn refused_by_system(kind: io::ErrorKind) -> bool {
    !matches!(kind, io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::Other)
}

fn of_backend(kind: s2dit_backends::ErrorKind) -> ErrorKind {
    match kind {
        s2dit_backends::ErrorKind::Io => ErrorKind::Io,
        s2dit_backends::ErrorKind::Unsupported => ErrorKind::Unsupported,
        // A file that is malformed, a weight that cannot be read.
        _ => ErrorKind::Artifact,
    }
}

impl From<s2dit_backends::Error> for Error {
    fn from(error: s2dit_backends::Error) -> Error {
        Error { kind: of_backend(error.kind()), source: Box::new(error) }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {:?}", self.kind, self.source)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source)?;
        let mut cause = self.source.source().filter(|_| f.alternate());
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.source()
    }
}
