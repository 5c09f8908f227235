//! What may be wrong with a weight.

use std::io;

use crate::{OpError, TensorType};

/// A weight expression that has no bytes.
#[derive(Debug, thiserror::Error)]
pub enum WeightError {
    /// The weight source has no such tensor.
    #[error("tensor `{name}`: not in the weight source")]
    Missing {
        /// Name of the tensor.
        name: String,
    },
    /// The stored bytes do not fill the declared type.
    #[error("tensor `{name}`: expected {expected} ({} bytes), found {found} bytes", expected.bytes())]
    Size {
        /// Name of the tensor.
        name: String,
        /// Declared type.
        expected: TensorType,
        /// Bytes found.
        found: usize,
    },
    /// The value depends on a parameter or a state.
    #[error("value in scope `{scope}` is not a constant")]
    NotConstant {
        /// Provenance of the value.
        scope: String,
    },
    /// An op of the expression failed.
    #[error("`{op}` in scope `{scope}`: {error}")]
    Op {
        /// Name of the op.
        op: &'static str,
        /// Provenance.
        scope: String,
        /// What failed.
        error: OpError,
    },
    /// A weight that its scheme cannot hold.
    #[error("tensor `{name}`: {error}")]
    Compress {
        /// Name of the tensor.
        name: String,
        /// What does not hold.
        error: OpError,
    },
    /// The weight source could not read the tensor.
    #[error("tensor `{name}`: {message}")]
    Read {
        /// Name of the tensor.
        name: String,
        /// What failed.
        message: String,
    },
    /// The sink refused the bytes.
    #[error(transparent)]
    Io(#[from] io::Error),
}
