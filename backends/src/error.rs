//! The error of every public function here that reads, writes or lowers.

use std::error::Error as StdError;
use std::{fmt, io};

use s2dit_ir::WeightError;

use crate::output::OutputError;

/// What a caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The file system refused: nothing there, no rights, a full disk.
    Io,
    /// A file or folder is not what it should be: damaged, of another kind, or it says what contradicts itself.
    Malformed,
    /// The target, or the reader here, has no such op, type, rank or name.
    Unsupported,
    /// A weight cannot be read, or its dtype cannot hold its elements.
    Weight,
}

/// Why a file could not be read or written. Its sources, each the cause of the one before, tell the rest; `{:#}` shows them all.
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

    /// An error of a function that reads files.
    pub(crate) fn reading(error: anyhow::Error) -> Error {
        Error::of(error, ErrorKind::Malformed)
    }

    /// An error of a function that lowers a graph and writes it.
    pub(crate) fn writing(error: anyhow::Error) -> Error {
        Error::of(error, ErrorKind::Unsupported)
    }

    /// The deepest cause that has a kind of its own decides; `otherwise` if none has.
    fn of(error: anyhow::Error, otherwise: ErrorKind) -> Error {
        let kind = error.chain().filter_map(kind_of).last().unwrap_or(otherwise);
        Error { kind, source: error.into() }
    }
}

fn kind_of(cause: &(dyn StdError + 'static)) -> Option<ErrorKind> {
    if let Some(error) = cause.downcast_ref::<Error>() {
        return Some(error.kind);
    }
    // Readers of bytes in memory report their end as `UnexpectedEof`, which is no matter of the file system.
    let io = cause.downcast_ref::<io::Error>().filter(|e| e.kind() != io::ErrorKind::UnexpectedEof);
    match (io, cause.downcast_ref::<WeightError>()) {
        (Some(_), _) => Some(ErrorKind::Io),
        (_, Some(_)) => Some(ErrorKind::Weight),
        _ if cause.is::<OutputError>() => Some(ErrorKind::Io),
        _ if cause.is::<UnsupportedOps>() => Some(ErrorKind::Unsupported),
        _ => None,
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

/// Ops of a function that the reader of packages does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{package}`: function `{function}` has ops that cannot be run here: {}", list(ops))]
pub struct UnsupportedOps {
    /// The package.
    pub package: String,
    /// The function.
    pub function: String,
    /// Each op, and how often it occurs.
    pub ops: Vec<(String, usize)>,
}

fn list(ops: &[(String, usize)]) -> String {
    ops.iter().map(|(op, n)| format!("{op} ({n})")).collect::<Vec<_>>().join(", ")
}
